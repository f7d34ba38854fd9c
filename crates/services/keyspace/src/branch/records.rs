//! The records of branches and of waiting commands in the store's meta table.
//!
//! | record | name | value |
//! | --- | --- | --- |
//! | branch | `x`, length of the transaction's id, id, number | below |
//! | waiting command | `w` entry | below |
//!
//! The entry is eight bytes, the number four, both big-endian; the length is one byte.
//!
//! A branch: format 1 and its epoch; then 1 and the command: prepared; or 2 and the
//! revision: committed; or 3 and the reason: rolled back. A waiting command: format 1; node, run,
//! sequence and settled of its request; its priority; the keys of the lease that it ends, with
//! their number before; the command.

use super::bytes::{read_no, write_no};
use super::table::{Branch, Branches, Prepared, State, Waiter};
use super::{Age, BranchCommand, BranchId, LockSet, age::Tie};
use crate::codec::{self, expect_version, read_list, unknown};
use crate::command::Command;
use ::bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{Index, NodeId, RequestId};
use quorate_mvcc::{Engine, MAX_KEY_BYTES, Store, WriteTxn};
use quorate_service::ServiceError;

const FORMAT: u8 = 1;
const BRANCH: u8 = b'x';
const WAITING: u8 = b'w';

const PREPARED: u8 = 1;
const COMMITTED: u8 = 2;
const ROLLED_BACK: u8 = 3;

fn branch_name(id: &BranchId) -> Bytes {
    let mut w = Writer::with_capacity(id.transaction.len() + 6);
    // No longer id gets as far as a record.
    w.u8(BRANCH).u8(id.transaction.len() as u8).raw(&id.transaction);
    w.raw(&id.number.to_be_bytes());
    w.into_bytes()
}

fn read_branch_name(name: Bytes) -> Result<BranchId, DecodeError> {
    let mut r = Reader::new(name.slice(1..));
    let length = usize::from(r.u8()?);
    let transaction = r.take(length)?;
    let number = r.take(4)?.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    r.finish()?;
    Ok(BranchId { transaction, number })
}

fn waiting_name(entry: Index) -> [u8; 9] {
    let mut name = [WAITING; 9];
    name[1..].copy_from_slice(&entry.to_be_bytes());
    name
}

/// Writes what is known of a branch. A waiting one has the record of its waiting command.
pub(super) fn write_branch<E: Engine>(txn: &mut WriteTxn<'_, E>, id: &BranchId, branch: &Branch) {
    let mut w = Writer::with_capacity(64);
    w.u8(FORMAT).varint(branch.epoch);
    match &branch.state {
        State::Waiting(_) => return,
        State::Prepared(prepared) => {
            w.u8(PREPARED).raw(&prepared.body);
        }
        State::Committed(revision) => {
            w.u8(COMMITTED).varint(*revision);
        }
        State::RolledBack(no) => write_no(w.u8(ROLLED_BACK), no),
    }
    txn.put_meta(&branch_name(id), w.into_bytes());
}

pub(super) fn delete_branch<E: Engine>(txn: &mut WriteTxn<'_, E>, id: &BranchId) {
    txn.delete_meta(&branch_name(id));
}

pub(super) fn write_waiter<E: Engine>(txn: &mut WriteTxn<'_, E>, age: &Age, waiter: &Waiter) {
    let RequestId { node, run, sequence, settled } = waiter.request;
    let mut w = Writer::with_capacity(waiter.body.len() + 48);
    w.u8(FORMAT).varint(node.0).varint(run).varint(sequence).varint(settled);
    w.varint(age.priority).varint(waiter.lease_keys.len() as u64);
    for key in &waiter.lease_keys {
        w.bytes(key);
    }
    w.raw(&waiter.body);
    txn.put_meta(&waiting_name(waiter.entry), w.into_bytes());
}

pub(super) fn delete_waiter<E: Engine>(txn: &mut WriteTxn<'_, E>, entry: Index) {
    txn.delete_meta(&waiting_name(entry));
}

/// Reads everything back.
pub(super) fn load<E: Engine>(store: &Store<E>) -> Result<Branches, ServiceError> {
    let damaged = |e: DecodeError| ServiceError::Disk(format!("the record of a branch: {e}"));
    let mut branches = Branches::default();
    for (name, value) in store.metas(&[BRANCH]).map_err(crate::state::failed)? {
        let id = read_branch_name(name).map_err(damaged)?;
        let branch = read_branch(&id, value).map_err(damaged)?;
        branches.restore(id, branch);
    }
    for (name, value) in store.metas(&[WAITING]).map_err(crate::state::failed)? {
        let mut r = Reader::new(name.slice(1..));
        let entry = r.take(8).map_err(damaged)?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let (age, waiter) = read_waiter(entry, value).map_err(damaged)?;
        branches.restore_waiter(age, waiter);
    }
    Ok(branches)
}

fn read_branch(id: &BranchId, value: Bytes) -> Result<Branch, DecodeError> {
    let mut r = Reader::new(value);
    expect_version(&mut r, "branch format", FORMAT)?;
    let epoch = r.varint()?;
    let state = match r.u8()? {
        PREPARED => {
            let body = r.rest();
            let Command::Branch(BranchCommand::Prepare(prepare)) = codec::decode(body.clone())?
            else {
                return unknown("command of a prepared branch", PREPARED);
            };
            let age = Age::of_branch(prepare.priority, id);
            let locks = LockSet::of_branch(&prepare);
            return Ok(Branch {
                epoch,
                state: State::Prepared(Box::new(Prepared { prepare, age, locks, body })),
            });
        }
        COMMITTED => State::Committed(r.varint()?),
        ROLLED_BACK => State::RolledBack(read_no(&mut r)?),
        other => return unknown("state of a branch", other),
    };
    r.finish()?;
    Ok(Branch { epoch, state })
}

fn read_waiter(entry: Index, value: Bytes) -> Result<(Age, Waiter), DecodeError> {
    let mut r = Reader::new(value);
    expect_version(&mut r, "format of a waiting command", FORMAT)?;
    let request = RequestId {
        node: NodeId(r.varint()?),
        run: r.varint()?,
        sequence: r.varint()?,
        settled: r.varint()?,
    };
    let priority = r.varint()?;
    let lease_keys = read_list(&mut r, 1, |r| r.bytes(MAX_KEY_BYTES as u64))?;
    let body = r.rest();
    let command = codec::decode(body.clone())?;
    let age = match &command {
        Command::Branch(BranchCommand::Prepare(p)) if !p.one_phase => {
            Age::of_branch(priority, &p.id)
        }
        _ => Age { priority, tie: Tie::Entry(entry) },
    };
    let locks = LockSet::of(&command).with_keys(&lease_keys);
    Ok((age, Waiter { entry, request, command, locks, lease_keys, body }))
}
