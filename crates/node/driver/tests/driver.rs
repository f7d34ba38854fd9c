//! The driver alone, its log engine replaced by a script: what it gates, batches, routes, retries.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod epochs;
mod failing;

use bytes::Bytes;
use quorate_base::codec::DecodeError;
use quorate_base::time::Duration;
use quorate_base::{Ballot, GroupId, Index, Instant, NodeId, Position, RequestId};
use quorate_driver::{
    Answer, Canary, Done, Driver, DriverConfig, DriverLimits, Event, ForwardRefusal, Notice,
    Outputs, PeerMessage, Request, RequestError, Token, Work,
};
use quorate_replicated_log::{
    Base, Body, Change, Effects, Entries, Entry, Epoch, Event as LogEvent, Input, Membership,
    Message, Payload, PeerStatus, Protocol, ReadReady, ReplicatedLog, Role, Send, Status, Write,
    WriteId,
};
use quorate_service::{Applied, Envelope};
use quorate_wal::BatchId;
use std::sync::{Arc, Mutex};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const GROUP: GroupId = GroupId(1);

/// What the scripted log was given, what it will answer, and what it pretends to be.
#[derive(Default)]
struct Script {
    inputs: Vec<Input>,
    answers: Vec<Effects>,
    leader: NodeId,
    commit: Index,
    take_proposals: bool,
    protocol: Protocol,
    epoch: Epoch,
    ballot: Ballot,
    peers: Vec<PeerStatus>,
}

#[derive(Clone, Default)]
struct ScriptedLog(Arc<Mutex<Script>>);

impl ReplicatedLog for ScriptedLog {
    fn step(&mut self, _now: Instant, input: Input, effects: &mut Effects) {
        let mut script = self.0.lock().unwrap();
        if let (Input::Propose { id, .. }, true) = (&input, script.take_proposals) {
            let ballot = Ballot::new(1, ME);
            effects.events.push(LogEvent::Proposed { id: *id, first: 1, ballot });
        }
        script.inputs.push(input);
        if let Some(answer) = script.answers.pop() {
            effects.writes.extend(answer.writes);
            effects.sends.extend(answer.sends);
            effects.committed.extend(answer.committed);
            effects.reads.extend(answer.reads);
            effects.snapshots.extend(answer.snapshots);
            effects.events.extend(answer.events);
        }
    }

    fn protocol(&self) -> Protocol {
        self.0.lock().unwrap().protocol
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn role(&self) -> Role {
        if self.0.lock().unwrap().leader == ME { Role::Leader } else { Role::Follower }
    }

    fn leader(&self) -> NodeId {
        self.0.lock().unwrap().leader
    }

    fn commit(&self) -> Index {
        self.0.lock().unwrap().commit
    }

    fn applied_base(&self) -> Base {
        Base::default()
    }

    fn status(&self) -> Status {
        let script = self.0.lock().unwrap();
        let (epoch, protocol, ballot) = (script.epoch, script.protocol, script.ballot);
        let peers = script.peers.clone();
        drop(script);
        Status {
            epoch,
            protocol,
            role: self.role(),
            ballot,
            leader: self.leader(),
            base: Position::ZERO,
            last: Position::ZERO,
            durable: 0,
            commit: self.commit(),
            applied: 0,
            membership: Membership::default(),
            peers,
        }
    }
}

/// The service reads everything but an exclamation mark.
fn readable(body: &Bytes) -> Result<(), DecodeError> {
    match body.first() {
        Some(b'!') => Err(DecodeError::Unknown { field: "command", value: 33 }),
        _ => Ok(()),
    }
}

/// A driver over a scripted log, and the time.
struct Bench {
    driver: Driver<&'static str>,
    log: ScriptedLog,
    now: Instant,
}

impl Bench {
    fn new(leader: NodeId) -> Bench {
        Self::with_limits(leader, DriverLimits::default())
    }

    fn with_limits(leader: NodeId, limits: DriverLimits) -> Bench {
        let mut driver = Driver::new(Self::config(limits));
        let log = ScriptedLog::default();
        log.0.lock().unwrap().leader = leader;
        log.0.lock().unwrap().take_proposals = true;
        driver.add_group(Instant::ZERO, GROUP, Box::new(log.clone()), readable);
        Bench { driver, log, now: Instant::ZERO }
    }

    fn config(limits: DriverLimits) -> DriverConfig {
        DriverConfig {
            node: ME,
            run: 7,
            retry_interval: Duration::from_millis(100),
            persist_interval: Duration::from_secs(1),
            leading_grid: Duration::ZERO,
            calm_grid: (GROUP, Duration::ZERO),
            limits,
            canary: Canary::None,
        }
    }

    /// One event and a poll.
    fn event(&mut self, event: Event<&'static str, ()>) -> Outputs<&'static str> {
        let mut outputs = Outputs::default();
        self.driver.step(self.now, event, &mut outputs);
        self.driver.poll(self.now, &mut outputs);
        outputs
    }

    fn request(&mut self, token: u64, request: Request) -> Outputs<&'static str> {
        let deadline = self.now + Duration::from_secs(2);
        self.event(Event::Request { token: Token(token), group: GROUP, deadline, request })
    }

    fn propose(&mut self, token: u64, body: &'static [u8]) -> Outputs<&'static str> {
        self.request(token, Request::Propose(Bytes::from_static(body)))
    }

    /// Time passes; the driver is polled when it asks for it.
    fn pass(&mut self, time: Duration) -> Outputs<&'static str> {
        let until = self.now + time;
        let mut outputs = Outputs::default();
        while let Some(at) = self.driver.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.driver.poll(self.now, &mut outputs);
        }
        self.now = until;
        self.driver.poll(self.now, &mut outputs);
        outputs
    }

    /// The log does this at the next input, whatever that is.
    fn answer(&mut self, effects: Effects) {
        self.log.0.lock().unwrap().answers.push(effects);
    }

    fn role_changes(&mut self, leader: NodeId) -> Outputs<&'static str> {
        self.log.0.lock().unwrap().leader = leader;
        let role = if leader == ME { Role::Leader } else { Role::Follower };
        let ballot = Ballot::new(2, leader);
        let mut effects = Effects::default();
        effects.events.push(LogEvent::RoleChanged { role, ballot, leader });
        self.answer(effects);
        self.event(Event::PeerLost { node: NodeId(9) })
    }

    fn inputs(&mut self) -> Vec<Input> {
        std::mem::take(&mut self.log.0.lock().unwrap().inputs)
    }
}

fn message(text: u64) -> Message {
    let body = Body::ReadIndex { id: text };
    Message { epoch: Epoch(0), ballot: Ballot::ZERO, body }
}

fn write(id: u64) -> Write {
    Write {
        id: WriteId(id),
        reset: None,
        compact: None,
        truncate_from: None,
        entries: Entries::default(),
        slots: Vec::new(),
        hard_state: None,
    }
}

fn forwarded(outputs: &Outputs<&'static str>) -> Vec<RequestId> {
    let mut requests = Vec::new();
    for (to, message) in &outputs.sends {
        if let PeerMessage::Forward { commands, .. } = message {
            assert_eq!(*to, OTHER);
            let decode = |c: &Bytes| Envelope::decode(c.clone()).unwrap().request;
            requests.extend(commands.iter().map(decode));
        }
    }
    requests
}

fn applied(request: RequestId) -> Event<&'static str, ()> {
    let position = Position::new(request.sequence, Ballot::new(1, ME));
    let base = Base { position, ..Base::default() };
    let applied = Applied { replies: vec![(request, "done")], publications: vec![] };
    Event::ServiceDone { group: GROUP, done: Done::Applied { base, applied } }
}

#[test]
fn a_send_waits_for_its_write_and_no_longer() {
    let mut bench = Bench::new(OTHER);
    let mut effects = Effects::default();
    effects.writes.extend([write(1), write(2)]);
    effects.sends.extend([
        Send { to: OTHER, message: message(2), after: Some(WriteId(2)) },
        Send { to: OTHER, message: message(0), after: None },
        Send { to: OTHER, message: message(1), after: Some(WriteId(1)) },
    ]);
    bench.answer(effects);
    let out = bench.event(Event::PeerLost { node: OTHER });
    let sent = |out: &Outputs<_>| -> Vec<u64> {
        let id = |m: &PeerMessage| match m {
            PeerMessage::Log { message: Message { body: Body::ReadIndex { id }, .. }, .. } => *id,
            other => panic!("{other:?}"),
        };
        out.sends.iter().map(|(_, m)| id(m)).collect()
    };
    assert_eq!(sent(&out), [0]);
    let batch = out.batch.unwrap();
    assert_eq!((batch.id, batch.writes.len()), (BatchId(1), 2));
    let out = bench.event(Event::LogDone { batch: BatchId(1), result: Ok(()) });
    assert_eq!(sent(&out), [1, 2]);
    assert!(matches!(bench.inputs()[..], [_, Input::Written { id: WriteId(2) }]));
}

#[test]
fn a_failed_log_stops_the_node_and_tells_everyone() {
    let mut bench = Bench::new(ME);
    bench.propose(1, b"a");
    bench.answer({
        let mut effects = Effects::default();
        effects.writes.push(write(1));
        effects
    });
    bench.propose(2, b"b");
    let out = bench.event(Event::LogDone { batch: BatchId(1), result: Err("EIO".into()) });
    assert!(matches!(&out.notices[..], [Notice::Fatal { reason }] if reason.contains("EIO")));
    assert!(out.sends.is_empty() && out.batch.is_none());
    let stopped = |t| (Token(t), Err(RequestError::Stopped));
    assert_eq!(out.replies, [stopped(1), stopped(2)]);
    assert_eq!(bench.propose(3, b"c").replies, [stopped(3)]);
}

#[test]
fn a_leaders_requests_of_one_poll_are_one_proposal() {
    let mut bench = Bench::new(ME);
    let mut outputs = Outputs::default();
    for token in 1..=3 {
        let (group, deadline) = (GROUP, Instant::FAR);
        let request = Request::Propose(Bytes::from_static(b"x"));
        let event = Event::<_, ()>::Request { token: Token(token), group, deadline, request };
        bench.driver.step(bench.now, event, &mut outputs);
    }
    bench.driver.poll(bench.now, &mut outputs);
    let inputs = bench.inputs();
    assert!(matches!(&inputs[..], [Input::Propose { commands, .. }] if commands.len() == 3));
    assert!(bench.pass(Duration::from_secs(1)).notices.is_empty(), "never proposed again");
}

#[test]
fn a_follower_forwards_retries_and_answers_on_its_own_apply() {
    let mut bench = Bench::new(OTHER);
    let first = forwarded(&bench.propose(5, b"x"));
    assert_eq!(first, [RequestId { node: ME, run: 7, sequence: 1, settled: 1 }]);
    // Nothing comes back: the same request goes again, later and later.
    let again = forwarded(&bench.pass(Duration::from_millis(1000)));
    assert!((2..=4).contains(&again.len()), "{}", again.len());
    assert!(again.iter().all(|request| *request == first[0]));
    let out = bench.event(applied(first[0]));
    assert_eq!(out.replies, [(Token(5), Ok(Answer::Applied("done")))]);
    assert!(bench.event(applied(first[0])).replies.is_empty(), "answered once");
    assert!(forwarded(&bench.pass(Duration::from_secs(3))).is_empty());
    // Another run's request of the same number is nobody's here.
    bench.propose(6, b"y");
    let stranger = RequestId { run: 6, sequence: 2, ..first[0] };
    assert!(bench.event(applied(stranger)).replies.is_empty());
}

#[test]
fn a_new_leader_is_offered_everything_again() {
    let mut bench = Bench::new(NodeId::NONE);
    assert!(forwarded(&bench.propose(1, b"x")).is_empty(), "nobody leads");
    let out = bench.role_changes(OTHER);
    assert_eq!(forwarded(&out).len(), 1);
    let out = bench.role_changes(ME);
    assert!(forwarded(&out).is_empty());
    let proposed = |i: &Input| matches!(i, Input::Propose { .. });
    assert_eq!(bench.inputs().into_iter().filter(proposed).count(), 1);
    assert_eq!(forwarded(&bench.role_changes(OTHER)).len(), 1);
}

#[test]
fn identities_are_settled_in_order() {
    let mut bench = Bench::new(OTHER);
    let ids: Vec<RequestId> =
        (1..=3).flat_map(|token| forwarded(&bench.propose(token, b"x"))).collect();
    bench.event(applied(ids[1]));
    assert_eq!(forwarded(&bench.propose(4, b"x"))[0].settled, 1, "the first still waits");
    bench.event(applied(ids[0]));
    assert_eq!(forwarded(&bench.propose(5, b"x"))[0].settled, 3);
}

#[test]
fn a_deadline_tells_whether_the_command_may_be_applied() {
    let mut bench = Bench::new(NodeId::NONE);
    bench.propose(1, b"x");
    let out = bench.pass(Duration::from_secs(3));
    assert_eq!(out.replies, [(Token(1), Err(RequestError::Unavailable))]);
    bench.role_changes(OTHER);
    bench.propose(2, b"x");
    let out = bench.pass(Duration::from_secs(3));
    assert_eq!(out.replies, [(Token(2), Err(RequestError::DeadlineExceeded))]);
}

#[test]
fn a_refusal_reaches_the_client_only_if_nothing_can_have_happened() {
    let mut bench = Bench::new(OTHER);
    let refuse = |requests: &[RequestId]| Event::Peer {
        from: OTHER,
        message: PeerMessage::ForwardRefused {
            group: GROUP,
            requests: requests.to_vec(),
            reason: ForwardRefusal::Full,
        },
    };
    let first = forwarded(&bench.propose(1, b"x"));
    let out = bench.event(refuse(&first));
    assert_eq!(out.replies, [(Token(1), Err(RequestError::TooManyRequests))]);
    let second = forwarded(&bench.propose(2, b"x"));
    bench.role_changes(OTHER); // Offered a second time: the first may have been taken.
    assert!(bench.event(refuse(&second)).replies.is_empty());
    let out = bench.event(applied(second[0]));
    assert_eq!(out.replies, [(Token(2), Ok(Answer::Applied("done")))]);
}

#[test]
fn what_cannot_be_read_is_never_proposed() {
    let mut bench = Bench::new(ME);
    bench.inputs();
    let request = RequestId { node: OTHER, run: 1, sequence: 1, settled: 1 };
    let commands = vec![
        Envelope::encode(request, b"!new"),
        Bytes::from_static(b"\xff no envelope"),
        Envelope::encode(request, b"old"),
    ];
    let forward = PeerMessage::Forward { group: GROUP, commands: commands.clone() };
    let out = bench.event(Event::Peer { from: OTHER, message: forward });
    let proposed: Vec<_> = bench.inputs();
    assert!(
        matches!(&proposed[..], [Input::Propose { commands: c, .. }] if c[..] == commands[2..])
    );
    let change = PeerMessage::ForwardChange {
        group: GROUP,
        change: Change::Keep,
        judged: 0,
        context: commands[0].clone(),
    };
    let more = bench.event(Event::Peer { from: OTHER, message: change });
    assert!(bench.inputs().is_empty());
    let blamed = |notice: &&Notice| matches!(notice, Notice::Unreadable { from: OTHER, .. });
    assert_eq!(out.notices.iter().chain(&more.notices).filter(blamed).count(), 3);
}

#[test]
fn limits_refuse_before_anything_is_queued() {
    let limits = DriverLimits { pending_proposals: 1, command_bytes: 4, ..Default::default() };
    let mut bench = Bench::with_limits(OTHER, limits);
    let too_large = (Token(1), Err(RequestError::TooLarge));
    assert_eq!(bench.propose(1, b"12345").replies, [too_large]);
    assert!(bench.propose(2, b"1234").replies.is_empty());
    let too_many = (Token(3), Err(RequestError::TooManyRequests));
    assert_eq!(bench.propose(3, b"1").replies, [too_many]);
    let mut outputs = Outputs::default();
    let (group, deadline) = (GroupId(99), Instant::FAR);
    let event =
        Event::<_, ()>::Request { token: Token(4), group, deadline, request: Request::Read };
    bench.driver.step(bench.now, event, &mut outputs);
    assert_eq!(outputs.replies, [(Token(4), Err(RequestError::UnknownGroup))]);
}

#[test]
fn a_read_waits_for_its_index_and_joins_no_earlier_attempt() {
    let mut bench = Bench::new(OTHER);
    bench.request(1, Request::Read);
    bench.request(2, Request::Read);
    bench.request(3, Request::Read); // Two attempts are under way: this one waits.
    let reads = |inputs: Vec<Input>| -> Vec<_> {
        let read = |i| if let Input::Read { id } = i { Some(id) } else { None };
        inputs.into_iter().filter_map(read).collect()
    };
    let attempts = reads(bench.inputs());
    assert_eq!(attempts.len(), 2);
    let mut effects = Effects::default();
    effects.reads.push(ReadReady { id: attempts[0], index: 1 });
    bench.answer(effects);
    let out = bench.event(Event::PeerLost { node: NodeId(9) });
    assert!(out.replies.is_empty(), "index 1 is not applied");
    let third = reads(bench.inputs());
    assert!(third.len() == 1 && !attempts.contains(&third[0]), "a fresh id");
    let request = RequestId { node: OTHER, run: 1, sequence: 1, settled: 1 };
    let out = bench.event(applied(request));
    assert_eq!(out.replies, [(Token(1), Ok(Answer::Readable(1)))]);
    // Unanswered attempts are made again under fresh ids, and end with their deadline.
    let out = bench.pass(Duration::from_secs(3));
    let unavailable = |t| (Token(t), Err(RequestError::Unavailable));
    let mut replies = out.replies;
    replies.sort_by_key(|(token, _)| *token);
    assert_eq!(replies, [unavailable(2), unavailable(3)]);
    assert!(reads(bench.inputs()).iter().all(|id| !attempts.contains(id)));
}

#[test]
fn the_log_is_compacted_only_behind_what_is_persisted() {
    let limits =
        DriverLimits { catch_up_entries: 2, compact_step_entries: 1, ..Default::default() };
    let mut bench = Bench::with_limits(OTHER, limits);
    let entry = |index| Entry { index, ballot: Ballot::new(1, ME), payload: Payload::Noop };
    let mut effects = Effects::default();
    effects.committed.push(Entries::new((1..=10).map(entry).collect()));
    bench.answer(effects);
    bench.log.0.lock().unwrap().commit = 10;
    let out = bench.event(Event::PeerLost { node: NodeId(9) });
    assert!(matches!(&out.work[..], [(GROUP, Work::Apply(entries))] if entries.len() == 10));
    bench.event(applied(RequestId { sequence: 10, ..RequestId::default() }));
    let compacted = |inputs: Vec<Input>| -> Vec<Index> {
        let compact = |i| if let Input::Compact { index } = i { Some(index) } else { None };
        inputs.into_iter().filter_map(compact).collect()
    };
    let out = bench.pass(Duration::from_secs(2));
    assert!(matches!(out.work[..], [(GROUP, Work::Persist)]));
    assert!(compacted(bench.inputs()).is_empty());
    let done = Done::Persisted { index: 5 };
    bench.event(Event::ServiceDone { group: GROUP, done });
    assert_eq!(compacted(bench.inputs()), [5]);
}

#[test]
fn who_keeps_the_log_long_lets_go_of_what_is_persisted() {
    // Far fewer entries than are kept for who lags.
    let mut bench = Bench::new(OTHER);
    let entry = |index| Entry { index, ballot: Ballot::new(1, ME), payload: Payload::Noop };
    let mut effects = Effects::default();
    effects.committed.push(Entries::new((1..=10).map(entry).collect()));
    bench.answer(effects);
    bench.log.0.lock().unwrap().commit = 10;
    bench.event(Event::PeerLost { node: NodeId(9) });
    bench.event(applied(RequestId { sequence: 10, ..RequestId::default() }));
    let compacted = |inputs: Vec<Input>| -> Vec<Index> {
        let compact = |i| if let Input::Compact { index } = i { Some(index) } else { None };
        inputs.into_iter().filter_map(compact).collect()
    };
    let out = bench.event(Event::LogHeld { by: vec![(GROUP, 7), (GroupId(99), 1)] });
    assert!(matches!(out.work[..], [(GROUP, Work::Persist)]), "at once");
    assert!(compacted(bench.inputs()).is_empty(), "it is not durable");
    bench.event(Event::ServiceDone { group: GROUP, done: Done::Persisted { index: 10 } });
    assert_eq!(compacted(bench.inputs()), [7]);
    bench.event(Event::LogHeld { by: vec![(GROUP, 7)] });
    assert!(compacted(bench.inputs()).is_empty(), "it has let go");
    bench.event(Event::LogHeld { by: vec![(GROUP, 9)] });
    assert_eq!(compacted(bench.inputs()), [9]);
}

#[test]
fn a_removed_group_answers_whoever_waits_and_is_forgotten_by_the_log() {
    let mut bench = Bench::new(OTHER);
    let mut effects = Effects::default();
    effects.writes.push(write(1));
    bench.answer(effects);
    let out = bench.request(1, Request::Read);
    let batch = out.batch.map(|batch| batch.id);
    let mut out = Outputs::default();
    assert!(bench.driver.remove_group(bench.now, GROUP, &mut out));
    assert!(!bench.driver.remove_group(bench.now, GROUP, &mut out));
    assert_eq!(out.replies, [(Token(1), Err(RequestError::UnknownGroup))]);
    bench.driver.poll(bench.now, &mut out);
    let writes = out.batch.take().unwrap().writes;
    assert!(matches!(&writes[..], [(GROUP, write)] if write.is_forget()));
    // A new replica of the group is not told of the old one's writes.
    let log = ScriptedLog::default();
    bench.driver.add_group(bench.now, GROUP, Box::new(log.clone()), readable);
    bench.event(Event::LogDone { batch: batch.unwrap(), result: Ok(()) });
    assert!(log.0.lock().unwrap().inputs.is_empty());
}

#[test]
fn a_poll_looks_only_at_groups_that_have_something_to_do() {
    let mut bench = Bench::new(OTHER);
    for group in 2..=100 {
        let log = Box::new(ScriptedLog::default());
        bench.driver.add_group(bench.now, GroupId(group), log, readable);
    }
    bench.driver.poll(bench.now, &mut Outputs::default());
    assert_eq!(bench.driver.polled().len(), 100);
    bench.driver.poll(bench.now, &mut Outputs::default());
    assert!(bench.driver.polled().is_empty());
    bench.propose(1, b"x");
    assert_eq!(bench.driver.polled(), [GROUP]);
    let at = bench.driver.next_timeout().expect("the proposal is looked at again");
    bench.driver.poll(at, &mut Outputs::default());
    assert_eq!(bench.driver.polled(), [GROUP]);
}
