//! What was violated, in words that name the promise and the evidence.

use std::fmt;

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The promise, a short name: `linearizability`, `log matching`, …
    pub promise: &'static str,
    /// The evidence.
    pub evidence: String,
}

impl Violation {
    /// `promise` was broken, as `evidence` shows.
    pub fn new(promise: &'static str, evidence: impl Into<String>) -> Self {
        Violation { promise, evidence: evidence.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.evidence)
    }
}

impl std::error::Error for Violation {}
