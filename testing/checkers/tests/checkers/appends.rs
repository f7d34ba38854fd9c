//! Histories of which the anomaly is known.

use quorate_base::Instant;
use quorate_checkers::appends::{Ending, Kind, Step, Transaction, anomalies, check_appends};

/// `a1`: append 1 to list a; `b[1,2]`: read list b and find 1 and 2. All at the same time.
fn concurrent(transactions: &[&str]) -> Vec<Transaction> {
    let ending = Ending::Committed(Instant(10));
    let one = |(n, text): (usize, &&str)| Transaction {
        client: n as u64,
        called: Instant(1),
        steps: text.split_whitespace().map(step).collect(),
        ending,
    };
    transactions.iter().enumerate().map(one).collect()
}

fn step(text: &str) -> Step {
    let key = u64::from(text.as_bytes()[0]);
    match text[1..].strip_prefix('[') {
        None => Step::Append(key, text[1..].parse().unwrap()),
        Some(list) => {
            let list = list.trim_end_matches(']');
            let values = list.split(',').filter(|v| !v.is_empty());
            Step::Read(key, Some(values.map(|v| v.parse().unwrap()).collect()))
        }
    }
}

fn worst(transactions: &[&str]) -> Option<Kind> {
    anomalies(&concurrent(transactions)).first().map(|anomaly| anomaly.kind)
}

#[test]
fn a_serial_history_has_none() {
    assert_eq!(worst(&["a1 b1", "a[1] b[1] a2", "a[1,2] b[1]"]), None);
    assert_eq!(worst(&["a[] b1", "b[1] a1", "a[1] b[1]"]), None);
}

#[test]
fn each_kind_has_its_name() {
    assert_eq!(worst(&["a1 b1", "a2 b2", "a[1,2] b[2,1]"]), Some(Kind::WriteCycle));
    assert_eq!(worst(&["a1 b[2]", "b2 a[1]", "a[1] b[2]"]), Some(Kind::CircularInformation));
    assert_eq!(worst(&["a1 b1", "a[1] b[]", "a[1] b[1]"]), Some(Kind::ReadSkew));
    assert_eq!(worst(&["a[] b1", "b[] a1", "a[1] b[1]"]), Some(Kind::AntiDependencyCycle));
    assert_eq!(worst(&["a1 a2", "a[1]", "a[1,2]"]), Some(Kind::IntermediateRead));
    assert_eq!(worst(&["a1", "a2", "a[1,2]", "a[2]"]), Some(Kind::IncompatibleOrder));
    assert_eq!(worst(&["a1", "a[1,7]"]), Some(Kind::Garbage));
    assert_eq!(worst(&["a1", "a[1,1]"]), Some(Kind::Garbage));
    assert_eq!(worst(&["a1 a[]", "a[1]"]), Some(Kind::Internal));
}

#[test]
fn real_time_is_an_order_too() {
    let mut history = concurrent(&["a1", "a[]", "a[1]"]);
    assert_eq!(anomalies(&history), []);
    history[1].called = Instant(11);
    history[1].ending = Ending::Committed(Instant(12));
    let found = anomalies(&history);
    assert_eq!(found[0].kind, Kind::RealTime);
    let text = check_appends(&history).unwrap_err().to_string();
    assert!(
        text.contains("T0 -time-> T1 -rw 97-> T0") || text.contains("T1 -rw 97-> T0"),
        "{text}"
    );
    // An append that nobody read came after whatever was read.
    let mut lost = concurrent(&["a1", "a[]"]);
    lost[1].called = Instant(11);
    lost[1].ending = Ending::Committed(Instant(12));
    assert_eq!(anomalies(&lost)[0].kind, Kind::RealTime);
}

#[test]
fn the_unknown_counts_once_it_was_read() {
    let mut history = concurrent(&["a1 b1", "a[1] b[]", "b[1]"]);
    history[0].ending = Ending::RolledBack;
    assert_eq!(anomalies(&history)[0].kind, Kind::AbortedRead);
    history[0].ending = Ending::Unknown;
    assert_eq!(anomalies(&history)[0].kind, Kind::ReadSkew);
    let unread = concurrent(&["a1", "b[]"]);
    assert_eq!(anomalies(&unread), []);
}
