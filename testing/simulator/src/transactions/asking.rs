//! What is asked of groups on behalf of transactions, and the answers.
//!
//! Invariant: whatever is asked is asked again until there is an answer, as long as the node lives.

use super::RECORDS;
use super::drive::Asked;
use crate::counters::Happening;
use crate::world::{Answered, Happens, World};
use quorate_base::GroupId;
use quorate_checkers::Violation;
use quorate_driver::{Answer, Event, Request, RequestError, Token};
use quorate_keyspace::branch::BranchInfo;
use quorate_keyspace::command::Range;
use quorate_keyspace::reply::Outcome;
use quorate_keyspace::{BranchCommand, BranchId, BranchOutcome, Command, Prepare, Reply, codec};
use quorate_transactions::branches::{self, branch_id};
use quorate_transactions::records::{write_all, written};
use quorate_transactions::{End, Input, Owner, Record, StoreRequest, Stored, Vote};
use std::time::Duration;

/// Tokens of these requests have this bit; those of neighbours and clients have not.
const TOKEN: u64 = 1 << 62;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Something to be asked.
#[derive(Clone, Debug)]
pub(super) enum Errand {
    /// Write the record.
    Store(StoreRequest),
    Prepare {
        branch: u16,
        epoch: u32,
        priority: u64,
        alone: bool,
    },
    Resolve {
        branch: u16,
        epoch: u32,
    },
    Settle {
        branch: u16,
        commit: bool,
        epoch: u32,
    },
    /// The rest is asked once.
    Forget {
        group: GroupId,
        branch: BranchId,
        epoch: u64,
    },
    RollBack {
        group: GroupId,
        branch: BranchId,
        epoch: u64,
    },
    /// Find out what is to be done about a branch that nobody seems to see to.
    Orphan {
        group: GroupId,
        branch: BranchInfo,
        asker: Owner,
    },
    /// Make the record that says that its transaction is void.
    Bury {
        group: GroupId,
        branch: BranchInfo,
        request: StoreRequest,
    },
    /// A transaction of one group, by a client who knows nothing of branches.
    Plain {
        scribe: usize,
        group: GroupId,
        command: Command,
    },
    /// A read of one key, the same, and the command that does it where a branch has locked it.
    Read {
        scribe: usize,
        group: GroupId,
        range: Range,
        command: Command,
    },
}

/// What came of an errand.
enum Came {
    /// The coordinator hears of it.
    Tell(Input),
    /// It has to be asked again.
    Again,
    /// Nothing further.
    Nothing,
}

impl World<'_> {
    /// A node asks something, for a drive or, with zero, for none.
    pub(super) fn errand(&mut self, node: u64, drive: u64, id: String, errand: Errand) {
        let number = self.transactions.next();
        if let Some(running) = self.running(node) {
            let asked = Asked { drive, id, errand, pause: FIRST_PAUSE };
            running.transactor.asked.insert(number, asked);
            self.ask_group(node, number);
        }
    }

    /// Asks, for the first time or again.
    pub fn ask_group(&mut self, node: u64, number: u64) {
        let now = self.now;
        let Some(running) = self.running(node) else { return };
        let Some(asked) = running.transactor.asked.get(&number) else { return };
        let drive = running.transactor.drives.get(&asked.drive);
        let (id, errand) = (asked.id.clone(), asked.errand.clone());
        let place = |branch: u16| {
            let record = drive?.coordinator.record();
            let group = record.branches.get(usize::from(branch))?.group;
            Some((group, branch_id(&id, record.asker, branch)))
        };
        let asked = match errand {
            Errand::Store(request) => Some((RECORDS, write_all(&[(&id, &request)]))),
            Errand::Prepare { branch, epoch, priority, alone } => {
                let wanted = drive.is_some_and(|it| it.coordinator.asks() == Some(epoch));
                let txn = drive.and_then(|it| it.work.as_ref()?.get(usize::from(branch)));
                place(branch).zip(txn).filter(|_| wanted).map(|((group, id), txn)| {
                    let prepare = Prepare {
                        id,
                        epoch: epoch.into(),
                        priority,
                        txns: vec![txn.clone()],
                        or_else: false,
                        one_phase: alone,
                    };
                    (group, Command::Branch(BranchCommand::Prepare(prepare)))
                })
            }
            Errand::Resolve { branch, epoch } => place(branch).map(|(group, id)| {
                let command = BranchCommand::Resolve { id, epoch: epoch.into() };
                (group, Command::Branch(command))
            }),
            Errand::Settle { branch, commit, epoch } => place(branch).map(|(group, id)| {
                let epoch = epoch.into();
                let command = match commit {
                    true => BranchCommand::Commit { id, epoch },
                    false => BranchCommand::Rollback { id, epoch },
                };
                (group, Command::Branch(command))
            }),
            Errand::Forget { group, branch: id, epoch } => {
                Some((group, Command::Branch(BranchCommand::Forget { id, epoch })))
            }
            Errand::RollBack { group, branch: id, epoch } => {
                Some((group, Command::Branch(BranchCommand::Rollback { id, epoch })))
            }
            Errand::Bury { request, .. } => Some((RECORDS, write_all(&[(&id, &request)]))),
            Errand::Plain { group, command, .. } => Some((group, command)),
            Errand::Orphan { .. } => return self.ask_with(node, number, RECORDS, Request::Read),
            Errand::Read { group, .. } => {
                return self.ask_with(node, number, group, Request::Read);
            }
        };
        let Some((group, command)) = asked else {
            return self.over(node, number); // A vote that is not wanted any more.
        };
        match codec::encode(&command) {
            Ok(body) => self.ask_with(node, number, group, Request::Propose(body)),
            Err(error) => {
                let text = format!("{command:?} is not encoded at {now:?}: {error:?}");
                self.check(Err(Violation::new("command codec", text)));
            }
        }
    }

    fn ask_with(&mut self, node: u64, number: u64, group: GroupId, request: Request) {
        let now = self.now;
        let deadline = self.node(node).clock.read(now) + TIMEOUT;
        let token = Token(TOKEN | number);
        self.step(node, Event::Request { token, group, deadline, request });
    }

    /// Whether this was an answer to an errand; then it is seen to.
    pub fn transaction_replied(&mut self, node: u64, token: Token, answer: &Answered) -> bool {
        if token.0 >> 62 != 1 {
            return false;
        }
        let number = token.0 & !TOKEN;
        let Some(running) = self.running(node) else { return true };
        let Some(asked) = running.transactor.asked.get(&number) else {
            let text = format!("node {node} answered errand {number} twice");
            self.check(Err(Violation::new("answered exactly once", text)));
            return true;
        };
        let (drive, id, errand) = (asked.drive, asked.id.clone(), asked.errand.clone());
        match self.came(node, drive, &id, errand, answer) {
            Came::Tell(input) => {
                self.over(node, number);
                self.tell(node, drive, input);
            }
            Came::Nothing => self.over(node, number),
            Came::Again => {
                let alive = self.node(node).alive();
                let Some(running) = self.running(node) else { return true };
                let Some(asked) = running.transactor.asked.get_mut(&number) else { return true };
                let pause = asked.pause;
                asked.pause = (pause * 2).min(LONGEST_PAUSE);
                let jitter = self.transactions.rng.duration(Duration::ZERO, pause);
                let at = self.now + pause + jitter;
                self.queue.push(at, node as u32, Happens::AskAgain(alive, number));
            }
        }
        true
    }

    /// An errand needs nothing any more.
    fn over(&mut self, node: u64, number: u64) {
        let Some(running) = self.running(node) else { return };
        let Some(asked) = running.transactor.asked.remove(&number) else { return };
        if let Some(drive) = running.transactor.drives.get_mut(&asked.drive) {
            drive.under_way -= 1;
            self.may_end(node, asked.drive);
        }
    }

    fn came(&mut self, node: u64, drive: u64, id: &str, errand: Errand, answer: &Answered) -> Came {
        let outcome = match answer {
            Ok(Answer::Applied(Reply { result: Ok(Outcome::Branch(outcome)), .. })) => {
                Some(outcome)
            }
            _ => None,
        };
        match errand {
            Errand::Store(request) => match stored(id, &request, answer) {
                Some(input) => Came::Tell(input),
                None => Came::Again,
            },
            Errand::Prepare { branch, epoch, alone, .. } => {
                let refused = match answer {
                    Ok(Answer::Applied(Reply { result: Err(why), .. })) => {
                        Some(Vote::No { reason: format!("{why:?}"), again: None })
                    }
                    _ => None,
                };
                let vote = refused.or_else(|| branches::vote(outcome?, alone));
                self.answered_by(node, drive, branch, outcome);
                match vote {
                    Some(vote) => Came::Tell(Input::Voted { branch, epoch, vote }),
                    None => Came::Again,
                }
            }
            Errand::Resolve { branch, epoch } => {
                match outcome.and_then(|outcome| branches::found(outcome).ok()) {
                    Some(found) => Came::Tell(Input::Resolved { branch, epoch, found }),
                    None => Came::Again,
                }
            }
            Errand::Settle { branch, commit, epoch } => {
                match outcome.and_then(|outcome| branches::end(outcome, commit).ok()) {
                    Some(end) => {
                        self.ended_otherwise(node, drive, id, commit, &end);
                        self.answered_by(node, drive, branch, outcome);
                        Came::Tell(Input::Settled { branch, epoch, end })
                    }
                    None => Came::Again,
                }
            }
            aside => {
                self.came_aside(node, id, aside, answer);
                Came::Nothing
            }
        }
    }

    /// What came of an errand that no drive waits for.
    fn came_aside(&mut self, node: u64, id: &str, errand: Errand, answer: &Answered) {
        let readable = matches!(answer, Ok(Answer::Readable(_)));
        match errand {
            Errand::Orphan { group, branch, asker } if readable => {
                self.judge_orphan(node, id, group, branch, asker);
            }
            Errand::Bury { group, branch, request } => {
                if let Some(Input::Stored { stored: Stored::Done(_), .. }) =
                    stored(id, &request, answer)
                {
                    self.roll_back_orphan(node, id, group, branch);
                }
            }
            Errand::Plain { scribe, .. } => self.plain_answered(scribe, answer),
            Errand::Read { scribe, group, range, command } => {
                let neighbour = self.running(node).and_then(|it| it.neighbours.get(&group));
                let reader = neighbour.map(|it| it.host.service().reader());
                match reader.map(|reader| reader.range_unlocked(&range)) {
                    Some(Ok(Some((_, found)))) if readable => self.list_read(scribe, found),
                    Some(Ok(None)) if readable => {
                        self.count(Happening::ReadMetLock);
                        let errand = Errand::Plain { scribe, group, command };
                        self.errand(node, 0, id.to_owned(), errand);
                    }
                    _ => self.plain_answered(scribe, &Err(RequestError::Unavailable)),
                }
            }
            _ => {}
        }
    }

    fn answered_by(&mut self, node: u64, drive: u64, branch: u16, outcome: Option<&BranchOutcome>) {
        if let Some((done, _)) = outcome.and_then(branches::answers)
            && let Some(done) = done.first()
            && let Some(drive) = self.drive_of(node, drive)
            && let Some(slot) = drive.answers.get_mut(usize::from(branch))
        {
            *slot = Some(done.clone());
        }
    }

    fn ended_otherwise(&mut self, node: u64, drive: u64, id: &str, commit: bool, end: &End) {
        let alone = self.drive_of(node, drive).is_some_and(|it| it.coordinator.record().is_alone());
        let otherwise = match end {
            End::Committed(_) => !commit && !alone,
            End::RolledBack => commit,
            End::Heuristic(_) => true,
            End::Superseded => false,
        };
        if otherwise && self.neighbours_have_a_quorum() {
            let text = format!("transaction {id}, commit {commit}: {end:?}");
            self.check(Err(Violation::new("no branch is ended against the decision", text)));
        }
    }
}

/// What a write of a record came to, if that is known.
fn stored(id: &str, request: &StoreRequest, answer: &Answered) -> Option<Input> {
    let Ok(Answer::Applied(Reply { revision, result: Ok(outcome) })) = answer else { return None };
    let stored = written(&[(id, request)], *revision, outcome.clone()).into_iter().next()?;
    Some(Input::Stored { number: request.number, stored })
}

/// The write of the record of a transaction that nobody began.
pub(super) fn void(owner: Owner, wall_ms: u64) -> StoreRequest {
    StoreRequest { number: 1, at: None, record: Record::void(owner, wall_ms, "nobody began it") }
}
