//! Which names keyspaces may have.

use super::{SYSTEM_NAME, TRANSACTIONS};
use crate::handle::DEFAULT;

/// Bytes of the longest name.
const MAX_NAME_BYTES: usize = 64;

/// Whether a keyspace may have this name; if not, why.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let good = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!("a keyspace's name has 1 to {MAX_NAME_BYTES} characters"));
    }
    if !name.bytes().all(good) || !name.as_bytes()[0].is_ascii_lowercase() {
        return Err(format!(
            "{name:?} is no name for a keyspace: it begins with a lower-case letter and goes on \
             with lower-case letters, digits, '-', '_' and '.'"
        ));
    }
    Ok(())
}

/// Whether it is the node's own, which cannot be made or dropped.
pub(crate) fn is_reserved(name: &str) -> bool {
    name == DEFAULT || name == SYSTEM_NAME || name == TRANSACTIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "orders", "orders-2.eu_west", &"x".repeat(64)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "Orders", "1st", "-a", "a b", "a/b", "größe", &"x".repeat(65)] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(
            is_reserved("transactions")
                && is_reserved("default")
                && is_reserved("system")
                && !is_reserved("orders")
        );
    }
}
