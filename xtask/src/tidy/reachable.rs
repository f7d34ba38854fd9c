//! No dead files: every Rust file is a target's root or is named by a `mod` that is reached.

use super::source::code_only;
use super::{Finding, Tree};
use std::collections::BTreeSet;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages_with_root(tree) {
        let within = |path: &str| {
            let own = path.strip_prefix(package.as_str()).is_some_and(|p| p.starts_with('/'));
            let nested = tree
                .packages()
                .into_iter()
                .any(|other| other.len() > package.len() && path.starts_with(&format!("{other}/")));
            own && !nested
        };
        let files: BTreeSet<String> = tree
            .files()
            .into_iter()
            .filter(|f| f.is_rust() && within(&f.path))
            .map(|f| f.path.clone())
            .collect();
        let mut reached = BTreeSet::new();
        let mut todo: Vec<String> =
            files.iter().filter(|f| is_root(&f[package.len() + 1..])).cloned().collect();
        while let Some(path) = todo.pop() {
            if reached.insert(path.clone()) {
                let text = tree.get(&path).map_or("", |f| f.text.as_str());
                todo.extend(
                    named_by(&path, text, &package).into_iter().filter(|p| files.contains(p)),
                );
            }
        }
        let dead = files.difference(&reached);
        findings.extend(dead.map(|p| Finding::new(p, 0, "no `mod` reaches this file")));
    }
    findings
}

fn packages_with_root(tree: &Tree) -> Vec<String> {
    tree.packages().into_iter().map(str::to_owned).collect()
}

/// Whether cargo finds this path of a package by itself, or the manifest usually names it.
fn is_root(path: &str) -> bool {
    if matches!(path, "src/lib.rs" | "src/main.rs" | "build.rs") {
        return true;
    }
    let folders = ["src/bin/", "tests/", "benches/", "examples/", "fuzz_targets/"];
    folders.iter().filter_map(|f| path.strip_prefix(f)).any(|rest| match rest.split_once('/') {
        None => true,
        Some((_, rest)) => rest == "main.rs",
    })
}

/// The files that the modules declared in `text` may be in.
fn named_by(path: &str, text: &str, package: &str) -> Vec<String> {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = file.trim_end_matches(".rs");
    let owns_folder = matches!(stem, "mod" | "lib" | "main")
        || is_root(path.strip_prefix(package).unwrap_or(path).trim_start_matches('/'));
    let children = if owns_folder { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut named = Vec::new();
    let code = code_only(text);
    for (raw, line) in text.lines().zip(code.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| pair[0] == "mod") {
            if let Some(name) = pair[1].strip_suffix(';') {
                let name = name.trim_start_matches("r#");
                named.push(format!("{children}/{name}.rs"));
                named.push(format!("{children}/{name}/mod.rs"));
            }
        }
        // `#[path = "…"]` and `include!("…")` name a file relative to this one's folder.
        if line.contains("path =") || line.contains("include!(") {
            let quoted = raw.split('"').nth(1).unwrap_or_default();
            named.push(normal(&format!("{folder}/{quoted}")));
        }
    }
    named
}

/// The path without its `.` and `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(files: &[&str], lib: &str) -> Vec<String> {
        let manifest = ("a/Cargo.toml", "[package]\nname = \"a\"\n");
        let mut all = vec![manifest, ("a/src/lib.rs", lib)];
        all.extend(files.iter().map(|f| (*f, "mod inner;\n")));
        check(&Tree::of(all)).into_iter().map(|f| f.file).collect()
    }

    #[test]
    fn what_no_module_names_is_dead() {
        let files = ["a/src/b.rs", "a/src/b/inner.rs", "a/src/c.rs", "a/src/b/left.rs"];
        assert_eq!(dead(&files, "mod b;\n// mod c;\n"), ["a/src/b/left.rs", "a/src/c.rs"]);
    }

    #[test]
    fn roots_and_included_files_are_alive() {
        let files = ["a/tests/t.rs", "a/tests/inner.rs", "a/src/generated/x.rs"];
        assert_eq!(dead(&files, "include!(\"generated/x.rs\");\n"), Vec::<String>::new());
    }
}
