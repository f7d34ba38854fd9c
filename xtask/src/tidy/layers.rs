//! Dependencies point down only, as `ARCHITECTURE.md` draws it.

use super::{Finding, Tree};
use std::collections::BTreeMap;

/// The layers from the bottom up, each with the folder its packages are in. A package may use its
/// own layer and those below it.
const LAYERS: [(&str, &str); 7] = [
    ("base", "crates/base"),
    ("protocols", "crates/protocols/"),
    ("storage", "crates/storage/"),
    ("services", "crates/services/"),
    ("node", "crates/node/"),
    ("api", "crates/api/"),
    ("quorate", "crates/quorate"),
];

/// What the client may use: it must stay small enough to live in other people's programs.
const CLIENT_MAY_USE: [&str; 2] = ["crates/base", "crates/api/wire"];

fn layer(folder: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, prefix)| match prefix.ends_with('/') {
        true => folder.starts_with(prefix),
        false => folder == *prefix,
    })
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let folders: BTreeMap<String, &str> = tree
        .packages()
        .into_iter()
        .map(|folder| {
            let manifest = tree.get(&format!("{folder}/Cargo.toml"));
            (manifest.map_or_else(String::new, |m| package_name(&m.text)), folder)
        })
        .collect();
    let mut findings = Vec::new();
    for folder in folders.values() {
        let path = format!("{folder}/Cargo.toml");
        let Some(manifest) = tree.get(&path) else { continue };
        for dependency in dependencies(&manifest.text) {
            let Some(target) = folders.get(&dependency.name) else { continue };
            if let Err(why) = allowed(folder, target, dependency.for_tests) {
                let line = line_of(&manifest.text, &dependency.name);
                findings.push(Finding::new(&path, line, why));
            }
        }
        findings.extend(inherits(&path, &manifest.text));
        // A workspace of its own is nobody's crate, only a program beside the others.
        if !parsed(&manifest.text).contains_key("workspace") {
            findings.extend(named_after_folder(&path, folder, &manifest.text));
        }
    }
    findings
}

/// Whether the package in `from` may depend on the one in `to`.
fn allowed(from: &str, to: &str, for_tests: bool) -> Result<(), String> {
    const FREE: [&str; 4] = ["testing/", "bench/", "xtask", "fuzz"];
    if FREE.iter().any(|folder| from.starts_with(folder)) {
        return Ok(());
    }
    if to.starts_with("testing/") {
        return match from == "crates/quorate" || for_tests {
            true => Ok(()),
            false => Err(format!("{from} depends on {to}: nothing but the binary sees testing/")),
        };
    }
    if from == "crates/client" {
        return match CLIENT_MAY_USE.contains(&to) || for_tests {
            true => Ok(()),
            false => Err(format!("the client depends on {to}: it may use base and the wire types")),
        };
    }
    if to == "crates/client" {
        return match from == "crates/quorate" {
            true => Ok(()),
            false => Err(format!("{from} depends on the client: only the binary may")),
        };
    }
    match (layer(from), layer(to)) {
        (Some(user), Some(used)) if used <= user => Ok(()),
        (Some(user), Some(used)) => Err(format!(
            "{from} ({}) depends on {to} ({}): dependencies point down only",
            LAYERS[user].0, LAYERS[used].0
        )),
        (None, _) => Err(format!("{from} belongs to no layer")),
        (_, None) => Err(format!("{to} belongs to no layer")),
    }
}

struct Dependency {
    name: String,
    for_tests: bool,
}

fn parsed(manifest: &str) -> toml::Table {
    manifest.parse().unwrap_or_default()
}

fn package_name(manifest: &str) -> String {
    let name = parsed(manifest);
    let name = name.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str());
    name.unwrap_or_default().to_owned()
}

fn dependencies(manifest: &str) -> Vec<Dependency> {
    let manifest = parsed(manifest);
    let section = |key: &str, for_tests: bool| -> Vec<Dependency> {
        let table = manifest.get(key).and_then(|t| t.as_table());
        let names = table.into_iter().flat_map(|t| t.keys());
        names.map(|name| Dependency { name: name.clone(), for_tests }).collect()
    };
    let mut all = section("dependencies", false);
    all.extend(section("build-dependencies", false));
    all.extend(section("dev-dependencies", true));
    all
}

fn line_of(text: &str, name: &str) -> usize {
    text.lines().position(|l| l.starts_with(name)).map_or(0, |i| i + 1)
}

/// Every member takes the workspace's lints, `forbid(unsafe_code)` among them.
fn inherits(path: &str, manifest: &str) -> Option<Finding> {
    let parsed = parsed(manifest);
    let on_its_own = parsed.contains_key("workspace");
    let inherits = parsed.get("lints").and_then(|l| l.get("workspace")).and_then(|w| w.as_bool());
    (!on_its_own && inherits != Some(true))
        .then(|| Finding::new(path, 0, "does not inherit the workspace's lints"))
}

/// A crate's folder is its name; its package is `quorate-<folder>`.
fn named_after_folder(path: &str, folder: &str, manifest: &str) -> Option<Finding> {
    let last = folder.rsplit('/').next().unwrap_or_default();
    if !folder.starts_with("crates/") && !folder.starts_with("testing/") || last == "quorate" {
        return None;
    }
    let (is, should) = (package_name(manifest), format!("quorate-{last}"));
    (is != should).then(|| Finding::new(path, 0, format!("package `{is}` should be `{should}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    fn complaints(packages: &[(&str, String)]) -> Vec<String> {
        let tree = Tree::of(packages.iter().map(|(path, text)| (*path, text.as_str())));
        check(&tree).into_iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn down_is_allowed_and_up_is_not() {
        let base = ("crates/base/Cargo.toml", package("quorate-base", ""));
        let down = package("quorate-raft", "[dependencies]\nquorate-base.workspace = true\n");
        let up = package("quorate-base", "[dependencies]\nquorate-raft.workspace = true\n");
        let raft = ("crates/protocols/raft/Cargo.toml", down);
        assert_eq!(complaints(&[base, raft.clone()]), Vec::<String>::new());
        let upside_down = complaints(&[("crates/base/Cargo.toml", up), raft]);
        assert_eq!(upside_down.len(), 1);
        assert!(upside_down[0].contains(":6:") && upside_down[0].contains("point down only"));
    }

    #[test]
    fn only_the_binary_and_tests_see_testing() {
        let simulator = ("testing/simulator/Cargo.toml", package("quorate-simulator", ""));
        let uses = |section: &str| format!("[{section}]\nquorate-simulator.workspace = true\n");
        let binary = package("quorate", &uses("dependencies"));
        let tests = package("quorate-raft", &uses("dev-dependencies"));
        let product = package("quorate-raft", &uses("dependencies"));
        let binary = ("crates/quorate/Cargo.toml", binary);
        assert_eq!(complaints(&[simulator.clone(), binary]).len(), 0);
        let raft = "crates/protocols/raft/Cargo.toml";
        assert_eq!(complaints(&[simulator.clone(), (raft, tests)]).len(), 0);
        assert_eq!(complaints(&[simulator, (raft, product)]).len(), 1);
    }

    #[test]
    fn the_client_stays_small() {
        let host = ("crates/node/host/Cargo.toml", package("quorate-host", ""));
        let client = package("quorate-client", "[dependencies]\nquorate-host.workspace = true\n");
        assert_eq!(complaints(&[host, ("crates/client/Cargo.toml", client)]).len(), 1);
    }

    #[test]
    fn lints_and_names_are_checked() {
        let bad = "[package]\nname = \"raft\"\n".to_owned();
        assert_eq!(complaints(&[("crates/protocols/raft/Cargo.toml", bad)]).len(), 2);
    }
}
