//! Every dependency has earned its place: a table of `docs/decisions/` names it in its first
//! column, with what it is for and what was there instead. And whoever names one uses it.

use super::{Finding, Tree};

const MANIFEST: &str = "Cargo.toml";
const DECISIONS: &str = "docs/decisions/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = unargued(tree);
    findings.extend(tree.packages().into_iter().flat_map(|folder| unused(tree, folder)));
    findings
}

fn unargued(tree: &Tree) -> Vec<Finding> {
    let Some(manifest) = tree.get(MANIFEST) else { return Vec::new() };
    let files = tree.files();
    let decisions = files.iter().filter(|file| file.path.starts_with(DECISIONS));
    let argued: Vec<&str> = decisions.flat_map(|file| named(&file.text)).collect();
    let unargued = |name: &String| !name.starts_with("quorate") && !argued.contains(&&**name);
    let complain = |name: String| {
        let line = manifest.text.lines().position(|line| line.starts_with(&format!("{name} ")));
        let what = format!("no table in {DECISIONS} says why there is `{name}`");
        Finding::new(MANIFEST, line.map_or(0, |line| line + 1), what)
    };
    dependencies(&manifest.text).into_iter().filter(unargued).map(complain).collect()
}

/// What a package names, and none of its sources.
fn unused(tree: &Tree, folder: &str) -> Vec<Finding> {
    let path = format!("{folder}/{MANIFEST}");
    let Some(manifest) = tree.get(&path) else { return Vec::new() };
    let parsed: toml::Table = manifest.text.parse().unwrap_or_default();
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = sections.iter().filter_map(|section| parsed.get(*section)?.as_table());
    let inside = format!("{folder}/");
    let files = tree.files();
    let sources = || files.iter().filter(|file| file.is_rust() && file.path.starts_with(&inside));
    let own = parsed.get("package").and_then(|package| package.get("name")?.as_str());
    let is_used = |name: &str| {
        // To name itself is how a package asks for its own features in its tests.
        Some(name) == own || sources().any(|file| has_word(&file.text, &name.replace('-', "_")))
    };
    let names = tables.flat_map(|table| table.keys()).filter(|name| !is_used(name));
    let complain = |name: &String| {
        let line = manifest.text.lines().position(|line| line.starts_with(&**name));
        Finding::new(&path, line.map_or(0, |line| line + 1), format!("nothing uses `{name}`"))
    };
    names.map(complain).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, behind) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(is_part) && !behind.starts_with(is_part)
    })
}

/// The names of what the whole workspace may use.
fn dependencies(manifest: &str) -> Vec<String> {
    let manifest: toml::Table = manifest.parse().unwrap_or_default();
    let workspace = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let table = workspace.and_then(|table| table.as_table());
    table.into_iter().flat_map(|table| table.keys().cloned()).collect()
}

/// The words in the first columns of tables.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let first = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    first.flat_map(|cell| cell.split([',', ' ', '`', '(', ')']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_argued_for_is_told() {
        let manifest = "[workspace.dependencies]\nquorate-base = { path = \"b\" }\n\
                        http = \"1\"\nhttp-body = \"1\"\ntoml = \"1\"\n";
        let decisions = "# Why\n\nNot toml.\n\n| crate | for |\n| `http-body`, toml (x) | http |\n";
        let tree = Tree::of([(MANIFEST, manifest), ("docs/decisions/a.md", decisions)]);
        let findings: Vec<String> = check(&tree).iter().map(ToString::to_string).collect();
        let expected = "Cargo.toml:3: no table in docs/decisions/ says why there is `http`";
        assert_eq!(findings, [expected]);
    }

    #[test]
    fn what_is_not_used_is_told() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nhttp = \"1\"\nhttp-body = \"1\"\n\
                        [dev-dependencies]\na = { path = \".\" }\n";
        let (path, source) = ("crates/a/Cargo.toml", "crates/a/src/lib.rs");
        let findings = |text: &str| {
            let all = check(&Tree::of([(path, manifest), (source, text)]));
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(findings("use http::Uri;\nuse http_body::Body;"), Vec::<String>::new());
        let expected = "crates/a/Cargo.toml:4: nothing uses `http`";
        assert_eq!(findings("use http_body::Body; // https, xhttp, http_"), [expected]);
    }
}
