//! From one epoch to the next: what is written when, what a crash leaves, what is not listened to.

use crate::{Bench, GROUP, ME, OTHER, Script, ScriptedLog, message, readable, write};
use quorate_base::time::Duration;
use quorate_base::{Ballot, GroupId, Index, NodeId, Position};
use quorate_driver::{
    Answer, Done, Driver, DriverLimits, Event, ForwardRefusal, Notice, Outputs, PeerMessage,
    ReceiveState, Request, RequestError, Token, Work, resume,
};
use quorate_replicated_log::{
    Base, Effects, Entries, Entry, Epoch, Event as LogEvent, HardState, Input, Membership, Payload,
    PeerStatus, Protocol, Recovered, Refusal, Role, SnapshotWanted, Write, WriteId,
};
use quorate_service::Applied;
use quorate_wal::{BatchId, RecoveredGroup};
use std::sync::{Arc, Mutex};

const THIRD: NodeId = NodeId(3);
/// What the scripted logs have promised.
const PROMISED: Ballot = Ballot::new(3, OTHER);

type Out = Outputs<&'static str>;

/// The engines that were made for further epochs, and what with.
#[derive(Clone, Default)]
struct Made(Arc<Mutex<Vec<(Recovered, ScriptedLog)>>>);

impl Made {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn last(&self) -> (Recovered, ScriptedLog) {
        self.0.lock().unwrap().last().unwrap().clone()
    }

    fn inputs(&self) -> Vec<Input> {
        std::mem::take(&mut self.last().1.0.lock().unwrap().inputs)
    }
}

/// A bench whose driver can open epochs; this node follows `leader`.
fn bench(leader: NodeId) -> (Bench, Made) {
    let mut bench = Bench::new(leader);
    bench.log.0.lock().unwrap().ballot = PROMISED;
    let made = Made::default();
    let keep = made.clone();
    bench.driver.set_engines(Box::new(move |_, _, recovered| {
        let script = Script {
            protocol: recovered.base.protocol,
            epoch: recovered.base.epoch,
            ballot: recovered.hard_state.promised,
            ..Script::default()
        };
        let log = ScriptedLog(Arc::new(Mutex::new(script)));
        keep.0.lock().unwrap().push((recovered, log.clone()));
        Box::new(log)
    }));
    (bench, made)
}

/// The end of the state after the seal at `index` was applied.
fn base(index: Index, epoch: u32, protocol: Protocol) -> Base {
    Base {
        position: Position::new(index, Ballot::new(2, OTHER)),
        epoch: Epoch(epoch),
        protocol,
        membership: Membership { voters: vec![ME, OTHER, THIRD], ..Membership::default() },
    }
}

fn applied(base: Base) -> Event<&'static str, ()> {
    let applied = Applied { replies: vec![], publications: vec![] };
    Event::ServiceDone { group: GROUP, done: Done::Applied { base, applied } }
}

fn persisted(index: Index) -> Event<&'static str, ()> {
    Event::ServiceDone { group: GROUP, done: Done::Persisted { index } }
}

fn from(from: NodeId, message: PeerMessage) -> Event<&'static str, ()> {
    Event::Peer { from, message }
}

fn opened(epoch: u32) -> PeerMessage {
    PeerMessage::Opened { group: GROUP, epoch: Epoch(epoch) }
}

fn of_epoch(epoch: u32) -> PeerMessage {
    let mut message = message(7);
    message.epoch = Epoch(epoch);
    PeerMessage::Log { group: GROUP, message }
}

fn asks_to_persist(out: &Out) -> usize {
    out.work.iter().filter(|(_, work)| matches!(work, Work::Persist)).count()
}

/// The one write by which the log begins anew.
fn beginning(out: &mut Out) -> Write {
    let mut writes = out.batch.take().expect("a batch").writes;
    assert_eq!(writes.len(), 1);
    writes.pop().unwrap().1
}

fn listened(inputs: &[Input]) -> usize {
    inputs.iter().filter(|input| matches!(input, Input::Message { .. })).count()
}

/// To the next epoch in one go.
fn go_on(bench: &mut Bench, next: &Base) -> Out {
    bench.event(applied(next.clone()));
    bench.event(persisted(next.position.index))
}

#[test]
fn the_log_begins_anew_once_the_end_of_the_epoch_is_durable() {
    let (mut bench, made) = bench(OTHER);
    let mut effects = Effects::default();
    effects.writes.push(write(4));
    bench.answer(effects);
    bench.event(Event::PeerLost { node: NodeId(9) });
    let next = base(5, 1, Protocol::Paxos);
    let out = bench.event(applied(next.clone()));
    assert_eq!((asks_to_persist(&out), out.batch.is_none(), made.count()), (1, true, 0));
    // Until it is durable this replica is in the old epoch, and speaks there.
    bench.inputs();
    bench.event(from(OTHER, of_epoch(0)));
    assert_eq!(listened(&bench.inputs()), 1);
    let out = bench.event(persisted(4));
    assert!(out.batch.is_none() && made.count() == 0, "what is durable ends before the seal");

    let mut out = bench.event(persisted(5));
    let begins = beginning(&mut out);
    let hard_state = HardState { promised: PROMISED, commit: 5 };
    assert_eq!((begins.id, &begins.reset), (WriteId(5), &Some(Box::new(next.clone()))));
    assert_eq!(begins.hard_state, Some(hard_state));
    assert!(begins.entries.is_empty() && begins.truncate_from.is_none());
    let (recovered, _) = made.last();
    assert_eq!((&recovered.base, &recovered.applied), (&next, &next));
    assert_eq!((recovered.hard_state, recovered.written), (hard_state, WriteId(5)));
    assert_eq!(bench.driver.epoch(GROUP), Some((Epoch(1), Protocol::Paxos)));
    let told: Vec<_> = out.sends.iter().filter(|(_, m)| *m == opened(1)).map(|s| s.0).collect();
    assert_eq!(told, [OTHER, THIRD]);
    let said = |n: &Notice| matches!(n, Notice::EpochOpened { base, .. } if *base == next);
    assert_eq!(out.notices.iter().filter(|n| said(n)).count(), 1);
}

/// Rounds never fall along the log, whatever the last engine had promised.
#[test]
fn the_promise_that_is_carried_along_is_at_least_the_seals_ballot() {
    let (mut bench, _) = bench(OTHER);
    bench.log.0.lock().unwrap().ballot = Ballot::new(1, ME);
    let next = base(5, 1, Protocol::Paxos);
    let begins = beginning(&mut go_on(&mut bench, &next));
    assert_eq!(begins.hard_state.unwrap().promised, next.position.ballot);
}

/// The state is durable and the log was told nothing: the start ends as the replica would have.
#[test]
fn a_crash_between_the_durable_state_and_the_beginning_changes_nothing() {
    let (mut bench, _) = bench(OTHER);
    let next = base(5, 1, Protocol::Paxos);
    let without_crash = beginning(&mut go_on(&mut bench, &next));

    let seal = Payload::Seal { next: Protocol::Paxos, ballot: Ballot::new(2, OTHER) };
    let void = Entry { index: 6, ballot: Ballot::new(2, OTHER), payload: Payload::Noop };
    let seal = Entry { index: 5, ballot: Ballot::new(2, OTHER), payload: seal };
    let log = || RecoveredGroup {
        base: base(4, 0, Protocol::Raft),
        hard_state: HardState { promised: PROMISED, commit: 4 },
        entries: vec![Entries::new(vec![seal.clone(), void.clone()])],
        damaged: Vec::new(),
        damaged_ballots: Vec::new(),
    };
    let (recovered, first) = resume(log(), next.clone()).unwrap();
    let first = first.expect("the log must be told");
    assert_eq!((&first.reset, first.hard_state), (&without_crash.reset, without_crash.hard_state));
    assert!(recovered.entries.is_empty(), "the seal is in the state, what follows it is void");
    // It is told before the replica says or writes anything.
    let mut driver: Driver<&'static str> = Driver::new(Bench::config(DriverLimits::default()));
    let engine = ScriptedLog::default();
    let mut effects = Effects::default();
    effects.writes.push(write(1));
    engine.0.lock().unwrap().answers.push(effects);
    driver.found_group(bench.now, GROUP, Box::new(engine), readable, first);
    let mut out = Outputs::default();
    driver.step(bench.now, from(OTHER, of_epoch(0)), &mut out);
    driver.poll(bench.now, &mut out);
    let writes = out.batch.unwrap().writes;
    assert_eq!(writes.iter().map(|(_, write)| write.id.0).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(writes[0].1.reset.as_deref(), Some(&next));

    // A crash before the state was durable: the epoch goes on, and ends again.
    let (recovered, first) = resume(log(), base(4, 0, Protocol::Raft)).unwrap();
    assert_eq!((recovered.entries[0].len(), first), (2, None));
}

#[test]
fn a_leader_waits_for_the_others_but_not_for_long() {
    for hears in [true, false] {
        let (mut bench, made) = bench(ME);
        let peer = |node| PeerStatus { node, matched: 5, next: 6, active: true, snapshot: false };
        bench.log.0.lock().unwrap().peers = vec![peer(OTHER), peer(THIRD)];
        go_on(&mut bench, &base(5, 1, Protocol::Paxos));
        assert_eq!(made.count(), 0);
        bench.event(from(OTHER, opened(1)));
        assert_eq!(made.count(), 0, "the third has not gone on");
        if hears {
            bench.event(from(THIRD, opened(1)));
        } else {
            bench.pass(Duration::from_millis(24));
            assert_eq!(made.count(), 0);
            bench.pass(Duration::from_millis(2));
        }
        assert_eq!(made.count(), 1);
        // It led, and a quorum has opened the epoch: it stands at once.
        assert!(matches!(made.inputs()[..], [Input::Campaign]));
    }
}

#[test]
fn who_led_stands_only_when_a_quorum_can_vote() {
    let (mut bench, made) = bench(ME);
    go_on(&mut bench, &base(5, 1, Protocol::Paxos));
    assert_eq!((made.count(), made.inputs().len()), (1, 0), "it heard of nobody, and went on");
    bench.event(from(THIRD, opened(0)));
    assert!(made.inputs().is_empty(), "that one is in the old epoch");
    bench.event(from(THIRD, opened(1)));
    assert!(matches!(made.inputs()[..], [Input::Campaign]));
}

#[test]
fn a_second_seal_ends_the_second_epoch_and_no_request_ends_two() {
    let (mut bench, made) = bench(OTHER);
    let switch = |to, judged| Request::Switch { to, judged: Epoch(judged) };
    bench.request(1, switch(Protocol::Paxos, 0));
    let out = bench.request(2, switch(Protocol::Paxos, 0));
    assert!(out.replies.is_empty(), "both wait for the same seal");
    let first = base(5, 1, Protocol::Paxos);
    let mut out = go_on(&mut bench, &first);
    let epoch = Epoch(1);
    let switched = |t| (Token(t), Ok(Answer::Switched { epoch, protocol: Protocol::Paxos }));
    assert_eq!(out.replies, [switched(1), switched(2)]);
    let begins = beginning(&mut out);

    // Whatever was meant for the first epoch does nothing to the second.
    let late = bench.request(3, switch(Protocol::Paxos, 0));
    assert_eq!(late.replies, [(Token(3), Err(RequestError::Outdated))]);
    let same = bench.request(4, switch(Protocol::Paxos, 1));
    assert_eq!(same.replies, [(Token(4), Err(RequestError::BadChange))]);
    let out = bench.event(applied(first));
    assert!(asks_to_persist(&out) == 0 && made.count() == 1, "the same seal again");

    // The promise has risen meanwhile, and is carried along.
    let higher = Ballot::new(8, THIRD);
    made.last().1.0.lock().unwrap().ballot = higher;
    bench.event(Event::LogDone { batch: BatchId(1), result: Ok(()) });
    let second = base(9, 2, Protocol::Raft);
    let again = beginning(&mut go_on(&mut bench, &second));
    assert!(again.id > begins.id, "writes are numbered on");
    assert_eq!(again.hard_state.unwrap().promised, higher);
    assert_eq!(again.reset, Some(Box::new(second)));
    assert_eq!(bench.driver.epoch(GROUP), Some((Epoch(2), Protocol::Raft)));
}

#[test]
fn a_message_of_an_earlier_epoch_is_answered_now_and_then_and_not_heard() {
    let (mut bench, made) = bench(OTHER);
    go_on(&mut bench, &base(5, 1, Protocol::Paxos));
    made.inputs();
    let out = bench.event(from(THIRD, of_epoch(0)));
    assert_eq!(out.sends, [(THIRD, opened(1))]);
    assert!(bench.event(from(THIRD, of_epoch(0))).sends.is_empty(), "it was just told");
    assert_eq!(bench.event(from(OTHER, of_epoch(0))).sends, [(OTHER, opened(1))]);
    bench.pass(Duration::from_millis(7));
    assert_eq!(bench.event(from(THIRD, of_epoch(0))).sends, [(THIRD, opened(1))]);
    assert_eq!(listened(&made.inputs()), 0);
    bench.event(from(THIRD, of_epoch(1)));
    assert_eq!(listened(&made.inputs()), 1);
}

#[test]
fn a_message_of_a_later_epoch_is_not_heard_and_makes_it_ask_for_the_state() {
    let (mut bench, made) = bench(OTHER);
    bench.event(applied(base(3, 0, Protocol::Raft)));
    bench.inputs();
    let out = bench.event(from(THIRD, of_epoch(2)));
    assert!(out.sends.is_empty() && out.batch.is_none(), "it may get on by itself");
    assert_eq!((listened(&bench.inputs()), made.count()), (0, 0));
    let ask = |out: &Out| {
        let ask = PeerMessage::CatchUp { group: GROUP, epoch: Epoch(0) };
        out.sends.iter().filter(|(to, m)| *to == THIRD && *m == ask).count()
    };
    assert_eq!(ask(&bench.pass(Duration::from_millis(45))), 0);
    assert_eq!(ask(&bench.pass(Duration::from_millis(60))), 1);
    assert!((1..=2).contains(&ask(&bench.pass(Duration::from_millis(150)))), "again, unanswered");
    // It learns the end of its own epoch: there is nothing to ask for.
    bench.event(applied(base(5, 1, Protocol::Paxos)));
    assert_eq!(ask(&bench.pass(Duration::from_millis(500))), 0);
    bench.event(persisted(5));
    assert_eq!(bench.driver.epoch(GROUP), Some((Epoch(1), Protocol::Paxos)));
}

#[test]
fn one_that_has_nothing_asks_for_the_state_at_once() {
    let (mut bench, _) = bench(NodeId::NONE);
    bench.event(from(OTHER, of_epoch(3)));
    let out = bench.pass(Duration::from_millis(26));
    let ask = PeerMessage::CatchUp { group: GROUP, epoch: Epoch(0) };
    assert_eq!(out.sends, [(OTHER, ask)]);
}

#[test]
fn the_state_of_a_later_epoch_opens_it_however_many_it_skips() {
    let (mut bench, made) = bench(OTHER);
    bench.event(applied(base(3, 0, Protocol::Raft)));
    bench.inputs();
    let state = base(20, 3, Protocol::Paxos);
    let installed = Done::Received {
        from: THIRD,
        session: 0,
        base: state.clone(),
        state: ReceiveState::Installed,
    };
    let mut out = bench.event(Event::ServiceDone { group: GROUP, done: installed });
    assert_eq!(beginning(&mut out).reset, Some(Box::new(state.clone())));
    assert_eq!((made.count(), &made.last().0.base), (1, &state));
    assert_eq!(bench.driver.applied(GROUP), Some(&state));
    let told = |input: &Input| matches!(input, Input::SnapshotInstalled { .. });
    assert!(!bench.inputs().iter().any(told), "the old engine would go on to hand out");
}

#[test]
fn who_is_behind_is_sent_the_state_once_at_a_time() {
    let (mut bench, made) = bench(OTHER);
    go_on(&mut bench, &base(5, 1, Protocol::Paxos));
    let asks = |epoch| PeerMessage::CatchUp { group: GROUP, epoch: Epoch(epoch) };
    let sends = |out: &Out| {
        let to = |(group, work): &(GroupId, Work)| {
            *group == GROUP && matches!(work, Work::SnapshotOpen { to: THIRD, .. })
        };
        out.work.iter().filter(|work| to(work)).count()
    };
    assert_eq!(sends(&bench.event(from(THIRD, asks(1)))), 0, "it is not behind");
    assert_eq!(sends(&bench.event(from(THIRD, asks(0)))), 1);
    assert_eq!(sends(&bench.event(from(THIRD, asks(0)))), 0);
    // Elections that come to nothing do not end it: they may come to nothing because of that one.
    let mut effects = Effects::default();
    let ballot = Ballot::new(4, ME);
    let leader = NodeId::NONE;
    effects.events.push(LogEvent::RoleChanged { role: Role::Candidate, ballot, leader });
    made.last().1.0.lock().unwrap().answers.push(effects);
    let out = bench.event(Event::PeerLost { node: NodeId(9) });
    assert!(out.notices.iter().any(|n| matches!(n, Notice::RoleChanged { .. })));
    assert!(!out.work.iter().any(|(_, work)| matches!(work, Work::SnapshotClose { .. })));
}

/// A candidate that can be given nothing but the state asks at every heartbeat.
#[test]
fn a_state_that_is_on_its_way_is_not_begun_anew() {
    let (mut bench, _) = bench(OTHER);
    let mut wanted = || {
        let mut effects = Effects::default();
        effects.snapshots.push(SnapshotWanted { to: THIRD, session: 0 });
        bench.answer(effects);
        bench.event(from(THIRD, of_epoch(0))).work
    };
    let opens = |work: Vec<(GroupId, Work)>| {
        let opens = |(_, work): &(GroupId, Work)| matches!(work, Work::SnapshotOpen { .. });
        work.iter().filter(|work| opens(work)).count()
    };
    assert_eq!(opens(wanted()), 1);
    assert_eq!(opens(wanted()), 0);
}

#[test]
fn a_seal_is_asked_of_the_leader_and_its_refusal_goes_back() {
    let (mut bench, _) = bench(OTHER);
    let switch = Request::Switch { to: Protocol::Paxos, judged: Epoch(0) };
    let out = bench.request(1, switch.clone());
    let (next, judged) = (Protocol::Paxos, Epoch(0));
    let asked = PeerMessage::Switch { group: GROUP, next, judged };
    assert_eq!(out.sends, [(OTHER, asked.clone())]);
    let reason = ForwardRefusal::ChangeInProgress;
    let refused = PeerMessage::SwitchRefused { group: GROUP, judged, reason };
    let out = bench.event(from(OTHER, refused.clone()));
    assert_eq!(out.replies, [(Token(1), Err(RequestError::ChangeInProgress))]);
    // Unanswered, it is asked again, and ends with its deadline.
    bench.request(2, switch);
    let out = bench.pass(Duration::from_secs(3));
    assert!(out.sends.iter().filter(|(_, m)| *m == asked).count() > 5);
    assert_eq!(out.replies, [(Token(2), Err(RequestError::DeadlineExceeded))]);

    // The leader's side.
    bench.role_changes(ME);
    bench.inputs();
    let mut effects = Effects::default();
    let id = quorate_replicated_log::ProposalId(0);
    effects.events.push(LogEvent::Refused { id, reason: Refusal::ChangeInProgress });
    bench.answer(effects);
    let out = bench.event(from(THIRD, asked));
    assert_eq!(out.sends, [(THIRD, refused)]);
    let seal = bench.inputs();
    assert!(matches!(seal[..], [Input::Seal { id: i, next: n, judged: j }]
        if (i, n, j) == (id, next, judged)));
}
