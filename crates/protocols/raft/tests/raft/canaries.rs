//! Each deliberate bug is caught: by the random schedules within so many seeds, by the search of
//! every interleaving, or by a transcript whose story comes out otherwise. `--nocapture` prints
//! which.

use crate::{CANARY, transcripts};
use quorate_base::{Ballot, Instant, NodeId, Position};
use quorate_raft::Canary;
use quorate_replicated_log::conformance::{
    random_schedule, random_schedule_with_leases, random_schedule_with_seal,
};
use quorate_replicated_log::{
    Append, Base, Body, Config, Effects, Entries, Entry, Epoch, Input, Limits, Membership, Message,
    Payload, Recovered,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// The random schedules get this many seeds for each bug.
const SEEDS: u64 = 300;

/// A leader of round 2 tells that two entries are committed, to a follower whose second entry is
/// of round 1 and of which it only knows the first to agree.
fn commits_what_may_differ() -> bool {
    let base = Base { membership: Membership::of((1..=3).map(NodeId)), ..Base::default() };
    let first = Ballot::new(1, NodeId(2));
    let entry = |index| Entry { index, ballot: first, payload: Payload::Noop };
    let recovered = Recovered {
        base: base.clone(),
        entries: vec![Entries::new(vec![entry(1), entry(2)])],
        applied: base,
        ..Recovered::default()
    };
    let config = Config {
        node: NodeId(1),
        epoch: Epoch(0),
        opens: false,
        heartbeat: Duration::from_millis(20),
        election_timeout: Duration::from_millis(100),
        lease_clock_drift_ppm: None,
        seed: 1,
        limits: Limits::default(),
    };
    let mut raft = crate::raft(config, Instant::ZERO, recovered);
    let append = Append {
        session: 1,
        previous: Position::new(1, first),
        entries: Entries::default(),
        commit: 2,
        probe: 1,
    };
    let ballot = Ballot::new(2, NodeId(3));
    let message = Message { epoch: Epoch(0), ballot, body: Body::Append(append) };
    let mut out = Effects::default();
    raft.step(Instant::ZERO, Input::Message { from: NodeId(3), message }, &mut out);
    raft.commit() != 1
}

#[test]
fn nothing_is_committed_that_may_differ() {
    assert!(!commits_what_may_differ());
}

/// What finds the bug, if anything does.
fn caught_by(canary: Canary) -> Vec<String> {
    let mut found = Vec::new();
    CANARY.set(Some(canary));
    let fails = |seed: &u64| catch_unwind(|| random_schedule(crate::raft, *seed)).is_err();
    if let Some(seed) = (0..SEEDS).find(fails) {
        found.push(format!("schedule {seed}"));
    }
    let fails =
        |seed: &u64| catch_unwind(|| random_schedule_with_leases(crate::raft, *seed)).is_err();
    if let Some(seed) = (0..SEEDS).find(fails) {
        found.push(format!("schedule {seed} with leases"));
    }
    let fails =
        |seed: &u64| catch_unwind(|| random_schedule_with_seal(crate::raft, *seed)).is_err();
    if let Some(seed) = (0..SEEDS).find(fails) {
        found.push(format!("schedule {seed} with a seal"));
    }
    for path in transcripts::files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let now = catch_unwind(AssertUnwindSafe(|| transcripts::replay(&text)));
        if now.ok().as_ref() != Some(&text) {
            found.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    if commits_what_may_differ() {
        found.push("a hand-made append".to_owned());
    }
    CANARY.set(None);
    found
}

#[test]
fn every_deliberate_bug_is_caught() {
    // Panics are the point here, and would drown the table.
    std::panic::set_hook(Box::new(|_| {}));
    let table: Vec<_> = Canary::ALL.into_iter().map(|bug| (bug, caught_by(bug))).collect();
    let _ = std::panic::take_hook();
    for (bug, found) in &table {
        println!("{bug:?}: {}", found.join(", "));
    }
    let missed: Vec<_> = table.iter().filter(|(_, found)| found.is_empty()).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
