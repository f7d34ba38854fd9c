//! The bytes of commands: pinned, read back equal, and never believed.

use crate::harness::b;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quorate_base::codec::DecodeError;
use quorate_base::{Ballot, NodeId};
use quorate_keyspace::branch::{BadPart, MAX_TOGETHER, MAX_TXNS};
use quorate_keyspace::codec::{MAX_TXN_DEPTH, Unencodable, decode, encode};
use quorate_keyspace::command::{
    Alarm, Claim, Compare, CompareOperator, CompareTarget, Delete, Member, MemberChange, Operation,
    Put, Range, SortTarget, Txn,
};
use quorate_keyspace::{BranchCommand, BranchId, Command, Part, Prepare};
use quorate_mvcc::KeyRange;

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        bytes().prop_map(KeyRange::One),
        (bytes(), bytes()).prop_map(|(a, b)| KeyRange::Between(a, b)),
        bytes().prop_map(KeyRange::From),
    ]
}

prop_compose! {
    fn put()(
        key in bytes(), value in bytes(), lease in any::<i64>(),
        prev_kv in any::<bool>(), ignore_value in any::<bool>(), ignore_lease in any::<bool>(),
    ) -> Put {
        Put { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn delete()(range in key_range(), prev_kv in any::<bool>()) -> Delete {
        Delete { range, prev_kv }
    }
}

prop_compose! {
    fn claim()(name in bytes(), holder in bytes()) -> Claim {
        Claim { name, holder }
    }
}

fn sort_target() -> impl Strategy<Value = SortTarget> {
    prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::Create),
        Just(SortTarget::Mod),
        Just(SortTarget::Value),
    ]
}

prop_compose! {
    fn range()(
        range in key_range(), limit in any::<u64>(), revision in any::<u64>(),
        sort in option::of((sort_target(), any::<bool>())),
        keys_only in any::<bool>(), count_only in any::<bool>(),
        mod_revision in any::<(u64, u64)>(), create_revision in any::<(u64, u64)>(),
    ) -> Range {
        Range { range, limit, revision, sort, keys_only, count_only, mod_revision, create_revision }
    }
}

fn compare() -> impl Strategy<Value = Compare> {
    let operator = prop_oneof![
        Just(CompareOperator::Equal),
        Just(CompareOperator::Greater),
        Just(CompareOperator::Less),
        Just(CompareOperator::NotEqual),
    ];
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        any::<i64>().prop_map(CompareTarget::Create),
        any::<i64>().prop_map(CompareTarget::Mod),
        bytes().prop_map(CompareTarget::Value),
        any::<i64>().prop_map(CompareTarget::Lease),
        any::<i64>().prop_map(CompareTarget::Claim),
    ];
    (key_range(), operator, target).prop_map(|(range, operator, target)| Compare {
        range,
        operator,
        target,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let flat = (vec(compare(), 0..3), vec(operation(), 0..3), vec(operation(), 0..3))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure });
    flat.prop_recursive(3, 12, 3, |inner| {
        let nested = prop_oneof![operation(), inner.prop_map(Operation::Txn)].boxed();
        (vec(compare(), 0..2), vec(nested.clone(), 0..3), vec(nested, 0..3))
            .prop_map(|(compare, success, failure)| Txn { compare, success, failure })
    })
}

fn operation() -> BoxedStrategy<Operation> {
    prop_oneof![
        put().prop_map(Operation::Put),
        delete().prop_map(Operation::Delete),
        range().prop_map(Operation::Range),
        claim().prop_map(Operation::Claim),
        claim().prop_map(Operation::Release),
    ]
    .boxed()
}

fn member_change() -> impl Strategy<Value = MemberChange> {
    let node = || any::<u64>().prop_map(NodeId);
    let urls = || vec(".{0,4}", 0..3);
    prop_oneof![
        (node(), ".{0,4}", urls(), urls(), any::<bool>()).prop_map(
            |(id, name, peer_urls, client_urls, learner)| {
                MemberChange::Add(Member { id, name, peer_urls, client_urls, learner })
            }
        ),
        node().prop_map(MemberChange::Promote),
        node().prop_map(MemberChange::Remove),
        (node(), urls()).prop_map(|(id, peer_urls)| MemberChange::UpdatePeers { id, peer_urls }),
        (node(), ".{0,4}", urls()).prop_map(|(id, name, client_urls)| MemberChange::Publish {
            id,
            name,
            client_urls
        }),
    ]
}

fn branch_command() -> impl Strategy<Value = BranchCommand> {
    let id =
        (bytes(), any::<u32>()).prop_map(|(transaction, number)| BranchId { transaction, number });
    let flags = any::<(bool, bool)>();
    (id, any::<u64>(), 0..5, any::<u64>(), vec(txn(), 1..4), flags).prop_map(
        |(id, epoch, kind, priority, txns, (or_else, one_phase))| match kind {
            0 => BranchCommand::Commit { id, epoch },
            1 => BranchCommand::Rollback { id, epoch },
            2 => BranchCommand::Forget { id, epoch },
            3 => BranchCommand::Resolve { id, epoch },
            _ => BranchCommand::Prepare(Prepare {
                id,
                epoch,
                priority,
                txns: txns.into(),
                or_else,
                one_phase,
            }),
        },
    )
}

fn together() -> impl Strategy<Value = BranchCommand> {
    let parts = vec(branch_command(), 0..4);
    parts.prop_map(|all| {
        BranchCommand::Together(all.into_iter().filter_map(|one| Part::new(one).ok()).collect())
    })
}

fn command() -> impl Strategy<Value = Command> {
    let ballot = || any::<(u64, u64)>().prop_map(|(round, n)| Ballot::new(round, NodeId(n)));
    prop_oneof![
        put().prop_map(Command::Put),
        delete().prop_map(Command::Delete),
        txn().prop_map(Command::Txn),
        any::<u64>().prop_map(|revision| Command::Compact { revision }),
        any::<(i64, i64)>().prop_map(|(id, ttl_seconds)| Command::LeaseGrant { id, ttl_seconds }),
        any::<i64>().prop_map(|id| Command::LeaseRevoke { id }),
        (any::<i64>(), ballot()).prop_map(|(id, ballot)| Command::LeaseExpire { id, ballot }),
        vec(any::<u64>().prop_map(NodeId), 0..4)
            .prop_map(|voters| Command::FoundDirectory { voters }),
        (ballot(), any::<u64>(), vec(any::<(i64, i64)>(), 0..4)).prop_map(
            |(ballot, number, remaining)| Command::LeaseCheckpoint { ballot, number, remaining }
        ),
        (any::<bool>(), any::<u64>(), any::<bool>()).prop_map(|(raise, member, corrupt)| {
            let alarm = if corrupt { Alarm::Corrupt } else { Alarm::NoSpace };
            Command::Alarm { raise, member: NodeId(member), alarm }
        }),
        member_change().prop_map(Command::Member),
        branch_command().prop_map(Command::Branch),
        together().prop_map(Command::Branch),
        vec(key_range(), 0..3).prop_map(|ranges| Command::Barrier { ranges }),
        vec(any::<u64>(), 0..3).prop_map(|entries| Command::Unqueue { entries }),
    ]
}

proptest! {
    #[test]
    fn a_command_is_read_back_equal(command in command()) {
        let bytes = encode(&command).unwrap();
        prop_assert_eq!(decode(bytes.clone()), Ok(command));
        // Cut short or with something after it, it is no command.
        prop_assert!(decode(bytes.slice(..bytes.len() - 1)).is_err());
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(decode(Bytes::from(longer)).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut input in vec(any::<u8>(), 0..200), valid in any::<bool>()) {
        if valid && let Some(version) = input.first_mut() {
            *version = 1;
        }
        let input = Bytes::from(input);
        if let Ok(command) = decode(input) {
            let again = encode(&command).unwrap();
            prop_assert_eq!(decode(again), Ok(command));
        }
    }

    #[test]
    fn damaged_commands_never_panic(command in command(), at in any::<usize>(), bit in 0u8..8) {
        let mut bytes = encode(&command).unwrap().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = decode(Bytes::from(bytes)) {
            prop_assert_eq!(decode(encode(&other).unwrap()), Ok(other));
        }
    }
}

fn golden(command: Command, wanted: &[u8]) {
    let bytes = encode(&command).unwrap();
    assert_eq!(&bytes[..], wanted, "{command:?}");
    assert_eq!(decode(bytes), Ok(command));
}

#[test]
fn golden_bytes_of_version_1() {
    let put = Put { key: b("a"), value: b("xy"), lease: 7, prev_kv: true, ..Put::default() };
    golden(Command::Put(put.clone()), &[1, 1, 1, b'a', 2, b'x', b'y', 14, 1]);
    let all = KeyRange::From(Bytes::new());
    let delete = Delete { range: all.clone(), prev_kv: false };
    golden(Command::Delete(delete.clone()), &[1, 2, 3, 0, 0]);
    let between = KeyRange::Between(b("a"), b("b"));
    let compare = Compare {
        range: between,
        operator: CompareOperator::NotEqual,
        target: CompareTarget::Value(b("v")),
    };
    let range = Range {
        limit: 300,
        revision: 2,
        sort: Some((SortTarget::Mod, true)),
        keys_only: true,
        mod_revision: (3, 4),
        ..Range::of(KeyRange::One(b("k")))
    };
    let txn = Txn {
        compare: vec![compare],
        success: vec![Operation::Range(range), Operation::Txn(Txn::default())],
        failure: vec![Operation::Delete(delete)],
    };
    let bytes = [
        &[1, 3, 1, 2, 1, b'a', 1, b'b', 3, 3, 1, b'v'][..],
        &[2, 10, 1, 1, b'k', 0xac, 2, 2, 8, 1, 3, 4, 0, 0, 3, 0, 0, 0],
        &[1, 2, 3, 0, 0],
    ];
    golden(Command::Txn(txn), &bytes.concat());
    let free = Compare {
        range: KeyRange::One(b("n")),
        operator: CompareOperator::Less,
        target: CompareTarget::Claim(300),
    };
    let claim = Claim { name: b("n"), holder: b("h") };
    let txn = Txn {
        compare: vec![free],
        success: vec![Operation::Claim(claim.clone())],
        failure: vec![Operation::Release(claim)],
    };
    let bytes = [
        &[1, 3, 1, 1, 1, b'n', 2, 5, 0xd8, 4][..],
        &[1, 15, 1, b'n', 1, b'h'],
        &[1, 16, 1, b'n', 1, b'h'],
    ];
    golden(Command::Txn(txn), &bytes.concat());
    golden(Command::Compact { revision: 300 }, &[1, 4, 0xac, 2]);
    golden(Command::LeaseGrant { id: -1, ttl_seconds: 60 }, &[1, 5, 1, 120]);
    golden(Command::LeaseRevoke { id: 2 }, &[1, 6, 4]);
    let ballot = Ballot::new(9, NodeId(3));
    golden(Command::LeaseExpire { id: 2, ballot }, &[1, 11, 4, 9, 3]);
    let remaining = vec![(2, 30)];
    golden(Command::LeaseCheckpoint { ballot, number: 5, remaining }, &[1, 7, 9, 3, 5, 1, 4, 60]);
    let alarm = Command::Alarm { raise: true, member: NodeId(3), alarm: Alarm::Corrupt };
    golden(alarm, &[1, 8, 1, 3, 2]);
    let voters = vec![NodeId(3), NodeId(300)];
    golden(Command::FoundDirectory { voters }, &[1, 32, 2, 3, 172, 2]);
    let member = Member {
        id: NodeId(4),
        name: "n".into(),
        peer_urls: vec!["p".into()],
        ..Member::default()
    };
    let add = Command::Member(MemberChange::Add(member));
    golden(add, &[1, 9, 1, 4, 1, b'n', 1, 1, b'p', 0, 0]);
}

#[test]
fn golden_bytes_of_branches() {
    let id = BranchId { transaction: b("tx"), number: 300 };
    let prepare = Prepare {
        id: id.clone(),
        epoch: 2,
        priority: 301,
        txns: [Txn {
            success: vec![Operation::Put(Put { key: b("k"), ..Put::default() })],
            ..Txn::default()
        }]
        .into(),
        or_else: true,
        one_phase: false,
    };
    let bytes =
        [&[1, 12, 1, 2, b't', b'x', 0xac, 2, 2, 0xad, 2, 1][..], &[0, 1, 1, 1, b'k', 0, 0, 0, 0]];
    golden(Command::Branch(BranchCommand::Prepare(prepare.clone())), &bytes.concat());
    let several =
        Prepare { txns: [&prepare.txns[..], &[Txn::default()]].concat().into(), ..prepare };
    let bytes = [
        &[1, 12, 1, 2, b't', b'x', 0xac, 2, 2, 0xad, 2, 5, 2][..],
        &[0, 1, 1, 1, b'k', 0, 0, 0, 0, 0, 0, 0],
    ];
    golden(Command::Branch(BranchCommand::Prepare(several)), &bytes.concat());
    let commit = BranchCommand::Commit { id: id.clone(), epoch: 2 };
    golden(Command::Branch(commit), &[1, 12, 2, 2, b't', b'x', 0xac, 2, 2]);
    let rollback = BranchCommand::Rollback { id: id.clone(), epoch: 2 };
    golden(Command::Branch(rollback), &[1, 12, 3, 2, b't', b'x', 0xac, 2, 2]);
    golden(
        Command::Branch(BranchCommand::Forget { id: id.clone(), epoch: 2 }),
        &[1, 12, 4, 2, b't', b'x', 0xac, 2, 2],
    );
    let resolve = BranchCommand::Resolve { id: id.clone(), epoch: 2 };
    golden(Command::Branch(resolve.clone()), &[1, 12, 5, 2, b't', b'x', 0xac, 2, 2]);
    let commit = BranchCommand::Commit { id, epoch: 2 };
    let parts = vec![Part::new(resolve).unwrap(), Part::new(commit).unwrap()];
    let bytes = [
        &[1, 12, 6, 2, 9, 1, 12, 5, 2, b't', b'x', 0xac, 2, 2][..],
        &[9, 1, 12, 2, 2, b't', b'x', 0xac, 2, 2],
    ];
    golden(Command::Branch(BranchCommand::Together(parts)), &bytes.concat());
    let ranges = vec![KeyRange::One(b("a")), KeyRange::From(b("b"))];
    golden(Command::Barrier { ranges }, &[1, 13, 2, 1, 1, b'a', 3, 1, b'b']);
    golden(Command::Unqueue { entries: vec![300] }, &[1, 14, 1, 0xac, 2]);
}

#[test]
fn commands_come_together_only_one_level_deep_and_not_too_many() {
    let id = BranchId { transaction: b("t"), number: 1 };
    let forget = || Part::new(BranchCommand::Forget { id: id.clone(), epoch: 1 }).unwrap();
    let several = |n| BranchCommand::Together((0..n).map(|_| forget()).collect());
    let encoded = |n| encode(&Command::Branch(several(n)));
    assert_eq!(encoded(MAX_TOGETHER + 1), Err(Unencodable::TooMuch));
    let most = encoded(MAX_TOGETHER).unwrap();
    assert!(decode(most.clone()).is_ok());
    assert_eq!((most[3..5].to_vec(), MAX_TOGETHER), (vec![0x80, 2], 256), "the number of them");
    let more = [&most[..3], &[0x81, 2], &most[5..]].concat();
    assert!(matches!(decode(Bytes::from(more)), Err(DecodeError::TooLong { .. })));
    assert_eq!(Part::new(several(1)), Err(BadPart::Nested));
    let alone = Prepare {
        id: id.clone(),
        epoch: 1,
        priority: 1,
        txns: [Txn::default()].into(),
        or_else: false,
        one_phase: true,
    };
    assert_eq!(Part::new(BranchCommand::Prepare(alone.clone())), Err(BadPart::OnePhase));
    // Bytes that nobody here writes.
    for inner in [several(1), BranchCommand::Prepare(alone)] {
        let inner = encode(&Command::Branch(inner)).unwrap();
        let bytes = [&[1, 12, 6, 1, inner.len() as u8][..], &inner].concat();
        assert!(matches!(decode(Bytes::from(bytes)), Err(DecodeError::Unknown { .. })));
    }
}

#[test]
fn a_branch_has_not_too_many_transactions() {
    let id = BranchId { transaction: b("t"), number: 1 };
    let of = |n| Prepare {
        id: id.clone(),
        epoch: 1,
        priority: 1,
        txns: vec![Txn::default(); n].into(),
        or_else: false,
        one_phase: false,
    };
    let encoded = |n| encode(&Command::Branch(BranchCommand::Prepare(of(n))));
    assert_eq!(encoded(MAX_TXNS + 1), Err(Unencodable::TooMuch));
    let mut most = encoded(MAX_TXNS).unwrap().to_vec();
    assert!(decode(Bytes::from(most.clone())).is_ok());
    assert_eq!(usize::from(most[9]), MAX_TXNS, "the number of them");
    most[9] += 1;
    assert!(matches!(decode(Bytes::from(most)), Err(DecodeError::TooLong { .. })));
}

#[test]
fn another_version_or_tag_is_refused() {
    let unknown = |field, value| Err(DecodeError::Unknown { field, value });
    let decode = |bytes: &'static [u8]| decode(Bytes::from_static(bytes));
    assert_eq!(decode(&[2, 6, 4]), unknown("command version", 2));
    assert_eq!(decode(&[1, 99, 4]), unknown("command", 99));
    assert_eq!(decode(&[1, 1, 0, 0, 0, 8]), unknown("put flags", 8));
    // A list that claims more than there is.
    assert!(matches!(
        decode(&[1, 7, 0, 0, 0, 0xff, 0xff, 0x3f]),
        Err(DecodeError::Truncated { .. })
    ));
}

#[test]
fn nesting_has_a_limit_that_both_sides_know() {
    let nest = |depth: usize| {
        let outer = |inner| Txn { success: vec![Operation::Txn(inner)], ..Txn::default() };
        Command::Txn((1..depth).fold(Txn::default(), |inner, _| outer(inner)))
    };
    let deepest = nest(MAX_TXN_DEPTH);
    assert_eq!(decode(encode(&deepest).unwrap()), Ok(deepest));
    assert_eq!(encode(&nest(MAX_TXN_DEPTH + 1)), Err(Unencodable::TooDeep));
    let too_deep = [&[1, 3][..], &[0, 1, 3].repeat(100_000)].concat();
    assert!(matches!(decode(Bytes::from(too_deep)), Err(DecodeError::TooLong { .. })));
}

/// What one node accepts and another cannot read would stop the group.
#[test]
fn what_could_not_be_read_back_has_no_encoding() {
    let text = |bytes: usize| "a".repeat(bytes);
    let longest = 1 << 16;
    let add = |name: usize, peer: usize, client: usize| {
        let (peer_urls, client_urls) = (vec![text(peer)], vec![text(client)]);
        let member = Member { name: text(name), peer_urls, client_urls, ..Member::default() };
        Command::Member(MemberChange::Add(member))
    };
    let update = |bytes| {
        let peer_urls = vec![text(bytes)];
        Command::Member(MemberChange::UpdatePeers { id: NodeId(1), peer_urls })
    };
    let publish = |name, client| {
        let (name, client_urls) = (text(name), vec![text(client)]);
        Command::Member(MemberChange::Publish { id: NodeId(1), name, client_urls })
    };
    for command in [add(longest, longest, longest), update(longest), publish(longest, longest)] {
        assert_eq!(decode(encode(&command).unwrap()), Ok(command));
    }
    let longer = longest + 1;
    for command in [
        add(longer, 1, 1),
        add(1, longer, 1),
        add(1, 1, longer),
        update(longer),
        publish(longer, 1),
        publish(1, longer),
    ] {
        assert_eq!(encode(&command), Err(Unencodable::TooMuch));
    }
    let most = 1 << 20;
    let txn = |operations: usize| {
        let read = Operation::Range(Range::of(KeyRange::One(Bytes::from_static(b"k"))));
        Command::Txn(Txn { success: vec![read; operations], ..Txn::default() })
    };
    assert!(decode(encode(&txn(most)).unwrap()).is_ok());
    assert_eq!(encode(&txn(most + 1)), Err(Unencodable::TooMuch));
    let unqueue = |entries: usize| Command::Unqueue { entries: vec![1; entries] };
    assert!(decode(encode(&unqueue(most)).unwrap()).is_ok());
    assert_eq!(encode(&unqueue(most + 1)), Err(Unencodable::TooMuch));
}

#[test]
fn keys_and_values_share_the_memory_of_the_command() {
    let value = Bytes::from(vec![7; 1_000]);
    let bytes = encode(&Command::Put(Put { key: b("k"), value, ..Put::default() })).unwrap();
    let Ok(Command::Put(put)) = decode(bytes.clone()) else { panic!("a put") };
    assert!(bytes.as_ptr_range().contains(&put.value.as_ptr()));
}
