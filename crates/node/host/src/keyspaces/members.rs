//! The members of groups follow the directory, and the directory follows the cluster's members.
//! Who is about to leave the cluster counts as gone already, for the directory itself as soon as
//! nothing else is left there.
//!
//! A group's leader takes one step at a time: see `quorate-placement`.

use super::record::Phase;
use super::{Record, SYSTEM, TRANSACTIONS, directory};
use crate::handle::{KeyspaceHandle, NodeHandle};
use quorate_base::NodeId;
use quorate_driver::RequestError;
use quorate_keyspace::codec;
use quorate_keyspace::command::{Command, Txn};
use quorate_mvcc::Revision;
use quorate_placement::{Replicas, Step, next_step};
use quorate_replicated_log::{Change, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one step may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How many replicas each node has.
type Load = BTreeMap<NodeId, usize>;

/// Does so as long as the node lives.
pub(crate) async fn follow_members(handle: NodeHandle) {
    loop {
        sleep(PAUSE).await;
        found_directory(&handle).await;
        let Some(system) = handle.directory() else { continue };
        let cluster = handle.membership();
        if cluster.is_joint() {
            continue;
        }
        let (load, leaving) = (handle.shared().table.load(), handle.shared().table.leaving());
        let mut steps = JoinSet::new();
        for keyspace in handle.hosted() {
            let leads = keyspace.consensus().role == Role::Leader;
            if leads && keyspace.id() >= SYSTEM {
                let cluster = staying(&keyspace, &cluster.voters, &leaving, &load);
                if let Some(task) = task(&keyspace, &cluster, &load) {
                    steps.spawn(carry_out(keyspace, system.clone(), task));
                }
            }
        }
        if system.consensus().role == Role::Leader {
            let gone = handle.reader().removed_members();
            forget_who_left(&system, gone, &leaving).await;
        }
        while steps.join_next().await.is_some() {}
    }
}

/// The members that this keyspace can have replicas at.
fn staying(
    keyspace: &KeyspaceHandle,
    cluster: &[NodeId],
    leaving: &BTreeSet<NodeId>,
    load: &Load,
) -> Vec<NodeId> {
    // Who leaves reads the directory until the last of its replicas is elsewhere: it may lead.
    let is_needed = |node: &NodeId| keyspace.id() == SYSTEM && load.contains_key(node);
    cluster.iter().copied().filter(|node| !leaving.contains(node) || is_needed(node)).collect()
}

/// Removes the marks of those that the cluster does not have any more: an id never comes back.
async fn forget_who_left(
    system: &KeyspaceHandle,
    mut gone: Vec<NodeId>,
    leaving: &BTreeSet<NodeId>,
) {
    gone.retain(|node| leaving.contains(node));
    if !gone.is_empty()
        && let Err(error) = directory::change(system, directory::left(&gone), TIMEOUT).await
    {
        tracing::debug!(?error, "could not forget yet who has left");
    }
}

/// Until it is done, the leader of the default keyspace founds the directory.
async fn found_directory(handle: &NodeHandle) {
    let leads = handle.consensus().role == Role::Leader;
    if !leads || handle.reader().directory_voters().is_some() {
        return;
    }
    let members = handle.membership();
    if members.is_joint() || members.voters.is_empty() {
        return;
    }
    if let Ok(body) = codec::encode(&Command::FoundDirectory { voters: members.voters })
        && let Err(error) = handle.propose(body, TIMEOUT).await
    {
        tracing::debug!(?error, "could not found the directory of keyspaces yet");
    }
}

/// What is to be done about a keyspace's members.
enum Task {
    /// A step of its group.
    Change(Step),
    /// Another record in the place of the one of this revision.
    List(Record, Revision),
}

/// Most need nothing, most of the time.
fn task(keyspace: &KeyspaceHandle, cluster: &[NodeId], load: &Load) -> Option<Task> {
    let members = keyspace.membership();
    if keyspace.id() == SYSTEM {
        let view = Replicas {
            cluster,
            wanted: cluster.len(),
            voting: cluster.len(),
            listed: cluster,
            members: &members,
            load,
        };
        return next_step(&view).map(Task::Change);
    }
    let (record, at) = keyspace.node.table.listed(keyspace.id())?;
    // Having applied more than where it begins it has had a leader: this one.
    let begun = keyspace.consensus().applied > 1;
    let wanted = match record.name == TRANSACTIONS {
        true => cluster.len(),
        false => usize::try_from(record.wanted).unwrap_or(usize::MAX),
    };
    let view = Replicas {
        cluster,
        wanted,
        voting: if record.has_one_vote() { 1 } else { wanted },
        listed: &record.replicas,
        members: &members,
        load,
    };
    match (record.phase, next_step(&view)) {
        (Phase::Founding, _) if begun => {
            Some(Task::List(Record { phase: Phase::Serving, ..record }, at))
        }
        (Phase::Founding, _) | (_, None) => None,
        (_, Some(Step::List(replicas))) => Some(Task::List(Record { replicas, ..record }, at)),
        (_, Some(step)) => Some(Task::Change(step)),
    }
}

async fn carry_out(keyspace: KeyspaceHandle, system: KeyspaceHandle, task: Task) {
    let done = match task {
        Task::Change(Step::Remove(node)) if keyspace.id() == SYSTEM => part(&keyspace, node).await,
        Task::Change(step) => change(&keyspace, step).await,
        Task::List(record, at) => {
            let txn = directory::replace(keyspace.id(), at, &record);
            directory::change(&system, txn, TIMEOUT).await.map(drop)
        }
    };
    told(&keyspace, done);
}

fn told(keyspace: &KeyspaceHandle, done: Result<(), RequestError>) {
    if let Err(error) = done {
        let name = keyspace.name();
        tracing::debug!(name, ?error, "a step towards the keyspace's members failed");
    }
}

/// Removes a member from the directory's group; it does so itself, where it can lead: then it knows
/// that it has left, which nobody tells a follower, and can say so to whoever asked it to leave.
async fn part(system: &KeyspaceHandle, node: NodeId) -> Result<(), RequestError> {
    let is_here = system.node.default.board.membership.lock().contains(node);
    if is_here && node != system.node() && system.transfer(node, TIMEOUT).await.is_ok() {
        return Ok(());
    }
    change(system, Step::Remove(node)).await
}

/// Changes the group's members. The context is a transaction that does nothing.
async fn change(keyspace: &KeyspaceHandle, step: Step) -> Result<(), RequestError> {
    let wanted = match step {
        Step::AddLearner(node) => Change::AddLearner(node),
        Step::Promote(node) => Change::Promote(node),
        Step::Remove(node) => Change::Remove(node),
        Step::List(_) => return Ok(()),
    };
    let Ok(context) = codec::encode(&Command::Txn(Txn::default())) else { return Ok(()) };
    let judged = keyspace.consensus().applied;
    tracing::info!(name = keyspace.name(), change = ?wanted, "a keyspace's members change");
    keyspace.change(wanted, judged, context, TIMEOUT).await.map(drop)
}
