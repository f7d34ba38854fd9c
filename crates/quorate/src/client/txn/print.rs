//! Transactions for people and for programs.

use crate::output::{key_value, say, table, text};
use comfy_table::Table;
use quorate_wire::etcdserverpb::TxnResponse;
use quorate_wire::etcdserverpb::response_op::Response as Done;
use quorate_wire::quorate::{Alarm, BranchAnswer, BranchStatus, Transaction, TransactionState};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

pub(super) fn state(it: &Transaction) -> &'static str {
    match it.state() {
        TransactionState::Open => "open",
        TransactionState::Committing => "committing",
        TransactionState::Committed => "committed",
        TransactionState::RollingBack => "rolling back",
        TransactionState::RolledBack => "rolled back",
    }
}

fn time(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// What the time is of when a transaction has changed last. While it is decided and not over, what
/// it waits for is noted now and then.
fn changed(it: &Transaction) -> &'static str {
    match it.state() {
        TransactionState::Committed | TransactionState::RolledBack => "finished",
        TransactionState::Open | TransactionState::Committing | TransactionState::RollingBack => {
            "changed"
        }
    }
}

/// How long after the transaction began something of a branch happened, if it is known.
fn after(it: &Transaction, ms: u64) -> String {
    match ms {
        0 => String::new(),
        ms => format!("{} ms", ms.saturating_sub(it.began_ms)),
    }
}

/// What a branch is, in a word or two.
fn branch_state(branch: &BranchStatus) -> String {
    match (branch.state.as_str(), branch.revision) {
        ("committed", revision) if revision > 0 => format!("committed at {revision}"),
        (state, _) => state.replace('-', " "),
    }
}

pub(super) fn json(it: &Transaction) -> Value {
    let branch = |branch: &BranchStatus| {
        json!({
            "name": branch.name,
            "kind": branch.kind,
            "participant": branch.participant,
            "state": branch.state,
            "detail": branch.detail,
            "revision": branch.revision,
            "waits_for": branch.waits_for,
            "vote": branch.vote,
            "voted_ms": branch.voted_ms,
            "ended_ms": branch.ended_ms,
        })
    };
    json!({
        "id": it.id,
        "state": state(it),
        "reason": it.reason,
        "guilty_branch": it.guilty_branch,
        "protocol": it.protocol,
        "coordinator": it.coordinator,
        "epoch": it.epoch,
        "began_ms": it.began_ms,
        "changed_ms": it.changed_ms,
        "bundle": it.bundle,
        "unconfirmed": it.unconfirmed,
        "branches": it.branches.iter().map(branch).collect::<Value>(),
    })
}

/// The outcome with what the branches read.
pub(super) fn ran(it: &Transaction, answers: &[BranchAnswer]) -> Value {
    let mut value = json(it);
    let answers = answers.iter().map(|answer| answer.txn.as_ref().map_or(Value::Null, answer_json));
    value["answers"] = answers.collect();
    value
}

fn answer_json(answer: &TxnResponse) -> Value {
    let done = answer.responses.iter().map(|response| match &response.response {
        Some(Done::ResponseRange(range)) => {
            json!({ "kvs": range.kvs.iter().map(key_value).collect::<Value>() })
        }
        Some(Done::ResponsePut(_)) => json!({ "put": true }),
        Some(Done::ResponseDeleteRange(deleted)) => json!({ "deleted": deleted.deleted }),
        Some(Done::ResponseTxn(inner)) => answer_json(inner),
        None => Value::Null,
    });
    json!({ "succeeded": answer.succeeded, "responses": done.collect::<Value>() })
}

pub(super) fn list(all: &[Transaction]) -> Table {
    let mut rows = table(&["transaction", "state", "began", "branches", "why"]);
    for it in all {
        let names: Vec<&str> = it.branches.iter().map(|b| b.participant.as_str()).collect();
        let why = match it.guilty_branch.as_str() {
            "" => it.reason.clone(),
            name => format!("{name}: {}", it.reason),
        };
        rows.add_row([
            it.id.clone(),
            state(it).to_owned(),
            time(it.began_ms),
            names.join(" "),
            why,
        ]);
    }
    rows
}

pub(super) fn alarms(all: &[Alarm]) -> Table {
    let mut rows = table(&["transaction", "branch", "participant", "since", "what"]);
    for it in all {
        rows.add_row([
            it.transaction.clone(),
            it.branch.clone(),
            format!("{} {}", it.kind, it.participant),
            time(it.since_ms),
            it.what.clone(),
        ]);
    }
    rows
}

pub(super) fn alarms_json(all: &[Alarm]) -> Value {
    let one = |it: &Alarm| {
        json!({
            "transaction": it.transaction,
            "branch": it.branch,
            "kind": it.kind,
            "participant": it.participant,
            "what": it.what,
            "since_ms": it.since_ms,
        })
    };
    all.iter().map(one).collect()
}

pub(super) fn one(it: &Transaction) {
    say!("transaction  {}", it.id);
    say!("state        {}", state(it));
    if !it.unconfirmed.is_empty() {
        say!("in doubt     as one member knew it last: {}", it.unconfirmed);
    }
    if !it.reason.is_empty() {
        let guilty = match it.guilty_branch.as_str() {
            "" => String::new(),
            name => format!(" (branch {name})"),
        };
        say!("because      {}{guilty}", it.reason);
    }
    say!("began        {}", time(it.began_ms));
    say!("{:<12} {}", changed(it), time(it.changed_ms));
    say!("coordinator  {:x}, epoch {}, {}", it.coordinator, it.epoch, it.protocol);
    if !it.bundle.is_empty() {
        say!("carried by   {}, with others", it.bundle);
    }
    say!("{}", branches(it));
}

fn branches(it: &Transaction) -> Table {
    let mut rows =
        table(&["branch", "participant", "vote", "after", "state", "after", "waits for, or why"]);
    for branch in &it.branches {
        let why = match branch.detail.as_str() {
            "" => branch.waits_for.clone(),
            detail => detail.to_owned(),
        };
        let participant = format!("{} {}", branch.kind, branch.participant);
        rows.add_row([
            branch.name.clone(),
            participant,
            branch.vote.clone(),
            after(it, branch.voted_ms),
            branch_state(branch),
            after(it, branch.ended_ms),
            why,
        ]);
    }
    rows
}

/// The outcome of a run that committed, or is still on its way.
pub(super) fn outcome(it: &Transaction, answers: &[BranchAnswer]) {
    match it.state() {
        TransactionState::Committed => say!("OK, transaction {} is committed", it.id),
        _ => say!("transaction {} is {}", it.id, state(it)),
    }
    for (index, branch) in it.branches.iter().enumerate() {
        say!("{}: {} {}", branch.name, branch.participant, branch_state(branch));
        let answer = answers.get(index).and_then(|answer| answer.txn.as_ref());
        for response in answer.iter().flat_map(|answer| &answer.responses) {
            if let Some(Done::ResponseRange(range)) = &response.response {
                for kv in &range.kvs {
                    say!("  {} = {}", text(&kv.key), text(&kv.value));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_shown_where_there_is_one() {
        let branch = |state: &str, revision| BranchStatus {
            state: state.to_owned(),
            revision,
            ..BranchStatus::default()
        };
        assert_eq!(branch_state(&branch("committed", 7)), "committed at 7");
        assert_eq!(branch_state(&branch("committed", 0)), "committed");
        assert_eq!(branch_state(&branch("rolled-back", 0)), "rolled back");
    }

    #[test]
    fn times_of_branches_count_from_the_beginning() {
        let it = Transaction { began_ms: 1_000, ..Transaction::default() };
        assert_eq!([0, 900, 1_000, 1_012].map(|ms| after(&it, ms)), ["", "0 ms", "0 ms", "12 ms"]);
    }
}
