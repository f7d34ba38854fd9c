//! The bytes of what only Multi-Paxos says.

use super::log::{entries, put_entries};
use super::parts::{MAX_ITEMS, check_items};
use crate::error::Oversized;
use quorate_base::Index;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_replicated_log::{Accept, Accepted, Entries, Promise};

pub fn put_promise(promise: &Promise, w: &mut Writer) -> Result<(), Oversized> {
    check_items(promise.entries.len())?;
    check_items(promise.damaged.len())?;
    w.varint(promise.from).varint(promise.commit).varint(promise.base);
    // Slots are numbered from 1: zero says that there is no more.
    w.varint(promise.next.unwrap_or(0));
    w.varint(promise.entries.len() as u64);
    for run in &promise.entries {
        put_run(run, w)?;
    }
    w.varint(promise.damaged.len() as u64);
    for range in &promise.damaged {
        w.varint(*range.start()).varint(*range.end());
    }
    Ok(())
}

pub fn promise(r: &mut Reader) -> Result<Promise, DecodeError> {
    let (from, commit, base, next) = (r.varint()?, r.varint()?, r.varint()?, r.varint()?);
    let n = r.count(MAX_ITEMS, 2)?;
    let entries = (0..n).map(|_| run(r)).collect::<Result<_, _>>()?;
    let n = r.count(MAX_ITEMS, 2)?;
    let damaged = (0..n).map(|_| Ok(r.varint()?..=r.varint()?)).collect::<Result<_, _>>()?;
    let next = Some(next).filter(|next| *next > 0);
    Ok(Promise { from, commit, entries, damaged, next, base })
}

pub fn put_accept(accept: &Accept, w: &mut Writer) -> Result<(), Oversized> {
    w.varint(accept.session).varint(accept.commit).varint(accept.probe);
    put_run(&accept.entries, w)
}

pub fn accept(r: &mut Reader) -> Result<Accept, DecodeError> {
    let (session, commit, probe) = (r.varint()?, r.varint()?, r.varint()?);
    Ok(Accept { session, entries: run(r)?, commit, probe })
}

pub fn put_accepted(accepted: &Accepted, w: &mut Writer) {
    let Accepted { session, probe, upto, beyond: (first, last) } = *accepted;
    w.varint(session).varint(probe).varint(upto).varint(first).varint(last);
}

pub fn accepted(r: &mut Reader) -> Result<Accepted, DecodeError> {
    Ok(Accepted {
        session: r.varint()?,
        probe: r.varint()?,
        upto: r.varint()?,
        beyond: (r.varint()?, r.varint()?),
    })
}

/// The index before the first, then the entries.
pub fn put_run(run: &Entries, w: &mut Writer) -> Result<(), Oversized> {
    w.varint(run.first_index().map_or(0, |first: Index| first.saturating_sub(1)));
    put_entries(run, w)
}

pub fn run(r: &mut Reader) -> Result<Entries, DecodeError> {
    let before = r.varint()?;
    entries(r, before)
}
