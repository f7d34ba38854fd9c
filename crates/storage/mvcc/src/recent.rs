//! The facts of keys that were changed more than once, the last time lately: most changes are of
//! such keys, and looking into the engine is a third of what a change costs. A key that is made and
//! never changed again is not worth its place.
//!
//! Invariant: what is remembered is what the engine's last batch says. It changes no result, and
//! its memory is bounded: two maps of [`CAPACITY`] keys, of which the older is forgotten whole.

use crate::format::Latest;
use bytes::Bytes;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

/// How many keys each of the two maps holds.
const CAPACITY: usize = 64 * 1024;

/// Longer keys are not remembered: this bounds the bytes as well.
const MAX_KEY_BYTES: usize = 256;

/// A hasher without a random state: the same run twice is the same run.
type Map = HashMap<Bytes, Option<Latest>, BuildHasherDefault<DefaultHasher>>;

/// What is known of keys; that a key does not exist is known, too.
#[derive(Default)]
pub struct Recent {
    young: Map,
    old: Map,
}

impl Recent {
    /// What is remembered of a key, if anything.
    pub fn get(&self, key: &[u8]) -> Option<Option<Latest>> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    /// Remembers what a key is now.
    pub fn set(&mut self, key: &[u8], latest: Option<Latest>) {
        if key.len() > MAX_KEY_BYTES {
            return;
        }
        if let Some(slot) = self.young.get_mut(key) {
            *slot = latest;
            return;
        }
        let is_new = latest.is_none_or(|latest| latest.meta.version == 1);
        if is_new && !self.old.contains_key(key) {
            return;
        }
        if self.young.len() >= CAPACITY {
            // The map that is full keeps its room: to grow anew costs as much as to fill it.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(Bytes::copy_from_slice(key), latest);
    }

    /// Forgets everything: the engine's content was replaced, or is in doubt.
    pub fn clear(&mut self) {
        *self = Recent::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_value::KeyMeta;

    fn key(n: usize) -> Bytes {
        Bytes::from(n.to_string())
    }

    fn meta(version: u64) -> Option<Latest> {
        let meta = KeyMeta { version, ..KeyMeta::default() };
        Some(Latest { meta, steps: 1 })
    }

    #[test]
    fn the_last_word_counts_and_memory_is_bounded() {
        let mut recent = Recent::default();
        for n in 0..3 * CAPACITY {
            recent.set(&key(n), meta(2));
            recent.set(&key(7), meta(n as u64 + 2));
        }
        assert_eq!(recent.get(b"7"), Some(meta(3 * CAPACITY as u64 + 1)));
        assert!(recent.young.len() + recent.old.len() <= 2 * CAPACITY);
        recent.set(&key(7), None);
        assert_eq!(recent.get(b"7"), Some(None));
        assert_eq!(recent.get(b"8"), None);
        recent.clear();
        assert_eq!(recent.get(b"7"), None);
    }

    #[test]
    fn a_new_key_is_remembered_only_in_the_place_of_an_old_one() {
        let mut recent = Recent::default();
        recent.set(&key(0), meta(1));
        recent.set(&key(0), None);
        assert_eq!(recent.get(b"0"), None);
        recent.set(&key(0), meta(2));
        // Now it is in the older of the maps.
        (1..=CAPACITY).for_each(|n| recent.set(&key(n), meta(2)));
        for now in [None, meta(1)] {
            recent.set(&key(0), now);
            assert_eq!(recent.get(b"0"), Some(now));
        }
    }
}
