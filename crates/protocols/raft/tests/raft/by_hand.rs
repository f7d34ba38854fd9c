//! Single messages to one replica, where schedules and transcripts seldom or never tell right from
//! wrong. Each returns whether the replica breaks the rule.

use quorate_base::{Ballot, Index, NodeId, Position};
use quorate_replicated_log::conformance::Alone;
use quorate_replicated_log::{Append, Body, Entries, Entry, HardState, Payload, Recovered, Role};
use std::time::Duration;

type Rule = (&'static str, fn() -> bool);

/// Every rule, by name.
pub const RULES: [Rule; 6] = [
    ("a hand-made append", commits_what_may_differ),
    ("a hand-made request for a vote", votes_before_that_is_written),
    ("a hand-made answer to a mend", mends_with_another_ballot),
    ("a hand-made denial", cuts_what_one_denies),
    ("a heartbeat that comes after a pull", commits_what_was_pulled),
    ("a pull from a log that nobody followed", pulls_what_contradicts),
];

const FIRST: Ballot = Ballot { round: 1, node: NodeId(2) };
const SECOND: Ballot = Ballot { round: 2, node: NodeId(3) };

/// Node 1 of so many, on what was recovered.
fn replica(voters: u64, recovered: Recovered) -> Alone {
    Alone::of(crate::raft, voters, recovered)
}

fn entry(index: Index, ballot: Ballot) -> Entry {
    Entry { index, ballot, payload: Payload::Noop }
}

/// A leader of round 2 tells that two entries are committed, to a follower whose second entry is
/// of round 1 and of which it only knows the first to agree.
fn commits_what_may_differ() -> bool {
    let entries = vec![Entries::new(vec![entry(1, FIRST), entry(2, FIRST)])];
    let mut raft = replica(3, Recovered { entries, ..Recovered::default() });
    let append = Append {
        session: 1,
        previous: Position::new(1, FIRST),
        entries: Entries::default(),
        commit: 2,
        probe: 1,
    };
    raft.hear(3, SECOND, Body::Append(append));
    raft.commit() != 1
}

/// A vote is given: the answer must wait for the write that remembers it.
fn votes_before_that_is_written() -> bool {
    let mut raft = replica(3, Recovered::default());
    let body = Body::Vote { last: Position::default(), transfer: false };
    let out = raft.hear(2, Ballot::new(1, NodeId(2)), body);
    let vote = Body::VoteReply { granted: true };
    let gates: Vec<_> = out.sends.iter().filter(|s| s.message.body == vote).collect();
    assert_eq!((gates.len(), out.writes.len()), (1, 1), "the vote is given, and written");
    gates[0].after.is_none()
}

/// One of five voters, elected by two others, whose third of four entries cannot be read.
fn elected_with_a_hole() -> (Alone, Ballot) {
    let recovered = Recovered {
        hard_state: HardState { promised: SECOND, commit: 0 },
        entries: vec![
            Entries::new(vec![entry(1, FIRST), entry(2, FIRST)]),
            Entries::new(vec![entry(4, SECOND)]),
        ],
        damaged: vec![3..=3],
        damaged_ballots: vec![Position::new(3, SECOND)],
        ..Recovered::default()
    };
    let mut raft = replica(5, recovered);
    let mine = Ballot::new(3, NodeId(1));
    raft.wait(Duration::from_secs(1));
    for from in [2, 3] {
        raft.hear(from, mine, Body::PreVoteReply { granted: true });
    }
    assert_eq!(raft.role(), Role::Candidate);
    // Whatever it has written so far is durable.
    let written = raft.status();
    assert_eq!(written.ballot, mine);
    let mut asked = raft.write();
    for from in [2, 3] {
        asked = raft.hear(from, mine, Body::VoteReply { granted: true });
    }
    let mend = Body::Mend { first: 3, ballots: vec![SECOND] };
    assert!(asked.sends.iter().any(|s| s.message.body == mend), "{:?}", asked.sends);
    (raft, mine)
}

/// What a peer sends under another ballot than the lost entry's is not that entry.
fn mends_with_another_ballot() -> bool {
    let (mut raft, mine) = elected_with_a_hole();
    let entries = vec![Entries::new(vec![entry(3, FIRST)])];
    let body = Body::Mended { first: 3, entries, denied: false };
    raft.hear(2, mine, body);
    let wrong = raft.role() == Role::Leader;
    if !wrong {
        let entries = vec![Entries::new(vec![entry(3, SECOND)])];
        let body = Body::Mended { first: 3, entries, denied: false };
        raft.hear(2, mine, body);
        assert_eq!(raft.role(), Role::Leader, "the lost one it takes");
    }
    wrong
}

/// One of five that denies an entry is no quorum.
fn cuts_what_one_denies() -> bool {
    let (mut raft, mine) = elected_with_a_hole();
    let deny = |raft: &mut Alone, from| {
        let body = Body::Mended { first: 3, entries: Vec::new(), denied: true };
        raft.hear(from, mine, body);
    };
    deny(&mut raft, 2);
    deny(&mut raft, 3);
    let wrong = raft.role() == Role::Leader;
    if !wrong {
        deny(&mut raft, 4);
        assert_eq!(raft.role(), Role::Leader, "what three of five deny was never committed");
    }
    wrong
}

/// The leader of round 7 has committed the tenth entry, which is of round 5, with this follower's
/// help and others'. His heartbeat that says so is late: the follower missed him, was refused, and
/// pulled another tenth entry, of round 6, from one that led in that round and reached nobody.
fn commits_what_was_pulled() -> bool {
    let before = Ballot::new(5, NodeId(2));
    let entries = vec![Entries::new((1..=9).map(|index| entry(index, before)).collect())];
    let hard_state = HardState { promised: Ballot::new(5, NodeId(2)), commit: 9 };
    let mut raft = replica(5, Recovered { entries, hard_state, ..Recovered::default() });
    let leads = Ballot::new(7, NodeId(2));
    let append = Append {
        session: 1,
        previous: Position::new(9, before),
        entries: Entries::new(vec![entry(10, before)]),
        commit: 9,
        probe: 1,
    };
    raft.hear(2, leads, Body::Append(append));
    assert_eq!(raft.status().last, Position::new(10, before));
    raft.wait(Duration::from_secs(1));
    let refused = Body::PreVoteReply { granted: false };
    let out = raft.hear(3, Ballot::new(7, NodeId(2)), refused);
    let pulls = out.sends.iter().find_map(|send| match send.message.body {
        Body::Pull { id, .. } => Some(id),
        _ => None,
    });
    let other = entry(10, Ballot::new(6, NodeId(3)));
    let (last, previous) = (other.position(), Position::new(9, before));
    let id = pulls.expect("who is refused pulls");
    let body = Body::Pulled { id, previous, entries: Entries::new(vec![other]), last };
    raft.hear(3, leads, body);
    assert_eq!(raft.status().last, last);
    raft.hear(2, leads, Body::Heartbeat { session: 1, commit: 10, probe: 0 });
    raft.commit() != 9
}

/// This follower knows the tenth entry to be committed, which is of round 5: the leader of round 7
/// told so and is gone, with those of his own round. Another's log goes on differently after the
/// ninth, in round 6, whose leader nobody else followed.
fn pulls_what_contradicts() -> bool {
    let (before, leads) = (Ballot::new(5, NodeId(2)), Ballot::new(7, NodeId(2)));
    let entries = vec![Entries::new((1..=10).map(|index| entry(index, before)).collect())];
    let hard_state = HardState { promised: leads, commit: 10 };
    let mut raft = replica(5, Recovered { entries, hard_state, ..Recovered::default() });
    raft.wait(Duration::from_secs(1));
    let refused = Body::PreVoteReply { granted: false };
    let out = raft.hear(3, leads, refused);
    let pulls = out.sends.iter().find_map(|send| match send.message.body {
        Body::Pull { id, .. } => Some(id),
        _ => None,
    });
    let id = pulls.expect("who is refused pulls");
    let other = Ballot::new(6, NodeId(3));
    let entries = Entries::new(vec![entry(10, other), entry(11, other)]);
    let (previous, last) = (Position::new(9, before), Position::new(11, other));
    raft.hear(3, leads, Body::Pulled { id, previous, entries, last });
    raft.status().last != Position::new(10, before)
}

#[test]
fn no_rule_is_broken() {
    for (name, breaks) in RULES {
        assert!(!breaks(), "{name}");
    }
}
