//! What is asked of keyspaces: all that waits for one keyspace goes with one command, so that an
//! entry of its log is shared by as many branches as are under way.
//!
//! Invariants: every command gets its own outcome or an error, after which it is asked again.
//! Nothing that may wait for locks is under way here: it would hold up the others.

use crate::keyspace::trouble;
use crate::service::Inner;
use parking_lot::Mutex;
use quorate_base::GroupId;
use quorate_host::KeyspaceHandle;
use quorate_keyspace::branch::{MAX_TOGETHER, Part};
use quorate_keyspace::reply::Outcome;
use quorate_keyspace::{BranchCommand, BranchOutcome, Command, KeyspaceError, Reply, codec};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How long one request may take. A branch may wait for locks so long, and is answered when it is
/// rolled back.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands under way to one keyspace: while they are, the next ones gather.
const AT_A_TIME: usize = 1;
/// Bytes that go together: far less than a command may have.
const MOST_BYTES: usize = 512 << 10;
/// Before something is sent everybody else has had a turn so many times without asking for more,
const QUIET_TURNS: usize = 4;
/// or so many times in all.
const MOST_TURNS: usize = 32;
/// How long what nobody waits for, and what holds locks, may wait for company: those who were
/// answered a moment ago may ask for more.
const HOLD: Duration = Duration::from_millis(6);
/// How long what is to be forgotten may wait for company.
const FORGET_PAUSE: Duration = Duration::from_millis(250);

/// What a keyspace says of a branch.
pub(crate) type Said = Result<BranchOutcome, KeyspaceError>;

struct Waiting {
    part: Part,
    /// Nobody waits for what is only to be forgotten.
    reply: Option<oneshot::Sender<Result<Said, String>>>,
}

#[derive(Default)]
struct Outbox {
    waiting: Vec<Waiting>,
    /// Goes along with what else goes, or after [`HOLD`].
    held: Vec<Waiting>,
    /// To be forgotten: goes along with what else goes.
    idle: Vec<Waiting>,
    under_way: usize,
    /// Whether what waits for company has waited long enough.
    due: bool,
    /// Counts what has come.
    posted: u64,
}

impl Outbox {
    fn is_empty(&self) -> bool {
        let queues = [&self.waiting, &self.held, &self.idle];
        self.under_way == 0 && queues.iter().all(|queue| queue.is_empty())
    }

    /// Sends everything, company or not; whoever sends already goes on with it.
    fn go_now(&mut self, inner: &Arc<Inner>, group: GroupId) {
        self.due = true;
        if self.under_way == 0 {
            self.under_way += 1;
            tokio::spawn(send(inner.clone(), group));
        }
    }

    /// What goes next.
    fn take(&mut self) -> Vec<Waiting> {
        let mut taken = Vec::new();
        if self.waiting.is_empty() && !std::mem::take(&mut self.due) {
            return taken;
        }
        let mut bytes = 0;
        for queue in [&mut self.held, &mut self.waiting, &mut self.idle] {
            let room = MAX_TOGETHER - taken.len();
            let fits = |it: &&Waiting| {
                bytes += it.part.size();
                bytes <= MOST_BYTES
            };
            let n = queue.iter().take(room).take_while(fits).count();
            // One that is larger than all together may be goes alone.
            let n = n.max(usize::from(taken.is_empty() && !queue.is_empty()));
            taken.extend(queue.drain(..n));
        }
        self.due |= !self.held.is_empty();
        taken
    }
}

/// Of every keyspace that something was asked of.
#[derive(Default)]
pub(crate) struct Outboxes(Mutex<BTreeMap<GroupId, Outbox>>);

/// Asks a keyspace once, together with whatever else is asked of it. An error is in words, and
/// leaves open whether it was done.
pub(crate) async fn ask(
    inner: &Arc<Inner>,
    group: GroupId,
    command: BranchCommand,
) -> Result<Said, String> {
    let part = match &command {
        // It may have to wait, and commits at once.
        BranchCommand::Prepare(prepare) if prepare.one_phase => {
            return ask_alone(inner, group, command).await;
        }
        _ => Part::new(command.clone()).map_err(|why| format!("it cannot be asked: {why:?}"))?,
    };
    let (reply, answer) = oneshot::channel();
    post(inner, group, Waiting { part, reply: Some(reply) });
    match answer.await.unwrap_or_else(|_| Err("the node is going down".to_owned()))? {
        // It meets locks: alone it may wait for them.
        Ok(BranchOutcome::Waiting) => ask_alone(inner, group, command).await,
        said => Ok(said),
    }
}

/// The same, of what may wait a moment for something else to go with.
pub(crate) async fn ask_in_company(
    inner: &Arc<Inner>,
    group: GroupId,
    command: BranchCommand,
) -> Result<Said, String> {
    let part = Part::new(command).map_err(|why| format!("it cannot be asked: {why:?}"))?;
    let (reply, answer) = oneshot::channel();
    {
        let mut all = inner.outboxes.0.lock();
        all.entry(group).or_default().held.push(Waiting { part, reply: Some(reply) });
    }
    let mut answer = pin!(answer);
    let said = match timeout(HOLD, &mut answer).await {
        Ok(said) => said,
        Err(_) => {
            if let Some(outbox) = inner.outboxes.0.lock().get_mut(&group) {
                outbox.go_now(inner, group);
            }
            answer.await
        }
    };
    said.unwrap_or_else(|_| Err("the node is going down".to_owned()))
}

/// Asks a keyspace once. An error is in words, and leaves open whether it was done.
async fn ask_alone(inner: &Inner, group: GroupId, command: BranchCommand) -> Result<Said, String> {
    let keyspace = hosted(inner, group)?;
    match propose(&keyspace, command).await? {
        Reply { result: Ok(Outcome::Branch(outcome)), .. } => Ok(Ok(outcome)),
        Reply { result: Ok(other), .. } => Err(format!("its keyspace answered {other:?}")),
        Reply { result: Err(error), .. } => Ok(Err(error)),
    }
}

/// Lets a keyspace forget a branch some time soon. If this node dies before, a scan does it later.
pub(crate) fn forget(inner: &Arc<Inner>, group: GroupId, command: BranchCommand) {
    let Ok(part) = Part::new(command) else { return };
    let mut all = inner.outboxes.0.lock();
    let outbox = all.entry(group).or_default();
    outbox.idle.push(Waiting { part, reply: None });
    if outbox.idle.len() >= MAX_TOGETHER {
        outbox.go_now(inner, group);
    }
}

fn post(inner: &Arc<Inner>, group: GroupId, waiting: Waiting) {
    let mut all = inner.outboxes.0.lock();
    let outbox = all.entry(group).or_default();
    outbox.waiting.push(waiting);
    outbox.posted += 1;
    if outbox.under_way < AT_A_TIME {
        outbox.under_way += 1;
        tokio::spawn(send(inner.clone(), group));
    }
}

/// Lets everybody who is about to ask do so: one answer lets go many, and a commit and the next
/// prepare should be one entry.
async fn gather(inner: &Inner, group: GroupId) {
    let posted = || inner.outboxes.0.lock().get(&group).map(|outbox| outbox.posted);
    let mut before = posted();
    let mut quiet = 0;
    for _ in 0..MOST_TURNS {
        tokio::task::yield_now().await;
        let now = posted();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
        if quiet == QUIET_TURNS {
            return;
        }
    }
}

/// Sends what waits for one keyspace, until nothing does.
async fn send(inner: Arc<Inner>, group: GroupId) {
    loop {
        gather(&inner, group).await;
        let taken = {
            let mut all = inner.outboxes.0.lock();
            let Some(outbox) = all.get_mut(&group) else { return };
            let taken = outbox.take();
            if taken.is_empty() {
                outbox.under_way -= 1;
                if outbox.is_empty() {
                    all.remove(&group);
                }
                return;
            }
            taken
        };
        let (parts, replies): (Vec<Part>, Vec<_>) =
            taken.into_iter().map(|it| (it.part, it.reply)).unzip();
        let mut said = together(&inner, group, parts).await.map(|said| said.map(Vec::into_iter));
        for reply in replies {
            let own = match &mut said {
                Ok(Ok(outcomes)) => match outcomes.next() {
                    Some(outcome) => Ok(Ok(outcome)),
                    None => Err("its keyspace answered too little".to_owned()),
                },
                Ok(Err(error)) => Ok(Err(*error)),
                Err(what) => Err(what.clone()),
            };
            // Whoever asked may be gone.
            let _ = reply.map(|reply| reply.send(own));
        }
    }
}

async fn together(
    inner: &Inner,
    group: GroupId,
    parts: Vec<Part>,
) -> Result<Result<Vec<BranchOutcome>, KeyspaceError>, String> {
    let keyspace = hosted(inner, group)?;
    match propose(&keyspace, BranchCommand::Together(parts)).await? {
        Reply { result: Ok(Outcome::Branch(BranchOutcome::Together(outcomes))), .. } => {
            Ok(Ok(outcomes))
        }
        Reply { result: Ok(other), .. } => Err(format!("its keyspace answered {other:?}")),
        Reply { result: Err(error), .. } => Ok(Err(error)),
    }
}

fn hosted(inner: &Inner, group: GroupId) -> Result<KeyspaceHandle, String> {
    let known = inner.node.group(group);
    known.ok_or_else(|| "its keyspace has no replica on the coordinating node".to_owned())
}

async fn propose(keyspace: &KeyspaceHandle, command: BranchCommand) -> Result<Reply, String> {
    let body = codec::encode(&Command::Branch(command)).map_err(|error| error.to_string())?;
    keyspace.propose(body, REQUEST_TIMEOUT).await.map_err(|error| trouble(&error))
}

/// Sends what is to be forgotten and found no company, as long as the node lives.
pub(crate) async fn watch(inner: Weak<Inner>) {
    loop {
        sleep(FORGET_PAUSE).await;
        let Some(inner) = inner.upgrade() else { return };
        if inner.node.has_ended() {
            return;
        }
        let mut all = inner.outboxes.0.lock();
        for (group, outbox) in all.iter_mut() {
            outbox.go_now(&inner, *group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_keyspace::BranchId;

    fn waiting(transaction: &'static str) -> Waiting {
        let transaction = Bytes::from_static(transaction.as_bytes());
        let id = BranchId { transaction, number: 1 };
        let part = Part::new(BranchCommand::Forget { id, epoch: 1 }).unwrap();
        Waiting { part, reply: None }
    }

    #[test]
    fn what_is_held_goes_first_with_what_comes_or_when_it_is_due() {
        let mut outbox = Outbox::default();
        outbox.held.push(waiting("commit"));
        outbox.idle.push(waiting("forget"));
        assert!(outbox.take().is_empty() && !outbox.is_empty(), "it waits for company");
        outbox.waiting.push(waiting("prepare"));
        let parts = |taken: Vec<Waiting>| taken.into_iter().map(|it| it.part).collect::<Vec<_>>();
        let expected = ["commit", "prepare", "forget"].map(waiting);
        assert_eq!(parts(outbox.take()), parts(expected.into()));
        outbox.held.extend((0..=MAX_TOGETHER).map(|_| waiting("commit")));
        outbox.due = true;
        assert_eq!(outbox.take().len(), MAX_TOGETHER);
        assert_eq!(outbox.take().len(), 1, "the rest is due as well");
        assert!(outbox.take().is_empty() && outbox.is_empty());
    }
}
