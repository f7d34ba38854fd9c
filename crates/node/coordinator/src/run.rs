//! What becomes of a request to run a transaction: it is run, alone or carried with others, or
//! whoever runs it already, here or elsewhere, is waited for.
//!
//! Invariant: of one id one transaction is run. Where it was let go by a bundle that failed, it is
//! looked at again from the beginning.

use crate::bundles::{Ride, Ticket, ride};
use crate::drive;
use crate::error::RunError;
use crate::live::{Live, Progress};
use crate::report::Report;
use crate::request::Request;
use crate::service::{READ_TIMEOUT, Transactions, store_error};
use crate::store::Store;
use crate::takeover::MOST_TAKEN;
use quorate_mvcc::Revision;
use quorate_resource_managers::Deadline;
use quorate_transactions::records::Known;
use quorate_transactions::{BranchRecord, BranchState, Record, Stage, Start};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// What a client waits longer than its transaction may stay undecided.
const GRACE: Duration = Duration::from_secs(5);
/// How often whoever waits for another node's transaction looks.
const LOOK: Duration = Duration::from_millis(20);
/// Transactions that one node drives at a time, but for those that it has taken over.
const MOST_LIVE: usize = 4_096;
/// How often a request is taken along, where others were refused, before it goes alone.
const MOST_RIDES: u32 = 3;
/// The least that an attempt is given to be decided.
const LEAST: Duration = Duration::from_millis(50);

impl Transactions {
    /// Runs a transaction, or tells how the one of this id and content ended that was run before.
    /// Answers once the decision is on record; with `applied`, once it is carried out everywhere,
    /// or the time is up. It goes on when whoever asked is not waited for any more.
    ///
    /// # Errors
    /// [`RunError`]
    pub async fn run(
        &self,
        request: Request,
        applied: bool,
        by: Deadline,
    ) -> Result<Report, RunError> {
        request.check()?;
        let undecided = Deadline::within(request.patience);
        let limit = by.min(Deadline::within(request.patience + GRACE));
        let mut rides = if request.may_ride() { MOST_RIDES } else { 0 };
        while !limit.left().is_zero() {
            let by = (undecided, limit);
            let told = self.attempt(&request, by, applied, &mut rides).await?;
            if let Some(report) = told {
                return Ok(report);
            }
        }
        Err(in_doubt(&request.id))
    }

    /// Nothing, if it has to be looked at again.
    async fn attempt(
        &self,
        request: &Request,
        by @ (undecided, limit): (Deadline, Deadline),
        applied: bool,
        rides: &mut u32,
    ) -> Result<Option<Report>, RunError> {
        let inner = &self.0;
        if let Some(live) = inner.live.get(&request.id) {
            return self.join(&live, request, applied, limit).await;
        }
        if inner.bundles.has(&request.id) {
            sleep(LOOK).await;
            return Ok(None);
        }
        // What was taken over may wait for participants that these here have nothing to do with.
        if inner.live.len().saturating_sub(inner.taken.len()) >= MOST_LIVE {
            let why = format!("this node drives {MOST_LIVE} transactions already: try again");
            return Err(RunError::Unavailable(why));
        }
        if inner.taken.len() >= MOST_TAKEN {
            let why = format!(
                "this node has taken over {MOST_TAKEN} transactions that wait for their \
                 participants: bring those back (`quorate txn list`)"
            );
            return Err(RunError::Unavailable(why));
        }
        let store = self.store(limit).await?;
        // In this order: what is not there was free then.
        let free_as_of = store.0.reader().revision();
        if let Some(known) = store.look_for(&request.id).map_err(store_error)? {
            return self.wait_for_other(&store, request, known, applied, limit).await;
        }
        let branches = self.branches(request, undecided.min(limit)).await?;
        let mut ticket = None;
        if *rides > 0 {
            *rides -= 1;
            let riding = ride(inner, request, (&branches, free_as_of), (undecided, applied));
            match timeout(limit.left(), riding).await.map_err(|_| in_doubt(&request.id))? {
                Ride::Committed(bundle, place) => {
                    return Ok(Some(carried(&bundle, place, request, applied, limit).await));
                }
                Ride::Alone(given) => ticket = given,
                Ride::Again => return Ok(None),
                Ride::Aboard => {
                    *rides += 1;
                    return Ok(None);
                }
                Ride::Elsewhere => {
                    let found = store.find(&request.id, READ_TIMEOUT.min(limit.left())).await;
                    // It may have been committed, whatever keeps the records away.
                    if let Some(known) = found.map_err(|_| in_doubt(&request.id))? {
                        return self.wait_for_other(&store, request, known, applied, limit).await;
                    }
                }
            }
        }
        self.alone(request, (branches, free_as_of), by, applied, ticket).await
    }

    async fn branches(
        &self,
        request: &Request,
        by: Deadline,
    ) -> Result<Vec<BranchRecord>, RunError> {
        let mut branches = Vec::with_capacity(request.branches.len());
        for branch in &request.branches {
            let (kind, group) = self.0.find(&request.id, branch, by).await?;
            let known = BranchRecord::keyspace(&branch.name, &branch.participant, group);
            branches.push(BranchRecord { kind, ..known });
        }
        Ok(branches)
    }

    async fn alone(
        &self,
        request: &Request,
        (branches, free_as_of): (Vec<BranchRecord>, Revision),
        (undecided, limit): (Deadline, Deadline),
        applied: bool,
        ticket: Option<Ticket>,
    ) -> Result<Option<Report>, RunError> {
        let inner = &self.0;
        let start = Start {
            content: request.content,
            protocol: request.protocol,
            owner: inner.me,
            patience: undecided.left().max(LEAST),
            branches,
            carried: Arc::default(),
            free_as_of,
            first_record: Duration::ZERO,
        };
        let (Ok(live) | Err(live)) =
            drive::begin(inner, &request.id, start, request.branches.clone());
        if let Some(ticket) = ticket {
            ticket.give_back(live.clone());
        }
        self.join(&live, request, applied, limit).await
    }

    /// Waits for a transaction that this node drives.
    async fn join(
        &self,
        live: &Arc<Live>,
        request: &Request,
        applied: bool,
        limit: Deadline,
    ) -> Result<Option<Report>, RunError> {
        same(live.content, request)?;
        let decided = timeout(limit.left(), live.reached(Progress::Decided)).await;
        if decided.is_ok() && applied {
            // Else it is told as it stands: decided.
            let _ = timeout(limit.left(), live.reached(Progress::Applied)).await;
        }
        let record = live.record.lock().clone();
        match record.stage {
            Stage::Open if decided == Ok(Progress::Left) => {
                let store = self.store(limit).await.map_err(|_| in_doubt(&request.id))?;
                let found = store.find(&request.id, READ_TIMEOUT.min(limit.left())).await;
                match found.map_err(|_| in_doubt(&request.id))? {
                    Some(known) => {
                        self.wait_for_other(&store, request, known, applied, limit).await
                    }
                    None => Ok(None),
                }
            }
            Stage::Open => Err(in_doubt(&request.id)),
            _ => Ok(Some(told(&request.id, record, live, 0))),
        }
    }

    /// Waits for a transaction that another node, or an earlier life of this one, drives or drove.
    /// Nothing, if a bundle has let it go.
    async fn wait_for_other(
        &self,
        store: &Store,
        request: &Request,
        mut known: Known,
        applied: bool,
        limit: Deadline,
    ) -> Result<Option<Report>, RunError> {
        loop {
            // A void one has no content: whatever was to be run under its id is rolled back.
            if !known.record.is_void() {
                same(known.content, request)?;
            }
            let (settled, late) = (known.is_settled(), limit.left().is_zero());
            if settled && (late || !applied || is_applied(&known.record)) {
                // Where it is late it is told as it stands: decided.
                return Ok(Some(Report::known(&request.id, known)));
            }
            if late {
                return Err(in_doubt(&request.id));
            }
            sleep(LOOK).await;
            match store.look_for(&request.id) {
                Ok(Some(now)) => known = now,
                // It is over and forgotten, or cannot be looked at any more: a decision stays.
                _ if settled => return Ok(Some(Report::known(&request.id, known))),
                Ok(None) => return Ok(None),
                Err(_) => return Err(in_doubt(&request.id)),
            }
        }
    }
}

/// Whether it is carried out everywhere, but for what waits for people.
fn is_applied(record: &Record) -> bool {
    matches!(record.stage, Stage::Finished(_)) || record.waits_for_people()
}

/// What is told of a transaction that a bundle carried, which is committed. What it read may be
/// what others of the bundle write, whose revisions are guesses until that is applied: those are
/// never told.
async fn carried(
    bundle: &Arc<Live>,
    place: usize,
    request: &Request,
    applied: bool,
    limit: Deadline,
) -> Report {
    let reads = request.reads();
    if applied || reads {
        // Else it is told as it stands: decided.
        let _ = timeout(limit.left(), bundle.reached(Progress::Applied)).await;
    }
    let record = bundle.record.lock().clone();
    let mut report = told(&request.id, record, bundle, place);
    if reads {
        for (answer, known) in report.answers.iter_mut().zip(bundle.answers(place)) {
            if known.is_none_or(|(_, committed)| !committed) {
                *answer = None;
            }
        }
    }
    report.bundle = Some(bundle.id.clone());
    report
}

/// What is told of a transaction that was run here: of its branches in keyspaces, the revisions of
/// its own.
fn told(id: &str, mut record: Record, live: &Live, place: usize) -> Report {
    let answers = live.answers(place);
    for (branch, answer) in record.branches.iter_mut().zip(&answers) {
        if let (BranchState::Committed(revision), Some((done, true))) = (&mut branch.state, answer)
        {
            *revision = done.revision;
        }
    }
    let answers = answers.into_iter().map(|answer| answer.map(|(done, _)| done)).collect();
    Report { answers, ..Report::of(id, record) }
}

fn same(content: u128, request: &Request) -> Result<(), RunError> {
    match content == request.content {
        true => Ok(()),
        false => Err(RunError::OtherContent(format!(
            "there was another transaction of the id {:?}: an id is for one transaction, for ever",
            request.id
        ))),
    }
}

fn in_doubt(id: &str) -> RunError {
    RunError::InDoubt(format!(
        "the transaction {id:?} is in doubt: ask for it by `quorate txn show {id}`, or run it \
         again under the same id"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alone::Alone;
    use crate::service::Settings;
    use quorate_base::NodeId;
    use quorate_transactions::{Owner, SuspicionSettings, Verdict};
    use tokio::task::JoinHandle;

    #[test]
    fn whoever_asks_a_second_member_waits_for_the_end_as_well() {
        let world = Alone::start();
        // Nobody takes it over: it is driven elsewhere.
        let long = Duration::from_secs(3_600);
        let suspicion =
            SuspicionSettings { lost: long, late: long, silent: long, ..Default::default() };
        let transactions = world.transactions(Settings { suspicion, ..Settings::default() });
        let owner = Owner { node: NodeId(99), run: 1 };
        let stage = Stage::Decided(Verdict::Commit);
        let decided = Record { owner, stage, ..world.record() };
        let at = world.keep("t", None, decided.clone());

        let ask = |applied, ms| {
            let (it, request) = (transactions.clone(), world.request("t"));
            let by = Deadline::within(Duration::from_millis(ms));
            world.runtime.spawn(async move { it.run(request, applied, by).await })
        };
        let told = |asked: JoinHandle<Result<Report, RunError>>| {
            world.runtime.block_on(asked).unwrap().unwrap()
        };
        assert!(!told(ask(false, 60_000)).is_finished(), "it is decided");
        let late = told(ask(true, 200));
        assert_eq!(late.record.stage, decided.stage, "told as it stands when the time is up");
        let waits = ask(true, 60_000);
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waits.is_finished());
        let stage = Stage::Finished(Verdict::Commit);
        world.keep("t", Some(at), Record { stage, ..decided.clone() });
        assert!(told(waits).is_finished());

        // What waits for people is carried out as far as it ever is by itself.
        let mut alarm = decided;
        for branch in &mut alarm.branches {
            branch.state = BranchState::Heuristic("by hand".to_owned());
        }
        world.keep("u", None, alarm);
        let (it, request) = (transactions.clone(), world.request("u"));
        let answered = world.runtime.block_on(async {
            let asked = it.run(request, true, Deadline::within(Duration::from_secs(60)));
            timeout(Duration::from_secs(3), asked).await
        });
        assert!(!answered.unwrap().unwrap().is_finished());
    }
}
