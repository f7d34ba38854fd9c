//! `cargo xtask proto`: turns the `.proto` files of the wire crate into Rust.
//!
//! Invariant: what is checked in is exactly what this writes, so that nobody needs protoc, or pays
//! for code generation at every build. A test holds the two together.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The files to compile; they import each other by these names.
const PROTOS: [&str; 9] = [
    "authpb.proto",
    "etcdserverpb.proto",
    "groups.proto",
    "health.proto",
    "keyspaces.proto",
    "mvccpb.proto",
    "transactions.proto",
    "v3electionpb.proto",
    "v3lockpb.proto",
];

/// Writes the generated files, or with `check` only says whether they are up to date.
pub fn run(check: bool) -> Result<()> {
    let wire = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/api/wire");
    let target = wire.join("src/generated");
    let wanted = generate(&wire.join("proto"))?;
    if check {
        let present = read_all(&target)?;
        if present != wanted {
            let stale = differing(&present, &wanted);
            bail!("generated code is out of date ({stale}): run `cargo xtask proto`");
        }
        return Ok(());
    }
    fs::create_dir_all(&target)?;
    for name in read_all(&target)?.keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(target.join(name))?;
    }
    for (name, text) in &wanted {
        fs::write(target.join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(())
}

fn generate(protos: &Path) -> Result<BTreeMap<String, String>> {
    let descriptors = protox::compile(PROTOS, [protos]).context("the .proto files are wrong")?;
    let scratch = Scratch::new()?;
    tonic_prost_build::configure()
        .out_dir(&scratch.0)
        .build_transport(false)
        .bytes(".")
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(descriptors)
        .context("code generation failed")?;
    read_all(&scratch.0)
}

fn read_all(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, fs::read_to_string(&path)?);
    }
    Ok(files)
}

fn differing(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&str> =
        a.keys().chain(b.keys()).filter(|n| a.get(*n) != b.get(*n)).map(String::as_str).collect();
    names.dedup();
    names.join(", ")
}

/// A folder of its own that goes away with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("quorate-proto-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder left behind in the system's temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn regenerating_gives_the_files_that_are_checked_in() {
        super::run(true).unwrap();
    }
}
