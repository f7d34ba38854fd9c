//! Golden bytes of versions 1 and 2, round trips, and bytes that nobody meant.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_base::{Ballot, Position, RequestId};
use quorate_replicated_log::{
    Accept, Accepted, Append, AppendOutcome, AppendReply, Base, Body, Change, Entries, Entry,
    Epoch, Membership, Message, Payload, Promise, Protocol,
};

fn encoded(message: &PeerMessage) -> Vec<u8> {
    let mut w = Writer::new();
    encode(message, &mut w).unwrap();
    w.into_vec()
}

fn decoded(bytes: Vec<u8>) -> Result<Vec<PeerMessage>, DecodeError> {
    let mut messages = Vec::new();
    decode_all(Bytes::from(bytes), &mut messages).map(|()| messages)
}

fn log(body: Body) -> PeerMessage {
    let message = Message { epoch: Epoch(0), ballot: Ballot::new(5, NodeId(2)), body };
    PeerMessage::Log { group: GroupId(1), message }
}

/// What every log message of [`log`] begins with.
const LOG_HEAD: [u8; 12] = [1, 1, 0, 5, 2, 0, 0, 0, 0, 0, 0, 0];

fn node(n: u8) -> [u8; 8] {
    u64::from(n).to_le_bytes()
}

#[test]
fn golden_append() {
    let ballot = Ballot::new(5, NodeId(2));
    let membership = Membership::of([NodeId(1), NodeId(2)]);
    let context = Bytes::from_static(b"m");
    let entries = vec![
        Entry { index: 8, ballot: Ballot::new(4, NodeId(1)), payload: Payload::Noop },
        Entry { index: 9, ballot, payload: Payload::Command(Bytes::from_static(b"hi")) },
        Entry { index: 10, ballot, payload: Payload::members(membership, context) },
    ];
    let append = log(Body::Append(Append {
        session: 300,
        previous: Position::new(7, Ballot::new(4, NodeId(1))),
        entries: Entries::new(entries),
        commit: 6,
        probe: 3,
    }));
    let golden = [
        &LOG_HEAD[..],
        &[5, 0xac, 2, 7, 4],
        &node(1),
        &[6, 3, 3],
        &[0x80, 4],
        &node(1),
        &[0x81, 5],
        &node(2),
        &[2, b'h', b'i'],
        &[2, 2],
        &node(1),
        &node(2),
        &[0, 0, 1, b'm'],
    ]
    .concat();
    assert_eq!(encoded(&append), golden);
    assert_eq!(decoded(golden), Ok(vec![append]));
}

#[test]
fn golden_small_log_messages() {
    let position = Position::new(7, Ballot::new(4, NodeId(1)));
    let at = [&[7, 4][..], &node(1)].concat();
    let cases: Vec<(Body, Vec<u8>)> = vec![
        (Body::PreVote { last: position }, [&[1][..], &at].concat()),
        (Body::PreVoteReply { granted: true }, vec![2, 1]),
        (Body::Vote { last: position, transfer: true }, [&[3][..], &at, &[1]].concat()),
        (Body::VoteReply { granted: false }, vec![4, 0]),
        (
            Body::AppendReply(AppendReply {
                session: 1,
                probe: 2,
                outcome: AppendOutcome::Accepted { matched: 3 },
            }),
            vec![6, 1, 2, 1, 3],
        ),
        (
            Body::AppendReply(AppendReply {
                session: 1,
                probe: 2,
                outcome: AppendOutcome::Rejected { previous: 9, hint: position },
            }),
            [&[6, 1, 2, 2, 9][..], &at].concat(),
        ),
        (Body::Heartbeat { session: 1, commit: 2, probe: 3 }, vec![7, 1, 2, 3]),
        (Body::HeartbeatReply { session: 1, probe: 3 }, vec![8, 1, 3]),
        (Body::ReadIndex { id: 4 }, vec![9, 4]),
        (Body::ReadIndexReply { id: 4, index: Some(5) }, vec![10, 4, 1, 5]),
        (Body::ReadIndexReply { id: 4, index: None }, vec![10, 4, 0]),
        (Body::TimeoutNow, vec![11]),
    ];
    check_golden(cases);
}

#[test]
fn golden_log_messages_of_one_protocol() {
    let cases: Vec<(Body, Vec<u8>)> = vec![
        (
            Body::Pull { id: 4, last: Position::new(7, Ballot::new(4, NodeId(1))) },
            [&[16, 4, 7, 4][..], &node(1)].concat(),
        ),
        (
            Body::Pulled {
                id: 4,
                previous: Position::new(2, Ballot::new(4, NodeId(1))),
                entries: noop(3),
                last: Position::new(7, Ballot::new(4, NodeId(1))),
            },
            [&[17, 4, 7, 4][..], &node(1), &[2, 4], &node(1), &[1, 0x80, 4], &node(1)].concat(),
        ),
        (
            Body::Mend { first: 7, ballots: vec![Ballot::new(4, NodeId(1))] },
            [&[18, 7, 1, 4][..], &node(1)].concat(),
        ),
        (
            Body::Mended { first: 3, entries: vec![noop(3)], denied: true },
            [&[19, 3, 1, 1, 2, 1, 0x80, 4][..], &node(1)].concat(),
        ),
        (Body::Prepare { from: 9, transfer: true }, vec![12, 9, 1]),
        (
            Body::Promise(Promise {
                from: 3,
                commit: 2,
                entries: vec![noop(3), noop(5)],
                damaged: vec![7..=8],
                next: Some(9),
                base: 1,
            }),
            [
                &[13, 3, 2, 1, 9, 2][..],
                &[2, 1, 0x80, 4],
                &node(1),
                &[4, 1, 0x80, 4],
                &node(1),
                &[1, 7, 8],
            ]
            .concat(),
        ),
        (
            Body::Accept(Accept { session: 5, entries: noop(3), commit: 2, probe: 6 }),
            [&[14, 5, 2, 6, 2, 1, 0x80, 4][..], &node(1)].concat(),
        ),
        (
            Body::Accepted(Accepted { session: 5, probe: 6, upto: 3, beyond: (5, 7) }),
            vec![15, 5, 6, 3, 5, 7],
        ),
    ];
    check_golden(cases);
}

fn check_golden(cases: Vec<(Body, Vec<u8>)>) {
    for (body, golden) in cases {
        let golden = [&LOG_HEAD[..], &golden].concat();
        assert_eq!(encoded(&log(body.clone())), golden, "{body:?}");
        assert_eq!(decoded(golden), Ok(vec![log(body)]));
    }
}

/// A run of one empty entry.
fn noop(index: u64) -> Entries {
    let ballot = Ballot::new(4, NodeId(1));
    Entries::new(vec![Entry { index, ballot, payload: Payload::Noop }])
}

/// Of another epoch than the first.
fn later_base() -> Base {
    Base {
        position: Position::new(7, Ballot::new(4, NodeId(1))),
        membership: Membership {
            voters: vec![NodeId(1)],
            outgoing: vec![NodeId(2)],
            learners: vec![NodeId(3)],
        },
        epoch: Epoch(300),
        protocol: Protocol::Paxos,
    }
}

#[test]
fn golden_other_messages() {
    let group = GroupId(1);
    let bytes = Bytes::from_static(b"xy");
    let request = RequestId { node: NodeId(2), run: 3, sequence: 4, settled: 1 };
    let base = later_base();
    let chunk = SnapshotChunk { bytes: bytes.clone(), checksum: 0x0102_0304, last: true };
    let refused = |reason| PeerMessage::ForwardRefused { group, requests: vec![request], reason };
    let refusal = [&[5, 1, 1][..], &node(2), &[3, 4, 1]].concat();
    let outcome = |outcome| PeerMessage::SnapshotReply { group, session: 9, index: 8, outcome };
    let change =
        |change| PeerMessage::ForwardChange { group, change, judged: 300, context: Bytes::new() };
    let cases: Vec<(PeerMessage, Vec<u8>)> = vec![
        (
            PeerMessage::Forward { group, commands: vec![bytes.clone(), Bytes::new()] },
            vec![2, 1, 2, 2, b'x', b'y', 0],
        ),
        (change(Change::AddLearner(NodeId(5))), [&[3, 1, 1][..], &node(5), &[0xac, 2, 0]].concat()),
        (change(Change::AddVoter(NodeId(5))), [&[3, 1, 2][..], &node(5), &[0xac, 2, 0]].concat()),
        (change(Change::Remove(NodeId(5))), [&[3, 1, 3][..], &node(5), &[0xac, 2, 0]].concat()),
        (change(Change::Keep), vec![3, 1, 4, 0xac, 2, 0]),
        (change(Change::Promote(NodeId(5))), [&[3, 1, 5][..], &node(5), &[0xac, 2, 0]].concat()),
        (PeerMessage::ForwardTransfer { group, to: NodeId(6) }, [&[4, 1][..], &node(6)].concat()),
        (refused(ForwardRefusal::NotLeader(NodeId(3))), [&refusal[..], &[1], &node(3)].concat()),
        (refused(ForwardRefusal::Full), [&refusal[..], &[2]].concat()),
        (refused(ForwardRefusal::ChangeInProgress), [&refusal[..], &[3]].concat()),
        (refused(ForwardRefusal::BadChange), [&refusal[..], &[4]].concat()),
        (refused(ForwardRefusal::Outdated), [&refusal[..], &[6]].concat()),
        (refused(ForwardRefusal::NotReady), [&refusal[..], &[7]].concat()),
        (refused(ForwardRefusal::Transferring), [&refusal[..], &[5]].concat()),
        (
            PeerMessage::Query { group, id: 7, question: bytes.clone() },
            vec![6, 1, 7, 2, b'x', b'y'],
        ),
        (
            PeerMessage::QueryReply { group, id: 7, answer: Some(bytes) },
            vec![7, 1, 7, 1, 2, b'x', b'y'],
        ),
        (PeerMessage::QueryReply { group, id: 7, answer: None }, vec![7, 1, 7, 0]),
        (
            PeerMessage::Snapshot { group, session: 9, base, part: 2, chunk },
            [
                &[10, 1, 9, 7, 4][..],
                &node(1),
                &[1],
                &node(1),
                &[1],
                &node(2),
                &[1],
                &node(3),
                &[0xac, 2, 2],
                &[2, 4, 3, 2, 1, 1, 2, b'x', b'y'],
            ]
            .concat(),
        ),
        (outcome(SnapshotOutcome::Next(2)), vec![9, 1, 9, 8, 1, 2]),
        (outcome(SnapshotOutcome::Done), vec![9, 1, 9, 8, 2]),
        (outcome(SnapshotOutcome::Failed), vec![9, 1, 9, 8, 3]),
    ];
    for (message, golden) in cases {
        assert_eq!(encoded(&message), golden, "{message:?}");
        assert_eq!(decoded(golden), Ok(vec![message]));
    }
}

#[test]
fn golden_messages_about_epochs() {
    let group = GroupId(1);
    let reason = ForwardRefusal::Full;
    let cases: Vec<(PeerMessage, Vec<u8>)> = vec![
        (
            PeerMessage::Switch { group, next: Protocol::Paxos, judged: Epoch(300) },
            vec![11, 1, 2, 0xac, 2],
        ),
        (PeerMessage::SwitchRefused { group, judged: Epoch(3), reason }, vec![12, 1, 3, 2]),
        (PeerMessage::Opened { group, epoch: Epoch(4) }, vec![13, 1, 4]),
        (PeerMessage::CatchUp { group, epoch: Epoch(3) }, vec![14, 1, 3]),
    ];
    for (message, golden) in cases {
        assert_eq!((encoded(&message), spoken_since(&message)), (golden.clone(), 2));
        assert_eq!(decoded(golden), Ok(vec![message]));
    }
}

/// What version 1 said of a base, and what it has no words for.
#[test]
fn golden_bytes_of_version_1() {
    let position = Position::new(7, Ballot::new(4, NodeId(1)));
    let base = Base { position, membership: Membership::of([NodeId(1)]), ..Base::default() };
    let chunk = SnapshotChunk { bytes: Bytes::from_static(b"xy"), checksum: 5, last: true };
    let group = GroupId(1);
    let snapshot = PeerMessage::Snapshot { group, session: 9, base, part: 2, chunk };
    let golden = [&[8, 1, 9, 7, 4][..], &node(1), &[1], &node(1), &[0, 0]];
    let golden = [&golden.concat()[..], &[2, 5, 0, 0, 0, 1, 2, b'x', b'y']].concat();
    let mut w = Writer::new();
    encode_old(&snapshot, &mut w).unwrap();
    assert_eq!((w.into_vec(), spoken_since(&snapshot)), (golden.clone(), 1));
    assert_eq!(decoded(golden), Ok(vec![snapshot.clone()]));
    let PeerMessage::Snapshot { session, mut base, part, chunk, .. } = snapshot else { panic!() };
    base.epoch = Epoch(1);
    let later = PeerMessage::Snapshot { group, session, base, part, chunk };
    assert_eq!(spoken_since(&later), 2);
    let ballot = Ballot::new(4, NodeId(1));
    let payload = Payload::Seal { next: Protocol::Paxos, ballot };
    let entries = Entries::new(vec![Entry { index: 3, ballot, payload }]);
    let mended = Body::Mended { first: 3, entries: vec![entries.clone()], denied: false };
    assert_eq!(spoken_since(&log(mended)), 2);
    let accept = log(Body::Accept(Accept { session: 5, entries, commit: 2, probe: 6 }));
    let golden = [&[14, 5, 2, 6, 2, 1, 0x84, 4][..], &node(1), &[2, 4], &node(1)].concat();
    assert_eq!(encoded(&accept), [&LOG_HEAD[..], &golden].concat());
    assert_eq!(spoken_since(&accept), 2);
}

#[test]
fn payloads_share_the_memory_of_the_frame() {
    let question = Bytes::from(vec![7; 1_000]);
    let frame = Bytes::from(encoded(&PeerMessage::Query { group: GroupId(1), id: 1, question }));
    let mut messages = Vec::new();
    decode_all(frame.clone(), &mut messages).unwrap();
    let PeerMessage::Query { question, .. } = &messages[0] else { panic!("a query") };
    assert!(frame.as_ptr_range().contains(&question.as_ptr()));
}

#[test]
fn lies_are_errors() {
    let unsorted = [&[8, 1, 9, 7, 4][..], &node(1), &[2], &node(2), &node(1)].concat();
    let error = DecodeError::Unknown { field: "order of members", value: 1 };
    assert_eq!(decoded(unsorted), Err(error));
    // So many entries that their indexes would overflow.
    let mut w = Writer::new();
    w.raw(&LOG_HEAD).u8(5).varint(1).varint(u64::MAX - 1).varint(4).u64(1).varint(0).varint(0);
    w.varint(2).u8(0).u8(0);
    assert!(matches!(decoded(w.into_vec()), Err(DecodeError::TooLong { .. })));
    let many = PeerMessage::Forward { group: GroupId(1), commands: vec![Bytes::new(); 65_537] };
    assert_eq!(encode(&many, &mut Writer::new()), Err(Oversized { items: 65_537 }));
}

fn any_node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn any_ballot() -> impl Strategy<Value = Ballot> {
    (0u64..1 << 40, any_node()).prop_map(|(round, node)| Ballot::new(round, node))
}

fn any_position() -> impl Strategy<Value = Position> {
    (0u64..1 << 50, any_ballot()).prop_map(|(index, ballot)| Position::new(index, ballot))
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let nodes = || {
        proptest::collection::btree_set(any::<u64>(), 0..5)
            .prop_map(|set| set.into_iter().map(NodeId).collect::<Vec<_>>())
    };
    (nodes(), nodes(), nodes()).prop_map(|(voters, outgoing, learners)| Membership {
        voters,
        outgoing,
        learners,
    })
}

fn any_protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Raft), Just(Protocol::Paxos)]
}

fn any_payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::Noop),
        any_ballot().prop_map(Payload::Lead),
        (any_protocol(), any_ballot()).prop_map(|(next, ballot)| Payload::Seal { next, ballot }),
        any_bytes().prop_map(Payload::Command),
        (any_membership(), any_bytes())
            .prop_map(|(membership, context)| Payload::members(membership, context)),
    ]
}

fn any_append() -> impl Strategy<Value = Append> {
    let entries = vec((any_ballot(), any_payload()), 0..6);
    (any::<u64>(), any_position(), entries, any::<u64>(), any::<u64>()).prop_map(
        |(session, previous, payloads, commit, probe)| {
            let entries = payloads.into_iter().zip(previous.index + 1..);
            let entries = entries
                .map(|((ballot, payload), index)| Entry { index, ballot, payload })
                .collect::<Vec<_>>();
            Append { session, previous, entries: Entries::new(entries), commit, probe }
        },
    )
}

fn any_body() -> impl Strategy<Value = Body> {
    let outcome = prop_oneof![
        any::<u64>().prop_map(|matched| AppendOutcome::Accepted { matched }),
        (any::<u64>(), any_position())
            .prop_map(|(previous, hint)| AppendOutcome::Rejected { previous, hint }),
    ];
    prop_oneof![
        any_append().prop_map(Body::Append),
        (any_position(), any::<bool>()).prop_map(|(last, transfer)| Body::Vote { last, transfer }),
        (any::<u64>(), any::<u64>(), outcome).prop_map(|(session, probe, outcome)| {
            Body::AppendReply(AppendReply { session, probe, outcome })
        }),
        (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(session, commit, probe)| Body::Heartbeat { session, commit, probe }),
        (any::<[u64; 3]>(), any::<Option<u32>>(), vec(1..9_u64, 0..4), any::<[u64; 2]>()).prop_map(
            |([from, commit, base], next, runs, [a, b])| {
                let next = next.map(|next| u64::from(next) + 1);
                let entries = runs.into_iter().map(noop).collect();
                Body::Promise(Promise { from, commit, entries, damaged: vec![a..=b], next, base })
            }
        ),
        (any::<u64>(), vec(1..9_u64, 0..4), any::<bool>()).prop_map(|(first, runs, denied)| {
            let entries = runs.into_iter().map(noop).collect();
            Body::Mended { first, entries, denied }
        }),
        any::<[u64; 5]>().prop_map(|[session, probe, upto, first, last]| {
            Body::Accepted(Accepted { session, probe, upto, beyond: (first, last) })
        }),
        (any::<u64>(), any::<Option<u64>>())
            .prop_map(|(id, index)| Body::ReadIndexReply { id, index }),
    ]
}

fn any_message() -> impl Strategy<Value = PeerMessage> {
    let group = || any::<u64>().prop_map(GroupId);
    let base = (any_position(), any_membership(), any::<u32>(), any_protocol()).prop_map(
        |(position, membership, epoch, protocol)| Base {
            position,
            membership,
            epoch: Epoch(epoch),
            protocol,
        },
    );
    prop_oneof![
        4 => (group(), any::<u32>(), any_ballot(), any_body()).prop_map(
            |(group, epoch, ballot, body)| PeerMessage::Log {
                group,
                message: Message { epoch: Epoch(epoch), ballot, body },
            }
        ),
        1 => (group(), vec(any_bytes(), 0..5))
            .prop_map(|(group, commands)| PeerMessage::Forward { group, commands }),
        1 => (group(), any::<u64>(), proptest::option::of(any_bytes()))
            .prop_map(|(group, id, answer)| PeerMessage::QueryReply { group, id, answer }),
        1 => (group(), any::<u64>(), base, any::<u64>(), any::<(u32, bool)>(), any_bytes())
            .prop_map(|(group, session, base, part, (checksum, last), bytes)| {
                let chunk = SnapshotChunk { bytes, checksum, last };
                PeerMessage::Snapshot { group, session, base, part, chunk }
            }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(messages in vec(any_message(), 0..8)) {
        let bytes: Vec<u8> = messages.iter().flat_map(encoded).collect();
        prop_assert_eq!(decoded(bytes), Ok(messages));
    }

    #[test]
    fn a_message_cut_short_is_an_error(message in any_message(), cut: u16) {
        let mut bytes = encoded(&message);
        bytes.truncate(usize::from(cut) % bytes.len().max(1));
        prop_assert!(bytes.is_empty() || decoded(bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300), tag in 1u8..16) {
        let mut with_tag = vec![tag, 1];
        with_tag.extend_from_slice(&bytes);
        let _ = (decoded(bytes), decoded(with_tag));
    }

    #[test]
    fn a_damaged_message_never_panics(message in any_message(), at: u16, with: u8) {
        let mut bytes = encoded(&message);
        let at = usize::from(at) % bytes.len();
        bytes[at] = with;
        let _ = decoded(bytes);
    }
}
