//! Small rules of style: line width, leftovers, a header for every module.

use super::source::{code_only, has_word};
use super::{File, Finding, Tree};

const COLUMNS: usize = 100;

/// Leftovers, spelled in halves so that this file is not one itself.
const LEFTOVERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const DEBUGGING: &str = concat!("dbg", "!(");
const SKIPPED_TEST: &str = concat!("#[ign", "ore");

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.written_rust().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut complain = |line: usize, what: String| {
        findings.push(Finding::new(&file.path, line, what));
    };
    if !file.text.starts_with("//!") {
        complain(1, "a file begins with `//!` and its purpose".to_owned());
    }
    let code = code_only(&file.text);
    for (number, (line, code)) in file.text.lines().zip(code.lines()).enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS {
            complain(number + 1, format!("{columns} columns; the limit is {COLUMNS}"));
        }
        for leftover in LEFTOVERS.iter().filter(|word| has_word(line, word)) {
            complain(number + 1, format!("`{leftover}`: do it, or file it elsewhere"));
        }
        if code.contains(DEBUGGING) {
            complain(number + 1, "a leftover of debugging".to_owned());
        }
        if code.trim_start().starts_with(SKIPPED_TEST) {
            complain(number + 1, "a test that does not run proves nothing".to_owned());
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> usize {
        check(&Tree::of([("a/src/a.rs", text)])).len()
    }

    #[test]
    fn each_rule_is_kept() {
        assert_eq!(complaints("//! Fine.\nfn f() {}\n"), 0);
        assert_eq!(complaints("fn f() {}\n"), 1);
        assert_eq!(complaints(&format!("//! Wide.\n// {}\n", "é".repeat(98))), 1);
        assert_eq!(complaints(&format!("//! Wide enough.\n// {}\n", "é".repeat(97))), 0);
        for leftover in LEFTOVERS {
            assert_eq!(complaints(&format!("//! Left.\n// {leftover}: later\n")), 1);
        }
        assert_eq!(complaints(&format!("//! Left.\nfn f() {{ {DEBUGGING}1); }}\n")), 1);
        assert_eq!(complaints(&format!("//! Left.\n{SKIPPED_TEST}]\nfn f() {{}}\n")), 1);
    }
}
