//! Each deliberate bug is caught: by the random schedules within so many seeds, by the search of
//! every interleaving, or by a transcript whose story comes out otherwise. `--nocapture` prints
//! which.

use crate::by_hand::RULES;
use crate::{CANARY, transcripts};
use quorate_raft::Canary;
use quorate_replicated_log::conformance::transcripts::replay;
use quorate_replicated_log::conformance::{
    Factory, damage, random_schedule, random_schedule_with_leases, random_schedule_with_seal,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The random schedules get this many seeds for each bug.
const SEEDS: u64 = 300;

type Story = fn(Factory, u64);

/// Stories of damage.
const STORIES: [(&str, Story); 2] = [
    ("disks damaged elsewhere", damage::each_disk_lost_others),
    ("what nobody can read", damage::nobody_goes_on_without_what_nobody_can_read),
];

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
        let now = catch_unwind(AssertUnwindSafe(|| replay(crate::raft, &text)));
        if now.ok().as_ref() != Some(&text) {
            found.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    for (name, breaks) in RULES {
        // A story that comes out otherwise before its end counts as well.
        if catch_unwind(breaks).unwrap_or(true) {
            found.push(name.to_owned());
        }
    }
    for (name, story) in STORIES {
        if catch_unwind(|| (0..5).for_each(|seed| story(crate::raft, seed))).is_err() {
            found.push(name.to_owned());
        }
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
