//! Claims: names that somebody holds, for services of our own that must know whether a name is
//! free, and take it if it is. Beside the keys: a name has no history, makes no events, and counts
//! for no quota, so that it costs less than a key.
//!
//! A claim is the record `n` and the name, with the revision at which it was taken and its holder.
//! Taking a name makes a revision, if nothing else of the command does. So whoever saw at a
//! revision that a name was free may ask that it was not taken since; and that is known without a
//! look into the store, as long as no name like it was taken lately.
//!
//! Invariant: what is remembered changes no answer. Where it is not sure, the store is asked.

use crate::command::Claim;
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_mvcc::{Engine, Error, ReadState, Revision, WriteTxn};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// What the name of a claim's record begins with.
const CLAIM: u8 = b'n';
/// Names are told apart as far as their hashes modulo this differ.
const SLOTS: usize = 32 * 1024;

/// When names were taken last.
#[derive(Debug)]
pub(crate) struct Claims {
    /// Of names taken up to this revision nothing is known.
    since: Revision,
    /// When any of the names of each slot was taken last. There are none before the first.
    slots: Vec<Revision>,
}

impl Claims {
    /// Nothing is known up to this revision, the present one.
    pub fn new(since: Revision) -> Claims {
        Claims { since, slots: Vec::new() }
    }

    /// Whether it is known that the name was not taken after this revision.
    pub fn none_since(&self, name: &[u8], revision: Revision) -> bool {
        let last = self.slots.get(slot(name)).copied().unwrap_or(self.since);
        revision >= last.max(self.since)
    }

    fn taken(&mut self, name: &[u8], now: Revision) {
        self.slots.resize(SLOTS, 0);
        // What was undone may have been at a later revision.
        let last = &mut self.slots[slot(name)];
        *last = now.max(*last);
    }
}

/// Without a random state: the same run twice is the same run.
fn slot(name: &[u8]) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(name);
    hash as usize % SLOTS
}

fn record(name: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(name.len() + 1);
    record.push(CLAIM);
    record.extend_from_slice(name);
    record
}

/// Takes a name, whoever held it.
pub(crate) fn take<E: Engine>(txn: &mut WriteTxn<'_, E>, claims: &mut Claims, claim: &Claim) {
    let revision = txn.take_revision();
    let mut w = Writer::with_capacity(claim.holder.len() + 9);
    w.varint(revision).raw(&claim.holder);
    txn.put_meta(&record(&claim.name), w.into_bytes());
    claims.taken(&claim.name, revision);
}

/// Lets go of a name, if it is this holder's.
pub(crate) fn release<E: Engine>(txn: &mut WriteTxn<'_, E>, claim: &Claim) -> Result<(), Error> {
    if find(txn, &claim.name)?.is_some_and(|(_, holder)| holder == claim.holder) {
        txn.delete_meta(&record(&claim.name));
    }
    Ok(())
}

/// Since which revision a name is taken, and by whom.
pub(crate) fn find<E: Engine>(
    txn: &WriteTxn<'_, E>,
    name: &[u8],
) -> Result<Option<(Revision, Bytes)>, Error> {
    txn.meta(&record(name))?.map(read).transpose()
}

/// The same, in a state that readers see.
pub(crate) fn find_in<E: Engine>(
    state: &ReadState<E>,
    name: &[u8],
) -> Result<Option<(Revision, Bytes)>, Error> {
    state.meta(&record(name))?.map(read).transpose()
}

fn read(value: Bytes) -> Result<(Revision, Bytes), Error> {
    let mut r = Reader::new(value);
    let revision = r.varint();
    let damaged = |e: DecodeError| Error::Corrupt(format!("the record of a claim: {e}"));
    Ok((revision.map_err(damaged)?, r.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> [u8; 8] {
        n.to_be_bytes()
    }

    #[test]
    fn what_is_known_is_so() {
        let mut claims = Claims::new(700);
        assert!(!claims.none_since(&name(0), 699), "who knows what was before");
        assert!(claims.none_since(&name(0), 700));
        let all = 2 * SLOTS as u64;
        let mut unsure = 0;
        for n in 0..all {
            let now = 701 + n;
            unsure += u64::from(!claims.none_since(&name(n), now - 100));
            claims.taken(&name(n), now);
            assert!(!claims.none_since(&name(n), now - 1) && claims.none_since(&name(n), now));
        }
        for n in 0..all {
            assert!(!claims.none_since(&name(n), 700 + n), "it was taken later than that");
        }
        assert!(claims.none_since(&name(0), 701 + all), "all were taken before that");
        assert!((100..all / 100).contains(&unsure), "{unsure} of {all} have to be looked up");
        let last = claims.slots[slot(&name(1))];
        claims.taken(&name(1), 9);
        assert_eq!(claims.slots[slot(&name(1))], last, "what was is not forgotten");
    }
}
