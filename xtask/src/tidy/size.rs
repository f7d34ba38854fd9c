//! Files and functions stay small enough to be read at once.
//!
//! `xtask/ratchet.txt` may name exceptions, one a line: `path limit`, or `path::function limit`.
//! It only ever tightens: an exception that is no longer needed, or too generous, is a finding.

use super::source::{code_only, functions};
use super::{Finding, Tree};
use std::collections::{BTreeMap, BTreeSet};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 70;
const RATCHET: &str = "xtask/ratchet.txt";
/// How far an exception's limit may be above what it allows.
const SLACK: usize = 10;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let exceptions = exceptions(tree, &mut findings);
    let mut used = BTreeSet::new();
    let mut judge = |name: String, file: &str, line: usize, lines: usize, limit: usize| {
        if lines <= limit {
            return;
        }
        match exceptions.get(&name) {
            Some(&allowed) if lines <= allowed && allowed <= lines + SLACK => {
                used.insert(name);
            }
            Some(&allowed) if lines <= allowed => {
                used.insert(name);
                let what = format!("{lines} lines, and {RATCHET} allows {allowed}: tighten it");
                findings.push(Finding::new(file, line, what));
            }
            _ => {
                let what = format!("`{name}` has {lines} lines; the limit is {limit}");
                findings.push(Finding::new(file, line, what));
            }
        }
    };
    for file in tree.written_rust() {
        judge(file.path.clone(), &file.path, 0, file.text.lines().count(), FILE_LINES);
        for function in functions(&code_only(&file.text)) {
            let lines = function.last - function.first + 1;
            let name = format!("{}::{}", file.path, function.name);
            judge(name, &file.path, function.first, lines, FUNCTION_LINES);
        }
    }
    for name in exceptions.keys().filter(|name| !used.contains(*name)) {
        findings.push(Finding::new(RATCHET, 0, format!("`{name}` is no exception any more")));
    }
    findings
}

fn exceptions(tree: &Tree, findings: &mut Vec<Finding>) -> BTreeMap<String, usize> {
    let mut exceptions = BTreeMap::new();
    let text = tree.get(RATCHET).map_or("", |f| f.text.as_str());
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts = line.rsplit_once(' ');
        match parts.and_then(|(name, limit)| Some((name, limit.parse().ok()?))) {
            Some((name, limit)) => {
                exceptions.insert(name.trim().to_owned(), limit);
            }
            None => findings.push(Finding::new(RATCHET, number + 1, "not `name limit`")),
        }
    }
    exceptions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files.iter().copied())).into_iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let long = "\n".repeat(FILE_LINES + 1);
        assert_eq!(complaints(&[("a/src/a.rs", &long)]).len(), 1);
        assert_eq!(complaints(&[("a/src/generated/a.rs", &long)]).len(), 0);
        let function = format!("fn f() {{{}}}\n", "\n".repeat(FUNCTION_LINES));
        assert_eq!(complaints(&[("a/src/a.rs", &function)]).len(), 1);
    }

    #[test]
    fn the_ratchet_allows_and_tightens() {
        let long = "\n".repeat(700);
        let with = |ratchet: &str| complaints(&[("a.rs", &long), (RATCHET, ratchet)]).len();
        assert_eq!(with("# why\na.rs 705\n"), 0);
        assert_eq!(with("a.rs 650\n"), 2, "too small, and so unused");
        assert_eq!(with("a.rs 900\n"), 1, "too generous");
        assert_eq!(with("a.rs 700\nb.rs 700\n"), 1, "unused");
        assert_eq!(with("a.rs\n"), 2, "unreadable");
    }
}
