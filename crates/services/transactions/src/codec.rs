//! The bytes of a record. `docs/transactions.md` has the table. Version 4 is written; the versions
//! before it, which knew less, are read.

use crate::id::MAX_ID_BYTES;
use crate::record::{
    BranchRecord, BranchState, Carried, Kind, MAX_BRANCHES, MAX_CARRIED, Owner, Record, Stage,
    Verdict, Voted,
};
use bytes::Bytes;
use quorate_atomic_commit::Protocol;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{GroupId, NodeId};

const VERSION: u8 = 4;
/// Of the versions before, the first knew no asker, the third alone knew bundles, and none a
/// branch's vote and times.
const WITHOUT_ASKER: u8 = 1;
const BUNDLE: u8 = 3;
const WITH_VOTES: u8 = 4;
const MAX_NAME_BYTES: u64 = 256;
const MAX_TEXT_BYTES: u64 = 4_096;

impl Record {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let bytes = 64 + 72 * self.branches.len() + 56 * self.carried.len();
        let mut w = Writer::with_capacity(bytes);
        w.u8(VERSION);
        w.u64(wide(self.content >> 64)).u64(wide(self.content));
        w.u8(protocol_code(self.protocol));
        w.u64(self.owner.node.0).u64(self.owner.run);
        w.u64(self.asker.node.0).u64(self.asker.run);
        w.varint(self.epoch.into()).varint(self.asked.into());
        w.varint(self.began_ms).varint(self.patience_ms).varint(self.changed_ms);
        match &self.stage {
            Stage::Open => {
                w.u8(1);
            }
            Stage::Decided(verdict) => write_verdict(w.u8(2), verdict),
            Stage::Finished(verdict) => write_verdict(w.u8(3), verdict),
        }
        w.varint(self.branches.len() as u64);
        for branch in &self.branches {
            w.bytes(branch.name.as_bytes()).u8(kind_code(branch.kind));
            w.bytes(branch.participant.as_bytes()).varint(branch.group.0);
            write_state(&mut w, &branch.state);
            w.u8(branch.vote.map_or(0, vote_code));
            w.varint(since(self.began_ms, branch.voted_ms));
            w.varint(since(self.began_ms, branch.ended_ms));
            write_text(&mut w, &branch.trouble);
        }
        w.varint(self.carried.len() as u64);
        for carried in self.carried.iter() {
            w.bytes(carried.id.as_bytes());
            w.u64(wide(carried.content >> 64)).u64(wide(carried.content));
        }
        w.into_bytes()
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`]: a newer version wrote it, or nobody of ours.
    pub fn decode(bytes: Bytes) -> Result<Record, DecodeError> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if !(WITHOUT_ASKER..=VERSION).contains(&version) {
            return unknown("version of a transaction's record", version);
        }
        let content = read_content(&mut r)?;
        let protocol = protocol_of(r.u8()?)?;
        let owner = read_owner(&mut r)?;
        let asker = match version {
            WITHOUT_ASKER => Owner::default(),
            _ => read_owner(&mut r)?,
        };
        let (epoch, asked) = (number(&mut r)?, number(&mut r)?);
        let (began_ms, patience_ms, changed_ms) = (r.varint()?, r.varint()?, r.varint()?);
        let stage = match r.u8()? {
            1 => Stage::Open,
            2 => Stage::Decided(read_verdict(&mut r)?),
            3 => Stage::Finished(read_verdict(&mut r)?),
            other => return unknown("stage of a transaction", other),
        };
        let n = r.count(MAX_BRANCHES as u64, 6)?;
        let branches =
            (0..n).map(|_| read_branch(&mut r, version, began_ms)).collect::<Result<_, _>>()?;
        let n = match version {
            BUNDLE.. => r.count(MAX_CARRIED as u64, 17)?,
            _ => 0,
        };
        let carried = (0..n).map(|_| read_carried(&mut r)).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Record {
            content,
            protocol,
            owner,
            asker,
            epoch,
            asked,
            began_ms,
            patience_ms,
            changed_ms,
            stage,
            branches,
            carried,
        })
    }
}

fn read_content(r: &mut Reader) -> Result<u128, DecodeError> {
    Ok((u128::from(r.u64()?) << 64) | u128::from(r.u64()?))
}

fn read_carried(r: &mut Reader) -> Result<Carried, DecodeError> {
    Ok(Carried { id: text(r, MAX_ID_BYTES as u64)?, content: read_content(r)? })
}

/// The lower half.
#[allow(clippy::cast_possible_truncation)]
fn wide(half: u128) -> u64 {
    half as u64
}

pub(crate) fn unknown<T>(field: &'static str, value: u8) -> Result<T, DecodeError> {
    Err(DecodeError::Unknown { field, value: value.into() })
}

fn read_owner(r: &mut Reader) -> Result<Owner, DecodeError> {
    Ok(Owner { node: NodeId(r.u64()?), run: r.u64()? })
}

fn number(r: &mut Reader) -> Result<u32, DecodeError> {
    let value = r.varint()?;
    u32::try_from(value).map_err(|_| DecodeError::Unknown { field: "epoch", value })
}

pub(crate) fn text(r: &mut Reader, limit: u64) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&r.bytes(limit)?).into_owned())
}

/// Texts of participants can be longer than what is kept of them.
pub(crate) fn write_text(w: &mut Writer, text: &str) {
    let mut end = text.len().min(usize::try_from(MAX_TEXT_BYTES).unwrap_or(usize::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    w.bytes(&text.as_bytes()[..end]);
}

fn protocol_code(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::TwoPhase => 1,
        Protocol::ThreePhase => 2,
        Protocol::PaxosCommit => 3,
        Protocol::NaiveThreePhase => 4,
    }
}

fn protocol_of(code: u8) -> Result<Protocol, DecodeError> {
    let all = Protocol::ALL.into_iter();
    match all.into_iter().find(|protocol| protocol_code(*protocol) == code) {
        Some(protocol) => Ok(protocol),
        None => unknown("protocol of a transaction", code),
    }
}

pub(crate) fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Keyspace => 1,
        Kind::Postgres => 2,
        Kind::MariaDb => 3,
        Kind::Http => 4,
    }
}

pub(crate) fn kind_of(code: u8) -> Result<Kind, DecodeError> {
    match Kind::ALL.into_iter().find(|kind| kind_code(*kind) == code) {
        Some(kind) => Ok(kind),
        None => unknown("kind of a participant", code),
    }
}

fn write_verdict(w: &mut Writer, verdict: &Verdict) {
    match verdict {
        Verdict::Commit => {
            w.u8(1);
        }
        Verdict::Abort { branch, reason } => {
            // Zero is no branch.
            w.u8(2).varint(branch.map_or(0, |branch| u64::from(branch) + 1));
            write_text(w, reason);
        }
    }
}

fn read_verdict(r: &mut Reader) -> Result<Verdict, DecodeError> {
    match r.u8()? {
        1 => Ok(Verdict::Commit),
        2 => {
            let value = r.varint()?;
            let branch = value.checked_sub(1).map(u16::try_from).transpose();
            let branch = branch.map_err(|_| DecodeError::Unknown { field: "branch", value })?;
            Ok(Verdict::Abort { branch, reason: text(r, MAX_TEXT_BYTES)? })
        }
        other => unknown("verdict on a transaction", other),
    }
}

fn write_state(w: &mut Writer, state: &BranchState) {
    match state {
        BranchState::Asked => {
            w.u8(1);
        }
        BranchState::Prepared => {
            w.u8(2);
        }
        BranchState::ReadOnly => {
            w.u8(3);
        }
        BranchState::Refused(why) => write_text(w.u8(4), why),
        BranchState::Committed(revision) => {
            w.u8(5).varint(*revision);
        }
        BranchState::RolledBack => {
            w.u8(6);
        }
        BranchState::Heuristic(what) => write_text(w.u8(7), what),
        BranchState::Acknowledged(what) => write_text(w.u8(8), what),
    }
}

fn vote_code(vote: Voted) -> u8 {
    match vote {
        Voted::Yes => 1,
        Voted::ReadOnly => 2,
        Voted::No => 3,
    }
}

fn vote_of(code: u8) -> Result<Option<Voted>, DecodeError> {
    match code {
        0 => Ok(None),
        1 => Ok(Some(Voted::Yes)),
        2 => Ok(Some(Voted::ReadOnly)),
        3 => Ok(Some(Voted::No)),
        other => unknown("vote of a branch", other),
    }
}

/// What a state says of the vote, in the versions that have none.
fn vote_in(state: &BranchState) -> Option<Voted> {
    match state {
        BranchState::Prepared | BranchState::Committed(_) => Some(Voted::Yes),
        BranchState::ReadOnly => Some(Voted::ReadOnly),
        BranchState::Refused(_) => Some(Voted::No),
        BranchState::Asked
        | BranchState::RolledBack
        | BranchState::Heuristic(_)
        | BranchState::Acknowledged(_) => None,
    }
}

/// A time as it is kept: one more than the milliseconds since the beginning, for zero is none. A
/// clock that was set back meanwhile makes it the beginning.
fn since(began_ms: u64, ms: u64) -> u64 {
    match ms {
        0 => 0,
        ms => ms.saturating_sub(began_ms).saturating_add(1),
    }
}

fn read_since(r: &mut Reader, began_ms: u64) -> Result<u64, DecodeError> {
    let since = r.varint()?;
    Ok(since.checked_sub(1).map_or(0, |since| began_ms.saturating_add(since)))
}

fn read_branch(r: &mut Reader, version: u8, began_ms: u64) -> Result<BranchRecord, DecodeError> {
    let name = text(r, MAX_NAME_BYTES)?;
    let kind = kind_of(r.u8()?)?;
    let participant = text(r, MAX_NAME_BYTES)?;
    let group = GroupId(r.varint()?);
    let state = match r.u8()? {
        1 => BranchState::Asked,
        2 => BranchState::Prepared,
        3 => BranchState::ReadOnly,
        4 => BranchState::Refused(text(r, MAX_TEXT_BYTES)?),
        5 => BranchState::Committed(r.varint()?),
        6 => BranchState::RolledBack,
        7 => BranchState::Heuristic(text(r, MAX_TEXT_BYTES)?),
        8 => BranchState::Acknowledged(text(r, MAX_TEXT_BYTES)?),
        other => return unknown("state of a branch", other),
    };
    let (vote, voted_ms, ended_ms) = match version {
        WITH_VOTES.. => (vote_of(r.u8()?)?, read_since(r, began_ms)?, read_since(r, began_ms)?),
        _ => (vote_in(&state), 0, 0),
    };
    let trouble = text(r, MAX_TEXT_BYTES)?;
    let head = BranchRecord::keyspace(&name, &participant, group);
    Ok(BranchRecord { kind, state, vote, voted_ms, ended_ms, trouble, ..head })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn record() -> Record {
        let branch = |name: &str, kind, group, state, vote, (voted_ms, ended_ms)| BranchRecord {
            kind,
            state,
            vote: Some(vote),
            voted_ms,
            ended_ms,
            ..BranchRecord::keyspace(name, "k", GroupId(group))
        };
        let refused = BranchState::Refused("no".to_owned());
        Record {
            content: (7 << 64) | 9,
            protocol: Protocol::TwoPhase,
            owner: Owner { node: NodeId(2), run: 5 },
            asker: Owner { node: NodeId(3), run: 6 },
            epoch: 3,
            asked: 2,
            began_ms: 1,
            patience_ms: 300,
            changed_ms: 4,
            stage: Stage::Decided(Verdict::Abort { branch: Some(1), reason: "no".to_owned() }),
            branches: vec![
                branch("a", Kind::Keyspace, 16, BranchState::Prepared, Voted::Yes, (1, 0)),
                branch("b", Kind::Postgres, 0, refused, Voted::No, (9, 9)),
            ],
            carried: Arc::default(),
        }
    }

    const HEAD: [u8; 17] = [7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1];
    const OWNER: [u8; 16] = [2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    const ASKER: [u8; 16] = [3, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    const STAGE: [u8; 13] = [3, 2, 1, 0xac, 2, 4, 2, 2, 2, 2, b'n', b'o', 2];
    const CARRIED: [u8; 19] = [1, 1, b'x', 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];

    fn bundle() -> Record {
        Record {
            carried: [Carried { id: "x".to_owned(), content: (1 << 64) | 2 }].into(),
            ..record()
        }
    }

    #[test]
    fn golden_bytes() {
        let branches = [
            &[1, b'a', 1, 1, b'k', 16, 2, 1, 1, 0, 0][..],
            &[1, b'b', 2, 1, b'k', 0, 4, 2, b'n', b'o', 3, 9, 9, 0],
        ];
        let head = [&[4][..], &HEAD, &OWNER, &ASKER, &STAGE, &branches.concat()].concat();
        for (record, carried) in [(record(), &[0][..]), (bundle(), &CARRIED)] {
            let bytes = record.encode();
            assert_eq!(bytes, [&head, carried].concat());
            for cut in 0..bytes.len() {
                assert!(Record::decode(bytes.slice(..cut)).is_err());
            }
            assert_eq!(Record::decode(bytes), Ok(record));
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let branches =
            [&[1, b'a', 1, 1, b'k', 16, 2, 0][..], &[1, b'b', 2, 1, b'k', 0, 4, 2, b'n', b'o', 0]];
        let rest = [&STAGE[..], &branches.concat()].concat();
        let untimed = |mut record: Record| {
            for branch in &mut record.branches {
                (branch.voted_ms, branch.ended_ms) = (0, 0);
            }
            record
        };
        let first = Record { asker: Owner::default(), ..record() };
        for (bytes, record) in [
            ([&[1][..], &HEAD, &OWNER, &rest].concat(), first),
            ([&[2][..], &HEAD, &OWNER, &ASKER, &rest].concat(), record()),
            ([&[3][..], &HEAD, &OWNER, &ASKER, &rest, &CARRIED].concat(), bundle()),
        ] {
            assert_eq!(Record::decode(bytes.into()), Ok(untimed(record)));
        }
        for version in [0, 5] {
            let bytes = [&[version][..], &HEAD, &OWNER, &ASKER, &rest].concat();
            assert!(Record::decode(bytes.into()).is_err());
        }
    }

    #[test]
    fn every_state_and_stage_comes_back() {
        let states = [
            BranchState::Asked,
            BranchState::ReadOnly,
            BranchState::Committed(900),
            BranchState::RolledBack,
            BranchState::Heuristic("by hand".to_owned()),
            BranchState::Acknowledged("by hand".to_owned()),
        ];
        let abort = Verdict::Abort { branch: None, reason: "late".to_owned() };
        for stage in [Stage::Open, Stage::Finished(Verdict::Commit), Stage::Finished(abort)] {
            for state in &states {
                let mut record = Record { stage: stage.clone(), ..record() };
                record.branches[0].state = state.clone();
                record.branches[1].vote = [None, Some(Voted::ReadOnly)][state.is_void() as usize];
                assert_eq!(Record::decode(record.encode()), Ok(record));
            }
        }
        let long = "ü".repeat(4_000);
        let mut record = record();
        record.branches[0].state = BranchState::Heuristic(long);
        assert!(Record::decode(record.encode()).is_ok(), "a long text is cut");
    }
}
