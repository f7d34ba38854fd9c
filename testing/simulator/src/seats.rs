//! Where clients sit: their open request, and its way to a node and back.
//!
//! Invariant: a request is recorded when it is made, with its end unknown; the end is recorded
//! when its client hears of it, and only then.

use crate::clients::{Client, Kind, Wish};
use crate::counters::Happening;
use crate::translate;
use crate::world::{Alive, Answered, GROUP, Happens, World};
use quorate_base::{Instant, NodeId};
use quorate_checkers::{End, Op, Operation, Outcome, Reply, Request, Span, Violation};
use quorate_driver::{self as driver, Answer, Event, RequestError, Token};
use quorate_keyspace::command::Range;
use quorate_keyspace::{LeaseAnswer, Question, ReadError, codec};
use std::time::Duration;

/// Numbers a seat's requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Attempt(pub u64);

/// A client and its open request.
pub struct Seat {
    pub client: Client,
    attempt: Attempt,
    pub open: Option<Open>,
}

/// A request under way.
#[derive(Clone, Debug)]
pub struct Open {
    attempt: Attempt,
    pub wish: Wish,
    /// Its place in the history, if it has one.
    operation: Option<usize>,
    called: Instant,
    node: u64,
    /// The life of the node that took it.
    taken_by: Option<Alive>,
    answered: bool,
    timeout: Duration,
}

impl Seat {
    /// A seat for a client.
    pub fn new(client: Client) -> Seat {
        Seat { client, attempt: Attempt::default(), open: None }
    }
}

fn token(seat: usize, attempt: Attempt) -> Token {
    Token((seat as u64) << 32 | attempt.0)
}

impl World<'_> {
    /// The clients' nodes: those that were ever started and not yet shut down.
    pub fn reachable(&mut self) -> Vec<u64> {
        let here = |n: &&crate::node::Node| n.member && !n.removed && !n.ruined;
        self.nodes.iter().filter(here).map(|node| node.id).collect()
    }

    /// A client wants something.
    pub fn want(&mut self, seat: usize) {
        if self.seats[seat].open.is_some() || self.seats[seat].client.kind == Kind::Admin {
            return;
        }
        if self.quiet {
            return;
        }
        let nodes = self.reachable();
        let client = &mut self.seats[seat].client;
        if !nodes.contains(&client.node) || client.rng().below(10) == 0 {
            client.node = client.rng().pick(&nodes).copied().unwrap_or(1);
        }
        let wish = client.next();
        let node = client.node;
        self.ask(seat, wish, node);
    }

    /// A client asks a node.
    pub fn ask(&mut self, seat: usize, wish: Wish, node: u64) {
        let called = self.now;
        let operation = match &wish {
            Wish::Ask(request) => {
                if let Request::Revoke { id } = request {
                    self.record.leases.revoke_asked(*id, called);
                }
                let request = request.clone();
                self.record.history.push(Operation { called, request, end: End::Unknown });
                Some(self.record.history.len() - 1)
            }
            _ => None,
        };
        if self.trace.is_read() {
            self.line(0, format_args!("client {} asks n{node}: {wish:?}", seat + 1));
        }
        let latency = self.latency();
        let place = &mut self.seats[seat];
        place.attempt = Attempt(place.attempt.0 + 1);
        let attempt = place.attempt;
        let timeout = Duration::from_millis(place.client.rng().between(300, 3_000));
        place.open = Some(Open {
            attempt,
            wish,
            operation,
            called,
            node,
            taken_by: None,
            answered: false,
            timeout,
        });
        self.queue.push(called + latency, 1_000 + seat as u32, Happens::Arrive(seat, attempt));
        let patience = timeout + self.plan.election * 4 + Duration::from_secs(3);
        self.queue.push(called + patience, 1_000 + seat as u32, Happens::GiveUp(seat, attempt));
    }

    fn latency(&mut self) -> Duration {
        self.rng.duration(Duration::from_micros(50), Duration::from_micros(400))
    }

    fn open(&mut self, seat: usize, attempt: Attempt) -> Option<&mut Open> {
        self.seats[seat].open.as_mut().filter(|open| open.attempt == attempt)
    }

    /// A request arrives at its node.
    pub fn arrive(&mut self, seat: usize, attempt: Attempt) {
        let Some(open) = self.open(seat, attempt) else { return };
        let (id, wish, timeout) = (open.node, open.wish.clone(), open.timeout);
        let now = self.now;
        let node = self.node(id);
        if node.frozen_until > now {
            let at = node.frozen_until;
            let at = at + self.rng.duration(Duration::ZERO, Duration::from_millis(2));
            self.queue.push(at, 1_000 + seat as u32, Happens::Arrive(seat, attempt));
            return;
        }
        if !node.is_up() {
            return self.end(seat, End::NotDone); // The connection is refused.
        }
        let (alive, deadline) = (node.alive(), node.clock.read(now) + timeout);
        if let Some(open) = self.open(seat, attempt) {
            open.taken_by = Some(alive);
        }
        let ttl = self.seats[seat].client.ttl_seconds;
        let request = match &wish {
            Wish::Ask(Request::Old { .. }) => return self.read(seat, attempt, alive),
            Wish::Ask(request) => match translate::command(request, ttl) {
                None => driver::Request::Read,
                Some(command) => match codec::encode(&command) {
                    Ok(bytes) => driver::Request::Propose(bytes),
                    Err(error) => {
                        let text = format!("{command:?} is not encoded: {error:?}");
                        return self.check(Err(Violation::new("command codec", text)));
                    }
                },
            },
            Wish::KeepAlive(id) => driver::Request::Query(Question::KeepAlive { id: *id }.encode()),
            Wish::Change { change, judged, command } => match codec::encode(command) {
                Ok(context) => {
                    let (change, judged) = (change.clone(), *judged);
                    driver::Request::Change { change, judged, context }
                }
                Err(_) => return self.end(seat, End::NotDone),
            },
            Wish::Transfer(to) => driver::Request::Transfer(NodeId(*to)),
            Wish::Switch(to, judged) => driver::Request::Switch { to: *to, judged: *judged },
        };
        let token = token(seat, attempt);
        self.step(id, Event::Request { token, group: GROUP, deadline, request });
    }

    /// A node's driver answers.
    pub fn reply(&mut self, id: u64, token: Token, answer: Answered) {
        let (seat, attempt) = ((token.0 >> 32) as usize, Attempt(token.0 & 0xffff_ffff));
        let alive = self.node(id).alive();
        let Some(open) = self.open(seat, attempt) else { return };
        if std::mem::replace(&mut open.answered, true) {
            let text = format!("node {id} answered {:?} twice", open.wish);
            return self.check(Err(Violation::new("answered exactly once", text)));
        }
        if let Ok(Answer::Readable(index)) = &answer {
            let applied = self.applied_index(id);
            if applied < *index {
                let text = format!("node {id} may read at {index} but applied only {applied}");
                return self.check(Err(Violation::new("read index", text)));
            }
            let at = self.soon(Duration::from_micros(100));
            self.queue.push(at, id as u32, Happens::Read(seat, attempt, alive));
            return;
        }
        self.answer_soon(seat, attempt, answer);
    }

    fn answer_soon(&mut self, seat: usize, attempt: Attempt, answer: Answered) {
        let at = self.now + self.latency();
        let what = Happens::Answer(seat, attempt, Box::new(answer));
        self.queue.push(at, 1_000 + seat as u32, what);
    }

    fn applied_index(&mut self, id: u64) -> u64 {
        let running = self.node(id).running.as_ref();
        running.map_or(0, |r| r.host.service().reader().applied())
    }

    /// A node reads for a client, from the state it has now.
    pub fn read(&mut self, seat: usize, attempt: Attempt, alive: Alive) {
        let Some(open) = self.open(seat, attempt) else { return };
        let (span, revision): (Span, u64) = match &open.wish {
            Wish::Ask(Request::Op(quorate_checkers::Op::Range(span))) => (span.clone(), 0),
            Wish::Ask(Request::Old { span, revision }) => (span.clone(), *revision),
            _ => return,
        };
        let node = self.node(alive.node);
        if node.life != alive.life {
            return;
        }
        let Some(running) = &node.running else { return };
        let reader = running.host.service().reader();
        let range = Range { revision, ..Range::of(translate::key_range(&span)) };
        let outcome = match reader.range(&range) {
            Ok(found) => translate::found(&found.kvs),
            Err(ReadError::Refused(why)) => Outcome::Refused(translate::refusal(&why)),
            Err(error @ (ReadError::Failed(_) | ReadError::Closed)) => {
                let text = format!("node {} cannot read: {error}", alive.node);
                return self.check(Err(Violation::new("recovery", text)));
            }
        };
        let reply = Reply { revision: reader.revision(), outcome };
        let at = self.now + self.latency();
        self.queue.push(at, 1_000 + seat as u32, Happens::Told(seat, attempt, Box::new(reply)));
    }

    /// A reader's answer arrives.
    pub fn told(&mut self, seat: usize, attempt: Attempt, reply: Reply) {
        let now = self.now;
        if let Some(open) = self.open(seat, attempt) {
            let old = matches!(open.wish, Wish::Ask(Request::Old { .. }));
            self.count(if old { Happening::OldReadAnswered } else { Happening::ReadAnswered });
            self.end(seat, End::Answered { at: now, reply });
        }
    }

    /// A driver's answer arrives.
    pub fn answered(&mut self, seat: usize, attempt: Attempt, answer: Answered) {
        let now = self.now;
        let Some(open) = self.open(seat, attempt) else { return };
        let (wish, called) = (open.wish.clone(), open.called);
        match answer {
            Ok(Answer::Applied(reply)) => {
                let reply = translate::reply(&reply);
                self.applied_for(&wish, &reply, called);
                self.end(seat, End::Answered { at: now, reply });
            }
            Ok(Answer::Told(bytes)) => {
                self.lease_told(seat, &wish, bytes, called);
                self.end(seat, End::Unknown);
            }
            Ok(Answer::Transferred) => {
                self.count(Happening::LeadershipTransferred);
                self.end(seat, End::Unknown);
            }
            Ok(Answer::Switched { .. }) => {
                self.count(Happening::SwitchAnswered);
                self.end(seat, End::Unknown);
            }
            Ok(Answer::Readable(_)) => {}
            Err(error) => {
                let end = match error {
                    RequestError::DeadlineExceeded => {
                        self.count(Happening::DeadlineExceeded);
                        End::Unknown
                    }
                    RequestError::Stopped => End::Unknown,
                    RequestError::Unavailable => {
                        self.count(Happening::Unavailable);
                        End::NotDone
                    }
                    _ => End::NotDone,
                };
                if self.trace.is_read() {
                    self.line(0, format_args!("client {} is refused: {error:?}", seat + 1));
                }
                self.end(seat, end);
            }
        }
    }

    fn applied_for(&mut self, wish: &Wish, reply: &Reply, called: Instant) {
        let Wish::Ask(request) = wish else { return };
        let refused = matches!(reply.outcome, Outcome::Refused(_));
        match (request, &reply.outcome) {
            (Request::Grant { id }, _) if !refused => {
                let holder = *id as u64 / 1_000 % 1_000;
                let ttl = self.seats.iter().find(|s| s.client.id == holder);
                let seconds = ttl.map_or(1, |s| s.client.ttl_seconds) as u64;
                let (ttl, now) = (Duration::from_secs(seconds), self.now);
                self.record.leases.renewed(*id, ttl, called, now);
            }
            (Request::Revoke { .. }, _) if !refused => self.count(Happening::LeaseRevoked),
            (Request::Compact { .. }, _) if !refused => self.count(Happening::HistoryCompacted),
            (Request::Txn { .. }, Outcome::Txn { succeeded, .. }) => {
                let what = if *succeeded { Happening::SwapWon } else { Happening::SwapLost };
                self.count(what);
            }
            (Request::Op(op), _) if !refused => {
                self.count(Happening::WriteAcknowledged);
                if matches!(op, Op::Put { .. }) {
                    self.note_put(reply.revision);
                }
            }
            _ => {}
        }
    }

    fn lease_told(&mut self, seat: usize, wish: &Wish, bytes: bytes::Bytes, called: Instant) {
        let Wish::KeepAlive(id) = wish else { return };
        match LeaseAnswer::decode(bytes) {
            Ok(LeaseAnswer::KeptAlive { ttl_seconds }) => {
                let (ttl, now) = (Duration::from_secs(ttl_seconds as u64), self.now);
                self.record.leases.renewed(*id, ttl, called, now);
                self.count(Happening::LeaseKeptAlive);
                self.seats[seat].client.kept_alive(Some(true));
            }
            Ok(_) => self.seats[seat].client.kept_alive(Some(false)),
            Err(error) => {
                let text = format!("an answer about lease {id} is unreadable: {error}");
                self.check(Err(Violation::new("answer codec", text)));
            }
        }
    }

    /// A client has waited too long.
    pub fn give_up(&mut self, seat: usize, attempt: Attempt) {
        let Some(open) = self.open(seat, attempt) else { return };
        let (node, called, taken_by) = (open.node, open.called, open.taken_by);
        let wish = format!("{:?}", open.wish);
        let node = self.node(node);
        let fair = node.hindered_until >= called || node.frozen_until >= called;
        if taken_by == Some(node.alive()) && !fair {
            let text = format!("node {} never answered {wish} of {called:?}", node.id);
            self.check(Err(Violation::new("answered exactly once", text)));
        }
        self.end(seat, End::Unknown);
    }

    /// A node is gone: whoever waited for it knows nothing.
    pub fn cut_off(&mut self, id: u64) {
        for seat in 0..self.seats.len() {
            let waits = |open: &Open| open.taken_by.is_some_and(|alive| alive.node == id);
            if self.seats[seat].open.as_ref().is_some_and(waits) {
                self.count(Happening::ClientCutOff);
                self.end(seat, End::Unknown);
            }
        }
    }

    /// A request has ended; the client thinks, and then wants something again.
    fn end(&mut self, seat: usize, end: End) {
        let Some(open) = self.seats[seat].open.take() else { return };
        if self.trace.is_read() {
            self.line(0, format_args!("client {} ends with {end:?}", seat + 1));
        }
        let nodes = self.reachable();
        let place = &mut self.seats[seat];
        if !matches!(end, End::Answered { .. }) && !matches!(open.wish, Wish::KeepAlive(_)) {
            place.client.node = place.client.rng().pick(&nodes).copied().unwrap_or(1);
        }
        if let (Wish::Ask(request), Some(operation)) = (&open.wish, open.operation) {
            place.client.ended(request, &end);
            self.record.history[operation].end = end;
        } else if matches!(open.wish, Wish::Change { .. } | Wish::Transfer(_) | Wish::Switch(..)) {
            return self.admin_ended(&open.wish, &end);
        }
        let think = self.plan.think * self.seats[seat].client.haste_percent() / 100;
        let at = self.soon(think + Duration::from_millis(1));
        self.queue.push(at, 1_000 + seat as u32, Happens::Want(seat));
    }
}
