//! The rules of Multi-Paxos as hand-made messages to one replica: what an acceptor may say, what a
//! candidate may conclude, and what a leader may do. Each function returns whether the replica
//! breaks its rule.

mod acceptor;
mod candidate;
mod leader;

use crate::CANARY;
use bytes::Bytes;
use quorate_base::{Ballot, Index, NodeId};
use quorate_paxos::Canary;
use quorate_replicated_log::conformance::Alone;
use quorate_replicated_log::{
    Accept, Accepted, Body, Effects, Entries, Entry, HardState, Payload, Promise, Recovered, Role,
};
use std::panic::catch_unwind;
use std::time::Duration;

/// A rule by name, whether it is broken, and the deliberate bugs that break it.
type Rule = (&'static str, fn() -> bool, &'static [Canary]);

fn rules() -> impl Iterator<Item = &'static Rule> {
    acceptor::RULES.iter().chain(candidate::RULES).chain(leader::RULES)
}

const FIRST: Ballot = Ballot { round: 1, node: NodeId(2) };
const SECOND: Ballot = Ballot { round: 2, node: NodeId(3) };
/// Node 1 stands under it, once it knows of the second.
const MINE: Ballot = Ballot { round: 3, node: NodeId(1) };

/// Node 1 of so many, on what was recovered.
fn replica(voters: u64, recovered: Recovered) -> Alone {
    Alone::of(crate::paxos, voters, recovered)
}

fn remembers(promised: Ballot, commit: Index, entries: Vec<Entry>) -> Recovered {
    let entries = entries.into_iter().map(|entry| Entries::new(vec![entry])).collect();
    Recovered { hard_state: HardState { promised, commit }, entries, ..Recovered::default() }
}

fn value(index: Index, ballot: Ballot, value: &'static str) -> Entry {
    let payload = Payload::Command(Bytes::from_static(value.as_bytes()));
    Entry { index, ballot, payload }
}

fn accept(entries: Vec<Entry>, commit: Index) -> Body {
    Body::Accept(Accept { session: 1, entries: Entries::new(entries), commit, probe: 1 })
}

fn promise(from: Index, commit: Index, entries: Vec<Entry>) -> Promise {
    let entries = entries.into_iter().map(|entry| Entries::new(vec![entry])).collect();
    Promise { from, commit, entries, damaged: Vec::new(), next: None, base: 0 }
}

fn nothing() -> Body {
    Body::Promise(promise(1, 0, Vec::new()))
}

fn accepted(session: u64, upto: Index) -> Body {
    Body::Accepted(Accepted { session, probe: 1, upto, beyond: (1, 0) })
}

/// What it tells anybody to accept, of all slots.
fn proposed(out: &Effects) -> Vec<Entry> {
    let told = out.sends.iter().filter_map(|send| match &send.message.body {
        Body::Accept(accept) => Some(accept.entries.iter().cloned()),
        _ => None,
    });
    let mut entries: Vec<Entry> = told.flatten().collect();
    entries.sort_by_key(|entry| entry.index);
    entries.dedup();
    entries
}

/// What is said in answer, whenever it may leave.
fn said<'e>(out: &'e Effects, what: impl Fn(&Body) -> bool + 'e) -> Vec<&'e Body> {
    let bodies = out.sends.iter().map(|send| &send.message.body);
    bodies.filter(|body| what(body)).collect()
}

/// Node 1 of so many has asked for promises of its ballot, and has promised it itself.
fn candidate(voters: u64, recovered: Recovered) -> Alone {
    stands(replica(voters, Recovered { hard_state: known(&recovered), ..recovered }))
}

/// It knows of the second ballot, if of no other.
fn known(recovered: &Recovered) -> HardState {
    let HardState { promised, commit } = recovered.hard_state;
    HardState { promised: promised.max(SECOND), commit }
}

fn stands(mut paxos: Alone) -> Alone {
    paxos.wait(Duration::from_secs(1));
    let voters = paxos.status().membership.voters.len() as u64;
    for from in 2..=voters / 2 + 1 {
        paxos.hear(from, MINE, Body::PreVoteReply { granted: true });
    }
    assert_eq!((paxos.role(), paxos.status().ballot), (Role::Candidate, MINE));
    paxos.write();
    paxos
}

/// Node 1 leads so many; its first value is in slot 1, and written.
fn leader(voters: u64) -> Alone {
    let mut paxos = candidate(voters, Recovered::default());
    for from in 2..=voters / 2 + 1 {
        paxos.hear(from, MINE, nothing());
    }
    assert_eq!(paxos.role(), Role::Leader);
    paxos.write();
    paxos
}

#[test]
fn no_rule_is_broken() {
    for (name, breaks, _) in rules() {
        assert!(!breaks(), "{name}");
    }
}

/// Whether a rule is broken by replicas with a deliberate bug. A story that comes out otherwise
/// before its end counts as well.
fn breaks_with(bug: Canary, breaks: fn() -> bool) -> bool {
    CANARY.set(Some(bug));
    let broken = catch_unwind(breaks).unwrap_or(true);
    CANARY.set(None);
    broken
}

#[test]
fn every_deliberate_bug_breaks_its_rules() {
    // Panics are expected here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for (name, breaks, bugs) in rules() {
        missed.extend(bugs.iter().filter(|bug| !breaks_with(**bug, *breaks)).map(|b| (name, b)));
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not broken: {missed:?}");
    let without = |bug: &Canary| !rules().any(|(_, _, bugs)| bugs.contains(bug));
    let without: Vec<Canary> = Canary::ALL.into_iter().filter(without).collect();
    assert!(without.is_empty(), "no rule is broken by {without:?}");
}
