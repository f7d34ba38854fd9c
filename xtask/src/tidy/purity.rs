//! Protocols and services are functions of (state, input, now): no clock, thread, file, socket,
//! environment, async, random hasher or floating point, and protocols are `no_std`.

use super::source::{code_only, has_word, without_tests};
use super::{File, Finding, Tree};

/// Where the pure crates are.
const PURE: [&str; 5] = [
    "crates/base/",
    "crates/protocols/",
    "crates/services/",
    "crates/node/driver/",
    "crates/node/placement/",
];
/// Where the standard library is out of reach altogether.
const NO_STD: [&str; 2] = ["crates/base/", "crates/protocols/"];

/// Words that have no place in pure code, and what they stand for.
const BANNED: [(&str, &str); 16] = [
    ("SystemTime", "a clock"),
    ("std::time::Instant", "a clock"),
    ("std::thread", "a thread"),
    ("std::fs", "a file"),
    ("std::net", "a socket"),
    ("std::env", "the environment"),
    ("std::process", "a process"),
    ("tokio", "async"),
    ("async", "async"),
    ("HashMap", "a hasher with random state (use BTreeMap)"),
    ("HashSet", "a hasher with random state (use BTreeSet)"),
    ("RandomState", "a hasher with random state"),
    ("getrandom", "randomness that was not handed in"),
    ("f32", "floating point"),
    ("f64", "floating point"),
    ("thread_local", "a global"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.written_rust().filter(|f| f.path.contains("/src/")) {
        if PURE.iter().any(|p| file.path.starts_with(p)) {
            findings.extend(impurities(file));
        }
        let is_root = file.path.ends_with("/src/lib.rs");
        let outside = NO_STD.iter().any(|p| file.path.starts_with(p));
        if is_root && outside && !file.text.lines().any(|l| l == "#![no_std]") {
            findings.push(Finding::new(&file.path, 0, "a pure protocol crate is `#![no_std]`"));
        }
    }
    findings
}

fn impurities(file: &File) -> Vec<Finding> {
    let code = without_tests(&code_only(&file.text));
    let mut findings = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (word, meaning) in BANNED.iter().filter(|(word, _)| has_word(line, word)) {
            let what = format!("`{word}` in pure code: {meaning}");
            findings.push(Finding::new(&file.path, number + 1, what));
        }
        if has_word(line, "static") && has_word(line, "mut") && line.contains("static mut") {
            findings.push(Finding::new(&file.path, number + 1, "a global in pure code"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of([(path, text)])).into_iter().map(|f| f.to_string()).collect()
    }

    #[test]
    fn clocks_and_random_hashers_are_found_outside_comments_and_tests() {
        let text = "// HashMap\nuse std::collections::HashMap;\n#[cfg(test)]\nmod tests {\n  use \
                    std::time::Instant;\n}\n";
        let found = complaints("crates/services/keyspace/src/a.rs", text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(":2: `HashMap`"));
        assert_eq!(complaints("crates/node/host/src/a.rs", text).len(), 0);
    }

    #[test]
    fn protocols_do_without_the_standard_library() {
        assert_eq!(complaints("crates/protocols/raft/src/lib.rs", "//! Raft.\n").len(), 1);
        assert_eq!(complaints("crates/protocols/raft/src/lib.rs", "#![no_std]\n").len(), 0);
    }
}
