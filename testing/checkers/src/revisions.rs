//! Strict serializability by revision: every change has a revision of its own, so that the order
//! is given and need not be searched for. Replaying it must explain every answer, and the order
//! must respect real time.
//!
//! Invariant: linear in the history (but for deletes without an answer). Together with
//! [`Truth`], which makes all replicas agree on the order, it is exact.

use crate::history::{End, Op, Operation, Outcome, Refusal, Reply, Request};
use crate::store::{Change, Store};
use crate::unanswered::Unanswered;
use crate::violation::Violation;
use bytes::Bytes;
use quorate_base::Instant;
use std::collections::{BTreeMap, BTreeSet};

const PROMISE: &str = "strict serializability";

/// What the replicas made of each revision: the same, or they are in violation.
#[derive(Clone, Default, Debug)]
pub struct Truth {
    /// The changes of revision 2, 3, … and when a replica first made them.
    revisions: Vec<(Vec<Change>, Instant)>,
}

impl Truth {
    /// The latest revision; 1 before any change.
    pub fn last(&self) -> u64 {
        self.revisions.len() as u64 + 1
    }

    /// What `revision` changed; nothing if it has not come yet.
    pub fn changes(&self, revision: u64) -> &[Change] {
        self.at(revision).map_or(&[], |(changes, _)| changes)
    }

    fn at(&self, revision: u64) -> Option<&(Vec<Change>, Instant)> {
        self.revisions.get(usize::try_from(revision.checked_sub(2)?).ok()?)
    }

    /// A replica made `changes` at `revision`, for the first time or again after a restart.
    pub fn record(
        &mut self,
        replica: u64,
        revision: u64,
        changes: &[Change],
        at: Instant,
    ) -> Result<(), Violation> {
        match self.at(revision) {
            Some((known, _)) if known == changes => Ok(()),
            Some((known, _)) => Err(Violation::new(
                "state-machine safety",
                format!(
                    "at revision {revision} replica {replica} did {changes:?}, another {known:?}"
                ),
            )),
            None if revision == self.last() + 1 && !changes.is_empty() => {
                self.revisions.push((changes.to_vec(), at));
                Ok(())
            }
            None => Err(Violation::new(
                "revision monotonicity",
                format!(
                    "replica {replica} went to revision {revision} with {} changes when \
                     {} was the last",
                    changes.len(),
                    self.last()
                ),
            )),
        }
    }
}

/// A lease's keys vanished though nobody is known to have revoked it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expiry {
    /// The lease.
    pub lease: i64,
    /// At which revision.
    pub revision: u64,
    /// When the first replica did it.
    pub at: Instant,
}

/// Replays `truth` and compares every operation of `history` with it. Returns the final store and
/// the leases that expired.
pub fn check_revisions(
    truth: &Truth,
    history: &[Operation],
) -> Result<(Store, Vec<Expiry>), Violation> {
    let mut replay = Replay::new(truth, history)?;
    let mut store = Store::default();
    let mut expiries = Vec::new();
    replay.reads(&store)?;
    for revision in 2..=truth.last() {
        let (changes, at) = truth.at(revision).ok_or_else(|| missing(revision))?;
        match replay.author(&store, revision, changes, *at)? {
            Author::Of(author) => replay.authored(&store, revision, author)?,
            Author::Unanswered => {}
            Author::Nobody => {
                let lease = replay.expired(&store, revision, changes)?;
                expiries.extend(lease.map(|lease| Expiry { lease, revision, at: *at }));
            }
        }
        store.advance(changes);
        replay.reads(&store)?;
    }
    Ok((store, expiries))
}

fn missing(revision: u64) -> Violation {
    Violation::new(PROMISE, format!("revision {revision} is answered but no replica has it"))
}

fn wrong(what: &str, operation: &Operation, why: impl std::fmt::Display) -> Violation {
    Violation::new(PROMISE, format!("{what}: {why}; operation {operation:?}"))
}

/// Whom a revision is put down to.
enum Author {
    Of(usize),
    /// One of those without an answer.
    Unanswered,
    /// No request.
    Nobody,
}

struct Replay<'a> {
    history: &'a [Operation],
    /// Which operation would write this value.
    writers: BTreeMap<&'a Bytes, usize>,
    /// Operations answered as of each revision.
    answered: BTreeMap<u64, Vec<usize>>,
    /// For each operation the highest revision answered before it was called.
    floor: Vec<u64>,
    /// Which revision each operation made.
    made: Vec<u64>,
    /// Operations without an answer that could delete.
    open_deletes: Vec<usize>,
    /// What they are held to have done.
    unanswered: Unanswered,
    /// The highest revision anyone asked to compact.
    compacted: u64,
}

impl<'a> Replay<'a> {
    fn new(truth: &Truth, history: &'a [Operation]) -> Result<Self, Violation> {
        let mut writers = BTreeMap::new();
        let mut answered: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut open_deletes = Vec::new();
        let mut compacted = 0;
        for (i, operation) in history.iter().enumerate() {
            for value in values(&operation.request) {
                writers.insert(value, i);
            }
            if let Request::Compact { revision } = operation.request {
                compacted = compacted.max(revision);
            }
            match (&operation.end, &operation.request) {
                (End::Answered { .. }, Request::Old { revision: 1.., .. }) => {}
                (End::Answered { reply, .. }, _) if reply.revision > truth.last() => {
                    return Err(missing(reply.revision));
                }
                (End::Answered { reply, .. }, _) => {
                    answered.entry(reply.revision).or_default().push(i);
                }
                (End::Unknown, request) if request.writes() => open_deletes.push(i),
                _ => {}
            }
            if let Some(at) = asked_revision(operation) {
                answered.entry(at).or_default().push(i);
            }
        }
        // Whoever wrote a value somewhere did nothing else elsewhere.
        let puts = (2..=truth.last()).filter_map(|revision| truth.at(revision));
        let puts = puts.flat_map(|(changes, _)| changes.iter());
        let authors = puts.filter_map(|change| match change {
            Change::Put(kv) => writers.get(&kv.value).copied(),
            Change::Delete(_) => None,
        });
        let authors: BTreeSet<usize> = authors.collect();
        open_deletes.retain(|i| !authors.contains(i));
        let floor = floors(history);
        let made = vec![0; history.len()];
        let unanswered = Unanswered::default();
        Ok(Replay { history, writers, answered, floor, made, open_deletes, unanswered, compacted })
    }

    /// Which operation made `revision`.
    fn author(
        &mut self,
        store: &Store,
        revision: u64,
        changes: &[Change],
        at: Instant,
    ) -> Result<Author, Violation> {
        let mut written = changes.iter().filter_map(|change| match change {
            Change::Put(kv) => Some(kv),
            Change::Delete(_) => None,
        });
        if let Some(kv) = written.next() {
            let unasked = || Violation::new(PROMISE, format!("nobody asked for {kv:?}"));
            return self.writers.get(&kv.value).copied().map(Author::Of).ok_or_else(unasked);
        }
        let makes = |i: usize| {
            let (reply, made) = store.plan(&self.history[i].request);
            same(&made, changes).then_some(reply)
        };
        let here = self.answered.get(&revision).map_or(&[][..], |list| list);
        let refused = |i: usize| {
            let answer = self.history[i].answer();
            answer.is_some_and(|(_, reply)| matches!(reply.outcome, Outcome::Refused(_)))
        };
        let writes = |i: &usize| self.history[*i].request.writes() && !refused(*i);
        let writers = || here.iter().copied().filter(writes);
        let told = |i: usize, reply: &Reply| self.history[i].answer().is_some_and(|a| a.1 == reply);
        if let Some(i) = writers().find(|&i| makes(i).is_some_and(|reply| told(i, &reply))) {
            return Ok(Author::Of(i));
        }
        let free = |i: usize| self.history[i].called <= at && self.floor[i] < revision;
        let open = self.open_deletes.iter().copied();
        let could: Vec<usize> = open.filter(|&i| free(i) && makes(i).is_some()).collect();
        // At last whoever could have done it but was told otherwise, to be reported.
        let told_otherwise = writers().find(|&i| makes(i).is_some());
        if self.unanswered.put_down(revision, could) {
            return Ok(Author::Unanswered);
        }
        Ok(told_otherwise.map_or(Author::Nobody, Author::Of))
    }

    /// `author` made `revision`: was it allowed to, and was it told so?
    fn authored(&mut self, store: &Store, revision: u64, author: usize) -> Result<(), Violation> {
        let operation = &self.history[author];
        if self.made[author] != 0 {
            let why = format!("at revision {} and again at {revision}", self.made[author]);
            return Err(Violation::new("exactly once", format!("{operation:?} was done {why}")));
        }
        self.made[author] = revision;
        if self.floor[author] >= revision {
            let why = format!("it made {revision} after {} was answered", self.floor[author]);
            return Err(wrong("real-time order", operation, why));
        }
        let (reply, _) = store.plan(&operation.request);
        match &operation.end {
            End::Unknown => Ok(()),
            End::NotDone => Err(wrong("a refused request was done", operation, revision)),
            End::Answered { reply: told, .. } if *told == reply => Ok(()),
            End::Answered { .. } => Err(wrong("wrong answer", operation, format!("not {reply:?}"))),
        }
    }

    /// The revision has no author: a lease must have ended. `None` if one was revoked by request.
    fn expired(
        &self,
        store: &Store,
        revision: u64,
        changes: &[Change],
    ) -> Result<Option<i64>, Violation> {
        let key = changes.first().map(Change::key);
        let lease =
            key.and_then(|key| store.all().find(|kv| kv.key == *key)).map_or(0, |kv| kv.lease);
        let attached: Vec<Change> = store.attached(lease).into_iter().map(Change::Delete).collect();
        if lease == 0 || !same(&attached, changes) {
            let text = format!("nobody asked for revision {revision}: {changes:?}");
            return Err(Violation::new(PROMISE, text));
        }
        Ok(Some(lease))
    }

    /// Every operation answered as of the store's revision that did not make it.
    fn reads(&self, store: &Store) -> Result<(), Violation> {
        let Some(here) = self.answered.get(&store.revision) else { return Ok(()) };
        for &i in here {
            let operation = &self.history[i];
            if self.made[i] != store.revision {
                self.read(store, operation, self.floor[i])?;
            }
        }
        Ok(())
    }

    fn read(&self, store: &Store, operation: &Operation, floor: u64) -> Result<(), Violation> {
        let Some((_, told)) = operation.answer() else { return Ok(()) };
        let local = matches!(operation.request, Request::Old { .. });
        if !local && told.revision < floor {
            let why = format!("it saw {} after {floor} was answered", told.revision);
            return Err(wrong("stale", operation, why));
        }
        match (&operation.request, &told.outcome) {
            (Request::Compact { .. } | Request::Grant { .. }, _) => return Ok(()),
            (Request::Old { revision, .. }, Outcome::Refused(Refusal::Compacted)) => {
                let allowed = *revision != 0 && *revision < self.compacted;
                return if allowed {
                    Ok(())
                } else {
                    Err(wrong("refused as compacted", operation, self.compacted))
                };
            }
            (Request::Old { revision, .. }, Outcome::Refused(Refusal::Future)) => {
                return if *revision > told.revision {
                    Ok(())
                } else {
                    Err(wrong("refused as yet to come", operation, told.revision))
                };
            }
            (_, Outcome::Refused(refusal)) => {
                return if refusal.is_about_leases() || *refusal == Refusal::NoSpace {
                    Ok(())
                } else {
                    Err(wrong("refused without reason", operation, store.revision))
                };
            }
            _ => {}
        }
        let (reply, changes) = store.plan(&operation.request);
        if !changes.is_empty() && !matches!(operation.request, Request::Revoke { .. }) {
            return Err(wrong("answered but not done", operation, format!("should {changes:?}")));
        }
        if changes.is_empty() && reply.outcome != told.outcome {
            return Err(wrong("wrong answer", operation, format!("not {:?}", reply.outcome)));
        }
        Ok(())
    }
}

/// The old revision that an operation was answered as of.
fn asked_revision(operation: &Operation) -> Option<u64> {
    match (&operation.request, operation.answer()?.1) {
        (Request::Old { revision, .. }, reply) if *revision != 0 => match reply.outcome {
            Outcome::Found(_) => Some(*revision),
            _ => Some(reply.revision),
        },
        _ => None,
    }
}

/// For each operation the highest revision that was answered before it was called.
fn floors(history: &[Operation]) -> Vec<u64> {
    let mut answers: Vec<(Instant, u64)> = history
        .iter()
        .filter_map(|operation| operation.answer().map(|(at, reply)| (at, reply.revision)))
        .collect();
    answers.sort_unstable();
    let mut calls: Vec<usize> = (0..history.len()).collect();
    calls.sort_by_key(|&i| history[i].called);
    let mut floor = vec![0; history.len()];
    let (mut next, mut highest) = (0, 0);
    for i in calls {
        while answers.get(next).is_some_and(|(at, _)| *at < history[i].called) {
            highest = highest.max(answers[next].1);
            next += 1;
        }
        floor[i] = highest;
    }
    floor
}

fn same(a: &[Change], b: &[Change]) -> bool {
    a.len() == b.len() && a.iter().all(|change| b.contains(change))
}

fn values(request: &Request) -> impl Iterator<Item = &Bytes> {
    let (one, two): (&[Op], &[Op]) = match request {
        Request::Op(op) => (std::slice::from_ref(op), &[]),
        Request::Txn { success, failure, .. } => (success, failure),
        _ => (&[], &[]),
    };
    one.iter().chain(two).filter_map(|op| match op {
        Op::Put { value, .. } => Some(value),
        _ => None,
    })
}
