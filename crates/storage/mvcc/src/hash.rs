//! Fingerprints of the logical content, to compare replicas with.
//!
//! Invariant: two stores that applied the same commands have the same fingerprints, however far
//! either was scrubbed. Not for secrets: whoever wants two contents to collide can make them.

use crate::engine::{Engine, Source, Table};
use crate::error::Error;
use crate::format::{SERVICE_PREFIX, history_key};
use crate::key_value::{KeyRange, Revision, RevisionSub};
use crate::reader::{ReadState, readable};
use crate::versions;
use bytes::Bytes;
use std::ops::ControlFlow;

/// A running fingerprint of byte strings: their CRC32C, lengths and order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of nothing.
    pub fn new() -> Self {
        Fingerprint(0x9ae1_6a3b_2f90_404f)
    }

    /// One more byte string.
    pub fn add(&mut self, bytes: &[u8]) {
        let part = u64::from(crc32c::crc32c(bytes)) | (bytes.len() as u64) << 32;
        let mixed = (self.0.rotate_left(23) ^ part).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 = mixed ^ (mixed >> 29);
    }

    /// The fingerprint of all that was added.
    pub fn value(self) -> u64 {
        self.0
    }
}

impl<E: Engine> ReadState<E> {
    /// The fingerprint of what can be read from the compacted revision up to `revision` (zero:
    /// now): every key as of the compacted revision, and every change from there on. Reads it all.
    pub fn hash_kv(&self, revision: Revision) -> Result<u64, Error> {
        readable(self.header(), revision)?;
        let last = if revision == 0 { self.revision() } else { revision };
        let first = self.compacted_revision();
        let view = self.view()?;
        let mut fingerprint = Fingerprint::new();
        let mut add = |key: &[u8], record: &[u8]| {
            fingerprint.add(key);
            fingerprint.add(record);
        };
        if first > 0 {
            let all = KeyRange::From(Bytes::new());
            versions::visit(view, &all, Some(first), self.canary(), |_, meta| {
                let key = history_key(meta.at);
                add(&key, &view.get(Table::History, &key)?.unwrap_or_default());
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let from = history_key(RevisionSub { main: first, sub: 0 });
        let to = history_key(RevisionSub { main: last.saturating_add(1), sub: 0 });
        for pair in view.scan(Table::History, &from, Some(&to)) {
            let (key, value) = pair?;
            add(&key, &value);
        }
        Ok(fingerprint.value())
    }

    /// The fingerprint of the whole replicated state: everything that can be read, the service's
    /// named records, and the header with the applied index. Reads it all.
    pub fn hash(&self) -> Result<u64, Error> {
        let mut fingerprint = Fingerprint::new();
        fingerprint.add(&self.hash_kv(0)?.to_le_bytes());
        fingerprint.add(&self.header().encode());
        for pair in self.view()?.scan(Table::Meta, &[SERVICE_PREFIX], None) {
            let (name, value) = pair?;
            fingerprint.add(&name);
            fingerprint.add(&value);
        }
        Ok(fingerprint.value())
    }
}
