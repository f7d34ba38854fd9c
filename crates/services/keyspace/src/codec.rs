//! The bytes of a [`Command`]: what is replicated, kept in the log and understood for ever.
//!
//! Format version 1, written with `quorate_base::codec`: byte 1, a tag, the fields in order. Sets
//! of keys are a kind and one or two keys; flags are bits of one byte. Unknown versions, tags and
//! bits are refused, so that a newer node's command is never half understood.
//!
//! Invariant: what [`encode`] accepts, [`decode`] reads back equal. Decoding never panics, shares
//! the input's memory, allocates no more than a constant factor of what is really there, and
//! nests no deeper than [`MAX_TXN_DEPTH`].

use crate::branch::{read_branch_command, write_branch_command};
use crate::command::{
    Alarm, Claim, Command, Compare, CompareOperator, CompareTarget, Delete, Member, MemberChange,
    Operation, Put, Range, SortTarget, Txn,
};
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{Ballot, NodeId};
use quorate_mvcc::KeyRange;
use std::fmt;

const VERSION: u8 = 1;

/// How deep transactions may be nested: a transaction without inner ones has depth 1.
pub const MAX_TXN_DEPTH: usize = 128;

/// Bytes in one key or value.
pub(crate) const MAX_BYTES: u64 = 1 << 30;
/// Bytes in one name or address of a member.
const MAX_TEXT: u64 = 1 << 16;
/// Items in one list.
const MAX_ITEMS: u64 = 1 << 20;
/// Room reserved for a list before its items are read.
const MAX_RESERVED: usize = 64;

/// Why a command has no encoding. The caller's doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unencodable {
    /// Transactions are nested more than [`MAX_TXN_DEPTH`] deep.
    TooDeep,
    /// A list has more items, or a member's name or address more bytes, than can be read back.
    TooMuch,
}

impl fmt::Display for Unencodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unencodable::TooDeep => {
                write!(f, "transactions are nested more than {MAX_TXN_DEPTH} deep")
            }
            Unencodable::TooMuch => write!(
                f,
                "a list has more than {MAX_ITEMS} items, or a name or an address more than \
                 {MAX_TEXT} bytes"
            ),
        }
    }
}

impl std::error::Error for Unencodable {}

const PUT: u8 = 1;
const DELETE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const LEASE_GRANT: u8 = 5;
const LEASE_REVOKE: u8 = 6;
const LEASE_CHECKPOINT: u8 = 7;
const ALARM: u8 = 8;
const MEMBER: u8 = 9;
const RANGE: u8 = 10;
const LEASE_EXPIRE: u8 = 11;
const BRANCH: u8 = 12;
const BARRIER: u8 = 13;
const UNQUEUE: u8 = 14;
const CLAIM: u8 = 15;
const RELEASE: u8 = 16;
const FOUND_DIRECTORY: u8 = 32;

/// The bytes of a command.
pub fn encode(command: &Command) -> Result<Bytes, Unencodable> {
    let mut w = Writer::with_capacity(size_hint(command));
    w.u8(VERSION);
    match command {
        Command::Put(put) => {
            w.u8(PUT);
            write_put(&mut w, put);
        }
        Command::Delete(delete) => {
            w.u8(DELETE);
            write_delete(&mut w, delete);
        }
        Command::Txn(txn) => {
            w.u8(TXN);
            write_txn(&mut w, txn, 1)?;
        }
        Command::Compact { revision } => {
            w.u8(COMPACT).varint(*revision);
        }
        Command::LeaseGrant { id, ttl_seconds } => {
            w.u8(LEASE_GRANT).signed(*id).signed(*ttl_seconds);
        }
        Command::LeaseRevoke { id } => {
            w.u8(LEASE_REVOKE).signed(*id);
        }
        Command::LeaseExpire { id, ballot } => {
            w.u8(LEASE_EXPIRE).signed(*id).varint(ballot.round).varint(ballot.node.0);
        }
        Command::LeaseCheckpoint { ballot, number, remaining } => {
            w.u8(LEASE_CHECKPOINT).varint(ballot.round).varint(ballot.node.0).varint(*number);
            write_count(&mut w, remaining.len())?;
            for (id, seconds) in remaining {
                w.signed(*id).signed(*seconds);
            }
        }
        Command::Alarm { raise, member, alarm } => {
            w.u8(ALARM).bool(*raise).varint(member.0).u8(alarm_tag(*alarm));
        }
        Command::Member(change) => {
            w.u8(MEMBER);
            write_member_change(&mut w, change)?;
        }
        Command::Branch(command) => write_branch_command(w.u8(BRANCH), command)?,
        Command::Barrier { ranges } => {
            write_count(w.u8(BARRIER), ranges.len())?;
            ranges.iter().for_each(|range| write_key_range(&mut w, range));
        }
        Command::Unqueue { entries } => {
            write_count(w.u8(UNQUEUE), entries.len())?;
            for entry in entries {
                w.varint(*entry);
            }
        }
        Command::FoundDirectory { voters } => {
            write_count(w.u8(FOUND_DIRECTORY), voters.len())?;
            for voter in voters {
                w.varint(voter.0);
            }
        }
    }
    Ok(w.into_bytes())
}

/// Reads what comes before a branch command.
pub(crate) fn read_branch_head(r: &mut Reader) -> Result<(), DecodeError> {
    expect_version(r, "command version", VERSION)?;
    match r.u8()? {
        BRANCH => Ok(()),
        other => unknown("part of a branch command", other),
    }
}

/// Reads a command back; its keys and values share the memory of `bytes`.
pub fn decode(bytes: Bytes) -> Result<Command, DecodeError> {
    let mut r = Reader::new(bytes);
    expect_version(&mut r, "command version", VERSION)?;
    let command = match r.u8()? {
        PUT => Command::Put(read_put(&mut r)?),
        DELETE => Command::Delete(read_delete(&mut r)?),
        TXN => Command::Txn(read_txn(&mut r, 1)?),
        COMPACT => Command::Compact { revision: r.varint()? },
        LEASE_GRANT => Command::LeaseGrant { id: r.signed()?, ttl_seconds: r.signed()? },
        LEASE_REVOKE => Command::LeaseRevoke { id: r.signed()? },
        LEASE_EXPIRE => Command::LeaseExpire { id: r.signed()?, ballot: read_ballot(&mut r)? },
        LEASE_CHECKPOINT => {
            let (ballot, number) = (read_ballot(&mut r)?, r.varint()?);
            let remaining = read_list(&mut r, 2, |r| Ok((r.signed()?, r.signed()?)))?;
            Command::LeaseCheckpoint { ballot, number, remaining }
        }
        ALARM => Command::Alarm {
            raise: r.bool("alarm action")?,
            member: NodeId(r.varint()?),
            alarm: alarm_of(r.u8()?)?,
        },
        MEMBER => Command::Member(read_member_change(&mut r)?),
        BRANCH => Command::Branch(read_branch_command(&mut r)?),
        BARRIER => Command::Barrier { ranges: read_list(&mut r, 2, read_key_range)? },
        UNQUEUE => Command::Unqueue { entries: read_list(&mut r, 1, Reader::varint)? },
        FOUND_DIRECTORY => {
            let voters = read_list(&mut r, 1, |r| r.varint().map(NodeId))?;
            Command::FoundDirectory { voters }
        }
        other => return unknown("command", other),
    };
    r.finish()?;
    Ok(command)
}

fn size_hint(command: &Command) -> usize {
    match command {
        Command::Put(put) => put.key.len() + put.value.len() + 32,
        _ => 64,
    }
}

pub(crate) fn expect_version(
    r: &mut Reader,
    field: &'static str,
    version: u8,
) -> Result<(), DecodeError> {
    match r.u8()? {
        v if v == version => Ok(()),
        other => Err(DecodeError::Unknown { field, value: u64::from(other) }),
    }
}

pub(crate) fn unknown<T>(field: &'static str, value: u8) -> Result<T, DecodeError> {
    Err(DecodeError::Unknown { field, value: u64::from(value) })
}

fn read_ballot(r: &mut Reader) -> Result<Ballot, DecodeError> {
    Ok(Ballot { round: r.varint()?, node: NodeId(r.varint()?) })
}

/// Begins a list of so many items.
fn write_count(w: &mut Writer, items: usize) -> Result<(), Unencodable> {
    if items as u64 > MAX_ITEMS {
        return Err(Unencodable::TooMuch);
    }
    w.varint(items as u64);
    Ok(())
}

pub(crate) fn read_list<T>(
    r: &mut Reader,
    item_bytes: usize,
    mut item: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let n = r.count(MAX_ITEMS, item_bytes)?;
    let mut list = Vec::with_capacity(n.min(MAX_RESERVED));
    for _ in 0..n {
        list.push(item(r)?);
    }
    Ok(list)
}

/// Reads one byte of flags of which only the lowest `known` may be set.
pub(crate) fn read_flags(
    r: &mut Reader,
    field: &'static str,
    known: u32,
) -> Result<u8, DecodeError> {
    let flags = r.u8()?;
    if u32::from(flags) >> known != 0 { unknown(field, flags) } else { Ok(flags) }
}

fn write_key_range(w: &mut Writer, range: &KeyRange) {
    match range {
        KeyRange::One(key) => w.u8(1).bytes(key),
        KeyRange::Between(from, to) => w.u8(2).bytes(from).bytes(to),
        KeyRange::From(from) => w.u8(3).bytes(from),
    };
}

fn read_key_range(r: &mut Reader) -> Result<KeyRange, DecodeError> {
    Ok(match r.u8()? {
        1 => KeyRange::One(r.bytes(MAX_BYTES)?),
        2 => KeyRange::Between(r.bytes(MAX_BYTES)?, r.bytes(MAX_BYTES)?),
        3 => KeyRange::From(r.bytes(MAX_BYTES)?),
        other => return unknown("kind of key range", other),
    })
}

fn write_put(w: &mut Writer, put: &Put) {
    let flags =
        u8::from(put.prev_kv) | u8::from(put.ignore_value) << 1 | u8::from(put.ignore_lease) << 2;
    w.bytes(&put.key).bytes(&put.value).signed(put.lease).u8(flags);
}

fn read_put(r: &mut Reader) -> Result<Put, DecodeError> {
    let (key, value, lease) = (r.bytes(MAX_BYTES)?, r.bytes(MAX_BYTES)?, r.signed()?);
    let flags = read_flags(r, "put flags", 3)?;
    Ok(Put {
        key,
        value,
        lease,
        prev_kv: flags & 1 != 0,
        ignore_value: flags & 2 != 0,
        ignore_lease: flags & 4 != 0,
    })
}

fn write_delete(w: &mut Writer, delete: &Delete) {
    write_key_range(w, &delete.range);
    w.bool(delete.prev_kv);
}

fn read_delete(r: &mut Reader) -> Result<Delete, DecodeError> {
    Ok(Delete { range: read_key_range(r)?, prev_kv: r.bool("delete flag")? })
}

fn write_range(w: &mut Writer, range: &Range) {
    write_key_range(w, &range.range);
    w.varint(range.limit).varint(range.revision).u8(match range.sort {
        None => 0,
        Some((target, descending)) => 1 + 2 * sort_tag(target) + u8::from(descending),
    });
    w.u8(u8::from(range.keys_only) | u8::from(range.count_only) << 1);
    w.varint(range.mod_revision.0).varint(range.mod_revision.1);
    w.varint(range.create_revision.0).varint(range.create_revision.1);
}

fn read_range(r: &mut Reader) -> Result<Range, DecodeError> {
    let (range, limit, revision) = (read_key_range(r)?, r.varint()?, r.varint()?);
    let sort = match r.u8()? {
        0 => None,
        tag => Some((sort_of((tag - 1) / 2)?, (tag - 1) % 2 == 1)),
    };
    let flags = read_flags(r, "range flags", 2)?;
    Ok(Range {
        range,
        limit,
        revision,
        sort,
        keys_only: flags & 1 != 0,
        count_only: flags & 2 != 0,
        mod_revision: (r.varint()?, r.varint()?),
        create_revision: (r.varint()?, r.varint()?),
    })
}

fn sort_tag(target: SortTarget) -> u8 {
    match target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    }
}

fn sort_of(tag: u8) -> Result<SortTarget, DecodeError> {
    Ok(match tag {
        0 => SortTarget::Key,
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        other => return unknown("sort target", other),
    })
}

fn write_compare(w: &mut Writer, compare: &Compare) {
    write_key_range(w, &compare.range);
    w.u8(match compare.operator {
        CompareOperator::Equal => 0,
        CompareOperator::Greater => 1,
        CompareOperator::Less => 2,
        CompareOperator::NotEqual => 3,
    });
    match &compare.target {
        CompareTarget::Version(v) => w.u8(0).signed(*v),
        CompareTarget::Create(v) => w.u8(1).signed(*v),
        CompareTarget::Mod(v) => w.u8(2).signed(*v),
        CompareTarget::Value(v) => w.u8(3).bytes(v),
        CompareTarget::Lease(v) => w.u8(4).signed(*v),
        CompareTarget::Claim(v) => w.u8(5).signed(*v),
    };
}

fn read_compare(r: &mut Reader) -> Result<Compare, DecodeError> {
    let range = read_key_range(r)?;
    let operator = match r.u8()? {
        0 => CompareOperator::Equal,
        1 => CompareOperator::Greater,
        2 => CompareOperator::Less,
        3 => CompareOperator::NotEqual,
        other => return unknown("compare operator", other),
    };
    let target = match r.u8()? {
        0 => CompareTarget::Version(r.signed()?),
        1 => CompareTarget::Create(r.signed()?),
        2 => CompareTarget::Mod(r.signed()?),
        3 => CompareTarget::Value(r.bytes(MAX_BYTES)?),
        4 => CompareTarget::Lease(r.signed()?),
        5 => CompareTarget::Claim(r.signed()?),
        other => return unknown("compare target", other),
    };
    Ok(Compare { range, operator, target })
}

pub(crate) fn write_txn(w: &mut Writer, txn: &Txn, depth: usize) -> Result<(), Unencodable> {
    if depth > MAX_TXN_DEPTH {
        return Err(Unencodable::TooDeep);
    }
    write_count(w, txn.compare.len())?;
    for compare in &txn.compare {
        write_compare(w, compare);
    }
    for operations in [&txn.success, &txn.failure] {
        write_count(w, operations.len())?;
        for operation in operations {
            write_operation(w, operation, depth)?;
        }
    }
    Ok(())
}

fn write_operation(w: &mut Writer, operation: &Operation, depth: usize) -> Result<(), Unencodable> {
    match operation {
        Operation::Put(put) => write_put(w.u8(PUT), put),
        Operation::Delete(delete) => write_delete(w.u8(DELETE), delete),
        Operation::Txn(txn) => write_txn(w.u8(TXN), txn, depth + 1)?,
        Operation::Range(range) => write_range(w.u8(RANGE), range),
        Operation::Claim(claim) => write_claim(w.u8(CLAIM), claim),
        Operation::Release(claim) => write_claim(w.u8(RELEASE), claim),
    }
    Ok(())
}

fn write_claim(w: &mut Writer, claim: &Claim) {
    w.bytes(&claim.name).bytes(&claim.holder);
}

fn read_claim(r: &mut Reader) -> Result<Claim, DecodeError> {
    Ok(Claim { name: r.bytes(MAX_BYTES)?, holder: r.bytes(MAX_BYTES)? })
}

pub(crate) fn read_txn(r: &mut Reader, depth: usize) -> Result<Txn, DecodeError> {
    if depth > MAX_TXN_DEPTH {
        let (claimed, limit) = (depth as u64, MAX_TXN_DEPTH as u64);
        return Err(DecodeError::TooLong { claimed, limit });
    }
    Ok(Txn {
        compare: read_list(r, 5, read_compare)?,
        success: read_list(r, 3, |r| read_operation(r, depth))?,
        failure: read_list(r, 3, |r| read_operation(r, depth))?,
    })
}

fn read_operation(r: &mut Reader, depth: usize) -> Result<Operation, DecodeError> {
    Ok(match r.u8()? {
        PUT => Operation::Put(read_put(r)?),
        DELETE => Operation::Delete(read_delete(r)?),
        TXN => Operation::Txn(read_txn(r, depth + 1)?),
        RANGE => Operation::Range(read_range(r)?),
        CLAIM => Operation::Claim(read_claim(r)?),
        RELEASE => Operation::Release(read_claim(r)?),
        other => return unknown("operation", other),
    })
}

pub(crate) fn alarm_tag(alarm: Alarm) -> u8 {
    match alarm {
        Alarm::NoSpace => 1,
        Alarm::Corrupt => 2,
    }
}

pub(crate) fn alarm_of(tag: u8) -> Result<Alarm, DecodeError> {
    Ok(match tag {
        1 => Alarm::NoSpace,
        2 => Alarm::Corrupt,
        other => return unknown("alarm", other),
    })
}

fn write_texts(w: &mut Writer, texts: &[String]) {
    w.varint(texts.len() as u64);
    for text in texts {
        w.bytes(text.as_bytes());
    }
}

fn read_text(r: &mut Reader) -> Result<String, DecodeError> {
    let bytes = r.bytes(MAX_TEXT)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(e) => {
            Err(DecodeError::Unknown { field: "byte of a text", value: e.valid_up_to() as u64 })
        }
    }
}

fn read_texts(r: &mut Reader) -> Result<Vec<String>, DecodeError> {
    read_list(r, 1, read_text)
}

pub(crate) fn write_member(w: &mut Writer, member: &Member) {
    w.varint(member.id.0).bytes(member.name.as_bytes());
    write_texts(w, &member.peer_urls);
    write_texts(w, &member.client_urls);
    w.bool(member.learner);
}

pub(crate) fn read_member(r: &mut Reader) -> Result<Member, DecodeError> {
    Ok(Member {
        id: NodeId(r.varint()?),
        name: read_text(r)?,
        peer_urls: read_texts(r)?,
        client_urls: read_texts(r)?,
        learner: r.bool("learner flag")?,
    })
}

/// Whether what is said of a member can be read back.
fn check_texts<'a>(mut texts: impl Iterator<Item = &'a String>) -> Result<(), Unencodable> {
    match texts.all(|text| text.len() as u64 <= MAX_TEXT) {
        true => Ok(()),
        false => Err(Unencodable::TooMuch),
    }
}

fn write_member_change(w: &mut Writer, change: &MemberChange) -> Result<(), Unencodable> {
    match change {
        MemberChange::Add(Member { name, peer_urls, client_urls, .. }) => {
            check_texts(peer_urls.iter().chain(client_urls).chain([name]))?;
        }
        MemberChange::UpdatePeers { peer_urls, .. } => check_texts(peer_urls.iter())?,
        MemberChange::Publish { name, client_urls, .. } => {
            check_texts(client_urls.iter().chain([name]))?;
        }
        MemberChange::Promote(_) | MemberChange::Remove(_) => {}
    }
    match change {
        MemberChange::Add(member) => write_member(w.u8(1), member),
        MemberChange::Promote(id) => {
            w.u8(2).varint(id.0);
        }
        MemberChange::Remove(id) => {
            w.u8(3).varint(id.0);
        }
        MemberChange::UpdatePeers { id, peer_urls } => {
            write_texts(w.u8(4).varint(id.0), peer_urls);
        }
        MemberChange::Publish { id, name, client_urls } => {
            write_texts(w.u8(5).varint(id.0).bytes(name.as_bytes()), client_urls);
        }
    }
    Ok(())
}

fn read_member_change(r: &mut Reader) -> Result<MemberChange, DecodeError> {
    Ok(match r.u8()? {
        1 => MemberChange::Add(read_member(r)?),
        2 => MemberChange::Promote(NodeId(r.varint()?)),
        3 => MemberChange::Remove(NodeId(r.varint()?)),
        4 => MemberChange::UpdatePeers { id: NodeId(r.varint()?), peer_urls: read_texts(r)? },
        5 => MemberChange::Publish {
            id: NodeId(r.varint()?),
            name: read_text(r)?,
            client_urls: read_texts(r)?,
        },
        other => return unknown("change of members", other),
    })
}
