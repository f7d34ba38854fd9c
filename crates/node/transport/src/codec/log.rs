//! The bytes of a replicated log's [`Message`].
//!
//! The entries of an append follow its `previous` position without a gap, so that their indexes
//! are not written; an entry repeats the ballot only where it differs from the entry before.

use super::parts::{
    MAX_ITEMS, ballot, check_items, epoch, membership, position, protocol, put_ballot, put_epoch,
    put_membership, put_position, put_protocol,
};
use super::paxos;
use crate::error::Oversized;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{Ballot, Index};
use quorate_replicated_log::{
    Append, AppendOutcome, AppendReply, Body, Entries, Entry, Message, Payload,
};

mod tag {
    pub const PRE_VOTE: u8 = 1;
    pub const PRE_VOTE_REPLY: u8 = 2;
    pub const VOTE: u8 = 3;
    pub const VOTE_REPLY: u8 = 4;
    pub const APPEND: u8 = 5;
    pub const APPEND_REPLY: u8 = 6;
    pub const HEARTBEAT: u8 = 7;
    pub const HEARTBEAT_REPLY: u8 = 8;
    pub const READ_INDEX: u8 = 9;
    pub const READ_INDEX_REPLY: u8 = 10;
    pub const TIMEOUT_NOW: u8 = 11;
    pub const PREPARE: u8 = 12;
    pub const PROMISE: u8 = 13;
    pub const ACCEPT: u8 = 14;
    pub const ACCEPTED: u8 = 15;
    pub const PULL: u8 = 16;
    pub const PULLED: u8 = 17;
    pub const MEND: u8 = 18;
    pub const MENDED: u8 = 19;
}

const NOOP: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERS: u8 = 2;
const LEAD: u8 = 3;
const SEAL: u8 = 4;
/// Set in an entry's kind: a ballot follows, unlike the one of the entry before.
const NEW_BALLOT: u8 = 0x80;

pub fn encode(message: &Message, w: &mut Writer) -> Result<(), Oversized> {
    put_epoch(message.epoch, w);
    put_ballot(message.ballot, w);
    match &message.body {
        Body::PreVote { last } => {
            w.u8(tag::PRE_VOTE);
            put_position(*last, w);
        }
        Body::PreVoteReply { granted } => {
            w.u8(tag::PRE_VOTE_REPLY).bool(*granted);
        }
        Body::Vote { last, transfer } => {
            w.u8(tag::VOTE);
            put_position(*last, w);
            w.bool(*transfer);
        }
        Body::VoteReply { granted } => {
            w.u8(tag::VOTE_REPLY).bool(*granted);
        }
        Body::Append(append) => put_append(append, w)?,
        Body::AppendReply(reply) => put_append_reply(reply, w),
        Body::Heartbeat { session, commit, probe } => {
            w.u8(tag::HEARTBEAT).varint(*session).varint(*commit).varint(*probe);
        }
        Body::HeartbeatReply { session, probe } => {
            w.u8(tag::HEARTBEAT_REPLY).varint(*session).varint(*probe);
        }
        Body::ReadIndex { id } => {
            w.u8(tag::READ_INDEX).varint(*id);
        }
        Body::ReadIndexReply { id, index } => {
            w.u8(tag::READ_INDEX_REPLY).varint(*id).bool(index.is_some());
            if let Some(index) = index {
                w.varint(*index);
            }
        }
        Body::TimeoutNow => {
            w.u8(tag::TIMEOUT_NOW);
        }
        Body::Pull { .. } | Body::Pulled { .. } | Body::Mend { .. } | Body::Mended { .. } => {
            put_recovery(&message.body, w)?;
        }
        Body::Prepare { from, transfer } => {
            w.u8(tag::PREPARE).varint(*from).bool(*transfer);
        }
        Body::Promise(promise) => {
            w.u8(tag::PROMISE);
            paxos::put_promise(promise, w)?;
        }
        Body::Accept(accept) => {
            w.u8(tag::ACCEPT);
            paxos::put_accept(accept, w)?;
        }
        Body::Accepted(accepted) => {
            w.u8(tag::ACCEPTED);
            paxos::put_accepted(accepted, w);
        }
    }
    Ok(())
}

/// What replicas under Raft say to each other when some lack a part of the log.
fn put_recovery(body: &Body, w: &mut Writer) -> Result<(), Oversized> {
    match body {
        Body::Pull { id, last } => {
            w.u8(tag::PULL).varint(*id);
            put_position(*last, w);
        }
        Body::Pulled { id, previous, entries, last } => {
            w.u8(tag::PULLED).varint(*id);
            put_position(*last, w);
            put_position(*previous, w);
            put_entries(entries, w)?;
        }
        Body::Mend { first, ballots } => {
            check_items(ballots.len())?;
            w.u8(tag::MEND).varint(*first).varint(ballots.len() as u64);
            ballots.iter().for_each(|ballot| put_ballot(*ballot, w));
        }
        Body::Mended { first, entries, denied } => {
            w.u8(tag::MENDED).varint(*first).bool(*denied);
            check_items(entries.len())?;
            w.varint(entries.len() as u64);
            for run in entries {
                paxos::put_run(run, w)?;
            }
        }
        _ => {}
    }
    Ok(())
}

pub fn decode(r: &mut Reader) -> Result<Message, DecodeError> {
    let epoch = epoch(r)?;
    let ballot = ballot(r)?;
    let body = match r.u8()? {
        tag::PRE_VOTE => Body::PreVote { last: position(r)? },
        tag::PRE_VOTE_REPLY => Body::PreVoteReply { granted: r.bool("granted")? },
        tag::VOTE => Body::Vote { last: position(r)?, transfer: r.bool("transfer")? },
        tag::VOTE_REPLY => Body::VoteReply { granted: r.bool("granted")? },
        tag::APPEND => Body::Append(append(r)?),
        tag::APPEND_REPLY => Body::AppendReply(append_reply(r)?),
        tag::HEARTBEAT => {
            Body::Heartbeat { session: r.varint()?, commit: r.varint()?, probe: r.varint()? }
        }
        tag::HEARTBEAT_REPLY => Body::HeartbeatReply { session: r.varint()?, probe: r.varint()? },
        tag::READ_INDEX => Body::ReadIndex { id: r.varint()? },
        tag::READ_INDEX_REPLY => Body::ReadIndexReply {
            id: r.varint()?,
            index: match r.bool("index flag")? {
                true => Some(r.varint()?),
                false => None,
            },
        },
        tag::TIMEOUT_NOW => Body::TimeoutNow,
        tag::PULL => Body::Pull { id: r.varint()?, last: position(r)? },
        tag::PULLED => pulled(r)?,
        tag::MEND => mend(r)?,
        tag::MENDED => mended(r)?,
        tag::PREPARE => Body::Prepare { from: r.varint()?, transfer: r.bool("transfer")? },
        tag::PROMISE => Body::Promise(paxos::promise(r)?),
        tag::ACCEPT => Body::Accept(paxos::accept(r)?),
        tag::ACCEPTED => Body::Accepted(paxos::accepted(r)?),
        other => {
            return Err(DecodeError::Unknown { field: "log message tag", value: other.into() });
        }
    };
    Ok(Message { epoch, ballot, body })
}

/// Whether an entry of it has no form in version 1.
pub fn is_newer(message: &Message) -> bool {
    let seals = |run: &Entries| run.iter().any(|e| matches!(e.payload, Payload::Seal { .. }));
    message.epoch.0 > 0
        || match &message.body {
            Body::Append(append) => seals(&append.entries),
            Body::Pulled { entries, .. } => seals(entries),
            Body::Accept(accept) => seals(&accept.entries),
            Body::Promise(promise) => promise.entries.iter().any(seals),
            Body::Mended { entries, .. } => entries.iter().any(seals),
            _ => false,
        }
}

/// Bytes of the entries, which are all that can be large.
pub fn weight(message: &Message) -> usize {
    match &message.body {
        Body::Append(append) => append.entries.iter().map(Entry::weight).sum(),
        Body::Pulled { entries, .. } => entries.iter().map(Entry::weight).sum(),
        Body::Mended { entries, .. } => {
            entries.iter().flat_map(|run| run.iter()).map(Entry::weight).sum()
        }
        Body::Accept(accept) => accept.entries.iter().map(Entry::weight).sum(),
        Body::Promise(promise) => {
            promise.entries.iter().flat_map(|run| run.iter()).map(Entry::weight).sum()
        }
        _ => 0,
    }
}

fn put_append(append: &Append, w: &mut Writer) -> Result<(), Oversized> {
    check_items(append.entries.len())?;
    w.u8(tag::APPEND).varint(append.session);
    put_position(append.previous, w);
    w.varint(append.commit).varint(append.probe);
    put_entries(&append.entries, w)
}

/// A run's length and its entries, whose indexes follow from its first.
pub fn put_entries(entries: &Entries, w: &mut Writer) -> Result<(), Oversized> {
    check_items(entries.len())?;
    w.varint(entries.len() as u64);
    let mut last = Ballot::ZERO;
    for entry in entries.iter() {
        let (kind, context) = match &entry.payload {
            Payload::Noop => (NOOP, None),
            Payload::Lead(_) => (LEAD, None),
            Payload::Seal { .. } => (SEAL, None),
            Payload::Command(bytes) => (COMMAND, Some(bytes)),
            Payload::Members { context, .. } => (MEMBERS, Some(context)),
        };
        if entry.ballot == last {
            w.u8(kind);
        } else {
            w.u8(kind | NEW_BALLOT);
            put_ballot(entry.ballot, w);
            last = entry.ballot;
        }
        match &entry.payload {
            Payload::Members { membership, .. } => put_membership(membership, w)?,
            Payload::Lead(ballot) => put_ballot(*ballot, w),
            Payload::Seal { next, ballot } => {
                put_protocol(*next, w);
                put_ballot(*ballot, w);
            }
            Payload::Noop | Payload::Command(_) => {}
        }
        if let Some(bytes) = context {
            w.bytes(bytes);
        }
    }
    Ok(())
}

fn append(r: &mut Reader) -> Result<Append, DecodeError> {
    let session = r.varint()?;
    let previous = position(r)?;
    let (commit, probe) = (r.varint()?, r.varint()?);
    let entries = entries(r, previous.index)?;
    Ok(Append { session, previous, entries, commit, probe })
}

fn pulled(r: &mut Reader) -> Result<Body, DecodeError> {
    let (id, last, previous) = (r.varint()?, position(r)?, position(r)?);
    let entries = entries(r, previous.index)?;
    Ok(Body::Pulled { id, previous, entries, last })
}

fn mend(r: &mut Reader) -> Result<Body, DecodeError> {
    let first = r.varint()?;
    let n = r.count(MAX_ITEMS, 9)?;
    let ballots = (0..n).map(|_| ballot(r)).collect::<Result<_, _>>()?;
    Ok(Body::Mend { first, ballots })
}

fn mended(r: &mut Reader) -> Result<Body, DecodeError> {
    let (first, denied) = (r.varint()?, r.bool("denied")?);
    let n = r.count(MAX_ITEMS, 2)?;
    let entries = (0..n).map(|_| paxos::run(r)).collect::<Result<_, _>>()?;
    Ok(Body::Mended { first, entries, denied })
}

/// A run of entries that follows the index `before`.
pub fn entries(r: &mut Reader, before: Index) -> Result<Entries, DecodeError> {
    let n = r.count(MAX_ITEMS, 1)?;
    if before.checked_add(n as Index).is_none() {
        return Err(DecodeError::TooLong { claimed: before, limit: Index::MAX - n as u64 });
    }
    // An entry in memory is larger than its shortest form: grow as they are read.
    let mut entries = Vec::with_capacity(n.min(1_024));
    let mut last = Ballot::ZERO;
    for offset in 0..n as Index {
        entries.push(entry(r, before + 1 + offset, &mut last)?);
    }
    Ok(Entries::new(entries))
}

fn entry(r: &mut Reader, index: Index, last: &mut Ballot) -> Result<Entry, DecodeError> {
    let kind = r.u8()?;
    if kind & NEW_BALLOT != 0 {
        *last = ballot(r)?;
    }
    let payload = match kind & !NEW_BALLOT {
        NOOP => Payload::Noop,
        LEAD => Payload::Lead(ballot(r)?),
        SEAL => Payload::Seal { next: protocol(r)?, ballot: ballot(r)? },
        COMMAND => Payload::Command(r.bytes(u64::MAX)?),
        MEMBERS => Payload::members(membership(r)?, r.bytes(u64::MAX)?),
        other => return Err(DecodeError::Unknown { field: "entry kind", value: other.into() }),
    };
    Ok(Entry { index, ballot: *last, payload })
}

fn put_append_reply(reply: &AppendReply, w: &mut Writer) {
    w.u8(tag::APPEND_REPLY).varint(reply.session).varint(reply.probe);
    match reply.outcome {
        AppendOutcome::Accepted { matched } => {
            w.u8(1).varint(matched);
        }
        AppendOutcome::Rejected { previous, hint } => {
            w.u8(2).varint(previous);
            put_position(hint, w);
        }
    }
}

fn append_reply(r: &mut Reader) -> Result<AppendReply, DecodeError> {
    let (session, probe) = (r.varint()?, r.varint()?);
    let outcome = match r.u8()? {
        1 => AppendOutcome::Accepted { matched: r.varint()? },
        2 => AppendOutcome::Rejected { previous: r.varint()?, hint: position(r)? },
        other => return Err(DecodeError::Unknown { field: "append outcome", value: other.into() }),
    };
    Ok(AppendReply { session, probe, outcome })
}
