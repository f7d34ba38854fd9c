//! Which keys a command means.

use clap::Args;

/// One key, or a range of them.
#[derive(Args, Clone, Debug)]
pub struct Keys {
    /// The key, or the first of a range
    pub key: String,
    /// End of the range, itself left out
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub range_end: Option<String>,
    /// All keys that begin with KEY
    #[arg(long, conflicts_with = "from_key")]
    pub prefix: bool,
    /// All keys from KEY on
    #[arg(long)]
    pub from_key: bool,
}

/// A range without an end, or a key before all others, as the API writes them.
const ZERO: &[u8] = &[0];

impl Keys {
    /// The key and the end of its range, as the API writes them.
    pub fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        let key = self.key.as_bytes().to_vec();
        if self.from_key {
            (or_first(key), ZERO.to_vec())
        } else if self.prefix {
            of_prefix(key)
        } else {
            let end = self.range_end.as_ref().map_or_else(Vec::new, |end| end.as_bytes().to_vec());
            (key, end)
        }
    }
}

fn or_first(key: Vec<u8>) -> Vec<u8> {
    if key.is_empty() { ZERO.to_vec() } else { key }
}

/// All keys that begin so, as the API writes them.
pub fn of_prefix(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let end = prefix_end(&prefix);
    (or_first(prefix), end)
}

/// The first key after all that begin with `prefix`.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    ZERO.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), ZERO);
        assert_eq!(prefix_end(b""), ZERO);
    }

    #[test]
    fn everything_is_the_prefix_of_nothing() {
        let keys = Keys { key: String::new(), range_end: None, prefix: true, from_key: false };
        assert_eq!(keys.bounds(), (ZERO.to_vec(), ZERO.to_vec()));
    }
}
