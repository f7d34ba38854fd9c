//! One transaction on its way: gives the coordinator what happens, and does what it says.

use crate::keyspace::{Participant, Pauses};
use crate::live::{Live, Progress};
use crate::manager::{Outside, name};
use crate::request::{Branch, BranchWork};
use crate::service::Inner;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use quorate_resource_managers::Deadline;
use quorate_transactions::{
    Coordinator, Effect, End, Input, Kind, Settings, Start, StoreRequest, Vote, content_hash,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often what is waited for is written down.
const NOTE_INTERVAL: Duration = Duration::from_secs(2);

type Task = BoxFuture<'static, Option<Input>>;

/// Begins a transaction and drives it in the background; or tells which of this id this node drives
/// already.
pub(crate) fn begin(
    inner: &Arc<Inner>,
    id: &str,
    start: Start,
    work: Vec<Branch>,
) -> Result<Arc<Live>, Arc<Live>> {
    let (hash, moment, mut effects) = (content_hash(id.as_bytes()), inner.moment(), Vec::new());
    let coordinator = Coordinator::begin(Settings::default(), hash, start, moment, &mut effects);
    let live = Live::new(id, coordinator.record().clone());
    inner.live.add(&live)?;
    let drive = Drive::new(inner.clone(), live.clone(), coordinator, Some(Arc::new(work)));
    tokio::spawn(drive.run(effects));
    Ok(live)
}

/// Drives one transaction until it is over, or somebody else's.
pub(crate) struct Drive {
    inner: Arc<Inner>,
    live: Arc<Live>,
    coordinator: Coordinator,
    /// What the branches do; nobody knows it who took the transaction over.
    work: Option<Arc<Vec<Branch>>>,
    deadline: Deadline,
    tasks: FuturesUnordered<Task>,
    /// Whether the keyspaces may forget it.
    forget: bool,
}

impl Drive {
    pub fn new(
        inner: Arc<Inner>,
        live: Arc<Live>,
        coordinator: Coordinator,
        work: Option<Arc<Vec<Branch>>>,
    ) -> Drive {
        let patience = Duration::from_millis(coordinator.record().patience_ms);
        let deadline = Deadline::within(patience);
        let tasks = FuturesUnordered::new();
        Drive { inner, live, coordinator, work, deadline, tasks, forget: false }
    }

    /// Until the end. `effects` are what its beginning has said.
    pub async fn run(mut self, effects: Vec<Effect>) {
        self.carry_out(effects);
        let mut note = Instant::now() + NOTE_INTERVAL;
        while !self.coordinator.is_over() {
            let timeout = self.coordinator.next_timeout().map(|at| self.inner.instant(at));
            let input = tokio::select! {
                done = self.tasks.next(), if !self.tasks.is_empty() => match done.flatten() {
                    Some(input) => input,
                    None => continue,
                },
                words = self.live.word() => {
                    words.into_iter().for_each(|word| self.step(word));
                    continue;
                }
                () = sleep_until(timeout.unwrap_or(note).min(note)) => {
                    if timeout.is_some_and(|at| at <= Instant::now()) {
                        Input::Tick
                    } else {
                        note = Instant::now() + NOTE_INTERVAL;
                        self.hear_of_troubles();
                        self.look_at_record();
                        Input::Note
                    }
                }
            };
            self.step(input);
        }
        self.inner.live.remove(&self.live);
        if self.forget {
            self.let_it_be_forgotten().await;
        }
    }

    fn hear_of_troubles(&mut self) {
        for (branch, what) in self.live.take_troubles() {
            self.step(Input::Trouble { branch, what });
        }
    }

    /// What waits for people writes nothing, and so would never hear that they have acknowledged
    /// it at another member.
    fn look_at_record(&mut self) {
        if !self.coordinator.record().waits_for_people() {
            return;
        }
        let Some(store) = self.inner.store() else { return };
        // In this order: the record is at least as new as that.
        let as_of = store.0.reader().revision();
        if let Ok(record) = store.look(&self.live.id) {
            let record = record.map(|(_, revision)| revision);
            self.step(Input::Seen { as_of, record });
        }
    }

    fn step(&mut self, input: Input) {
        let mut effects = Vec::new();
        self.coordinator.step(self.inner.moment(), input, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        self.live.set_asks(self.coordinator.asks());
        for effect in effects {
            match effect {
                Effect::Store(request) => self.store(request),
                Effect::Prepare { branch, epoch, priority, alone } => {
                    self.prepare(branch, (epoch, priority), alone);
                }
                Effect::Resolve { branch, epoch } => self.resolve(branch, epoch),
                Effect::Settle { branch, commit, asked, epoch } => {
                    self.settle(branch, commit, (asked, epoch));
                }
                Effect::Decided => {
                    self.inner.counters.decided(self.coordinator.record());
                    self.show(Progress::Decided);
                }
                Effect::Finished { forget } => {
                    self.forget = forget;
                    self.show(Progress::Applied);
                }
                Effect::Deposed => {
                    let id = &self.live.id;
                    tracing::info!(id, "somebody else drives the transaction now");
                    self.leave_to_recovery();
                }
            }
        }
        // That is proven, whether or not its end is on record yet.
        let record = self.coordinator.record();
        if self.coordinator.is_told() && record.open_branches().next().is_none() {
            self.show(Progress::Applied);
        }
    }

    /// What it has asked of participants outside is not its any more: it is found by a scan, and
    /// what was rolled back already is noted to be forgotten with the record that there is.
    fn leave_to_recovery(&self) {
        let record = self.coordinator.record();
        if record.is_in_keyspaces() {
            return;
        }
        let (inner, id) = (self.inner.clone(), self.live.id.clone());
        let outside = record.branches.iter().filter(|branch| branch.kind != Kind::Keyspace);
        let names = outside.filter_map(|branch| {
            name(inner.node.cluster(), &id, record.asked, &branch.participant, &branch.name).ok()
        });
        let names: Vec<_> = names.collect();
        tokio::spawn(async move {
            if let Err(error) = inner.note_strays(&id, &names).await {
                tracing::warn!(id, %error, "branches of it may be remembered for ever");
            }
            inner.recovery.hurry();
        });
    }

    /// Lets whoever waits see how it stands.
    fn show(&self, progress: Progress) {
        self.live.record.lock().clone_from(self.coordinator.record());
        self.live.advance(progress);
    }

    fn store(&mut self, request: StoreRequest) {
        let (inner, live) = (self.inner.clone(), self.live.clone());
        self.tasks.push(Box::pin(async move {
            let mut pauses = Pauses::new();
            loop {
                match inner.writer.write(&live.id, &request).await {
                    Ok(stored) => {
                        return Some(Input::Stored { number: request.number, stored });
                    }
                    Err(error) => {
                        tracing::debug!(id = live.id, %error, "a record is not written yet");
                    }
                }
                pauses.pause().await;
            }
        }));
    }

    fn prepare(&mut self, branch: u16, (epoch, priority): (u32, u64), alone: bool) {
        let Some(work) = self.work.clone() else { return };
        let (inner, live, deadline) = (self.inner.clone(), self.live.clone(), self.deadline);
        let record = &self.coordinator.record().branches[usize::from(branch)];
        let (kind, group) = (record.kind, record.group);
        self.tasks.push(Box::pin(async move {
            let it = &work[usize::from(branch)];
            let vote = match &it.work {
                BranchWork::Keyspace { txns, or_else } => {
                    let participant = Participant { inner: &inner, live: &live, group, branch };
                    participant.prepare(txns, *or_else, (epoch, priority), alone).await
                }
                BranchWork::Manager(_, work) => {
                    match outside(&inner, &live, branch, epoch, (kind, it)) {
                        Ok(outside) => outside.prepare(work, epoch, deadline, alone).await,
                        Err(reason) => Some(Vote::No { reason, again: None }),
                    }
                }
            };
            let own = work.iter().any(Branch::is_own);
            vote.map(|vote| Input::Voted { branch, epoch, vote: once(vote, own) })
        }));
    }

    fn resolve(&mut self, branch: u16, epoch: u32) {
        let (inner, live) = (self.inner.clone(), self.live.clone());
        let group = self.coordinator.record().branches[usize::from(branch)].group;
        self.tasks.push(Box::pin(async move {
            let participant = Participant { inner: &inner, live: &live, group, branch };
            let found = participant.resolve(epoch).await;
            Some(Input::Resolved { branch, epoch, found })
        }));
    }

    fn settle(&mut self, branch: u16, commit: bool, (asked, epoch): (u32, u32)) {
        let (inner, live) = (self.inner.clone(), self.live.clone());
        let record = self.coordinator.record();
        let alone = record.is_alone();
        let it = record.branches[usize::from(branch)].clone();
        self.tasks.push(Box::pin(async move {
            let end = if it.kind == Kind::Keyspace {
                let group = it.group;
                let participant = Participant { inner: &inner, live: &live, group, branch };
                participant.settle(commit, epoch).await
            } else {
                let mut pauses = Pauses::new();
                loop {
                    let cluster = inner.node.cluster();
                    let named = name(cluster, &live.id, asked, &it.participant, &it.name);
                    match (named, inner.manager(it.kind, &it.participant)) {
                        (Ok(name), Ok(manager)) => {
                            let (inner, live, manager) = (&*inner, &*live, &*manager);
                            let outside = Outside { inner, live, manager, name, branch };
                            break outside.settle(commit, alone).await;
                        }
                        (Err(error), _) => live.trouble(branch, &error.to_string()),
                        (_, Err(error)) => live.trouble(branch, &error.to_string()),
                    }
                    pauses.pause().await;
                }
            };
            if let End::Heuristic(what) = &end {
                let (id, branch) = (&live.id, &it.name);
                tracing::error!(id, branch, what, "ALARM: somebody ended a branch otherwise");
            }
            Some(Input::Settled { branch, epoch, end })
        }));
    }

    /// Everything that was asked on its behalf is answered first: then its copies are void.
    async fn let_it_be_forgotten(mut self) {
        while self.tasks.next().await.is_some() {}
        let record = self.coordinator.record();
        let (inner, live) = (&self.inner, &*self.live);
        let of_keyspaces = (0u16..).zip(&record.branches);
        for (branch, it) in of_keyspaces.filter(|(_, it)| it.kind == Kind::Keyspace) {
            let group = it.group;
            Participant { inner, live, group, branch }.forget(record.epoch);
        }
    }
}

/// A vote of a transaction that can be tried only once, if the application has prepared a branch of
/// it: that bears the name of the first attempt.
fn once(vote: Vote, own: bool) -> Vote {
    match vote {
        Vote::No { reason, again: Some(_) } if own => {
            let reason = format!(
                "{reason}; and what the application has prepared cannot be tried again: prepare it \
                 anew, for another transaction"
            );
            Vote::No { reason, again: None }
        }
        vote => vote,
    }
}

/// A branch at a participant outside, if this node is configured with that.
fn outside<'a>(
    inner: &'a Inner,
    live: &'a Live,
    branch: u16,
    epoch: u32,
    (kind, it): (Kind, &Branch),
) -> Result<Outside<'a>, String> {
    let cluster = inner.node.cluster();
    let name = name(cluster, &live.id, epoch, &it.participant, &it.name)
        .map_err(|error| error.to_string())?;
    let manager = inner.manager_ref(kind, &it.participant).map_err(|error| error.to_string())?;
    Ok(Outside { inner, live, manager, name, branch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_application_has_prepared_is_not_tried_again() {
        let no = |again| Vote::No { reason: "a younger one is there".to_owned(), again };
        assert_eq!(once(no(Some(7)), false), no(Some(7)));
        let Vote::No { reason, again: None } = once(no(Some(7)), true) else { panic!() };
        assert!(reason.starts_with("a younger one is there; and what the application"), "{reason}");
        assert_eq!((once(no(None), true), once(Vote::Yes, true)), (no(None), Vote::Yes));
    }
}
