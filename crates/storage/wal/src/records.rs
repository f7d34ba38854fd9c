//! Records: how the writes of a batch become rows and payloads, and back.

use crate::block::BlockBuilder;
use crate::row::{Kind, Row};
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{Ballot, GroupId, Index, NodeId, Position};
use quorate_replicated_log::{Base, Entry, Epoch, HardState, Membership, Payload, Protocol, Write};

/// Most members of one kind that a membership may have.
const MEMBERS_LIMIT: u64 = 1 << 16;

/// The kinds of entries: nothing, a command, members, a leader's ballot, the end of an epoch.
const ENTRY: [Kind; 5] = [Kind::Noop, Kind::Command, Kind::Members, Kind::Lead, Kind::Seal];
/// Of those that go in their slots.
const SLOT: [Kind; 5] =
    [Kind::SlotNoop, Kind::SlotCommand, Kind::SlotMembers, Kind::SlotLead, Kind::SlotSeal];

/// A truncation from this index on: the group is forgotten, its base and hard state included.
pub const FORGET_GROUP: Index = 0;

/// Appends a write's records in the order in which its parts take effect. Where it is a part of
/// one, and takes entries away, `in_doubt_to` is the last of those that are to take their place.
pub fn push_write(
    builder: &mut BlockBuilder,
    group: GroupId,
    write: &Write,
    in_doubt_to: Option<Index>,
) {
    if write.is_forget() {
        builder.push(Kind::Truncate, group, FORGET_GROUP, Ballot::ZERO, Bytes::new());
        return;
    }
    if let Some(base) = &write.reset {
        push_base(builder, Kind::Reset, group, base);
    }
    if let Some(base) = &write.compact {
        push_base(builder, Kind::Compact, group, base);
    }
    if let Some(from) = write.truncate_from {
        let until = Ballot::new(in_doubt_to.unwrap_or(0), NodeId::NONE);
        builder.push(Kind::Truncate, group, from, until, Bytes::new());
    }
    for entry in write.entries.iter() {
        push_entry(builder, group, entry, &ENTRY);
    }
    for entry in write.slots.iter().flat_map(|run| run.iter()) {
        push_entry(builder, group, entry, &SLOT);
    }
    if let Some(hard_state) = &write.hard_state {
        push_hard_state(builder, group, hard_state);
    }
}

/// Appends a hard state.
pub fn push_hard_state(builder: &mut BlockBuilder, group: GroupId, hard_state: &HardState) {
    let HardState { promised, commit } = *hard_state;
    builder.push(Kind::HardState, group, commit, promised, Bytes::new());
}

/// Appends a base, twice: nothing else on this disk could make up for its payload.
pub fn push_base(builder: &mut BlockBuilder, kind: Kind, group: GroupId, base: &Base) {
    let mut payload = Writer::new();
    write_membership(&mut payload, &base.membership);
    payload.u32(base.epoch.0).u8(base.protocol.code());
    let payload = payload.into_bytes();
    for _ in 0..2 {
        let Position { index, ballot } = base.position;
        builder.push(kind, group, index, ballot, payload.clone());
    }
}

fn push_entry(builder: &mut BlockBuilder, group: GroupId, entry: &Entry, kinds: &[Kind; 5]) {
    let [noop, with_command, with_members, with_ballot, seal] = *kinds;
    let (kind, payload) = match &entry.payload {
        Payload::Noop => (noop, Bytes::new()),
        Payload::Command(command) => (with_command, command.clone()),
        Payload::Lead(ballot) => {
            let mut payload = Writer::new();
            payload.u64(ballot.round).u64(ballot.node.0);
            (with_ballot, payload.into_bytes())
        }
        Payload::Seal { next, ballot } => {
            let mut payload = Writer::new();
            payload.u64(ballot.round).u64(ballot.node.0).u8(next.code());
            (seal, payload.into_bytes())
        }
        Payload::Members { membership, context } => {
            let mut payload = Writer::new();
            write_membership(&mut payload, membership);
            payload.raw(context);
            (with_members, payload.into_bytes())
        }
    };
    builder.push(kind, group, entry.index, entry.ballot, payload);
}

/// Bytes of an entry's payload in the log.
pub fn payload_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Noop => 0,
        Payload::Command(command) => command.len(),
        Payload::Lead(_) => 16,
        Payload::Seal { .. } => 17,
        Payload::Members { membership, context } => membership_bytes(membership) + context.len(),
    }
}

/// The entry that a row and its payload describe.
pub fn read_entry(row: &Row, payload: Bytes) -> Result<Entry, DecodeError> {
    let payload = match row.kind {
        Kind::Noop | Kind::SlotNoop => Payload::Noop,
        Kind::Command | Kind::SlotCommand => Payload::Command(payload),
        Kind::Lead | Kind::SlotLead => {
            let mut r = Reader::new(payload);
            let ballot = Ballot::new(r.u64()?, NodeId(r.u64()?));
            r.finish()?;
            Payload::Lead(ballot)
        }
        Kind::Seal | Kind::SlotSeal => {
            let mut r = Reader::new(payload);
            let ballot = Ballot::new(r.u64()?, NodeId(r.u64()?));
            let next = read_protocol(&mut r)?;
            r.finish()?;
            Payload::Seal { next, ballot }
        }
        Kind::Members | Kind::SlotMembers => {
            let mut r = Reader::new(payload);
            let membership = read_membership(&mut r)?;
            Payload::members(membership, r.rest())
        }
        other => return Err(DecodeError::Unknown { field: "entry kind", value: other as u64 }),
    };
    Ok(Entry { index: row.index, ballot: row.ballot, payload })
}

/// The base that a row and its payload describe. In format 1 it names no epoch: that is the first,
/// under the protocol `unnamed`.
pub fn read_base(row: &Row, payload: Bytes, unnamed: Protocol) -> Result<Base, DecodeError> {
    let mut r = Reader::new(payload);
    let membership = read_membership(&mut r)?;
    let position = Position::new(row.index, row.ballot);
    if r.remaining() == 0 {
        return Ok(Base::first(position, membership, unnamed));
    }
    let (epoch, protocol) = (Epoch(r.u32()?), read_protocol(&mut r)?);
    r.finish()?;
    Ok(Base { position, membership, epoch, protocol })
}

fn read_protocol(r: &mut Reader) -> Result<Protocol, DecodeError> {
    let code = r.u8()?;
    let unknown = DecodeError::Unknown { field: "protocol", value: code.into() };
    Protocol::of_code(code).ok_or(unknown)
}

fn membership_bytes(membership: &Membership) -> usize {
    let lists = [&membership.voters, &membership.outgoing, &membership.learners];
    lists.into_iter().map(|list| 10 + 8 * list.len()).sum()
}

/// Upper bound of a base's payload in bytes.
pub fn base_bytes(base: &Base) -> usize {
    membership_bytes(&base.membership) + 5
}

fn write_membership(w: &mut Writer, membership: &Membership) {
    for list in [&membership.voters, &membership.outgoing, &membership.learners] {
        w.varint(list.len() as u64);
        for node in list {
            w.u64(node.0);
        }
    }
}

fn read_membership(r: &mut Reader) -> Result<Membership, DecodeError> {
    let mut list = || -> Result<Vec<NodeId>, DecodeError> {
        let n = r.count(MEMBERS_LIMIT, 8)?;
        (0..n).map(|_| r.u64().map(NodeId)).collect()
    };
    Ok(Membership { voters: list()?, outgoing: list()?, learners: list()? })
}
