//! A keyspace's record in the directory.
//!
//! Format version 1: byte 1, the name, the protocol (a byte), the phase (a byte), the number of
//! replicas wanted, then the founders and the nodes that have replicas, each a count and ids of
//! eight bytes. Counts are varints. Of `transactions`, which has a replica on every member, zero
//! wanted says that one of them votes. Under `group/` and the group's number, 16 hexadecimal
//! digits; under `name/` and the name is that number, under `next` the first that was never given.
//! Under `leaving/` and a member's id, 16 hexadecimal digits, is nothing: it gets no replicas.

use super::TRANSACTIONS;
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{GroupId, NodeId};
use quorate_replicated_log::Protocol;

const VERSION: u8 = 1;
const MAX_NODES: u64 = 64;
const MAX_NAME_BYTES: u64 = 1_024;

/// Where the next group's number is.
pub(crate) const NEXT: &[u8] = b"next";
/// What the keys of records begin with.
pub(crate) const GROUPS: &[u8] = b"group/";

/// How far a keyspace has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Its founders begin it.
    Founding = 1,
    /// It has had a leader: who comes now is sent its state, and does not begin it.
    Serving = 2,
}

/// What the directory says of a keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub name: String,
    pub protocol: Protocol,
    pub phase: Phase,
    /// How many replicas it should have; [`ONE_VOTE`].
    pub wanted: u64,
    /// Who began it.
    pub founders: Vec<NodeId>,
    /// Who has a replica, or is about to.
    pub replicas: Vec<NodeId>,
}

/// Wanted replicas of `transactions`, where one member votes and the others follow.
pub(crate) const ONE_VOTE: u64 = 0;

/// The key of a group's record.
pub(crate) fn key(group: GroupId) -> Bytes {
    Bytes::from(format!("group/{:016x}", group.0))
}

/// The group of a record's key.
pub(crate) fn group_of(key: &[u8]) -> Option<GroupId> {
    let digits = std::str::from_utf8(key.strip_prefix(GROUPS)?).ok()?;
    u64::from_str_radix(digits, 16).ok().map(GroupId)
}

/// The key of a name.
pub(crate) fn name_key(name: &str) -> Bytes {
    Bytes::from(format!("name/{name}"))
}

/// A group's number as a value.
pub(crate) fn number(group: u64) -> Bytes {
    Bytes::from(format!("{group:016x}"))
}

/// The key that says that a member is to have no replicas, for it leaves the cluster.
pub(crate) fn leaving_key(node: NodeId) -> Bytes {
    Bytes::from(format!("leaving/{:016x}", node.0))
}

/// The member of such a key.
pub(crate) fn leaving_of(key: &[u8]) -> Option<NodeId> {
    read_number(key.strip_prefix(b"leaving/")?).map(NodeId)
}

/// The number in such a value.
pub(crate) fn read_number(value: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()
}

impl Record {
    /// Whether one replica votes, however many there are.
    pub fn has_one_vote(&self) -> bool {
        self.name == TRANSACTIONS && self.wanted == ONE_VOTE
    }

    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION).bytes(self.name.as_bytes()).u8(self.protocol.code());
        w.u8(self.phase as u8).varint(self.wanted);
        for list in [&self.founders, &self.replicas] {
            w.varint(list.len() as u64);
            for node in list {
                w.u64(node.0);
            }
        }
        w.into_bytes()
    }

    pub fn decode(bytes: Bytes) -> Result<Record, DecodeError> {
        let mut r = Reader::new(bytes);
        let unknown = |field, value: u8| DecodeError::Unknown { field, value: value.into() };
        let version = r.u8()?;
        if version != VERSION {
            return Err(unknown("version of a keyspace's record", version));
        }
        let name = r.bytes(MAX_NAME_BYTES)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let code = r.u8()?;
        let protocol = Protocol::of_code(code).ok_or_else(|| unknown("protocol", code))?;
        let phase = match r.u8()? {
            1 => Phase::Founding,
            2 => Phase::Serving,
            other => return Err(unknown("phase of a keyspace", other)),
        };
        let wanted = r.varint()?;
        let mut list = || -> Result<Vec<NodeId>, DecodeError> {
            let n = r.count(MAX_NODES, 8)?;
            (0..n).map(|_| r.u64().map(NodeId)).collect()
        };
        let (founders, replicas) = (list()?, list()?);
        r.finish()?;
        Ok(Record { name, protocol, phase, wanted, founders, replicas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_version_1() {
        let record = || Record {
            name: "ab".into(),
            protocol: Protocol::Paxos,
            phase: Phase::Serving,
            wanted: 3,
            founders: vec![NodeId(1)],
            replicas: vec![NodeId(2), NodeId(258)],
        };
        let bytes = record().encode();
        let golden = [
            &[1, 2, b'a', b'b', 2, 2, 3, 1, 1, 0, 0, 0, 0, 0, 0, 0][..],
            &[2, 2, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, golden.concat());
        assert_eq!(Record::decode(bytes.clone()), Ok(record()));
        for cut in 0..bytes.len() {
            assert!(Record::decode(bytes.slice(..cut)).is_err());
        }
        let transactions = Record { name: TRANSACTIONS.into(), wanted: ONE_VOTE, ..record() };
        assert!(transactions.has_one_vote());
        assert!(!Record { wanted: 1, ..transactions.clone() }.has_one_vote());
        assert!(!Record { wanted: ONE_VOTE, ..record() }.has_one_vote(), "of this one alone");
        assert_eq!(Record::decode(transactions.encode()), Ok(transactions));
        assert_eq!(key(GroupId(17)), "group/0000000000000011");
        assert_eq!(group_of(&key(GroupId(u64::MAX))), Some(GroupId(u64::MAX)));
        assert_eq!(group_of(b"name/x"), None);
        assert_eq!(read_number(&number(18)), Some(18));
        assert_eq!(leaving_key(NodeId(18)), "leaving/0000000000000012");
        assert_eq!(leaving_of(&leaving_key(NodeId(18))), Some(NodeId(18)));
        assert_eq!((leaving_of(b"leaving/x"), leaving_of(&key(GroupId(1)))), (None, None));
    }
}
