//! Single rules, message by message: epochs, unknown sites, tombstones, forgetting, people who
//! finish a branch by hand.

use core::time::Duration;
use quorate_atomic_commit::{
    Address, Answer, AtomicCommit, Body, BranchId, Canary, Config, Decision, Effects, Epoch, Event,
    Ignored, Input, Key, Message, Order, Outcome, Phase, Proof, Protocol, Reason, Record, Refusal,
    Site, Terms, TransactionId, Vote, WriteId,
};
use quorate_base::{Ballot, Instant};

const TERMS: Terms = Terms { branches: 2, acceptors: 0 };
const ONE: Address = Address::Participant(BranchId(1));
const TWO: Address = Address::Participant(BranchId(2));

fn key(epoch: u32) -> Key {
    Key { transaction: TransactionId(9), epoch: Epoch(epoch) }
}

fn site(address: Address, epoch: u32, records: &[Record], canary: Option<Canary>) -> Site {
    let config = Config { canary, ..Config::default() };
    Site::restore(Protocol::TwoPhase, config, (key(epoch), TERMS), address, records)
}

fn step(site: &mut Site, input: Input) -> Effects {
    let mut out = Effects::default();
    site.step(Instant(1), input, &mut out);
    out
}

fn message(epoch: u32, from: Address, to: Address, body: Body) -> Input {
    Input::Message(Message { key: key(epoch), terms: TERMS, from, to, body })
}

/// Participant 1 of that epoch, prepared.
fn prepared(epoch: u32, canary: Option<Canary>) -> Site {
    let mut one = site(ONE, epoch, &[], canary);
    let out = step(&mut one, message(epoch, Address::Coordinator, ONE, Body::Prepare));
    assert_eq!(out.orders, [Order::Prepare]);
    let out = step(&mut one, Input::Resource(Answer::Prepared(Vote::Yes)));
    assert_eq!(out.sends[0].after, Some(WriteId(1)), "Yes waits for the record");
    step(&mut one, Input::Written { id: WriteId(1) });
    one
}

pub fn an_earlier_attempt_changes_nothing(canary: Option<Canary>) {
    let mut one = prepared(2, canary);
    let commit = message(1, Address::Coordinator, ONE, Body::Decide(Decision::Commit));
    let out = step(&mut one, commit);
    assert_eq!(out.events, [Event::Ignored(Ignored::EarlierEpoch)]);
    assert_eq!((out.orders, one.status().phase), (vec![], Phase::Prepared));
}

#[test]
fn an_earlier_attempt_is_over() {
    an_earlier_attempt_changes_nothing(None);
}

pub fn a_commit_is_proven_before_it_is_acknowledged(canary: Option<Canary>) {
    let mut one = prepared(1, canary);
    let commit = message(1, Address::Coordinator, ONE, Body::Decide(Decision::Commit));
    assert_eq!(step(&mut one, commit).sends, []);
    let out = step(&mut one, Input::Resource(Answer::Committed));
    assert_eq!(out.sends[0].message.body, Body::Acknowledge(Proof::Applied));
    assert_eq!(out.sends[0].after, Some(WriteId(2)), "nor before it is durable");
}

pub fn ballots_are_durable_before_they_are_told(canary: Option<Canary>) {
    let config = Config { canary, ..Config::default() };
    let mut one = Site::restore(Protocol::ThreePhase, config, (key(1), TERMS), ONE, &[]);
    let ballot = Ballot::new(2, TERMS.node(TWO));
    let out = step(&mut one, message(1, TWO, ONE, Body::Elect { ballot }));
    assert_eq!(out.sends[0].message.body, Body::Elected { ballot, accepted: None });
    assert_eq!(out.sends[0].after, Some(WriteId(1)));
    let outcome = Outcome::Abort;
    let out = step(&mut one, message(1, TWO, ONE, Body::PreDecide { ballot, outcome }));
    assert_eq!(out.sends[0].message.body, Body::PreDecided { ballot });
    assert_eq!(out.sends[0].after, Some(WriteId(2)));
}

#[test]
fn ballots_are_on_record() {
    ballots_are_durable_before_they_are_told(None);
}

#[test]
fn a_proof_is_a_proof() {
    a_commit_is_proven_before_it_is_acknowledged(None);
}

#[test]
fn a_later_attempt_aborts_this_one() {
    let mut one = prepared(1, None);
    let out = step(&mut one, message(2, Address::Coordinator, ONE, Body::Prepare));
    assert_eq!(out.orders, [Order::Rollback]);
    assert_eq!(one.status().decision, Some(Decision::abort(Reason::Superseded)));
    // But not one that is committed: then the sender is at fault.
    let mut one = prepared(1, None);
    step(&mut one, message(1, Address::Coordinator, ONE, Body::Decide(Decision::Commit)));
    let out = step(&mut one, message(2, Address::Coordinator, ONE, Body::Prepare));
    assert_eq!(out.events, [Event::Ignored(Ignored::Impossible)]);
    assert_eq!(one.status().decision, Some(Decision::Commit));
}

#[test]
fn strangers_are_ignored() {
    let mut coordinator = site(Address::Coordinator, 1, &[], None);
    let stranger = Address::Participant(BranchId(3));
    for (from, why) in
        [(stranger, Ignored::UnknownSite), (Address::Coordinator, Ignored::UnknownSite)]
    {
        let vote = message(1, from, Address::Coordinator, Body::Vote(Vote::Yes));
        assert_eq!(step(&mut coordinator, vote).events, [Event::Ignored(why)]);
    }
    let mine = message(1, ONE, TWO, Body::Inquire);
    assert_eq!(step(&mut coordinator, mine).events, [Event::Ignored(Ignored::NotMine)]);
    let other_terms = Input::Message(Message {
        key: key(1),
        terms: Terms { branches: 3, acceptors: 0 },
        from: ONE,
        to: Address::Coordinator,
        body: Body::Inquire,
    });
    let out = step(&mut coordinator, other_terms);
    assert_eq!(out.events, [Event::Ignored(Ignored::UnknownSite)]);
    assert_eq!(coordinator.status().phase, Phase::Unknown);
}

#[test]
fn no_record_is_put_on_record_before_it_is_told() {
    let mut coordinator = site(Address::Coordinator, 1, &[], None);
    let out = step(&mut coordinator, message(1, ONE, Address::Coordinator, Body::Inquire));
    let tombstone = Decision::abort(Reason::NoRecord);
    let record = Record::Decided { decision: tombstone.clone(), unproven: vec![] };
    assert_eq!((out.writes[0].record.clone(), out.writes[0].forced), (record.clone(), true));
    assert_eq!(out.sends[0].message.body, Body::Decide(tombstone));
    assert_eq!(out.sends[0].after, Some(WriteId(1)));
    assert_eq!(coordinator.status().decision, None, "not before it is durable");
    // Late, or after a restart, the transaction does not begin any more.
    for mut coordinator in [coordinator, site(Address::Coordinator, 1, &[record], None)] {
        let out = step(&mut coordinator, Input::Begin { deadline: Instant::FAR });
        assert_eq!(out.events, [Event::Refused(Refusal::NotNew)]);
    }
}

#[test]
fn a_decision_is_kept_until_it_is_proven() {
    let mut coordinator = site(Address::Coordinator, 1, &[], None);
    step(&mut coordinator, Input::Begin { deadline: Instant::FAR });
    let vote = |from| message(1, from, Address::Coordinator, Body::Vote(Vote::Yes));
    step(&mut coordinator, vote(ONE));
    let out = step(&mut coordinator, vote(TWO));
    assert!(out.sends.iter().all(|send| send.after == Some(WriteId(1))), "rule 2");
    step(&mut coordinator, Input::Written { id: WriteId(1) });
    let proof = |from, proof| message(1, from, Address::Coordinator, Body::Acknowledge(proof));
    step(&mut coordinator, proof(ONE, Proof::Applied));
    let out = step(&mut coordinator, Input::Forget);
    assert_eq!(out.events, [Event::Refused(Refusal::StillNeeded)]);
    assert_eq!(coordinator.status().waits_for, [TWO]);
    // Somebody rolled the other back by hand: that is for people, and is never forgotten.
    let out = step(&mut coordinator, proof(TWO, Proof::Heuristic));
    assert_eq!(out.events, [Event::Heuristic(BranchId(2))]);
    assert!(step(&mut coordinator, proof(TWO, Proof::Heuristic)).events.is_empty());
    let out = step(&mut coordinator, Input::Forget);
    assert_eq!(out.events, [Event::Refused(Refusal::StillNeeded)]);
    // Once it is mended.
    let out = step(&mut coordinator, proof(TWO, Proof::Applied));
    assert_eq!(out.events, [Event::Completed]);
    step(&mut coordinator, Input::Forget);
    assert_eq!(coordinator.status().phase, Phase::Forgotten);
}

#[test]
fn a_commit_of_a_branch_without_a_record_needs_proof() {
    let mut one = site(ONE, 1, &[], None);
    let commit = || message(1, Address::Coordinator, ONE, Body::Decide(Decision::Commit));
    let out = step(&mut one, commit());
    assert_eq!((out.orders, out.sends), (vec![Order::Commit], vec![]));
    let out = step(&mut one, Input::Resource(Answer::Heuristic(Outcome::Abort)));
    assert_eq!(out.sends[0].message.body, Body::Acknowledge(Proof::Heuristic));
    let out = step(&mut one, Input::Forget);
    assert_eq!(out.events, [Event::Refused(Refusal::StillNeeded)]);
}

#[test]
fn what_was_said_is_said_again() {
    let mut one = prepared(1, None);
    let out = step(&mut one, message(1, Address::Coordinator, ONE, Body::Prepare));
    assert_eq!(out.sends[0].message.body, Body::Vote(Vote::Yes));
    let commit = || message(1, Address::Coordinator, ONE, Body::Decide(Decision::Commit));
    assert_eq!(step(&mut one, commit()).orders, [Order::Commit]);
    assert!(step(&mut one, commit()).is_empty(), "the resource is at it");
    let out = step(&mut one, Input::Resource(Answer::Committed));
    assert_eq!(out.sends[0].after, Some(WriteId(2)), "the proof is durable");
    step(&mut one, Input::Written { id: WriteId(2) });
    let out = step(&mut one, commit());
    assert_eq!(out.sends[0].message.body, Body::Acknowledge(Proof::Applied));
    let abort = Decision::abort(Reason::TimedOut);
    let out = step(&mut one, message(1, Address::Coordinator, ONE, Body::Decide(abort)));
    assert_eq!(out.events, [Event::Ignored(Ignored::Impossible)], "AC2");
}

#[test]
fn cancelling_is_refused_once_it_is_decided() {
    let mut coordinator = site(Address::Coordinator, 1, &[], None);
    step(&mut coordinator, Input::Begin { deadline: Instant::FAR });
    let out = step(&mut coordinator, Input::Cancel);
    assert_eq!(out.sends.len(), 2);
    assert_eq!(coordinator.status().decision, Some(Decision::abort(Reason::Cancelled)));
    let out = step(&mut coordinator, Input::Cancel);
    assert_eq!(out.events, [Event::Refused(Refusal::TooLate)]);
}

#[test]
fn the_deadline_names_who_was_late() {
    let mut coordinator = site(Address::Coordinator, 1, &[], None);
    let deadline = Instant(1) + Duration::from_secs(1);
    step(&mut coordinator, Input::Begin { deadline });
    step(&mut coordinator, message(1, ONE, Address::Coordinator, Body::Vote(Vote::Yes)));
    let mut out = Effects::default();
    coordinator.step(deadline, Input::Tick, &mut out);
    let late = Decision::Abort { branch: Some(BranchId(2)), reason: Reason::TimedOut };
    assert_eq!(coordinator.status().decision, Some(late));
}
