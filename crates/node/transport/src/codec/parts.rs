//! The parts that several messages share.

use crate::error::Oversized;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{Ballot, NodeId, Position, RequestId};
use quorate_replicated_log::{Base, Change, Epoch, Membership, Protocol};

/// The longest list in a message. An append of the default limits holds at most 32,769 entries.
pub const MAX_ITEMS: u64 = 65_536;

/// The longest list of a membership.
const MAX_MEMBERS: u64 = 1_024;

/// A request id is at least a node and three one-byte varints.
pub const REQUEST_BYTES_MIN: usize = 11;

pub fn check_items(n: usize) -> Result<(), Oversized> {
    if n as u64 > MAX_ITEMS { Err(Oversized { items: n }) } else { Ok(()) }
}

pub fn put_ballot(ballot: Ballot, w: &mut Writer) {
    w.varint(ballot.round).u64(ballot.node.0);
}

pub fn ballot(r: &mut Reader) -> Result<Ballot, DecodeError> {
    Ok(Ballot::new(r.varint()?, NodeId(r.u64()?)))
}

pub fn put_position(position: Position, w: &mut Writer) {
    w.varint(position.index);
    put_ballot(position.ballot, w);
}

pub fn position(r: &mut Reader) -> Result<Position, DecodeError> {
    Ok(Position::new(r.varint()?, ballot(r)?))
}

/// A base as version 1 has it: of a log that is in its first epoch.
pub fn put_first_base(base: &Base, w: &mut Writer) -> Result<(), Oversized> {
    put_position(base.position, w);
    put_membership(&base.membership, w)
}

pub fn first_base(r: &mut Reader) -> Result<Base, DecodeError> {
    Ok(Base { position: position(r)?, membership: membership(r)?, ..Base::default() })
}

pub fn put_base(base: &Base, w: &mut Writer) -> Result<(), Oversized> {
    put_first_base(base, w)?;
    put_epoch(base.epoch, w);
    put_protocol(base.protocol, w);
    Ok(())
}

pub fn base(r: &mut Reader) -> Result<Base, DecodeError> {
    let first = first_base(r)?;
    Ok(Base { epoch: epoch(r)?, protocol: protocol(r)?, ..first })
}

pub fn put_epoch(epoch: Epoch, w: &mut Writer) {
    w.varint(u64::from(epoch.0));
}

pub fn epoch(r: &mut Reader) -> Result<Epoch, DecodeError> {
    let number = r.varint()?;
    let too_long = |_| DecodeError::TooLong { claimed: number, limit: u64::from(u32::MAX) };
    u32::try_from(number).map(Epoch).map_err(too_long)
}

pub fn put_protocol(protocol: Protocol, w: &mut Writer) {
    w.u8(protocol.code());
}

pub fn protocol(r: &mut Reader) -> Result<Protocol, DecodeError> {
    let code = r.u8()?;
    let unknown = DecodeError::Unknown { field: "protocol", value: code.into() };
    Protocol::of_code(code).ok_or(unknown)
}

pub fn put_membership(membership: &Membership, w: &mut Writer) -> Result<(), Oversized> {
    for list in [&membership.voters, &membership.outgoing, &membership.learners] {
        if list.len() as u64 > MAX_MEMBERS {
            return Err(Oversized { items: list.len() });
        }
        w.varint(list.len() as u64);
        for node in list {
            w.u64(node.0);
        }
    }
    Ok(())
}

pub fn membership(r: &mut Reader) -> Result<Membership, DecodeError> {
    Ok(Membership { voters: nodes(r)?, outgoing: nodes(r)?, learners: nodes(r)? })
}

/// A list of nodes, which must be sorted and free of duplicates.
fn nodes(r: &mut Reader) -> Result<Vec<NodeId>, DecodeError> {
    let n = r.count(MAX_MEMBERS, 8)?;
    let mut nodes: Vec<NodeId> = Vec::with_capacity(n);
    for _ in 0..n {
        let node = NodeId(r.u64()?);
        if nodes.last().is_some_and(|last| *last >= node) {
            return Err(DecodeError::Unknown { field: "order of members", value: node.0 });
        }
        nodes.push(node);
    }
    Ok(nodes)
}

pub fn put_change(change: &Change, w: &mut Writer) {
    match change {
        Change::AddLearner(node) => w.u8(1).u64(node.0),
        Change::AddVoter(node) => w.u8(2).u64(node.0),
        Change::Remove(node) => w.u8(3).u64(node.0),
        Change::Keep => w.u8(4),
        Change::Promote(node) => w.u8(5).u64(node.0),
    };
}

pub fn change(r: &mut Reader) -> Result<Change, DecodeError> {
    Ok(match r.u8()? {
        1 => Change::AddLearner(NodeId(r.u64()?)),
        2 => Change::AddVoter(NodeId(r.u64()?)),
        3 => Change::Remove(NodeId(r.u64()?)),
        4 => Change::Keep,
        5 => Change::Promote(NodeId(r.u64()?)),
        other => {
            return Err(DecodeError::Unknown { field: "change of members", value: other.into() });
        }
    })
}

pub fn put_request(request: &RequestId, w: &mut Writer) {
    w.u64(request.node.0).varint(request.run).varint(request.sequence).varint(request.settled);
}

pub fn request(r: &mut Reader) -> Result<RequestId, DecodeError> {
    Ok(RequestId {
        node: NodeId(r.u64()?),
        run: r.varint()?,
        sequence: r.varint()?,
        settled: r.varint()?,
    })
}
