//! What a transaction may be called, and how its content is told from another.

use crate::record::Owner;
use std::fmt;

/// Bytes of the longest id: a UUID with its hyphens. Databases have no room for more.
pub const MAX_ID_BYTES: usize = 36;

/// Why an id cannot be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// Checks the id of a transaction: letters, digits, `.`, `_` and `-`, so that it can be part of a
/// name in every participant.
///
/// # Errors
/// [`Refused`]
pub fn check_id(id: &str) -> Result<(), Refused> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        let n = id.len();
        return Err(Refused(format!("a transaction's id has 1 to {MAX_ID_BYTES} bytes, not {n}")));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match id.chars().find(|c| !good(*c)) {
        None => Ok(()),
        Some(bad) => Err(Refused(format!(
            "a transaction's id is made of letters, digits, '.', '_' and '-': {bad:?} is none"
        ))),
    }
}

/// What a bundle's id begins with, and no client's does.
const BUNDLE: char = '~';

/// The id of a bundle, one of many of its owner's: nobody else ever makes the same.
pub fn bundle_id(owner: Owner, number: u64) -> String {
    let parts = [owner.node.0, owner.run, number].map(u64::to_be_bytes);
    format!("{BUNDLE}{:032x}", content_hash(&parts.concat()))
}

/// Whether this is a bundle's id.
pub fn is_bundle_id(id: &str) -> bool {
    id.starts_with(BUNDLE)
}

/// Checks the id of a transaction that may be a bundle.
///
/// # Errors
/// [`Refused`]
pub fn check_known_id(id: &str) -> Result<(), Refused> {
    check_id(id.strip_prefix(BUNDLE).unwrap_or(id))
}

/// The hash by which a retried transaction is told from another of the same id.
pub fn content_hash(content: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::NodeId;

    #[test]
    fn ids() {
        for good in ["a", "order-17", "0d7f4e4e-93a5-4a9c-9f83-c09e2c3f44a1", "A.b_c"] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(37)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bundle_is_called_as_no_client_can_call_anything() {
        let owner = Owner { node: NodeId(1), run: 2 };
        let id = bundle_id(owner, 3);
        assert!(check_id(&id).is_err() && id.len() <= MAX_ID_BYTES, "{id}");
        assert_eq!(check_known_id(&id), Ok(()));
        assert_ne!(id, bundle_id(owner, 4));
    }
}
