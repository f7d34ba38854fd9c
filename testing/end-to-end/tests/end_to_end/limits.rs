//! What is beyond a limit is refused by name, and nothing is prepared anywhere.

use crate::http::World;
use crate::{begin, quorate};
use std::fmt::Write;

/// A branch that would keep a room.
const ROOM: &str = "[[branch]]\nname = 'room'\nhttp = 'hotel'\naction = '/rooms'\n";

fn in_default(operations: &str) -> String {
    format!("[[branch]]\nname = 'order'\nkeyspace = 'default'\nthen = [{operations}]\n{ROOM}")
}

#[test]
fn what_is_beyond_a_limit_is_refused_before_anything_is_prepared() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = World::open_with(&runtime, "", &["--max-txn-ops", "20"]);
    let put =
        |n: usize, bytes: usize| format!("{{ put = 'k{n}', value = '{}' }}", "v".repeat(bytes));
    let many = |n: usize, bytes: usize| (0..n).map(|n| put(n, bytes)).collect::<Vec<_>>().join(",");
    let mut branches = ROOM.to_owned();
    for n in 0..32 {
        let operation = put(n, 1);
        write!(branches, "[[branch]]\nname = 'b{n}'\nkeyspace = 'k{n}'\nthen = [{operation}]\n")
            .unwrap();
    }
    for (id, text, why) in [
        ("branches", branches, "33 branches: a transaction has up to 32"),
        (
            "operations",
            in_default(&many(21, 1)),
            "branch \"order\": etcdserver: too many operations",
        ),
        ("bytes", in_default(&many(2, 525 << 10)), "bytes: a transaction has up to 1048576"),
        ("more-bytes", in_default(&many(2, 900 << 10)), "bytes: a transaction has up to 1048576"),
        // It is not even read.
        ("many-bytes", in_default(&many(5, 900 << 10)), "message length too large"),
    ] {
        let refused = world.run(&format!("id = {id:?}\n{text}"));
        assert!(refused.code == Some(1) && refused.err.contains(why), "{id}: {refused:?}");
        let absent = quorate(&world.cluster, &["txn", "show", id], "");
        assert!(absent.err.contains(&format!("there is no transaction {id:?}")), "{absent:?}");
    }
    let kept = quorate(&world.cluster, &["get", "k", "--prefix", "--count-only"], "").ok();
    assert!(kept.starts_with('0'), "{kept}");
    assert_eq!(world.hotel.hotel.lock().barrier.len(), 0);

    // What is just within them is done.
    let ran = world.run(&format!("id = 'fits'\n{}", in_default(&many(20, 50 << 10)))).ok();
    assert!(ran.contains("fits is committed"), "{ran}");
    assert_eq!(world.hotel.hotel.lock().barrier.len(), 1);
}
