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
use crate::request::{Branch, BranchWork, Request, usual_protocol};
use crate::service::Inner;
use parking_lot::Mutex;
use quorate_base::GroupId;
use quorate_resource_managers::{
    Deadline, Isolation, MERGED_STATEMENTS, SHARED_STATEMENTS, SqlWork, Work,
};
use quorate_transactions::{BranchRecord, Carried, MAX_CARRIED, Stage, Start, Verdict, bundle_id};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

/// How long a bundle may stay undecided; then everybody goes alone.
const PATIENCE: Duration = Duration::from_millis(500);
/// The longest that the next ones wait for those who have just been answered.
const LINGER: Duration = Duration::from_millis(10);
/// By how many halvings they wait shorter at the most.
const MOST_VAIN: u32 = 4;
/// Bytes of the largest request that is carried, and of all that one bundle carries.
const SMALL: usize = 16 << 10;
const MOST_BYTES: usize = 256 << 10;
/// Requests that may wait for company at this node.
const MOST_WAITING: usize = 4_096;
/// Lines that are remembered while nobody is in them.
const MOST_LINES: usize = 1_024;

const _: () = assert!(MAX_CARRIED <= quorate_keyspace::branch::MAX_TXNS);
const _: () = assert!(MAX_CARRIED * SHARED_STATEMENTS <= MERGED_STATEMENTS);

impl Request {
    /// Whether it may be carried with others.
    pub fn may_ride(&self) -> bool {
        self.company
            && self.branches.len() > 1
            && self.bytes <= SMALL
            && self.patience >= 2 * PATIENCE
            && self.branches.iter().all(|branch| branch.work.may_ride())
    }
}

impl BranchWork {
    fn may_ride(&self) -> bool {
        match self {
            BranchWork::Keyspace { .. } => true,
            BranchWork::Manager(_, Work::Sql(work)) => work.may_share(),
            BranchWork::Manager(_, Work::Http(_) | Work::Prepared(_)) => false,
        }
    }
}

/// What the requests of a line have in common of one branch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Seat {
    /// Its name, the keyspace, and what a compare that fails means.
    Keyspace(String, GroupId, bool),
    /// Its name, the database, and the isolation in it.
    Database(String, String, Option<Isolation>),
}

/// What requests must have in common.
type Line = Vec<Seat>;

/// Nothing, if there is a participant at which each goes by itself.
fn line(inner: &Inner, request: &Request, branches: &[BranchRecord]) -> Option<Line> {
    let one = |(branch, record): (&Branch, &BranchRecord)| match &branch.work {
        BranchWork::Keyspace { or_else, .. } => {
            Some(Seat::Keyspace(branch.name.clone(), record.group, *or_else))
        }
        BranchWork::Manager(_, work) => {
            let Work::Sql(work) = work else { return None };
            let manager = inner.manager_ref(record.kind, &branch.participant).ok()?;
            let named = (branch.name.clone(), branch.participant.clone());
            manager.shares().then_some(Seat::Database(named.0, named.1, work.isolation))
        }
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
    /// Whether somebody aboard is answered only when it is carried out.
    late: bool,
    /// When it went.
    since: Instant,
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
        let mut linger = None;
        {
            let mut all = self.inner.bundles.all.lock();
            if let Some(stop) = all.lines.get_mut(&self.line) {
                if let Some(committed) = committed {
                    stop.pace.ended(self.ids.len(), committed);
                }
                linger = stop.decided(self.ids.len(), self.since.elapsed(), self.late);
            }
            all.thin_out();
        }
        depart(&self.inner, &self.line);
        if let (Some(until), Ok(runtime)) = (linger, Handle::try_current()) {
            let (inner, line) = (self.inner.clone(), self.line.clone());
            runtime.spawn(async move {
                sleep_until(until.into()).await;
                depart(&inner, &line);
            });
        }
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
    /// Whether it is answered only when it is carried out.
    late: bool,
    branches: Vec<Branch>,
    /// What a record has of them.
    records: Vec<BranchRecord>,
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
    /// Who has just been answered may have more to ask.
    expects: Option<Expected>,
    /// By how many halvings the next ones wait shorter for them: more, where it was in vain.
    vain: u32,
}

/// Who is waited for.
struct Expected {
    /// How many go together when they are there.
    all: usize,
    /// How many of them were there already.
    there: usize,
    until: Instant,
}

impl Stop {
    fn new() -> Stop {
        let waiting = VecDeque::new();
        Stop { waiting, under_way: 0, pace: Pace::new(), expects: None, vain: 0 }
    }

    /// So many that went together, so long ago, are decided. Until when the next ones wait for
    /// them: at the most as long as that took, or twice as long where some are `late`, answered
    /// only when it is carried out.
    fn decided(&mut self, ids: usize, took: Duration, late: bool) -> Option<Instant> {
        self.under_way -= ids;
        let there = self.waiting.len();
        let all = (ids + there).min(self.pace.most);
        if self.under_way > 0 || all <= there.max(1) {
            return None;
        }
        let long = if late { 2 * took } else { took };
        let until = Instant::now() + long.min(LINGER) / (1 << self.vain);
        self.expects = Some(Expected { all, there, until });
        Some(until)
    }

    /// Whether somebody is expected who has not come yet.
    fn lingers(&mut self) -> bool {
        let Some(expected) = &self.expects else { return false };
        let now = self.waiting.len();
        if now < expected.all && Instant::now() < expected.until {
            return true;
        }
        let (came, wanted) = (now - expected.there.min(now), expected.all - expected.there);
        self.vain = if 2 * came >= wanted { 0 } else { (self.vain + 1).min(MOST_VAIN) };
        self.expects = None;
        false
    }

    /// Who goes now, together.
    fn leave(&mut self) -> Vec<Vec<Waiting>> {
        let mut all = Vec::new();
        if self.lingers() {
            return all;
        }
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
        if stop.under_way >= stop.pace.limit() || stop.lingers() {
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
            self.lines.retain(|_, stop| stop.under_way > 0 || !stop.waiting.is_empty());
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
    (until, applied): (Deadline, bool),
) -> Ride {
    let Some(line) = line(inner, request, records) else { return Ride::Alone(None) };
    let (reply, answer) = oneshot::channel();
    let waiting = Waiting {
        id: request.id.clone(),
        content: request.content,
        bytes: request.bytes,
        late: applied || request.reads(),
        branches: request.branches.clone(),
        records: records.to_vec(),
        until,
        reply,
    };
    {
        let mut all = inner.bundles.all.lock();
        if all.aboard.contains(&request.id) {
            return Ride::Aboard;
        }
        if all.aboard.len() >= MOST_WAITING {
            return Ride::Alone(None);
        }
        all.aboard.insert(request.id.clone());
        let stop = all.lines.entry(line.clone()).or_insert_with(Stop::new);
        stop.waiting.push_back(waiting);
    }
    depart(inner, &line);
    answer.await.unwrap_or(Ride::Elsewhere)
}

/// Sends off whoever may go now.
fn depart(inner: &Arc<Inner>, line: &Line) {
    let next = inner.bundles.all.lock().depart(line);
    next.into_iter().for_each(|some| go(inner, line.clone(), some));
}

/// Sends them off.
fn go(inner: &Arc<Inner>, line: Line, some: Vec<Waiting>) {
    if Handle::try_current().is_err() {
        // The node is going down, and a ticket was dropped with whatever else was under way.
        return;
    }
    let ids = some.iter().map(|it| it.id.clone()).collect();
    let (inner, late) = (inner.clone(), some.iter().any(|it| it.late));
    let ticket =
        Ticket { inner: inner.clone(), line, ids, ahead: true, late, since: Instant::now() };
    match <[Waiting; 1]>::try_from(some) {
        Ok([only]) => {
            // Whoever asked may be gone.
            let _ = only.reply.send(Ride::Alone(Some(ticket)));
        }
        Err(some) => drop(tokio::spawn(carry(inner, ticket, some))),
    }
}

/// Runs one bundle until it is decided.
async fn carry(inner: Arc<Inner>, mut ticket: Ticket, some: Vec<Waiting>) {
    let carried = some.iter().map(|it| Carried { id: it.id.clone(), content: it.content });
    let (work, branches) = merged(&some);
    let start = Start {
        content: 0,
        protocol: usual_protocol(&work),
        owner: inner.me,
        patience: PATIENCE,
        branches,
        carried: carried.collect(),
    };
    let id = bundle_id(inner.me, inner.bundles.made.fetch_add(1, Relaxed));
    // Nobody else makes this id.
    let (Ok(live) | Err(live)) = drive::begin(&inner, &id, start, work);
    if !ticket.late {
        live.be_patient();
    }
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

/// One branch for all that are asked of the same participant.
fn merged(some: &[Waiting]) -> (Vec<Branch>, Vec<BranchRecord>) {
    let Some(first) = some.first() else { return (Vec::new(), Vec::new()) };
    let one = |(index, branch): (usize, &Branch)| {
        let all = || some.iter().filter_map(move |it| it.branches.get(index));
        let work = match &branch.work {
            BranchWork::Keyspace { or_else, .. } => {
                let txns = all().flat_map(|it| it.work.txns().iter().cloned()).collect();
                BranchWork::Keyspace { txns, or_else: *or_else }
            }
            BranchWork::Manager(kind, _) => {
                let merged = SqlWork::merged(all().filter_map(|it| it.work.sql()));
                BranchWork::Manager(*kind, Work::Sql(merged))
            }
        };
        Branch { work, ..branch.clone() }
    };
    (first.branches.iter().enumerate().map(one).collect(), first.records.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that waits, and where it is answered.
    fn waiting(id: &str, bytes: usize, patience: Duration) -> (Waiting, oneshot::Receiver<Ride>) {
        let (reply, answer) = oneshot::channel();
        let it = Waiting {
            id: id.to_owned(),
            content: 0,
            bytes,
            late: false,
            branches: Vec::new(),
            records: Vec::new(),
            until: Deadline::within(patience),
            reply,
        };
        (it, answer)
    }

    fn wait(stop: &mut Stop, bytes: usize) {
        let id = stop.waiting.len().to_string();
        stop.waiting.push_back(waiting(&id, bytes, PATIENCE).0);
    }

    fn sizes(all: &[Vec<Waiting>]) -> Vec<usize> {
        all.iter().map(Vec::len).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_together() {
        let mut stop = Stop::new();
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

    const RIDE: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_next_wait_for_those_who_were_just_answered() {
        let mut stop = Stop::new();
        (0..8).for_each(|_| wait(&mut stop, 10));
        assert_eq!(sizes(&stop.leave()), [8]);
        (0..2).for_each(|_| wait(&mut stop, 10));
        let until = stop.decided(8, RIDE, false).unwrap();
        assert!(until <= Instant::now() + LINGER, "however long the ride was");
        for _ in 0..7 {
            assert!(stop.leave().is_empty());
            wait(&mut stop, 10);
        }
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [10], "all are there");
        assert_eq!(
            stop.decided(10, Duration::ZERO, false).map(|until| until < Instant::now()),
            Some(true)
        );
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [1], "their time was up");
        assert_eq!(stop.decided(1, RIDE, false), None, "nobody else is known");
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [1]);
    }

    #[test]
    fn who_does_not_come_back_is_waited_for_ever_shorter() {
        let mut stop = Stop::new();
        let mut waited = Vec::new();
        for came in [0, 0, 3, 4, 1] {
            stop.under_way = 8;
            let until = stop.decided(8, RIDE, false).unwrap();
            waited.push((until - Instant::now()).as_millis() + 1);
            (0..came).for_each(|_| wait(&mut stop, 10));
            stop.expects.as_mut().unwrap().until = Instant::now();
            assert_eq!(stop.leave().len(), usize::from(came > 0));
        }
        let most = LINGER.as_millis();
        let shorter = |halvings: u32| most / (1 << halvings);
        for (waited, halvings) in waited.into_iter().zip([0, 1, 2, 3, 0]) {
            let limit = shorter(halvings);
            assert!(waited <= limit + 1 && waited + 1 >= limit, "{waited} ms of {limit}");
        }
    }

    #[test]
    fn a_line_where_somebody_waits_is_not_forgotten() {
        let mut all = All::default();
        for n in 0..=MOST_LINES {
            let seat = Seat::Keyspace(n.to_string(), GroupId(1), false);
            all.lines.insert(vec![seat], Stop::new());
        }
        wait(all.lines.first_entry().unwrap().get_mut(), 10);
        all.thin_out();
        assert_eq!(all.lines.len(), 1);
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
        let mut stop = Stop { under_way: 1, ..Stop::new() };
        for (id, patience) in [("gone", 9), ("late", 0), ("first", 9), ("second", 9)] {
            all.aboard.insert(id.to_owned());
            let (it, answer) = waiting(id, 1, Duration::from_secs(patience));
            stop.waiting.push_back(it);
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
