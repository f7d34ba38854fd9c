//! What an acceptor promises, accepts, says and remembers; and what a learner takes for chosen.

use super::{FIRST, MINE, Rule, SECOND, accept, known, promise, remembers, replica, said, value};
use quorate_base::{Ballot, NodeId};
use quorate_paxos::Canary;
use quorate_replicated_log::{
    Accepted, Base, Body, MAX_GAP, Membership, Payload, Promise, Protocol, Recovered,
};

pub const RULES: &[Rule] = &[
    (
        "nothing is accepted below the promise",
        accepts_below_its_promise,
        &[Canary::AcceptLowerBallot],
    ),
    ("no lower ballot is promised", promises_a_lower_ballot, &[Canary::PromiseLowerBallot]),
    ("a round is promised to one", promises_a_round_twice, &[Canary::PromiseLowerBallot]),
    ("a promise outlives a restart", forgets_its_promise, &[Canary::ForgetPromise]),
    ("to accept is to promise", accepts_without_a_promise, &[Canary::ForgetPromise]),
    ("a promise is written first", promises_unwritten, &[Canary::ReplyBeforeWritten]),
    ("a value is written first", accepts_unwritten, &[Canary::ReplyBeforeWritten]),
    ("a promise tells what was accepted", hides_what_it_accepted, &[]),
    ("what cannot be read is told", denies_what_is_damaged, &[Canary::DenyDamaged]),
    ("what was accepted is not what was chosen", believes_its_slots, &[Canary::BelieveOwnSlots]),
    (
        "only the leader's own values are chosen by its word",
        commits_another_ballots_value,
        &[Canary::CommitOtherBallots],
    ),
    ("acceptances of two ballots are not counted together", mixes_ballots, &[Canary::MixBallots]),
    ("nothing follows the end of the epoch", goes_on_after_a_seal, &[Canary::GoOnAfterSeal]),
    ("a late accept takes nothing back", is_set_back, &[]),
    ("nobody asks or leads on another's behalf", believes_a_stranger, &[]),
    ("a leader sends its own ballot's values", accepts_what_nobody_proposed, &[]),
    ("no slot is taken far beyond all others", goes_far_ahead, &[]),
    ("nobody is encouraged while a leader is heard", lets_its_leader_down, &[]),
];

/// It holds one value, and a leader that does not know that begins at the end of its own log. What
/// is just near enough is taken; of the rest it is told that it is not here.
fn goes_far_ahead() -> bool {
    [(0, true), (1, false)].into_iter().any(|(beyond, near)| {
        let mut paxos = replica(3, remembers(FIRST, 0, vec![value(1, FIRST, "a")]));
        let slot = 1 + MAX_GAP + 1 + beyond;
        let out = paxos.hear(2, FIRST, accept(vec![value(slot, FIRST, "far")], 0));
        let told = said(&out, |body| matches!(body, Body::Accepted(_)));
        let Some(Body::Accepted(told)) = told.first() else { return true };
        let told_beyond = told.beyond == (slot, slot);
        let written = out.writes.iter().any(|write| !write.slots.is_empty());
        told_beyond != near || written != near || told.upto > 1
    })
}

/// It has promised the second ballot; the leader of the first comes late.
fn accepts_below_its_promise() -> bool {
    let mut paxos = replica(3, remembers(SECOND, 0, Vec::new()));
    let out = paxos.hear(2, FIRST, accept(vec![value(1, FIRST, "late")], 0));
    let refused = Body::HeartbeatReply { session: 0, probe: 0 };
    let told = out.sends.iter().any(|s| s.message.body == refused && s.message.ballot == SECOND);
    !told || !out.writes.is_empty() || paxos.status().last.index != 0
}

fn promises(out: &quorate_replicated_log::Effects) -> bool {
    !said(out, |body| matches!(body, Body::Promise(_))).is_empty()
}

fn promises_a_lower_ballot() -> bool {
    let mut paxos = replica(3, remembers(SECOND, 0, Vec::new()));
    let out = paxos.hear(2, FIRST, Body::Prepare { from: 1, transfer: false });
    let refused = !said(&out, |b| *b == Body::VoteReply { granted: false }).is_empty();
    promises(&out) || !refused || paxos.status().ballot != SECOND
}

/// Ballots of one round are ordered by node; still the round is the first one's.
fn promises_a_round_twice() -> bool {
    let mut paxos = replica(5, remembers(SECOND, 0, Vec::new()));
    let nodes = [2, 4, 5];
    nodes.into_iter().any(|node| {
        let ballot = Ballot::new(SECOND.round, NodeId(node));
        promises(&paxos.hear(node, ballot, Body::Prepare { from: 1, transfer: false }))
    })
}

/// It promises, writes that down, and starts again.
fn forgets_its_promise() -> bool {
    let mut paxos = replica(3, Recovered::default());
    let out = paxos.hear(3, SECOND, Body::Prepare { from: 1, transfer: false });
    assert!(promises(&out));
    paxos.restart(Membership::of((1..=3).map(NodeId)), &out.writes);
    promises(&paxos.hear(2, FIRST, Body::Prepare { from: 1, transfer: false }))
}

/// A leader whose ballot it never promised has a quorum without it. With the value it takes over
/// that ballot, also where the write that remembers its promise is lost and the value is not.
fn accepts_without_a_promise() -> bool {
    let mut paxos = replica(3, remembers(FIRST, 0, vec![value(1, SECOND, "v")]));
    promises(&paxos.hear(2, FIRST, Body::Prepare { from: 1, transfer: false }))
        || paxos.status().ballot != SECOND
}

fn promises_unwritten() -> bool {
    let mut paxos = replica(3, Recovered::default());
    let out = paxos.hear(2, FIRST, Body::Prepare { from: 1, transfer: false });
    let written = out
        .writes
        .iter()
        .find(|write| write.hard_state.is_some_and(|state| state.promised == FIRST));
    let gate = out.sends.iter().find(|s| matches!(s.message.body, Body::Promise(_)));
    let gate = gate.expect("it promises").after;
    written.is_none() || gate < written.map(|write| write.id)
}

fn accepts_unwritten() -> bool {
    let mut paxos = replica(3, Recovered::default());
    let out = paxos.hear(2, FIRST, accept(vec![value(1, FIRST, "v")], 0));
    let holds = |run: &quorate_replicated_log::Entries| run.first_index() == Some(1);
    let written = out.writes.iter().find(|write| write.slots.iter().any(holds));
    let gate = out.sends.iter().find(|s| matches!(s.message.body, Body::Accepted(_)));
    let gate = gate.expect("it accepts").after;
    written.is_none() || gate < written.map(|write| write.id)
}

/// Of all slots from the one that was asked for, under the ballots of their values.
fn hides_what_it_accepted() -> bool {
    let held = vec![value(1, FIRST, "a"), value(2, FIRST, "b"), value(4, FIRST, "d")];
    let mut paxos = replica(3, remembers(FIRST, 1, held.clone()));
    let out = paxos.hear(3, SECOND, Body::Prepare { from: 2, transfer: false });
    let told = said(&out, |body| matches!(body, Body::Promise(_)));
    let Some(Body::Promise(told)) = told.first() else { return true };
    let found: Vec<_> = told.entries.iter().flat_map(|run| run.iter().cloned()).collect();
    let whole = told.next.is_none() && told.damaged.is_empty() && told.from == 2;
    found != held[1..] || !whole
}

fn denies_what_is_damaged() -> bool {
    let recovered = Recovered {
        damaged: vec![2..=3],
        ..remembers(FIRST, 1, vec![value(1, FIRST, "a"), value(4, FIRST, "d")])
    };
    let mut paxos = replica(3, recovered);
    let out = paxos.hear(3, SECOND, Body::Prepare { from: 2, transfer: false });
    let told = |body: &Body| matches!(body, Body::Promise(p) if p.damaged == [2..=3]);
    said(&out, told).is_empty()
}

/// Its service applied slot 1; its disk has a value there, and not that this one was chosen.
fn believes_its_slots() -> bool {
    let membership = Membership::of((1..=3).map(NodeId));
    let position = quorate_base::Position::new(1, FIRST);
    let applied = Base::first(position, membership, Protocol::Paxos);
    let recovered = Recovered { applied, ..remembers(FIRST, 0, vec![value(1, FIRST, "dead")]) };
    let mut paxos = replica(3, recovered);
    let out = paxos.hear(3, SECOND, Body::Prepare { from: 1, transfer: false });
    let modest = |body: &Body| matches!(body, Body::Promise(Promise { commit: 0, .. }));
    said(&out, modest).is_empty()
}

/// The leader says that slot 1 is chosen; this replica has another leader's value there.
fn commits_another_ballots_value() -> bool {
    let mut paxos = replica(3, remembers(FIRST, 0, vec![value(1, FIRST, "dead")]));
    let out = paxos.hear(3, SECOND, Body::Heartbeat { session: 1, commit: 1, probe: 0 });
    let early = paxos.commit() != 0 || !out.committed.is_empty();
    paxos.hear(3, SECOND, accept(vec![value(1, SECOND, "alive")], 1));
    assert!(early || paxos.commit() == 1, "with the leader's value it is");
    early
}

/// It holds slot 1 under the first ballot, and accepts slot 2 under the second.
fn mixes_ballots() -> bool {
    let mut paxos = replica(3, remembers(FIRST, 0, vec![value(1, FIRST, "dead")]));
    let out = paxos.hear(3, SECOND, accept(vec![value(2, SECOND, "b")], 0));
    let told = said(&out, |body| matches!(body, Body::Accepted(_)));
    let Some(Body::Accepted(Accepted { upto, beyond, .. })) = told.first() else { return true };
    (*upto, *beyond) != (0, (2, 2))
}

fn goes_on_after_a_seal() -> bool {
    let mut paxos = replica(3, Recovered::default());
    let payload = Payload::Seal { next: Protocol::Raft, ballot: FIRST };
    let seal = quorate_replicated_log::Entry { index: 1, ballot: FIRST, payload };
    let out = paxos.hear(2, FIRST, accept(vec![seal, value(2, FIRST, "void")], 2));
    let handed_out: usize = out.committed.iter().map(|run| run.len()).sum();
    paxos.commit() != 1 || handed_out != 1
}

/// Slots 1 and 2 are chosen, and slot 3 accepted, when the first accept arrives again.
fn is_set_back() -> bool {
    let mut paxos = replica(3, Recovered::default());
    let first = accept(vec![value(1, FIRST, "a")], 0);
    paxos.hear(2, FIRST, first.clone());
    paxos.hear(2, FIRST, accept(vec![value(2, FIRST, "b"), value(3, FIRST, "c")], 2));
    paxos.write();
    let again = paxos.hear(2, FIRST, first);
    let told = |body: &Body| matches!(body, Body::Accepted(a) if a.upto == 3);
    let stays = paxos.commit() == 2 && paxos.status().last.index == 3;
    !stays || said(&again, told).is_empty() || !again.writes.is_empty()
}

fn believes_a_stranger() -> bool {
    let mut paxos = replica(3, remembers(FIRST, 0, Vec::new()));
    let asked = paxos.hear(2, SECOND, Body::Prepare { from: 1, transfer: false });
    let told = paxos.hear(2, SECOND, accept(vec![value(1, SECOND, "x")], 0));
    let beat = paxos.hear(2, SECOND, Body::Heartbeat { session: 1, commit: 0, probe: 1 });
    let silent = [asked, told, beat].iter().all(|out| out.is_empty());
    !silent || paxos.status().ballot != FIRST
}

/// Values of other ballots than the leader's own are chosen already, or the peer lies; so are
/// slots that do not follow each other, and a slot zero.
fn accepts_what_nobody_proposed() -> bool {
    let cases = [
        (vec![value(1, FIRST, "old")], 0),
        (vec![value(1, MINE, "of a later ballot")], 1),
        (vec![value(0, SECOND, "nowhere")], 0),
    ];
    let lies = |(entries, commit): (Vec<_>, u64)| {
        let mut paxos = replica(
            3,
            Recovered { hard_state: known(&Recovered::default()), ..Recovered::default() },
        );
        let out = paxos.hear(3, SECOND, accept(entries, commit));
        let nothing = said(&out, |body| matches!(body, Body::Accepted(_))).is_empty();
        !nothing || paxos.status().last.index != 0 || paxos.commit() != 0
    };
    let mut paxos = replica(3, Recovered::default());
    paxos.hear(3, SECOND, accept(vec![value(1, FIRST, "chosen")], 1));
    assert_eq!(paxos.commit(), 1, "what was chosen under an earlier ballot it may send");
    cases.into_iter().any(lies)
}

/// It hears a leader: no pre-vote, and no promise, unless the leader itself hands over.
fn lets_its_leader_down() -> bool {
    let mut paxos = replica(3, Recovered::default());
    paxos.hear(2, FIRST, accept(vec![value(1, FIRST, "a")], 0));
    let later = Ballot::new(2, NodeId(3));
    let last = quorate_base::Position::ZERO;
    let out = paxos.hear(3, later, Body::PreVote { last });
    let encouraged = !said(&out, |b| *b == Body::PreVoteReply { granted: true }).is_empty();
    let out = paxos.hear(3, later, Body::Prepare { from: 1, transfer: false });
    let deserted = promises(&out);
    let out = paxos.hear(3, later, Body::Prepare { from: 1, transfer: true });
    let wanted = Body::Promise(promise(1, 0, vec![value(1, FIRST, "a")]));
    assert!(deserted || !said(&out, |body| *body == wanted).is_empty(), "{out:?}");
    encouraged || deserted
}
