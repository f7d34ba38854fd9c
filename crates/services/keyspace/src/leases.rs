//! Which leases exist and which keys are attached to them: the replicated half of leases.

use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_mvcc::LeaseId;
use std::collections::{BTreeMap, BTreeSet};

/// All leases, in order of id.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Leases(BTreeMap<LeaseId, Lease>);

/// One lease.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Lease {
    /// Its time to live as granted.
    pub ttl_seconds: i64,
    /// How long it had left at the last checkpoint; zero: no checkpoint since it was kept alive.
    pub remaining_seconds: i64,
    /// The keys attached to it.
    pub keys: BTreeSet<Bytes>,
}

impl Leases {
    /// One lease.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.0.get(&id)
    }

    /// Every lease.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.0.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn insert(&mut self, id: LeaseId, lease: Lease) {
        self.0.insert(id, lease);
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        self.0.remove(&id)
    }

    pub(crate) fn get_mut(&mut self, id: LeaseId) -> Option<&mut Lease> {
        self.0.get_mut(&id)
    }
}

impl Lease {
    /// The record without the keys, which have records of their own.
    pub(crate) fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(16);
        w.signed(self.ttl_seconds).signed(self.remaining_seconds);
        w.into_bytes()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Lease, DecodeError> {
        let mut r = Reader::new(bytes);
        let (ttl_seconds, remaining_seconds) = (r.signed()?, r.signed()?);
        r.finish()?;
        Ok(Lease { ttl_seconds, remaining_seconds, keys: BTreeSet::new() })
    }
}
