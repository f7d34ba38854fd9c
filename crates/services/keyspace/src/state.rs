//! The replicated state beside the keys: base, sessions, members, alarms and leases, each with
//! small named records in the store that are written in the same batch as the keys.
//!
//! | record | name | value |
//! | --- | --- | --- |
//! | base | `b` | format, position, voters, outgoing, learners, epoch, protocol |
//! | session | `s` node | [`Session`] |
//! | member | `m` node | 1 and the member, or 0 for one that left |
//! | alarm | `a` node tag | nothing |
//! | lease | `l` id | granted and checkpointed seconds |
//! | attached key | `k` id key | nothing |
//! | checkpoint fence | `c` | ballot and number of the last checkpoint |
//! | branches and those who wait for them | `x`, `w` | [`crate::branch`] |
//! | claim | `n` name | [`crate::claims`] |
//! | directory of keyspaces | `d` | its first voters |
//!
//! Nodes and ids are eight bytes, big-endian. Described in `docs/keyspace.md`.

use crate::asked::{Asked, Asks};
use crate::branch::{Branches, Change, LockTable};
use crate::claims::Claims;
use crate::codec::{alarm_of, alarm_tag};
use crate::command::{Alarm, Member};
use crate::leases::{Lease, Leases};
use crate::members::Members;
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{Ballot, NodeId, Position};
use quorate_mvcc::{Engine, LeaseId, Store, WriteTxn};
use quorate_replicated_log::{Base, Epoch, Membership, Protocol};
use quorate_service::{ServiceError, Session, Sessions};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The version of the records above.
const FORMAT: u8 = 2;
/// The version before, in which the base ends with the learners: its epoch is the first.
const WITHOUT_EPOCH: u8 = 1;
/// Members in one list of the base.
const MAX_MEMBERS: u64 = 1 << 16;

const BASE: &[u8] = b"b";
const FENCE: &[u8] = b"c";
const DIRECTORY: &[u8] = b"d";
const SESSION: u8 = b's';
const MEMBER: u8 = b'm';
const ALARM: u8 = b'a';
const LEASE: u8 = b'l';
const ATTACHED: u8 = b'k';

/// What readers on other threads see of the state.
#[derive(Default, Debug)]
pub(crate) struct Shared {
    leases: RwLock<Leases>,
    board: RwLock<Arc<Board>>,
    /// Who has locks as of the state of the keys that readers see.
    locks: RwLock<LockTable>,
    /// Whether anything is known of branches.
    branches: AtomicBool,
    /// Who asks: no part of the state.
    asks: Mutex<Asks>,
}

/// Members and alarms: replaced as a whole, and rarely.
#[derive(Clone, Default, Debug)]
pub(crate) struct Board {
    pub members: Members,
    pub alarms: BTreeSet<(NodeId, Alarm)>,
    /// The first voters of the directory of keyspaces, once it is founded.
    pub directory: Option<Vec<NodeId>>,
}

impl Shared {
    pub fn leases<T>(&self, read: impl FnOnce(&Leases) -> T) -> T {
        read(&self.leases.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn change_leases<T>(&self, change: impl FnOnce(&mut Leases) -> T) -> T {
        change(&mut self.leases.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads while the locks and the state of the keys stay those of one batch.
    pub fn locks<T>(&self, read: impl FnOnce(&LockTable) -> T) -> T {
        read(&self.locks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows readers other locks and, with `publish`, the state of the keys that they belong to.
    pub fn change_locks<T>(&self, changes: Vec<Change>, publish: impl FnOnce() -> T) -> T {
        let mut locks = self.locks.write().unwrap_or_else(PoisonError::into_inner);
        let published = publish();
        for change in changes {
            match change {
                Change::Locked(age, set) => locks.insert(&age, &set),
                Change::Released(age, set) => locks.remove(&age, &set),
            }
        }
        published
    }

    /// Shows readers another state altogether.
    pub fn replace(
        &self,
        publish: impl FnOnce() -> Result<State, ServiceError>,
    ) -> Result<State, ServiceError> {
        let mut locks = self.locks.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = publish()?;
        *locks = state.branches.held().clone();
        state.branches.take_changes();
        self.tell_branches(&state.branches);
        Ok(state)
    }

    pub fn board(&self) -> Arc<Board> {
        self.board.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether anything is known of branches, as of some batch that was applied lately.
    pub fn knows_branches(&self) -> bool {
        self.branches.load(Relaxed)
    }

    pub fn tell_branches(&self, branches: &Branches) {
        self.branches.store(!branches.is_empty(), Relaxed);
    }

    pub fn asked(&self) -> Vec<(NodeId, Asked)> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).list()
    }

    pub fn count_asked(&self, more: &Asks) {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).add(more);
    }

    fn set_board(&self, board: Board) {
        *self.board.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(board);
    }
}

/// The state. Its owner is the thread that applies.
#[derive(Debug)]
pub(crate) struct State {
    pub base: Base,
    pub sessions: Sessions,
    pub board: Board,
    /// Ballot and number of the last checkpoint of leases.
    pub fence: (Ballot, u64),
    pub branches: Branches,
    /// The claims of late.
    pub claims: Claims,
    pub shared: Arc<Shared>,
}

impl State {
    /// Reads the state back from the store, or tells that the store was never used. `unnamed` is
    /// the protocol of a base that names none.
    pub fn load<E: Engine>(
        store: &Store<E>,
        shared: Arc<Shared>,
        unnamed: Protocol,
    ) -> Result<Option<State>, ServiceError> {
        let damaged = |e: DecodeError| ServiceError::Disk(format!("a record of the keyspace: {e}"));
        let Some(base) = store.meta(BASE).map_err(failed)? else { return Ok(None) };
        let mut state = State {
            base: read_base(base, unnamed).map_err(damaged)?,
            sessions: Sessions::default(),
            board: Board::default(),
            fence: (Ballot::ZERO, 0),
            branches: Branches::default(),
            claims: Claims::new(store.revision()),
            shared,
        };
        if let Some(bytes) = store.meta(FENCE).map_err(failed)? {
            state.fence = read_fence(bytes).map_err(damaged)?;
        }
        if let Some(bytes) = store.meta(DIRECTORY).map_err(failed)? {
            state.board.directory = Some(read_nodes(bytes).map_err(damaged)?);
        }
        for (name, value) in store.metas(&[SESSION]).map_err(failed)? {
            let mut r = Reader::new(value);
            let session = Session::read(&mut r).map_err(damaged)?;
            r.finish().map_err(damaged)?;
            state.sessions.restore(node_in(&name).map_err(damaged)?, session);
        }
        for (name, value) in store.metas(&[MEMBER]).map_err(failed)? {
            let id = node_in(&name).map_err(damaged)?;
            state.board.members.restore(id, value).map_err(damaged)?;
        }
        for (name, _) in store.metas(&[ALARM]).map_err(failed)? {
            let alarm = alarm_of(name.last().copied().unwrap_or(0)).map_err(damaged)?;
            state.board.alarms.insert((node_in(&name).map_err(damaged)?, alarm));
        }
        state.branches = Branches::load(store)?;
        let leases = load_leases(store)?;
        state.shared.change_leases(|shared| *shared = leases);
        state.publish_board();
        Ok(Some(state))
    }

    /// The state of a new keyspace, written at once.
    pub fn create<E: Engine>(
        store: &mut Store<E>,
        shared: Arc<Shared>,
        base: Base,
        members: Vec<Member>,
    ) -> Result<State, ServiceError> {
        let mut state = State {
            base,
            sessions: Sessions::default(),
            board: Board::default(),
            fence: (Ballot::ZERO, 0),
            branches: Branches::default(),
            claims: Claims::new(store.revision()),
            shared,
        };
        for member in members {
            state.board.members.insert(member);
        }
        let mut txn = store.begin();
        for id in state.board.members.ids() {
            state.write_member(&mut txn, id);
        }
        state.write_base(&mut txn);
        txn.commit(state.base.position.index).map_err(failed)?;
        state.shared.change_leases(|leases| *leases = Leases::default());
        state.publish_board();
        Ok(state)
    }

    /// Shows members and alarms to readers.
    pub fn publish_board(&self) {
        self.shared.set_board(self.board.clone());
    }

    pub fn raised(&self, alarm: Alarm) -> bool {
        self.board.alarms.iter().any(|(_, raised)| *raised == alarm)
    }

    pub fn write_base<E: Engine>(&self, txn: &mut WriteTxn<'_, E>) {
        txn.put_meta(BASE, encode_base(&self.base));
    }

    pub fn write_session<E: Engine>(&self, txn: &mut WriteTxn<'_, E>, node: NodeId) {
        if let Some(session) = self.sessions.get(node) {
            let mut w = Writer::with_capacity(32);
            session.write(&mut w);
            txn.put_meta(&name_of(SESSION, node.0), w.into_bytes());
        }
    }

    pub fn write_member<E: Engine>(&self, txn: &mut WriteTxn<'_, E>, id: NodeId) {
        if let Some(record) = self.board.members.encode(id) {
            txn.put_meta(&name_of(MEMBER, id.0), record);
        }
    }

    pub fn write_directory<E: Engine>(&self, txn: &mut WriteTxn<'_, E>) {
        if let Some(voters) = &self.board.directory {
            let mut w = Writer::new();
            w.varint(voters.len() as u64);
            voters.iter().for_each(|node| {
                w.varint(node.0);
            });
            txn.put_meta(DIRECTORY, w.into_bytes());
        }
    }

    pub fn write_alarm<E: Engine>(txn: &mut WriteTxn<'_, E>, at: (NodeId, Alarm), raised: bool) {
        let mut name = name_of(ALARM, at.0.0).to_vec();
        name.push(alarm_tag(at.1));
        match raised {
            true => txn.put_meta(&name, Bytes::new()),
            false => txn.delete_meta(&name),
        }
    }

    pub fn write_fence<E: Engine>(&self, txn: &mut WriteTxn<'_, E>) {
        let (ballot, number) = self.fence;
        let mut w = Writer::new();
        w.varint(ballot.round).varint(ballot.node.0).varint(number);
        txn.put_meta(FENCE, w.into_bytes());
    }
}

pub(crate) fn write_lease<E: Engine>(txn: &mut WriteTxn<'_, E>, id: LeaseId, lease: &Lease) {
    txn.put_meta(&name_of(LEASE, id as u64), lease.encode());
}

pub(crate) fn delete_lease<E: Engine>(txn: &mut WriteTxn<'_, E>, id: LeaseId) {
    txn.delete_meta(&name_of(LEASE, id as u64));
}

pub(crate) fn write_attached<E: Engine>(
    txn: &mut WriteTxn<'_, E>,
    id: LeaseId,
    key: &[u8],
    attached: bool,
) {
    let mut name = Vec::with_capacity(key.len() + 9);
    name.extend_from_slice(&name_of(ATTACHED, id as u64));
    name.extend_from_slice(key);
    match attached {
        true => txn.put_meta(&name, Bytes::new()),
        false => txn.delete_meta(&name),
    }
}

/// What a failure of the store means to the service.
pub(crate) fn failed(e: quorate_mvcc::Error) -> ServiceError {
    use quorate_mvcc::Error;
    match e {
        Error::Full(_) => ServiceError::Full(e.to_string()),
        Error::Peer(_) => ServiceError::Peer(e.to_string()),
        Error::Corrupt(_) => ServiceError::Damaged(e.to_string()),
        Error::Compacted { .. } | Error::Future { .. } | Error::KeyTooLong { .. } => {
            ServiceError::Caller(e.to_string())
        }
        _ => ServiceError::Disk(e.to_string()),
    }
}

fn load_leases<E: Engine>(store: &Store<E>) -> Result<Leases, ServiceError> {
    let damaged = |e: DecodeError| ServiceError::Damaged(format!("a lease's record: {e}"));
    let mut leases = Leases::default();
    for (name, value) in store.metas(&[LEASE]).map_err(failed)? {
        let (id, _) = number_in(&name).map_err(damaged)?;
        leases.insert(id as LeaseId, Lease::decode(value).map_err(damaged)?);
    }
    for (name, _) in store.metas(&[ATTACHED]).map_err(failed)? {
        let (id, key) = number_in(&name).map_err(damaged)?;
        let Some(lease) = leases.get_mut(id as LeaseId) else {
            return Err(ServiceError::Damaged(format!("a key is attached to no lease: {id:x}")));
        };
        lease.keys.insert(key);
    }
    Ok(leases)
}

fn name_of(kind: u8, number: u64) -> [u8; 9] {
    let mut name = [kind; 9];
    name[1..].copy_from_slice(&number.to_be_bytes());
    name
}

/// The number in a record's name, and what follows it.
fn number_in(name: &Bytes) -> Result<(u64, Bytes), DecodeError> {
    match name.get(1..9).and_then(|b| <[u8; 8]>::try_from(b).ok()) {
        Some(bytes) => Ok((u64::from_be_bytes(bytes), name.slice(9..))),
        None => Err(DecodeError::Truncated { missing: 9usize.saturating_sub(name.len()) }),
    }
}

fn node_in(name: &Bytes) -> Result<NodeId, DecodeError> {
    number_in(name).map(|(number, _)| NodeId(number))
}

fn encode_base(base: &Base) -> Bytes {
    let Position { index, ballot } = base.position;
    let mut w = Writer::with_capacity(64);
    w.u8(FORMAT).varint(index).varint(ballot.round).varint(ballot.node.0);
    let Membership { voters, outgoing, learners } = &base.membership;
    for list in [voters, outgoing, learners] {
        w.varint(list.len() as u64);
        for node in list {
            w.varint(node.0);
        }
    }
    w.varint(u64::from(base.epoch.0)).u8(base.protocol.code());
    w.into_bytes()
}

fn read_base(bytes: Bytes, unnamed: Protocol) -> Result<Base, DecodeError> {
    let unknown = |field, value| DecodeError::Unknown { field, value };
    let mut r = Reader::new(bytes);
    let format = r.u8()?;
    if !(WITHOUT_EPOCH..=FORMAT).contains(&format) {
        return Err(unknown("keyspace format", format.into()));
    }
    let index = r.varint()?;
    let ballot = Ballot { round: r.varint()?, node: NodeId(r.varint()?) };
    let mut list = || {
        let n = r.count(MAX_MEMBERS, 1)?;
        (0..n).map(|_| r.varint().map(NodeId)).collect::<Result<Vec<_>, DecodeError>>()
    };
    let membership = Membership { voters: list()?, outgoing: list()?, learners: list()? };
    let position = Position { index, ballot };
    if format == WITHOUT_EPOCH {
        r.finish()?;
        return Ok(Base::first(position, membership, unnamed));
    }
    let epoch = r.varint()?;
    let epoch = u32::try_from(epoch).map(Epoch).map_err(|_| unknown("epoch", epoch))?;
    let code = r.u8()?;
    let protocol = Protocol::of_code(code).ok_or(unknown("protocol", code.into()))?;
    r.finish()?;
    Ok(Base { position, membership, epoch, protocol })
}

fn read_nodes(bytes: Bytes) -> Result<Vec<NodeId>, DecodeError> {
    let mut r = Reader::new(bytes);
    let n = r.count(MAX_MEMBERS, 1)?;
    let nodes = (0..n).map(|_| r.varint().map(NodeId)).collect::<Result<_, _>>()?;
    r.finish()?;
    Ok(nodes)
}

fn read_fence(bytes: Bytes) -> Result<(Ballot, u64), DecodeError> {
    let mut r = Reader::new(bytes);
    let ballot = Ballot { round: r.varint()?, node: NodeId(r.varint()?) };
    let number = r.varint()?;
    r.finish()?;
    Ok((ballot, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(epoch: u32, protocol: Protocol) -> Base {
        let position = Position { index: 300, ballot: Ballot::new(2, NodeId(1)) };
        let mut membership = Membership::of([NodeId(1), NodeId(2)]);
        membership.learners = vec![NodeId(3)];
        Base { position, membership, epoch: Epoch(epoch), protocol }
    }

    const GOLDEN: [u8; 11] = [1, 0xac, 2, 2, 1, 2, 1, 2, 0, 1, 3];

    #[test]
    fn golden_bytes_of_both_formats() {
        let mut golden = GOLDEN.to_vec();
        golden[0] = 2;
        golden.extend_from_slice(&[7, 2]);
        let now = base(7, Protocol::Paxos);
        assert_eq!(&encode_base(&now)[..], &golden[..]);
        assert_eq!(read_base(golden.into(), Protocol::Raft), Ok(now));
        let old = read_base(Bytes::from_static(&GOLDEN), Protocol::Paxos);
        assert_eq!(old, Ok(base(0, Protocol::Paxos)), "the protocol is the directory's");
    }

    #[test]
    fn what_is_newer_or_cut_off_is_refused() {
        let whole = encode_base(&base(1, Protocol::Raft));
        assert!((0..whole.len()).all(|n| read_base(whole.slice(..n), Protocol::Raft).is_err()));
        let mut newer = whole.to_vec();
        newer[0] = 3;
        assert!(read_base(newer.into(), Protocol::Raft).is_err());
    }
}
