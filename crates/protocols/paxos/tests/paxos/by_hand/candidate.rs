//! What a candidate may conclude from promises.

use super::{
    FIRST, MINE, Rule, SECOND, candidate, nothing, promise, proposed, remembers, replica, stands,
    value,
};
use bytes::Bytes;
use quorate_base::{Ballot, NodeId};
use quorate_paxos::Canary;
use quorate_replicated_log::conformance::Alone;
use quorate_replicated_log::{Body, Effects, Entry, Membership, Payload, Promise, Recovered, Role};
use std::time::Duration;

pub const RULES: &[Rule] = &[
    ("promises come before values", proposes_unpromised, &[Canary::CountMinority]),
    ("what an older ballot chose survives", ignores_what_was_accepted, &[Canary::IgnoreAccepted]),
    ("the highest ballot counts", takes_the_lowest_ballot, &[Canary::TakeLowestBallot]),
    ("what is chosen outranks every ballot", overrules_what_is_chosen, &[]),
    ("a gap is filled with nothing", leaves_a_gap, &[]),
    ("one acceptor promises once", counts_one_twice, &[Canary::CountMinority]),
    ("a promise of another round is none", counts_another_rounds_promise, &[]),
    ("a promise is an answer to what was asked", counts_what_it_did_not_ask_for, &[]),
    ("a promise counts once it is told in full", counts_half_a_promise, &[Canary::CountMinority]),
    ("a learner promises nothing that counts", counts_a_learner, &[]),
    ("its own promise is written first", counts_its_own_unwritten, &[]),
    ("damaged slots do not vote", counts_damaged_slots, &[Canary::CountMinority]),
    ("its own damaged slots do not vote", counts_its_own_damage, &[Canary::DenyDamaged]),
    (
        "members that were found are asked as well",
        ignores_found_members,
        &[Canary::IgnoreFoundMembers],
    ),
    ("what is behind a later leader is dead", repeats_the_dead, &[Canary::RepeatAnyLead]),
    ("leaders' ballots rise along the log", repeats_any_lead, &[Canary::RepeatAnyLead]),
    ("a higher ballot ends it", goes_on_though_refused, &[]),
    ("pre-votes of another ballot are none", stands_by_anothers_pre_vote, &[]),
];

/// One of three has its own promise, and pre-votes. Those change nothing.
fn proposes_unpromised() -> bool {
    let mut paxos = replica(3, remembers(SECOND, 0, Vec::new()));
    paxos.wait(Duration::from_secs(1));
    let before = paxos.hear(2, MINE, Body::PreVoteReply { granted: true });
    let own = paxos.write();
    let more = paxos.hear(3, MINE, Body::PreVoteReply { granted: true });
    let early = [before, own, more].iter().any(|out| !proposed(out).is_empty());
    assert!(early || !proposed(&paxos.hear(2, MINE, nothing())).is_empty(), "then it does");
    early
}

fn told(from: u64, paxos: &mut Alone, commit: u64, entries: Vec<Entry>) -> Effects {
    paxos.hear(from, MINE, Body::Promise(promise(1, commit, entries)))
}

/// A quorum may have accepted the value of the first ballot, and nobody is left to say so but one.
fn ignores_what_was_accepted() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let out = told(2, &mut paxos, 0, vec![value(1, FIRST, "chosen")]);
    proposed(&out).first() != Some(&value(1, MINE, "chosen"))
}

fn takes_the_lowest_ballot() -> bool {
    let wrong = |first: (u64, Ballot), then: (u64, Ballot)| {
        let mut paxos = candidate(5, Recovered::default());
        let name = |ballot| if ballot == SECOND { "new" } else { "old" };
        told(first.0, &mut paxos, 0, vec![value(1, first.1, name(first.1))]);
        let out = told(then.0, &mut paxos, 0, vec![value(1, then.1, name(then.1))]);
        proposed(&out).first() != Some(&value(1, MINE, "new"))
    };
    // In whatever order they are told.
    wrong((2, FIRST), (3, SECOND)) || wrong((3, SECOND), (2, FIRST))
}

/// Node 2 knows that its value is chosen. Node 3 has one of a higher ballot: of a leader that
/// proposed the same again, or of nobody who follows the rules.
fn overrules_what_is_chosen() -> bool {
    let mut paxos = candidate(5, Recovered::default());
    told(3, &mut paxos, 0, vec![value(1, SECOND, "other")]);
    let out = told(2, &mut paxos, 1, vec![value(1, FIRST, "chosen")]);
    let taken = out.committed.iter().flat_map(|run| run.iter()).next();
    taken != Some(&value(1, FIRST, "chosen")) || paxos.commit() != 1
}

fn leaves_a_gap() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let out = told(2, &mut paxos, 0, vec![value(2, FIRST, "b")]);
    let wanted = [Payload::Noop, value(2, MINE, "b").payload, Payload::Lead(MINE)];
    let found: Vec<Payload> = proposed(&out).into_iter().map(|entry| entry.payload).collect();
    found != wanted
}

/// Two of five are no quorum, however often one says it.
fn counts_one_twice() -> bool {
    let mut paxos = candidate(5, Recovered::default());
    (0..3).for_each(|_| drop(paxos.hear(2, MINE, nothing())));
    let early = paxos.role() == Role::Leader;
    paxos.hear(3, MINE, nothing());
    assert_eq!(paxos.role(), Role::Leader, "three are");
    early
}

/// What was promised in an earlier candidacy of the same node, or to somebody else.
fn counts_another_rounds_promise() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let others = [Ballot::new(2, NodeId(1)), SECOND, Ballot::new(3, NodeId(2))];
    others.into_iter().any(|ballot| {
        paxos.hear(2, ballot, nothing());
        paxos.role() == Role::Leader
    })
}

/// It asks from slot 1 on; this is about the slots from 2 on, as it were of an earlier question.
fn counts_what_it_did_not_ask_for() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    paxos.hear(2, MINE, Body::Promise(promise(2, 1, Vec::new())));
    let later = paxos.role() == Role::Leader;
    // And this of one whose log begins later: it has only a snapshot to give.
    let begins = Promise { base: 1, ..promise(1, 1, Vec::new()) };
    paxos.hear(2, MINE, Body::Promise(begins));
    later || paxos.role() == Role::Leader
}

fn counts_half_a_promise() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let half = Promise { next: Some(2), ..promise(1, 0, vec![value(1, FIRST, "a")]) };
    let out = paxos.hear(2, MINE, Body::Promise(half));
    let early = paxos.role() == Role::Leader;
    let asks = Body::Prepare { from: 2, transfer: false };
    assert!(early || out.sends.iter().any(|s| s.to == NodeId(2) && s.message.body == asks));
    let rest = promise(2, 0, vec![value(2, FIRST, "b")]);
    let out = paxos.hear(2, MINE, Body::Promise(rest));
    let both = [value(1, MINE, "a"), value(2, MINE, "b")];
    early || proposed(&out)[..2] != both
}

fn counts_a_learner() -> bool {
    let membership =
        Membership { learners: vec![NodeId(4)], ..Membership::of([1, 2, 3].map(NodeId)) };
    let recovered = remembers(SECOND, 0, Vec::new());
    let mut paxos = stands(Alone::among(crate::paxos, membership, recovered));
    for stranger in [4, 9] {
        paxos.hear(stranger, MINE, nothing());
        // Nor does what it says is chosen.
        paxos.hear(stranger, MINE, Body::Promise(promise(1, 1, vec![value(1, FIRST, "x")])));
    }
    let early = paxos.role() == Role::Leader;
    let out = told(2, &mut paxos, 0, vec![value(1, FIRST, "a")]);
    early || proposed(&out).first() != Some(&value(1, MINE, "a"))
}

/// The only other voter has promised; the candidate's own promise is not on its disk.
fn counts_its_own_unwritten() -> bool {
    let mut paxos = replica(2, remembers(SECOND, 0, Vec::new()));
    paxos.wait(Duration::from_secs(1));
    paxos.hear(2, MINE, Body::PreVoteReply { granted: true });
    paxos.hear(2, MINE, nothing());
    let early = paxos.role() == Role::Leader;
    paxos.write();
    assert_eq!(paxos.role(), Role::Leader, "then it counts");
    early
}

/// Node 2 cannot speak of slot 2: there only one of three has answered.
fn counts_damaged_slots() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let part = Promise { damaged: vec![2..=2], ..promise(1, 0, vec![value(1, FIRST, "a")]) };
    paxos.hear(2, MINE, Body::Promise(part));
    let early = paxos.role() == Role::Leader;
    let out = told(3, &mut paxos, 0, vec![value(2, FIRST, "b")]);
    let both = [value(1, MINE, "a"), value(2, MINE, "b")];
    early || proposed(&out)[..2] != both
}

fn counts_its_own_damage() -> bool {
    let recovered = Recovered { damaged: vec![1..=1], ..Recovered::default() };
    let mut paxos = candidate(3, recovered);
    paxos.hear(2, MINE, nothing());
    let early = paxos.role() == Role::Leader;
    paxos.hear(3, MINE, nothing());
    assert_eq!(paxos.role(), Role::Leader, "two others can speak of the slot");
    early
}

/// Node 2 has accepted that there are four voters. If that was chosen, two of them are no quorum.
fn ignores_found_members() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let four = Membership::of((1..=4).map(NodeId));
    let payload = Payload::members(four, Bytes::new());
    let out = told(2, &mut paxos, 0, vec![Entry { index: 1, ballot: FIRST, payload }]);
    let early = paxos.role() == Role::Leader;
    let asked = out
        .sends
        .iter()
        .any(|send| send.to == NodeId(4) && matches!(send.message.body, Body::Prepare { .. }));
    assert!(early || asked, "{out:?}");
    paxos.hear(4, MINE, nothing());
    assert_eq!(paxos.role(), Role::Leader, "three of four are");
    early
}

fn lead(index: u64, accepted: Ballot, named: Ballot) -> Entry {
    Entry { index, ballot: accepted, payload: Payload::Lead(named) }
}

/// The leader of the second ballot said in slot 1 that it leads, behind all that it found. So what
/// is in slot 2 under the first was not chosen.
fn repeats_the_dead() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let out = told(2, &mut paxos, 0, vec![lead(1, SECOND, SECOND), value(2, FIRST, "dead")]);
    proposed(&out).get(1).map(|entry| &entry.payload) != Some(&Payload::Noop)
}

/// The same where the dead value names a leader: proposed again, it would name an earlier one
/// behind a later one.
fn repeats_any_lead() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let out = told(2, &mut paxos, 0, vec![lead(1, SECOND, SECOND), lead(2, FIRST, FIRST)]);
    let named = proposed(&out).into_iter().filter_map(|entry| entry.payload.named_ballot());
    named.collect::<Vec<_>>() != [SECOND, MINE]
}

fn goes_on_though_refused() -> bool {
    let mut paxos = candidate(3, Recovered::default());
    let higher = Ballot::new(4, NodeId(3));
    paxos.hear(3, higher, Body::VoteReply { granted: false });
    let goes_on = paxos.role() == Role::Candidate;
    paxos.hear(2, MINE, nothing());
    goes_on || paxos.role() == Role::Leader
}

fn stands_by_anothers_pre_vote() -> bool {
    let mut paxos = replica(3, remembers(SECOND, 0, Vec::new()));
    paxos.wait(Duration::from_secs(1));
    paxos.hear(2, Ballot::new(9, NodeId(1)), Body::PreVoteReply { granted: true });
    paxos.role() != Role::PreCandidate
}
