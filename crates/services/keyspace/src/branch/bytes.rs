//! The bytes of a [`BranchCommand`], and of what is remembered of a branch.
//!
//! As in [`crate::codec`]: a tag, the fields in order; unknown tags and bits are refused.

use super::{BranchCommand, BranchId, MAX_TOGETHER, MAX_TXNS, No, Part, Prepare};
use crate::codec::{
    MAX_BYTES, Unencodable, read_branch_head as read_head, read_flags, read_txn, unknown, write_txn,
};
use crate::reply::KeyspaceError;
use ::bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};

const PREPARE: u8 = 1;
const COMMIT: u8 = 2;
const ROLLBACK: u8 = 3;
const FORGET: u8 = 4;
const RESOLVE: u8 = 5;
const TOGETHER: u8 = 6;

const OR_ELSE: u8 = 1;
const ONE_PHASE: u8 = 2;
/// Their number comes first; else there is one.
const SEVERAL: u8 = 4;

pub(crate) fn write_branch_command(
    w: &mut Writer,
    command: &BranchCommand,
) -> Result<(), Unencodable> {
    let (tag, id, epoch) = match command {
        BranchCommand::Prepare(prepare) => (PREPARE, &prepare.id, prepare.epoch),
        BranchCommand::Commit { id, epoch } => (COMMIT, id, *epoch),
        BranchCommand::Rollback { id, epoch } => (ROLLBACK, id, *epoch),
        BranchCommand::Forget { id, epoch } => (FORGET, id, *epoch),
        BranchCommand::Resolve { id, epoch } => (RESOLVE, id, *epoch),
        BranchCommand::Together(parts) if parts.len() > MAX_TOGETHER => {
            return Err(Unencodable::TooMuch);
        }
        BranchCommand::Together(parts) => {
            w.u8(TOGETHER).varint(parts.len() as u64);
            for part in parts {
                w.bytes(&part.body);
            }
            return Ok(());
        }
    };
    w.u8(tag).bytes(&id.transaction).varint(u64::from(id.number)).varint(epoch);
    if let BranchCommand::Prepare(prepare) = command {
        if prepare.txns.len() > MAX_TXNS {
            return Err(Unencodable::TooMuch);
        }
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let several = prepare.txns.len() != 1;
        let flags = flag(prepare.or_else, OR_ELSE) | flag(prepare.one_phase, ONE_PHASE);
        w.varint(prepare.priority).u8(flags | flag(several, SEVERAL));
        if several {
            w.varint(prepare.txns.len() as u64);
        }
        for txn in prepare.txns.iter() {
            write_txn(w, txn, 1)?;
        }
    }
    Ok(())
}

pub(crate) fn read_branch_command(r: &mut Reader) -> Result<BranchCommand, DecodeError> {
    match r.u8()? {
        TOGETHER => {
            let n = r.count(MAX_TOGETHER as u64, 1)?;
            let parts = (0..n).map(|_| read_part(r.bytes(MAX_BYTES)?));
            parts.collect::<Result<_, _>>().map(BranchCommand::Together)
        }
        tag => read_one(tag, r),
    }
}

/// A part is a whole command on a branch, but never several again.
fn read_part(body: Bytes) -> Result<Part, DecodeError> {
    let mut r = Reader::new(body.clone());
    read_head(&mut r)?;
    let command = match r.u8()? {
        TOGETHER => return unknown("part of a branch command", TOGETHER),
        tag => read_one(tag, &mut r)?,
    };
    r.finish()?;
    match &command {
        BranchCommand::Prepare(prepare) if prepare.one_phase => {
            unknown("part of a branch command", PREPARE)
        }
        _ => Ok(Part { command, body }),
    }
}

fn read_one(tag: u8, r: &mut Reader) -> Result<BranchCommand, DecodeError> {
    // One that is too long is refused when it is applied, with a better word for it.
    let transaction = r.bytes(MAX_BYTES)?;
    let claimed = r.varint()?;
    let number = u32::try_from(claimed)
        .map_err(|_| DecodeError::TooLong { claimed, limit: u64::from(u32::MAX) })?;
    let (id, epoch) = (BranchId { transaction, number }, r.varint()?);
    Ok(match tag {
        PREPARE => {
            let (priority, flags) = (r.varint()?, read_flags(r, "branch flags", 3)?);
            let n = match flags & SEVERAL {
                0 => 1,
                _ => r.count(MAX_TXNS as u64, 1)?,
            };
            BranchCommand::Prepare(Prepare {
                id,
                epoch,
                priority,
                txns: (0..n).map(|_| read_txn(r, 1)).collect::<Result<_, _>>()?,
                or_else: flags & OR_ELSE != 0,
                one_phase: flags & ONE_PHASE != 0,
            })
        }
        COMMIT => BranchCommand::Commit { id, epoch },
        ROLLBACK => BranchCommand::Rollback { id, epoch },
        FORGET => BranchCommand::Forget { id, epoch },
        RESOLVE => BranchCommand::Resolve { id, epoch },
        other => return unknown("branch command", other),
    })
}

const TOLD: u8 = 1;
const COMPARE_FAILED: u8 = 2;
const CONFLICT: u8 = 3;
const WAITED: u8 = 4;
const REFUSED: u8 = 5;
const OWN_REVISION: u8 = 6;

pub(super) fn write_no(w: &mut Writer, no: &No) {
    match no {
        No::Told => w.u8(TOLD),
        No::CompareFailed => w.u8(COMPARE_FAILED),
        No::Conflict { priority } => w.u8(CONFLICT).varint(*priority),
        No::Waited => w.u8(WAITED),
        No::Refused(why) => w.u8(REFUSED).u8(refusal_tag(*why)),
        No::OwnRevision => w.u8(OWN_REVISION),
    };
}

pub(super) fn read_no(r: &mut Reader) -> Result<No, DecodeError> {
    Ok(match r.u8()? {
        TOLD => No::Told,
        COMPARE_FAILED => No::CompareFailed,
        CONFLICT => No::Conflict { priority: r.varint()? },
        WAITED => No::Waited,
        REFUSED => {
            let tag = r.u8()?;
            match REFUSALS.iter().find(|(_, known)| *known == tag) {
                Some((why, _)) => No::Refused(*why),
                None => return unknown("refusal", tag),
            }
        }
        OWN_REVISION => No::OwnRevision,
        other => return unknown("reason of a rollback", other),
    })
}

fn refusal_tag(why: KeyspaceError) -> u8 {
    REFUSALS.iter().find(|(known, _)| *known == why).map_or(0, |(_, tag)| *tag)
}

const REFUSALS: [(KeyspaceError, u8); 16] = [
    (KeyspaceError::Unsupported, 0),
    (KeyspaceError::Compacted, 1),
    (KeyspaceError::FutureRevision, 2),
    (KeyspaceError::KeyNotFound, 3),
    (KeyspaceError::LeaseNotFound, 4),
    (KeyspaceError::LeaseExists, 5),
    (KeyspaceError::LeaseTtlTooLarge, 6),
    (KeyspaceError::NoSpace, 7),
    (KeyspaceError::Corrupt, 8),
    (KeyspaceError::MemberNotFound, 9),
    (KeyspaceError::MemberExists, 10),
    (KeyspaceError::PeerUrlExists, 11),
    (KeyspaceError::NotLearner, 12),
    (KeyspaceError::TooManyLearners, 13),
    (KeyspaceError::Locked, 14),
    (KeyspaceError::TooManyWaiting, 15),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_read_back() {
        let mut all = vec![No::Told, No::CompareFailed, No::Waited, No::OwnRevision];
        all.push(No::Conflict { priority: u64::MAX });
        all.extend(REFUSALS.map(|(why, _)| No::Refused(why)));
        for no in all {
            let mut w = Writer::new();
            write_no(&mut w, &no);
            let mut r = Reader::new(w.into_bytes());
            assert_eq!(read_no(&mut r), Ok(no));
            assert_eq!(r.finish(), Ok(()));
        }
    }
}
