//! A small bank, with everything that the large one has; and that a bank without transactions is
//! found out, by readers and by lists.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use adya::{History, Opts, Valid, Workload};
use quorate_bank::{Fault, Trial};
use quorate_checkers::appends::{Transaction, json};
use quorate_databases::{missing, programs_are_there};
use quorate_end_to_end::alone;
use std::time::Duration;

fn small() -> Trial {
    Trial {
        accounts: 1_200,
        keyspaces: 4,
        databases: false,
        time: Duration::from_secs(8),
        seed: 1,
        clients: 9,
        readers: 2,
        scribes: 3,
        faults: true,
        broken: false,
    }
}

/// Whether the `adya` crate, too, finds lists strictly serializable.
fn lists_hold(history: &[Transaction]) -> bool {
    let parsed = History::from_json(&json(history)).unwrap();
    let options = Opts { models: vec!["strict-serializable".into()], ..Opts::default() };
    adya::check(&parsed, Workload::ListAppend, &options).valid == Valid::True
}

#[test]
fn the_money_is_whole_whoever_dies() {
    let _turn = alone(env!("CARGO_BIN_EXE_bank"));
    let databases = programs_are_there();
    if let Err(why) = &databases {
        missing("a bank in databases", why);
    }
    let report = Trial { databases: databases.is_ok(), ..small() }.run().unwrap();
    println!("{report}");
    assert_eq!(report.wrong, Vec::<String>::new());
    let killed = report.faults.get(&Fault::NodeKilled).copied().unwrap_or(0);
    assert!(report.faults.contains_key(&Fault::NodeCutOff), "no member was cut off");
    assert!(killed > 0 && !report.doubts.is_empty(), "no member died under load");
    assert!(report.committed > 50 && report.audits > 20, "too little happened");
    assert!(report.lists > 50, "too little happened to lists");
    assert!(report.appends.len() >= report.lists && lists_hold(&report.appends), "lists");
}

#[test]
fn without_transactions_readers_see_half_a_transfer() {
    let _turn = alone(env!("CARGO_BIN_EXE_bank"));
    let time = Duration::from_secs(3);
    let trial = Trial { accounts: 40, time, faults: false, broken: true, ..small() };
    let report = trial.run().unwrap();
    assert!(report.wrong.iter().any(|what| what.contains("a reader saw")), "{report}");
}

#[test]
fn without_transactions_lists_show_it() {
    let _turn = alone(env!("CARGO_BIN_EXE_bank"));
    let (time, faults, broken) = (Duration::from_secs(3), false, true);
    let nobody = Trial { accounts: 40, clients: 0, readers: 0, ..small() };
    let report = Trial { scribes: 6, time, faults, broken, ..nobody }.run().unwrap();
    assert!(report.wrong.iter().any(|what| what.contains("lists: ")), "{report}");
    assert!(!lists_hold(&report.appends), "{report}");
}
