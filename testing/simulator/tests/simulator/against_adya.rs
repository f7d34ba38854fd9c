//! What the simulator's clients of transactions are told is judged by the `adya` crate too, which
//! must find what our own search finds, and nothing else.

use adya::{History, Opts, Valid, Workload};
use quorate_checkers::appends::{Transaction, json};
use quorate_keyspace::canary::Bug;
use quorate_replicated_log::Protocol;
use quorate_simulator::{Canary, Options, has_transactions, run};

/// Seeds with transactions, of either protocol.
const SEEDS: usize = 25;

/// The first seeds with transactions.
fn seeds(options: &Options) -> impl Iterator<Item = u64> {
    (0..).filter(|seed| has_transactions(*seed, options)).take(SEEDS)
}

/// Whether it finds a history strictly serializable.
fn holds(history: &[Transaction]) -> bool {
    let text = json(history);
    let parsed = History::from_json(&text).unwrap();
    let options = Opts { models: vec!["strict-serializable".into()], ..Opts::default() };
    adya::check(&parsed, Workload::ListAppend, &options).valid == Valid::True
}

#[test]
fn what_clients_of_transactions_are_told_is_judged_by_others_too() {
    for protocol in Protocol::ALL {
        let options = Options { protocol, ..Options::default() };
        let mut transactions = 0;
        for seed in seeds(&options) {
            let report = run(seed, &options);
            assert!(report.violation.is_none(), "{protocol}, seed {seed}: {:?}", report.violation);
            assert!(holds(&report.appends), "{protocol}, seed {seed}");
            transactions += report.appends.len();
        }
        println!("{protocol}: {SEEDS} histories, {transactions} transactions");
        assert!(transactions > 100 * SEEDS, "too little happened: {transactions} transactions");
    }
}

#[test]
fn an_anomaly_of_a_simulated_run_is_found_by_others_too() {
    let canary = Canary::Keyspace(Bug::ReadIgnoresLocks);
    let options = Options { canary, ..Options::default() };
    let reports = seeds(&options).map(|seed| run(seed, &options));
    let promise = "strict serializability";
    let broken = |violation: &quorate_simulator::Violation| violation.promise == promise;
    let report = reports.into_iter().find(|report| report.violation.as_ref().is_some_and(broken));
    let report = report.expect("a bug that nobody notices");
    assert!(!holds(&report.appends), "seed {}: {:?}", report.seed, report.violation);
}
