//! What a leader takes for chosen, tells, and answers.

use super::{MINE, Rule, SECOND, accept, accepted, leader, nothing, proposed, stands, value};
use bytes::Bytes;
use quorate_base::{Ballot, NodeId};
use quorate_paxos::Canary;
use quorate_replicated_log::conformance::Alone;
use quorate_replicated_log::{
    Accepted, Body, Change, Effects, Epoch, Event, Input, Membership, ProposalId, Protocol, ReadId,
    Role,
};

pub const RULES: &[Rule] = &[
    (
        "what is not written here does not count here",
        counts_what_it_has_not_written,
        &[Canary::CountBeforeWritten],
    ),
    ("a minority chooses nothing", counts_a_minority, &[Canary::CountMinority]),
    ("an answer to another ballot chooses nothing", counts_another_ballots_answer, &[]),
    ("an answer of another session chooses nothing", counts_another_sessions_answer, &[]),
    ("one acceptor accepts once", counts_one_twice, &[Canary::CountMinority]),
    ("a learner chooses nothing", counts_a_learner, &[]),
    ("nobody accepts what was not proposed", counts_a_lie, &[]),
    ("slots are handed out in order", hands_out_beyond_a_gap, &[]),
    ("an answer that is late takes nothing back", is_set_back, &[]),
    ("a higher promise ends a leadership", leads_on_though_outdated, &[]),
    ("nobody else leads under its ballot", follows_itself, &[]),
    ("a read asks a quorum", reads_without_a_quorum, &[Canary::ReadWithoutQuorum]),
    ("nothing is read where the epoch ends", reads_after_a_seal, &[Canary::ReadAfterSeal]),
    ("nobody is told of a removal at once", parts_at_once, &[Canary::PartAtOnce]),
];

fn propose(paxos: &mut Alone, name: &'static str) -> Effects {
    let commands = vec![Bytes::from_static(name.as_bytes())];
    paxos.step(Input::Propose { id: ProposalId(1), commands })
}

fn counts_what_it_has_not_written() -> bool {
    let mut paxos = leader(3);
    propose(&mut paxos, "a");
    paxos.hear(2, MINE, accepted(1, 2));
    let early = paxos.commit() > 1;
    paxos.write();
    assert_eq!(paxos.commit(), 2, "then it does");
    early
}

fn counts_a_minority() -> bool {
    let mut paxos = leader(5);
    paxos.hear(2, MINE, accepted(1, 1));
    let early = paxos.commit() > 0;
    paxos.hear(3, MINE, accepted(1, 1));
    assert_eq!(paxos.commit(), 1, "three of five are a quorum");
    early
}

/// Node 2 answers what this node, or another, sent in an earlier round.
fn counts_another_ballots_answer() -> bool {
    let mut paxos = leader(3);
    for ballot in [Ballot::new(1, NodeId(1)), SECOND, Ballot::new(3, NodeId(0))] {
        paxos.hear(2, ballot, accepted(1, 1));
    }
    paxos.commit() != 0
}

fn counts_another_sessions_answer() -> bool {
    let mut paxos = leader(3);
    paxos.hear(2, MINE, accepted(0, 1));
    paxos.hear(2, MINE, accepted(2, 1));
    let wrong = paxos.commit() != 0;
    paxos.hear(2, MINE, accepted(1, 1));
    assert_eq!(paxos.commit(), 1, "the first is the present one");
    wrong
}

fn counts_one_twice() -> bool {
    let mut paxos = leader(5);
    (0..3).for_each(|_| drop(paxos.hear(2, MINE, accepted(1, 1))));
    paxos.commit() != 0
}

fn counts_a_learner() -> bool {
    let learners = vec![NodeId(4)];
    let membership = Membership { learners, ..Membership::of((1..=3).map(NodeId)) };
    let recovered = super::remembers(SECOND, 0, Vec::new());
    let mut paxos = stands(Alone::among(crate::paxos, membership, recovered));
    paxos.hear(2, MINE, nothing());
    paxos.write();
    for stranger in [4, 9] {
        paxos.hear(stranger, MINE, accepted(1, 1));
    }
    let early = paxos.commit() != 0;
    paxos.hear(3, MINE, accepted(1, 1));
    assert_eq!(paxos.commit(), 1, "a voter counts");
    early
}

fn counts_a_lie() -> bool {
    let mut paxos = leader(3);
    paxos.hear(2, MINE, accepted(1, 7));
    let beyond = Accepted { session: 1, probe: 1, upto: 0, beyond: (1, u64::MAX) };
    paxos.hear(2, MINE, Body::Accepted(beyond));
    paxos.commit() != 0
}

/// Slot 2 got lost on its way to both others, and slot 3 did not: it is as good as chosen, and
/// nobody is told of it before slot 2 is.
fn hands_out_beyond_a_gap() -> bool {
    let mut paxos = leader(3);
    paxos.hear(2, MINE, accepted(1, 1));
    propose(&mut paxos, "a");
    propose(&mut paxos, "b");
    paxos.write();
    let beyond = Accepted { session: 1, probe: 1, upto: 1, beyond: (3, 3) };
    let out = paxos.hear(2, MINE, Body::Accepted(beyond));
    let early = paxos.commit() != 1 || !out.committed.is_empty();
    let again = proposed(&out).first() != Some(&value(2, MINE, "a"));
    // Another follower has the one that was missing, and not the other.
    let out = paxos.hear(3, MINE, accepted(1, 2));
    let handed_out: Vec<u64> =
        out.committed.iter().flat_map(|r| r.iter().map(|e| e.index)).collect();
    early || again || handed_out != [2, 3] || paxos.commit() != 3
}

fn is_set_back() -> bool {
    let mut paxos = leader(3);
    propose(&mut paxos, "a");
    paxos.write();
    paxos.hear(2, MINE, accepted(1, 2));
    paxos.hear(2, MINE, accepted(1, 1));
    paxos.hear(2, MINE, nothing());
    paxos.commit() != 2 || paxos.status().peers[0].matched != 2
}

fn leads_on_though_outdated() -> bool {
    let mut paxos = leader(3);
    let higher = Ballot::new(4, NodeId(3));
    paxos.hear(3, higher, Body::HeartbeatReply { session: 0, probe: 0 });
    let leads = paxos.role() == Role::Leader;
    paxos.hear(2, MINE, accepted(1, 1));
    leads || paxos.commit() != 0
}

fn follows_itself() -> bool {
    let mut paxos = leader(3);
    let other = Ballot::new(MINE.round, NodeId(2));
    let told = [
        paxos.hear(2, MINE, accept(vec![value(1, MINE, "x")], 1)),
        paxos.hear(2, MINE, Body::Prepare { from: 1, transfer: true }),
        paxos.hear(2, other, Body::Prepare { from: 1, transfer: true }),
    ];
    let promised =
        |out: &Effects| out.sends.iter().any(|send| matches!(send.message.body, Body::Promise(_)));
    paxos.role() != Role::Leader || paxos.commit() != 0 || told.iter().any(promised)
}

/// Its first value is chosen: it may answer reads.
fn ready() -> Alone {
    let mut paxos = leader(3);
    let out = paxos.hear(2, MINE, accepted(1, 1));
    assert_eq!((paxos.commit(), out.committed.len()), (1, 1));
    paxos.step(Input::Applied { index: 1 });
    paxos
}

fn probe(out: &Effects) -> Option<u64> {
    out.sends.iter().find_map(|send| match send.message.body {
        Body::Heartbeat { probe, .. } if probe > 0 => Some(probe),
        _ => None,
    })
}

/// What was asked before the read arrived is no answer to it.
fn reads_without_a_quorum() -> bool {
    let mut paxos = ready();
    let out = paxos.step(Input::Read { id: ReadId(1) });
    let early = !out.reads.is_empty();
    let asked = probe(&out);
    let Some(asked) = asked else { return true };
    let old = Body::HeartbeatReply { session: 1, probe: asked - 1 };
    let early = early || !paxos.hear(2, MINE, old).reads.is_empty();
    let out = paxos.hear(3, MINE, Body::HeartbeatReply { session: 1, probe: asked });
    early || out.reads.len() != 1
}

fn reads_after_a_seal() -> bool {
    let mut paxos = ready();
    paxos.step(Input::Seal { id: ProposalId(1), next: Protocol::Raft, judged: Epoch(0) });
    let out = paxos.step(Input::Read { id: ReadId(1) });
    let failed = out.events.contains(&Event::ReadFailed { id: ReadId(1) });
    let answered = probe(&out)
        .map(|probe| paxos.hear(2, MINE, Body::HeartbeatReply { session: 1, probe }).reads.len());
    !failed || answered.unwrap_or(0) > 0
}

/// Node 4 is removed. That is chosen by three of four; nobody is told before two of the three who
/// stay have accepted what the leader says next, with all before it.
fn parts_at_once() -> bool {
    let mut paxos = leader(4);
    for from in [2, 3] {
        paxos.hear(from, MINE, accepted(1, 1));
    }
    let change = Change::Remove(NodeId(4));
    let (id, context) = (ProposalId(1), Bytes::new());
    paxos.step(Input::Change { id, change, judged: 1, context });
    paxos.write();
    paxos.hear(2, MINE, accepted(1, 2));
    let out = paxos.hear(3, MINE, accepted(1, 2));
    let early = !out.committed.is_empty();
    assert_eq!(paxos.commit(), 2, "the removal is chosen");
    let said = proposed(&out).into_iter().find_map(|entry| entry.payload.named_ballot());
    paxos.write();
    // Beyond a gap it is not enough: whoever counts was told with it that the removal is chosen.
    let beyond = Accepted { session: 1, probe: 1, upto: 1, beyond: (3, 3) };
    let apart = paxos.hear(3, MINE, Body::Accepted(beyond));
    let out = paxos.hear(2, MINE, accepted(1, 3));
    let handed_out: usize = out.committed.iter().map(|run| run.len()).sum();
    early || said != Some(MINE) || !apart.committed.is_empty() || handed_out != 2
}
