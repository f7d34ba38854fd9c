//! Asking groups on behalf of transactions, and what comes of it.
//!
//! Invariant: what a drive waits for is asked again until there is an answer, as long as the node
//! lives and the answer is wanted.

use super::errand::Errand;
use crate::counters::Happening;
use crate::world::{Answered, Happens, World};
use quorate_checkers::Violation;
use quorate_driver::{Answer, Event, RequestError, Token};
use quorate_keyspace::reply::Outcome;
use quorate_keyspace::{BranchOutcome, Reply};
use quorate_transactions::branches;
use quorate_transactions::records::written;
use quorate_transactions::{Input, StoreRequest, Stored, Vote};
use std::time::Duration;

/// Tokens of these requests have this bit; those of neighbours and clients have not.
const TOKEN: u64 = 1 << 62;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Something that was asked.
pub(super) struct Asked {
    /// On behalf of which drive, if of one.
    drive: Option<u64>,
    id: String,
    errand: Errand,
    /// It meets locks, and has to wait for them.
    by_itself: bool,
    /// Whether it is asked now; else it waits to be asked again.
    under_way: bool,
    /// Before it is asked again.
    pause: Duration,
}

/// What came of an errand.
enum Came {
    /// The coordinator hears of it.
    Tell(Input),
    /// It has to be asked again.
    Again,
    /// At once, and not together with others.
    ByItself,
    /// Nothing further.
    Nothing,
}

impl World<'_> {
    /// A node asks something, on behalf of a drive or of none.
    pub(super) fn errand(&mut self, node: u64, drive: Option<u64>, id: String, errand: Errand) {
        let number = self.transactions.next();
        if let Some(running) = self.running(node) {
            let (by_itself, under_way, pause) = (false, false, FIRST_PAUSE);
            let asked = Asked { drive, id, errand, by_itself, under_way, pause };
            running.transactor.asked.insert(number, asked);
            self.ask_group(node, number);
        }
    }

    /// Asks, for the first time or again.
    pub fn ask_group(&mut self, node: u64, number: u64) {
        let Some(running) = self.running(node) else { return };
        let transactor = &mut running.transactor;
        let Some(asked) = transactor.asked.get_mut(&number) else { return };
        let drive = asked.drive.and_then(|drive| transactor.drives.get(&drive));
        asked.under_way = true;
        match asked.errand.request(&asked.id, drive, asked.by_itself) {
            Some((group, request)) => {
                let now = self.now;
                let deadline = self.node(node).clock.read(now) + TIMEOUT;
                let token = Token(TOKEN | number);
                self.step(node, Event::Request { token, group, deadline, request });
            }
            None => self.over(node, number),
        }
    }

    /// Whether this was an answer to an errand; then it is seen to.
    pub fn transaction_replied(&mut self, node: u64, token: Token, answer: &Answered) -> bool {
        if token.0 >> 62 != 1 {
            return false;
        }
        let number = token.0 & !TOKEN;
        let Some(running) = self.running(node) else { return true };
        let asked = running.transactor.asked.get_mut(&number).filter(|asked| asked.under_way);
        let Some(asked) = asked else {
            let text = format!("node {node} answered errand {number} twice");
            self.check(Err(Violation::new("answered exactly once", text)));
            return true;
        };
        asked.under_way = false;
        let (drive, id, errand) = (asked.drive, asked.id.clone(), asked.errand.clone());
        let came = match drive {
            Some(drive) => self.came(node, drive, &id, errand, answer),
            None => {
                self.came_aside(node, &id, errand, answer);
                Came::Nothing
            }
        };
        match came {
            Came::Tell(input) => {
                self.over(node, number);
                if let Some(drive) = drive {
                    self.tell(node, drive, input);
                }
            }
            Came::Nothing => self.over(node, number),
            Came::ByItself => {
                if let Some(running) = self.running(node)
                    && let Some(asked) = running.transactor.asked.get_mut(&number)
                {
                    asked.by_itself = true;
                    self.ask_group(node, number);
                }
            }
            Came::Again => self.ask_later(node, number),
        }
        true
    }

    fn ask_later(&mut self, node: u64, number: u64) {
        let alive = self.node(node).alive();
        let Some(running) = self.running(node) else { return };
        let Some(asked) = running.transactor.asked.get_mut(&number) else { return };
        let pause = asked.pause;
        asked.pause = (pause * 2).min(LONGEST_PAUSE);
        let jitter = self.transactions.rng.duration(Duration::ZERO, pause);
        let at = self.now + pause + jitter;
        self.queue.push(at, node as u32, Happens::AskAgain(alive, number));
    }

    /// An errand needs nothing any more.
    fn over(&mut self, node: u64, number: u64) {
        let Some(running) = self.running(node) else { return };
        let Some(asked) = running.transactor.asked.remove(&number) else { return };
        let Some(number) = asked.drive else { return };
        if let Some(drive) = running.transactor.drives.get_mut(&number) {
            drive.under_way -= 1;
            self.may_end(node, number);
        }
    }

    /// What came of an errand that a drive waits for.
    fn came(&mut self, node: u64, drive: u64, id: &str, errand: Errand, answer: &Answered) -> Came {
        let outcome = outcome(answer);
        match errand {
            Errand::Store(request) => stored(id, &request, answer).map_or(Came::Again, Came::Tell),
            Errand::Prepare { branch, epoch, alone, .. } => {
                let refused = match answer {
                    Ok(Answer::Applied(Reply { result: Err(why), .. })) => {
                        Some(Vote::No { reason: format!("{why:?}"), again: None })
                    }
                    _ => None,
                };
                if outcome == Some(&BranchOutcome::Waiting) {
                    return Came::ByItself;
                }
                let vote = refused.or_else(|| branches::vote(outcome?, alone));
                self.answered_by(node, drive, branch, outcome);
                vote.map_or(Came::Again, |vote| Came::Tell(Input::Voted { branch, epoch, vote }))
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
            _ => Came::Nothing,
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
            Errand::Plain { scribe, .. } => self.plain_answered(scribe, id, answer),
            Errand::Read { scribe, group, range, command } => {
                let neighbour = self.running(node).and_then(|it| it.neighbours.get(&group));
                let reader = neighbour.map(|it| it.host.service().reader());
                match reader.map(|reader| reader.range_unlocked(&range)) {
                    Some(Ok(Some((_, found)))) if readable => self.list_read(scribe, id, found),
                    Some(Ok(None)) if readable => {
                        self.count(Happening::ReadMetLock);
                        let errand = Errand::Plain { scribe, group, command };
                        self.errand(node, None, id.to_owned(), errand);
                    }
                    _ => self.plain_answered(scribe, id, &Err(RequestError::Unavailable)),
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
}

/// What is said of a branch, by itself or together with others.
fn outcome(answer: &Answered) -> Option<&BranchOutcome> {
    match answer {
        Ok(Answer::Applied(Reply { result: Ok(Outcome::Branch(outcome)), .. })) => match outcome {
            BranchOutcome::Together(all) => all.first(),
            outcome => Some(outcome),
        },
        _ => None,
    }
}

/// What a write of a record came to, if that is known.
fn stored(id: &str, request: &StoreRequest, answer: &Answered) -> Option<Input> {
    let Ok(Answer::Applied(Reply { revision, result: Ok(outcome) })) = answer else { return None };
    let stored = written(&[(id, request)], *revision, outcome.clone()).into_iter().next()?;
    Some(Input::Stored { number: request.number, stored })
}
