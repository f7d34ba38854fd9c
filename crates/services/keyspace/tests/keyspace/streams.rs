//! A range read piece by piece is the range read at once.

use crate::generate::Generator;
use crate::harness::{Replica, b};
use quorate_keyspace::command::{Put, Range, SortTarget};
use quorate_keyspace::{Canary, Command, KeyspaceError, Piece, ReadError};
use quorate_mvcc::{KeyRange, KeyValue};

fn put(replica: &mut Replica, key: &str, value: &str) {
    replica.run(Command::Put(Put { key: b(key), value: b(value), ..Put::default() }));
}

#[test]
fn pieces_make_up_the_range() {
    let mut ranges = 0;
    for seed in 0..200 {
        let mut generator = Generator::new(seed);
        let mut replica = Replica::new(Canary::NONE);
        for n in 0..30 {
            put(&mut replica, &format!("{}{}", ["a", "b", "c"][n % 3], n / 6), "value");
        }
        generator.revision = 31;
        let range = Range {
            sort: None,
            mod_revision: (0, 0),
            create_revision: (0, 0),
            ..generator.range()
        };
        let reader = replica.keyspace.reader();
        let whole = reader.range(&range);
        let Ok(mut stream) = reader.stream(&range) else {
            assert_eq!(whole, Err(ReadError::Refused(KeyspaceError::FutureRevision)));
            continue;
        };
        let mut kvs: Vec<KeyValue> = Vec::new();
        let mut end = None;
        while let Some(piece) = stream.next_piece(generator.rng.below(200) as usize).unwrap() {
            assert_eq!(end, None, "nothing after the last");
            // Writes between the pieces do not show.
            put(&mut replica, "b9", "new");
            end = piece.end;
            kvs.extend(piece.kvs);
        }
        let whole = whole.unwrap();
        assert_eq!(
            (end, kvs),
            (Some((whole.more, whole.count, whole.revision)), whole.kvs),
            "{range:?}"
        );
        ranges += 1;
    }
    assert!(ranges > 100);
}

#[test]
fn a_stream_holds_no_state_and_ends_when_compaction_overtakes_it() {
    let mut replica = Replica::new(Canary::NONE);
    (0..10).for_each(|n| put(&mut replica, &format!("k{n}"), "value"));
    let reader = replica.keyspace.reader();
    let mut stream = reader.stream(&Range::of(KeyRange::From(b("")))).unwrap();
    let first = stream.next_piece(100).unwrap().unwrap();
    assert!(matches!(first, Piece { end: None, .. }) && !first.kvs.is_empty());
    put(&mut replica, "z", "1");
    replica.run(Command::Compact { revision: 12 });
    let compacted = Err(ReadError::Refused(KeyspaceError::Compacted));
    assert_eq!(stream.next_piece(100), compacted);
    assert_eq!(stream.next_piece(100), Ok(None));
}

#[test]
fn orders_and_filters_are_not_for_streams() {
    let reader = Replica::new(Canary::NONE).keyspace.reader();
    let all = || Range::of(KeyRange::From(b("")));
    for range in [
        Range { sort: Some((SortTarget::Value, false)), ..all() },
        Range { sort: Some((SortTarget::Key, true)), ..all() },
        Range { mod_revision: (1, 0), ..all() },
    ] {
        let refused = reader.stream(&range).err();
        assert_eq!(refused, Some(ReadError::Refused(KeyspaceError::Unsupported)));
    }
    assert!(reader.stream(&Range { sort: Some((SortTarget::Key, false)), ..all() }).is_ok());
}
