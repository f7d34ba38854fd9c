//! What `/metrics` tells of transactions, in words.

use quorate_coordinator::{Counts, Transactions};
use quorate_etcd::{Measure, Measures};

/// For the API's `/metrics`.
pub fn measures(transactions: &Transactions) -> Measures {
    let transactions = transactions.clone();
    Measures::new(move || of(&transactions.counts()))
}

fn of(counts: &Counts) -> Vec<Measure> {
    let gauge = |name, help, value| Measure { name, help, value, counts_up: false };
    let counter = |name, help, value| Measure { name, help, value, counts_up: true };
    let scans = counts.recovery;
    vec![
        gauge("quorate_transactions_open", "Transactions that are not decided", counts.open),
        gauge(
            "quorate_transactions_in_doubt",
            "Transactions that are decided and have not ended at every participant",
            counts.in_doubt,
        ),
        gauge(
            "quorate_transactions_oldest_seconds",
            "Age of the oldest transaction that is not over",
            counts.oldest_ms / 1_000,
        ),
        gauge(
            "quorate_transaction_alarms",
            "Branches that ended against the decision, or came back, and nobody acknowledged",
            counts.alarms,
        ),
        counter(
            "quorate_transactions_committed",
            "Transactions that this member drove to their commit; taken over, they count again",
            counts.committed,
        ),
        counter(
            "quorate_transactions_rolled_back",
            "Transactions that this member drove to their rollback",
            counts.rolled_back,
        ),
        counter(
            "quorate_transactions_carried",
            "Of the committed, those that were carried with others",
            counts.carried,
        ),
        counter(
            "quorate_transactions_taken_over",
            "Transactions that this member took over",
            counts.taken_over,
        ),
        counter(
            "quorate_transaction_branches_taken_over",
            "Branches of the transactions that this member took over",
            counts.branches_taken_over,
        ),
        counter(
            "quorate_participant_scans",
            "Scans of databases and services that were answered",
            scans.scans,
        ),
        counter(
            "quorate_participant_scans_failed",
            "Scans of databases and services that were not answered",
            scans.failed_scans,
        ),
        counter(
            "quorate_participant_branches_committed",
            "Prepared branches that scans found and committed",
            scans.committed,
        ),
        counter(
            "quorate_participant_branches_rolled_back",
            "Prepared branches that scans found and rolled back",
            scans.rolled_back,
        ),
    ]
}
