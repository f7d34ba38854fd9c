//! What no compiler checks: dependencies and their direction, purity, sizes, dead files, documents.
//!
//! Every check is a function from the [`Tree`] to [`Finding`]s, so that each can be tested on a
//! tree made of strings. `cargo xtask tidy` prints all findings; a test runs the same.

mod decisions;
mod documents;
mod layers;
mod purity;
mod reachable;
mod size;
pub mod source;
mod style;
mod tree;
mod untested;

pub use tree::{File, Tree};

use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::Path;

/// Something untidy, and where.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// Path from the root of the repository.
    pub file: String,
    /// From 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Finding {
    fn new(file: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { file: file.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}

/// Runs every check over a tree; findings are sorted by place.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(layers::check(tree));
    findings.extend(purity::check(tree));
    findings.extend(size::check(tree));
    findings.extend(style::check(tree));
    findings.extend(reachable::check(tree));
    findings.extend(documents::check(tree));
    findings.extend(untested::check(tree));
    findings.extend(decisions::check(tree));
    findings.sort();
    findings
}

/// Checks the repository at `root` and prints what it finds.
pub fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root).context("the repository could not be read")?;
    let findings = check(&tree);
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing to complain of", tree.files().len());
            Ok(())
        }
        n => bail!("tidy: {n} findings"),
    }
}
