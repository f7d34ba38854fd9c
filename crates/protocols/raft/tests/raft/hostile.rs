//! Peers that lie, and drivers' inputs in any order: nothing panics, and what is committed stays.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_base::{Ballot, Index, Instant, NodeId, Position};
use quorate_raft::Raft;
use quorate_replicated_log::{
    Append, AppendOutcome, AppendReply, Base, Body, Change, Config, Effects, Entries, Entry, Epoch,
    Input, Limits, Membership, Message, Payload, ProposalId, ReadId, Recovered, ReplicatedLog,
};
use std::time::Duration;

/// Mostly small numbers, which fit what is there; some at the edge.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..8u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn ballot() -> impl Strategy<Value = Ballot> {
    (prop_oneof![9 => 0..6u64, 1 => number()], 0..5u64)
        .prop_map(|(round, node)| Ballot::new(round, NodeId(node)))
}

fn position() -> impl Strategy<Value = Position> {
    (number(), ballot()).prop_map(|(index, ballot)| Position::new(index, ballot))
}

fn payload() -> impl Strategy<Value = Payload> {
    let nodes = || prop::collection::btree_set((1..6u64).prop_map(NodeId), 0..4);
    let members = (nodes(), nodes(), nodes()).prop_map(|(voters, outgoing, learners)| {
        let list = |set: std::collections::BTreeSet<NodeId>| set.into_iter().collect();
        let (voters, outgoing) = (list(voters), list(outgoing));
        Membership { voters, outgoing, learners: list(learners) }
    });
    prop_oneof![
        Just(Payload::Noop),
        Just(Payload::Command(Bytes::from_static(b"x"))),
        members.prop_map(|membership| Payload::members(membership, Bytes::new())),
    ]
}

/// Consecutive, as `Entries` demands and the wire format cannot break; after `previous` or not.
fn entries(after: Index) -> impl Strategy<Value = Entries> {
    let first = prop_oneof![4 => Just(after.saturating_add(1)), 1 => number()];
    (first, prop::collection::vec((ballot(), payload()), 0..4)).prop_map(|(first, items)| {
        let indexes = first.min(u64::MAX - 8)..;
        let entries = indexes.zip(items);
        entries.map(|(index, (ballot, payload))| Entry { index, ballot, payload }).collect()
    })
}

fn body() -> impl Strategy<Value = Body> {
    let append = position().prop_flat_map(|previous| {
        (0..4u64, entries(previous.index), number(), 0..4u64).prop_map(
            move |(session, entries, commit, probe)| {
                Body::Append(Append { session, previous, entries, commit, probe })
            },
        )
    });
    let outcome = prop_oneof![
        number().prop_map(|matched| AppendOutcome::Accepted { matched }),
        (number(), position())
            .prop_map(|(previous, hint)| AppendOutcome::Rejected { previous, hint }),
    ];
    prop_oneof![
        4 => append,
        1 => position().prop_map(|last| Body::PreVote { last }),
        1 => any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
        1 => (position(), any::<bool>())
            .prop_map(|(last, transfer)| Body::Vote { last, transfer }),
        2 => any::<bool>().prop_map(|granted| Body::VoteReply { granted }),
        3 => (0..4u64, number(), outcome).prop_map(|(session, probe, outcome)| {
            Body::AppendReply(AppendReply { session, probe, outcome })
        }),
        2 => (0..4u64, number(), 0..4u64)
            .prop_map(|(session, commit, probe)| Body::Heartbeat { session, commit, probe }),
        1 => (0..4u64, number())
            .prop_map(|(session, probe)| Body::HeartbeatReply { session, probe }),
        1 => number().prop_map(|id| Body::ReadIndex { id }),
        1 => (number(), prop::option::of(number()))
            .prop_map(|(id, index)| Body::ReadIndexReply { id, index }),
        1 => Just(Body::TimeoutNow),
    ]
}

/// What a peer may say, and what the driver may ask.
#[derive(Clone, Debug)]
enum Step {
    Hear(u64, Ballot, Body),
    Wait(u64),
    /// Writes end, and what was committed is applied.
    Settle,
    Ask(Input),
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        (0..6u64).prop_map(|n| Change::AddLearner(NodeId(n))),
        (0..6u64).prop_map(|n| Change::AddVoter(NodeId(n))),
        (0..6u64).prop_map(|n| Change::Promote(NodeId(n))),
        (0..6u64).prop_map(|n| Change::Remove(NodeId(n))),
        Just(Change::Keep),
    ];
    let ask = prop_oneof![
        (1..3usize).prop_map(|n| Input::Propose {
            id: ProposalId(0),
            commands: vec![Bytes::from_static(b"y"); n],
        }),
        any::<u64>().prop_map(|id| Input::Read { id: ReadId(id) }),
        number().prop_map(|index| Input::Applied { index }),
        number().prop_map(|index| Input::Compact { index }),
        (change, number()).prop_map(|(change, judged)| Input::Change {
            id: ProposalId(0),
            change,
            judged,
            context: Bytes::new(),
        }),
        (0..6u64).prop_map(|n| Input::Transfer { to: NodeId(n) }),
        (0..6u64).prop_map(|n| Input::PeerLost { node: NodeId(n) }),
        (0..6u64, prop::option::of(number()))
            .prop_map(|(n, index)| Input::SnapshotSent { to: NodeId(n), index }),
        (number(), number()).prop_map(|(from, to)| Input::Damaged { range: from..=to }),
    ];
    prop_oneof![
        6 => (0..5u64, ballot(), body()).prop_map(|(from, b, body)| Step::Hear(from, b, body)),
        2 => (0..200u64).prop_map(Step::Wait),
        2 => Just(Step::Settle),
        2 => ask.prop_map(Step::Ask),
    ]
}

fn replica(lease_clock_drift_ppm: Option<u32>) -> Raft {
    let config = Config {
        node: NodeId(1),
        epoch: Epoch(0),
        opens: false,
        heartbeat: Duration::from_millis(20),
        election_timeout: Duration::from_millis(100),
        patience: Duration::from_millis(100),
        lease_clock_drift_ppm,
        seed: 1,
        limits: Limits { inflight_messages: 2, append_bytes: 64, ..Limits::default() },
    };
    let membership = Membership::of((1..=3).map(NodeId));
    let base = Base { membership, ..Base::default() };
    let recovered = Recovered { base: base.clone(), applied: base, ..Recovered::default() };
    Raft::new(config, Instant(1_000_000_000), recovered)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn nothing_a_peer_says_panics_or_takes_back_a_commit(
        lease in prop::option::of(0..1_000u32),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut raft = replica(lease);
        let mut now = Instant(1_000_000_000);
        let mut written = None;
        let mut committed: Vec<Entry> = Vec::new();
        for step in steps {
            let mut out = Effects::default();
            let before = raft.status();
            match step {
                Step::Hear(from, ballot, body) => {
                    let message = Message { epoch: Epoch(0), ballot, body };
                    raft.step(now, Input::Message { from: NodeId(from), message }, &mut out);
                }
                Step::Wait(ms) => {
                    now = now + Duration::from_millis(ms);
                    raft.step(now, Input::Tick, &mut out);
                }
                Step::Settle => {
                    if let Some(id) = written {
                        raft.step(now, Input::Written { id }, &mut out);
                    }
                    raft.step(now, Input::Applied { index: raft.commit() }, &mut out);
                }
                Step::Ask(input) => raft.step(now, input, &mut out),
            }
            written = out.writes.last().map(|write| write.id).or(written);
            committed.extend(out.committed.iter().flat_map(|run| run.iter().cloned()));
            let after = raft.status();
            prop_assert!(after.commit >= before.commit, "a commit was taken back");
            prop_assert!(after.ballot.round >= before.ballot.round, "a promise was taken back");
            prop_assert!(after.commit <= after.last.index && after.durable <= after.last.index);
            prop_assert!(committed.iter().zip(1..).all(|(entry, index)| entry.index == index));
            prop_assert_eq!(committed.len() as Index, after.commit);
        }
    }
}
