//! Bundles: what several clients ask of the same participants at the same time is carried by one
//! transaction, so that what a transaction costs (its record, its votes, its locks) is shared.
//!
//! Of the requests of one *line* (the same branches in the same keyspaces and databases, under the
//! same protocol) the first goes at once, and while it is under way the next ones gather, and a
//! moment longer for those who are answered then. Those that have gathered go together: their
//! branches hold the clients' transactions one after the other, each seeing what those before it
//! did. A bundle that commits commits all. One that does not is rolled back, and everybody goes
//! alone, so that nobody's refusal is another's; or, where it is known whose it was, that one does,
//! and the others ride again. One full bundle at a time: measured, more were slower, for each was
//! smaller, and on a hot key they only waited for each other.
//!
//! | part | what it is |
//! | --- | --- |
//! | `line` | what requests must have in common, and how they are made one |
//! | `stop` | where they wait, and who goes when |
//! | `returns` | how soon those are back who were answered |
//!
//! Invariants: whoever rides is told how it ended, once. An id is aboard once. Nobody waits longer
//! than a moment for company while nothing is under way, nor for somebody who does not get on.

mod line;
mod returns;
mod stop;

use crate::drive;
use crate::live::{Live, Progress};
use crate::request::Request;
use crate::service::Inner;
use line::{Line, line, merged, patience, rider};
use parking_lot::Mutex;
use quorate_mvcc::Revision;
use quorate_resource_managers::Deadline;
use quorate_transactions::{BranchRecord, Carried, Stage, Start, Verdict, bundle_id};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use stop::{All, How, Stop, Waiting};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

/// How long the next ones wait for one that goes alone.
const AHEAD: Duration = Duration::from_millis(500);
/// How long the first record of a bundle with databases may wait for the votes: most are sooner.
const FIRST_RECORD: Duration = Duration::from_millis(25);
/// Requests that may wait for company at this node.
const MOST_WAITING: usize = 4_096;

/// How a ride ended.
pub(crate) enum Ride {
    /// It is committed, by this bundle; the place in it.
    Committed(Arc<Live>, usize),
    /// Nothing of it was done, nor ever will be: it goes alone, and whoever goes counts as under
    /// way until the ticket is given back.
    Alone(Option<Ticket>),
    /// Nothing of it was done, because of somebody else: it may ride again.
    Again,
    /// Its id is aboard already: it is looked at again.
    Aboard,
    /// Somebody else has it: the records tell.
    Elsewhere,
}

/// One that is under way. It is given back when it is dropped.
pub(crate) struct Ticket {
    inner: Arc<Inner>,
    line: Line,
    /// The ids aboard, and how many went.
    ids: Vec<String>,
    carried: usize,
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
            if timeout(AHEAD, live.reached(Progress::Decided)).await.is_ok() {
                let verdict = live.record.lock().stage.verdict().map(Verdict::commits);
                let how = |commits| if commits { How::Committed } else { How::Failed };
                self.step_aside(verdict.map(how));
            }
        });
    }

    /// Lets the next ones go. `how` it ended, if it did.
    fn step_aside(&mut self, how: Option<How>) {
        if !std::mem::take(&mut self.ahead) {
            return;
        }
        let mut linger = None;
        {
            let mut all = self.inner.bundles.all.lock();
            if let Some(stop) = all.lines.get_mut(&self.line) {
                if let Some(how) = how {
                    stop.pace.ended(self.carried, how);
                }
                linger = stop.decided(self.carried, self.since.elapsed());
                if how != Some(How::Committed) {
                    // Who may ride again comes by itself, and nobody else was answered.
                    linger = None;
                    stop.expect_nobody();
                }
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

    /// This one is not aboard any more, and may be again.
    fn let_off(&mut self, id: &str) {
        self.ids.retain(|aboard| aboard != id);
        self.inner.bundles.all.lock().aboard.remove(id);
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
    (records, free_as_of): (&[BranchRecord], Revision),
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
        free_as_of,
        until,
        needs: patience(&request.branches),
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
        stop.board(waiting);
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
    let inner = inner.clone();
    let ticket = Ticket {
        inner: inner.clone(),
        line,
        ids,
        carried: some.len(),
        ahead: true,
        late: some.iter().any(|it| it.late),
        since: Instant::now(),
    };
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
    let patience = patience(&work);
    let start = Start {
        content: 0,
        protocol: ticket.line.protocol,
        owner: inner.me,
        patience,
        branches,
        carried: carried.collect(),
        free_as_of: some.iter().map(|it| it.free_as_of).min().unwrap_or(0),
        first_record: if inner.writer.answers() { FIRST_RECORD } else { Duration::ZERO },
    };
    let id = bundle_id(inner.me, inner.bundles.made.fetch_add(1, Relaxed));
    // Nobody else makes this id.
    let (Ok(live) | Err(live)) = drive::begin(&inner, &id, start, work);
    if !ticket.late {
        live.be_patient();
    }
    if timeout(2 * patience, live.reached(Progress::Decided)).await.is_err() {
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
    let guilty = live.guilty().and_then(|at| rider(&some, at));
    for (place, it) in some.into_iter().enumerate() {
        let ride = match verdict {
            Some(true) => Ride::Committed(live.clone(), place),
            Some(false) if guilty.is_some_and(|guilty| guilty != place) => {
                ticket.let_off(&it.id);
                Ride::Again
            }
            Some(false) => Ride::Alone(None),
            None => Ride::Elsewhere,
        };
        // Whoever asked may be gone.
        let _ = it.reply.send(ride);
    }
    let how = match verdict {
        Some(true) => How::Committed,
        Some(false) if guilty.is_some() => How::RefusedForOne,
        _ => How::Failed,
    };
    ticket.step_aside(Some(how));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::{Alone, eventually};
    use crate::fake::Fake;
    use crate::request::{Branch, BranchWork};
    use crate::service::{Settings, Transactions};
    use quorate_mvcc::Event;
    use quorate_resource_managers::{Kind, SqlWork, Statement, Work};
    use quorate_transactions::Record;
    use quorate_transactions::records::OPEN;

    fn request(world: &Alone, id: &str) -> Request {
        let statement = Statement { sql: "UPDATE a SET b = 1".to_owned(), ..Statement::default() };
        let work = Work::Sql(SqlWork { statements: vec![statement], ..SqlWork::default() });
        let branch = |participant: &str| Branch {
            name: participant.to_owned(),
            participant: participant.to_owned(),
            work: BranchWork::Manager(Kind::Postgres, work.clone()),
        };
        let branches = ["bank", "shop"].map(branch).into();
        Request { alone: false, branches, ..world.request(id) }
    }

    fn ask(world: &Alone, transactions: &Transactions, id: &str) {
        let (it, request) = (transactions.clone(), request(world, id));
        let by = Deadline::within(Duration::from_secs(60));
        world.runtime.spawn(async move { it.run(request, false, by).await });
    }

    /// The first record of each bundle.
    fn first_records(world: &Alone) -> Vec<Record> {
        let history = world.store.0.reader().history(1, usize::MAX).unwrap();
        let own = format!("{OPEN}~");
        let own = own.as_bytes();
        let bundles = history.events.into_iter().filter_map(|event| match event {
            Event::Put(kv) if kv.version == 1 && kv.key.starts_with(own) => Some(kv.value),
            _ => None,
        });
        bundles.map(|record| Record::decode(record).unwrap()).collect()
    }

    #[test]
    fn a_bundle_of_databases_that_vote_at_once_has_its_decision_for_its_first_record() {
        let (world, bank, shop) = (Alone::start(), Fake::new("bank"), Fake::new("shop"));
        let transactions = world.transactions_over(&[&bank, &shop], Settings::default());
        // The records are known to answer from then on.
        ask(&world, &transactions, "first");
        eventually("there is a record", || !world.ids().is_empty());
        // Some go alone, until some have met; and a slow machine may keep some waiting.
        let mut asked = 0;
        eventually("a bundle is decided with its first record", || {
            for _ in 0..8 {
                asked += 1;
                ask(&world, &transactions, &format!("t{asked}"));
            }
            let decided = |first: &Record| first.stage == Stage::Decided(Verdict::Commit);
            first_records(&world).iter().any(decided)
        });
    }
}
