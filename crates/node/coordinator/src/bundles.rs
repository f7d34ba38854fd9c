//! Bundles: what several clients ask of the same keyspaces at the same time is carried by one
//! transaction, so that what a transaction costs (its record, its votes, its locks) is shared.
//!
//! Of the requests of one *line* (the same branches in the same keyspaces) the first goes at once,
//! and while it is under way the next ones gather. Those that have gathered go together: their
//! branches hold the clients' transactions one after the other, each seeing what those before it
//! did. A bundle that commits commits all. One that does not is rolled back, and everybody goes
//! alone, so that nobody's refusal is another's. One full bundle at a time: measured, more were
//! slower, for each was smaller, and on a hot key they only waited for each other.
//!
//! Invariants: whoever rides is told how it ended, once. An id is aboard once. Nobody waits for
//! company while nothing is under way, nor longer than a moment for somebody who does not get on.

use crate::drive;
use crate::live::{Live, Progress};
use crate::request::{Branch, BranchWork, Request};
use crate::service::Inner;
use parking_lot::Mutex;
use quorate_atomic_commit::Protocol;
use quorate_base::GroupId;
use quorate_keyspace::command::Txn;
use quorate_resource_managers::Deadline;
use quorate_transactions::{BranchRecord, Carried, MAX_CARRIED, Stage, Start, Verdict, bundle_id};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a bundle may stay undecided; then everybody goes alone.
const PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of the largest request that is carried, and of all that one bundle carries.
const SMALL: usize = 16 << 10;
const MOST_BYTES: usize = 256 << 10;
/// Requests that may wait for company at this node.
const MOST_WAITING: usize = 4_096;
/// Lines that are remembered while nobody is in them.
const MOST_LINES: usize = 1_024;

const _: () = assert!(MAX_CARRIED <= quorate_keyspace::branch::MAX_TXNS);

impl Request {
    /// Whether it may be carried with others.
    pub fn may_ride(&self) -> bool {
        self.protocol == Protocol::PaxosCommit
            && self.branches.len() > 1
            && self.bytes <= SMALL
            && self.patience >= 2 * PATIENCE
    }
}

/// What requests must have in common: names, keyspaces, and what a compare that fails means.
type Line = Vec<(String, GroupId, bool)>;

fn line(request: &Request, branches: &[BranchRecord]) -> Option<Line> {
    let one = |(branch, record): (&Branch, &BranchRecord)| match &branch.work {
        BranchWork::Keyspace { or_else, .. } => Some((branch.name.clone(), record.group, *or_else)),
        BranchWork::Manager(..) => None,
    };
    request.branches.iter().zip(branches).map(one).collect()
}

/// How a ride ended.
pub(crate) enum Ride {
    /// It is committed, by this bundle; the place in it.
    Committed(Arc<Live>, usize),
    /// Nothing of it was done, nor ever will be: it goes alone, and whoever goes counts as under
    /// way until the ticket is given back.
    Alone(Option<Ticket>),
    /// Its id is aboard already: it is looked at again.
    Aboard,
    /// Somebody else has it: the records tell.
    Elsewhere,
}

/// One that is under way. It is given back when it is dropped.
pub(crate) struct Ticket {
    inner: Arc<Inner>,
    line: Line,
    /// The ids aboard.
    ids: Vec<String>,
    /// Whether others wait for it.
    ahead: bool,
}

impl Ticket {
    /// Gives it back once the transaction that goes alone is decided, or has taken too long.
    pub fn give_back(mut self, live: Arc<Live>) {
        tokio::spawn(async move {
            if timeout(PATIENCE, live.reached(Progress::Decided)).await.is_ok() {
                let commits = live.record.lock().stage.verdict().map(Verdict::commits);
                self.step_aside(commits);
            }
        });
    }

    /// Lets the next ones go. `committed` says how it ended, if it did.
    fn step_aside(&mut self, committed: Option<bool>) {
        if !std::mem::take(&mut self.ahead) {
            return;
        }
        let next = {
            let mut all = self.inner.bundles.all.lock();
            if let Some(stop) = all.lines.get_mut(&self.line) {
                stop.under_way -= self.ids.len();
                if let Some(committed) = committed {
                    stop.pace.ended(self.ids.len(), committed);
                }
            }
            let next = all.depart(&self.line);
            all.thin_out();
            next
        };
        next.into_iter().for_each(|some| go(&self.inner, self.line.clone(), some));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        {
            let mut all = self.inner.bundles.all.lock();
            for id in &self.ids {
                all.aboard.remove(id);
            }
        }
        self.step_aside(None);
    }
}

struct Waiting {
    id: String,
    content: u128,
    bytes: usize,
    branches: Arc<Vec<Branch>>,
    /// It may stay undecided until then.
    until: Deadline,
    reply: oneshot::Sender<Ride>,
}

/// How many go at a time: learned from how those before fared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pace {
    /// How many a bundle carries at the most: fewer, where bundles are refused for one of them.
    most: usize,
    /// Committed in a row since that last changed.
    well: usize,
}

impl Pace {
    fn new() -> Pace {
        Pace { most: MAX_CARRIED, well: 0 }
    }

    /// The next go while fewer are under way. Where bundles are small there must be more of them.
    fn limit(self) -> usize {
        MAX_CARRIED / self.most
    }

    fn ended(&mut self, carried: usize, committed: bool) {
        if committed {
            self.well += carried;
            if self.well >= 4 * self.most && self.most < MAX_CARRIED {
                (self.most, self.well) = (self.most * 2, 0);
            }
        } else {
            self.well = 0;
            if carried > 1 {
                // A larger one may have gone before others were refused.
                self.most = self.most.min(carried.next_power_of_two() / 2);
            }
        }
    }
}

/// Where the requests of one line wait.
struct Stop {
    waiting: VecDeque<Waiting>,
    /// Requests that have gone and are not decided.
    under_way: usize,
    pace: Pace,
}

impl Stop {
    /// Who goes now, together.
    fn leave(&mut self) -> Vec<Vec<Waiting>> {
        let mut all = Vec::new();
        while self.under_way < self.pace.limit() && !self.waiting.is_empty() {
            let mut bytes = 0;
            let fits = |it: &&Waiting| {
                bytes += it.bytes;
                bytes <= MOST_BYTES
            };
            let n = self.waiting.iter().take(self.pace.most).take_while(fits).count();
            let some: Vec<Waiting> = self.waiting.drain(..n.max(1)).collect();
            self.under_way += some.len();
            all.push(some);
        }
        all
    }
}

#[derive(Default)]
struct All {
    lines: BTreeMap<Line, Stop>,
    /// Who waits, or is under way.
    aboard: BTreeSet<String>,
}

impl All {
    /// Who goes now. Whoever has gone away is left behind, and whose time is up goes alone.
    fn depart(&mut self, line: &Line) -> Vec<Vec<Waiting>> {
        let Some(stop) = self.lines.get_mut(line) else { return Vec::new() };
        if stop.under_way >= stop.pace.limit() {
            return Vec::new();
        }
        for it in std::mem::take(&mut stop.waiting) {
            if !it.reply.is_closed() && !it.until.left().is_zero() {
                stop.waiting.push_back(it);
            } else {
                self.aboard.remove(&it.id);
                let _ = it.reply.send(Ride::Alone(None));
            }
        }
        stop.leave()
    }

    /// What was learned of lines is forgotten where there are too many.
    fn thin_out(&mut self) {
        if self.lines.len() > MOST_LINES {
            self.lines.retain(|_, stop| stop.under_way > 0);
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Bundles {
    all: Mutex<All>,
    made: AtomicU64,
}

impl Bundles {
    /// Whether this id waits for company, or is carried.
    pub fn has(&self, id: &str) -> bool {
        self.all.lock().aboard.contains(id)
    }
}

/// Takes a request along, as soon as it may go.
pub(crate) async fn ride(
    inner: &Arc<Inner>,
    request: &Request,
    records: &[BranchRecord],
    until: Deadline,
) -> Ride {
    let Some(line) = line(request, records) else { return Ride::Alone(None) };
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting {
        id: request.id.clone(),
        content: request.content,
        bytes: request.bytes,
        branches: Arc::new(request.branches.clone()),
        until,
        reply,
    };
    let next = {
        let mut all = inner.bundles.all.lock();
        if all.aboard.contains(&request.id) {
            return Ride::Aboard;
        }
        if all.aboard.len() >= MOST_WAITING {
            return Ride::Alone(None);
        }
        all.aboard.insert(request.id.clone());
        let new = || Stop { waiting: VecDeque::new(), under_way: 0, pace: Pace::new() };
        let stop = all.lines.entry(line.clone()).or_insert_with(new);
        stop.waiting.push_back(waiting);
        all.depart(&line)
    };
    next.into_iter().for_each(|some| go(inner, line.clone(), some));
    answer.await.unwrap_or(Ride::Elsewhere)
}

/// Sends them off.
fn go(inner: &Arc<Inner>, line: Line, some: Vec<Waiting>) {
    if Handle::try_current().is_err() {
        // The node is going down, and a ticket was dropped with whatever else was under way.
        return;
    }
    let ids = some.iter().map(|it| it.id.clone()).collect();
    let ticket = Ticket { inner: inner.clone(), line, ids, ahead: true };
    match <[Waiting; 1]>::try_from(some) {
        Ok([only]) => {
            // Whoever asked may be gone.
            let _ = only.reply.send(Ride::Alone(Some(ticket)));
        }
        Err(some) => drop(tokio::spawn(carry(inner.clone(), ticket, some))),
    }
}

/// Runs one bundle until it is decided.
async fn carry(inner: Arc<Inner>, mut ticket: Ticket, some: Vec<Waiting>) {
    let carried = some.iter().map(|it| Carried { id: it.id.clone(), content: it.content });
    let (work, branches) = merged(&some, &ticket.line);
    let start = Start {
        content: 0,
        protocol: Protocol::PaxosCommit,
        owner: inner.me,
        patience: PATIENCE,
        branches,
        carried: carried.collect(),
    };
    let id = bundle_id(inner.me, inner.bundles.made.fetch_add(1, Relaxed));
    // Nobody else makes this id.
    let (Ok(live) | Err(live)) = drive::begin(&inner, &id, start, work);
    if timeout(2 * PATIENCE, live.reached(Progress::Decided)).await.is_err() {
        // Its decision cannot be written at the moment. Perhaps the next ones fare better.
        ticket.step_aside(None);
        live.reached(Progress::Decided).await;
    }
    let verdict = match &live.record.lock().stage {
        Stage::Open => None,
        Stage::Decided(verdict) | Stage::Finished(verdict) => Some(verdict.commits()),
    };
    if let Some(Verdict::Abort { reason, .. }) = live.record.lock().stage.verdict() {
        tracing::debug!(id, carried = some.len(), reason, "a bundle is taken apart");
    }
    for (place, it) in some.into_iter().enumerate() {
        // Whoever asked may be gone.
        let _ = it.reply.send(match verdict {
            Some(true) => Ride::Committed(live.clone(), place),
            Some(false) => Ride::Alone(None),
            None => Ride::Elsewhere,
        });
    }
    ticket.step_aside(Some(verdict == Some(true)));
}

/// One branch for all that are asked of the same keyspace.
fn merged(some: &[Waiting], line: &Line) -> (Vec<Branch>, Vec<BranchRecord>) {
    let (mut work, mut records) = (Vec::new(), Vec::new());
    for (index, (name, group, or_else)) in line.iter().enumerate() {
        let of_this = || some.iter().filter_map(|it| it.branches.get(index));
        let txns: Vec<Txn> = of_this().flat_map(|it| it.work.txns().iter().cloned()).collect();
        let participant = of_this().next().map(|it| it.participant.clone()).unwrap_or_default();
        records.push(BranchRecord::keyspace(name, &participant, *group));
        let branch = BranchWork::Keyspace { txns, or_else: *or_else };
        work.push(Branch { name: name.clone(), participant, work: branch });
    }
    (work, records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop() -> Stop {
        Stop { waiting: VecDeque::new(), under_way: 0, pace: Pace::new() }
    }

    fn wait(stop: &mut Stop, bytes: usize) {
        let branches = Arc::default();
        let (reply, _) = oneshot::channel();
        let id = stop.waiting.len().to_string();
        let until = Deadline::within(PATIENCE);
        stop.waiting.push_back(Waiting { id, content: 0, bytes, branches, until, reply });
    }

    fn sizes(all: &[Vec<Waiting>]) -> Vec<usize> {
        all.iter().map(Vec::len).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_together() {
        let mut stop = stop();
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [1]);
        for _ in 0..20 {
            wait(&mut stop, 10);
            assert!(stop.leave().is_empty());
        }
        stop.under_way -= 1;
        assert_eq!(sizes(&stop.leave()), [20]);
        (0..MAX_CARRIED + 1).for_each(|_| wait(&mut stop, 10));
        assert!(stop.leave().is_empty(), "twenty are under way");
        stop.under_way -= 20;
        assert_eq!(sizes(&stop.leave()), [MAX_CARRIED]);
        (0..2).for_each(|_| wait(&mut stop, MOST_BYTES));
        for _ in 0..3 {
            stop.under_way = 0;
            assert_eq!(sizes(&stop.leave()), [1], "what is too large for company goes alone");
        }
    }

    #[test]
    fn bundles_that_are_refused_become_smaller_and_more_go_at_a_time() {
        let mut pace = Pace::new();
        assert_eq!(pace.limit(), 1);
        pace.ended(20, false);
        assert_eq!((pace.most, pace.limit()), (16, 4));
        (0..5).for_each(|_| pace.ended(pace.most, false));
        assert_eq!((pace.most, pace.limit()), (1, 64));
        pace.ended(20, false);
        assert_eq!(pace.most, 1, "a larger one that ends late makes them no larger");
        pace.ended(1, false);
        assert_eq!(pace.most, 1, "one's own refusal says nothing of company");
        (0..4).for_each(|_| pace.ended(1, true));
        assert_eq!(pace.most, 2);
        (0..100).for_each(|_| pace.ended(pace.most, true));
        assert_eq!(pace.most, MAX_CARRIED);
    }

    #[test]
    fn whoever_has_gone_away_is_left_behind_and_the_late_go_alone() {
        let (line, mut all) = (Line::new(), All::default());
        let mut replies = Vec::new();
        let mut stop = Stop { under_way: 1, ..stop() };
        for (id, patience) in [("gone", 9), ("late", 0), ("first", 9), ("second", 9)] {
            let (reply, answer) = oneshot::channel();
            let until = Deadline::within(Duration::from_secs(patience));
            let (id, branches) = (id.to_owned(), Arc::default());
            all.aboard.insert(id.clone());
            stop.waiting.push_back(Waiting { id, content: 0, bytes: 1, branches, until, reply });
            replies.push(answer);
        }
        all.lines.insert(line.clone(), stop);
        drop(replies.remove(0));
        assert!(all.depart(&line).is_empty(), "one is under way");
        all.lines.get_mut(&line).unwrap().under_way = 0;
        let next = all.depart(&line);
        let ids: Vec<&str> = next[0].iter().map(|it| it.id.as_str()).collect();
        assert_eq!((next.len(), &ids[..]), (1, &["first", "second"][..]));
        assert!(matches!(replies[0].try_recv(), Ok(Ride::Alone(None))));
        assert_eq!(all.aboard.len(), 2);
    }
}
