//! A key at one revision.

use bytes::Bytes;

/// A point in a keyspace's history. 1 is the empty store; every changing request makes one more.
pub type Revision = u64;

/// Names a lease; zero is "none".
pub type LeaseId = i64;

/// One key as of its latest change.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision that created it (since it last did not exist).
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub mod_revision: Revision,
    /// How often it was changed since its creation, from 1.
    pub version: u64,
    /// Its value.
    pub value: Bytes,
    /// The lease it is attached to.
    pub lease: LeaseId,
}

/// A revision and the place within it: a transaction changes several keys at one revision.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RevisionSub {
    /// The revision.
    pub main: Revision,
    /// The change within it, from 0.
    pub sub: u32,
}

/// What is known of a key without its value: much cheaper to come by than the value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct KeyMeta {
    /// The last change; `at.main` is etcd's `mod_revision`.
    pub at: RevisionSub,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// How often the key was changed since its creation, from 1.
    pub version: u64,
    /// The lease it is attached to.
    pub lease: LeaseId,
    /// Length of its value in bytes.
    pub value_bytes: u32,
}

impl KeyMeta {
    /// The key with this value.
    pub fn with(self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            create_revision: self.create_revision,
            mod_revision: self.at.main,
            version: self.version,
            value,
            lease: self.lease,
        }
    }
}

/// What a revision did to a key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The key was written; this is what it became.
    Put(KeyValue),
    /// The key was deleted: its name, and the revision that did it as `mod_revision`.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision.
        revision: Revision,
    },
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put(kv) => &kv.key,
            Event::Delete { key, .. } => key,
        }
    }

    /// The revision that changed it.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put(kv) => kv.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

/// A set of keys, in etcd's terms made explicit.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum KeyRange {
    /// This key alone.
    One(Bytes),
    /// From the first key (included) to the second (excluded).
    Between(Bytes, Bytes),
    /// From this key on.
    From(Bytes),
}

impl KeyRange {
    /// etcd's rule: an empty end means one key, the end `\0` means "from the key on".
    pub fn from_etcd(key: Bytes, end: Bytes) -> KeyRange {
        if end.is_empty() {
            KeyRange::One(key)
        } else if end[..] == [0] {
            KeyRange::From(key)
        } else {
            KeyRange::Between(key, end)
        }
    }

    /// The first key that may be in the set, and the first after it that may not (none: no end).
    pub fn bounds(&self) -> (Bytes, Option<Bytes>) {
        match self {
            KeyRange::One(key) => {
                let mut next = Vec::with_capacity(key.len() + 1);
                next.extend_from_slice(key);
                next.push(0);
                (key.clone(), Some(Bytes::from(next)))
            }
            KeyRange::Between(from, to) => (from.clone(), Some(to.clone())),
            KeyRange::From(from) => (from.clone(), None),
        }
    }

    /// Whether `key` is in the set.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::One(one) => key == &one[..],
            KeyRange::Between(from, to) => key >= &from[..] && key < &to[..],
            KeyRange::From(from) => key >= &from[..],
        }
    }
}
