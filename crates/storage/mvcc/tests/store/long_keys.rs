//! Keys that no store takes are looked for, by whoever asks: they are not there, whatever the
//! engine's own limit is.

use bytes::Bytes;
use quorate_mvcc::{Engine, FjallEngine, FjallSettings, MemoryEngine, Source, Table};

/// What there is from one key to the other, both ways.
fn between(view: &impl Source, from: &[u8], to: Option<&[u8]>) -> Vec<Bytes> {
    let key = |pair: Result<(Bytes, Bytes), quorate_mvcc::Error>| pair.unwrap().0;
    let found: Vec<Bytes> = view.scan(Table::Current, from, to).map(key).collect();
    let mut back: Vec<Bytes> = view.scan_back(Table::Current, from, to).map(key).collect();
    back.reverse();
    assert_eq!(found, back);
    found
}

fn check(engine: &impl Engine) {
    let keys = [&b"a"[..], b"k", b"kkk", b"l"].map(Bytes::copy_from_slice);
    let change = |key: &Bytes| (Table::Current, key.clone(), Some(Bytes::new()));
    engine.write(keys.iter().map(change).collect()).unwrap();
    let view = engine.view();
    for bytes in [65_000, 65_535, 65_536, 1 << 20] {
        let long = vec![b'k'; bytes];
        let (mut longer, mut other) = (long.clone(), long.clone());
        longer.push(b'k');
        *other.last_mut().unwrap() = b'z';
        assert_eq!(view.get(Table::Current, &long).unwrap(), None);
        assert_eq!(between(&view, &long, None), keys[3..]);
        assert_eq!(between(&view, b"", Some(&long)), keys[..3]);
        assert_eq!(between(&view, &long, Some(&longer)), [] as [Bytes; 0]);
        assert_eq!(between(&view, &long, Some(&other)), [] as [Bytes; 0]);
        assert_eq!(between(&view, b"kk", Some(&long)), keys[2..3]);
        assert_eq!(between(&view, &long, Some(b"m")), keys[3..]);
    }
}

#[test]
fn keys_that_cannot_be_there_are_not_found() {
    check(&MemoryEngine::new());
    let dir = tempfile::tempdir().unwrap();
    check(&FjallEngine::open(dir.path(), FjallSettings::default()).unwrap());
}
