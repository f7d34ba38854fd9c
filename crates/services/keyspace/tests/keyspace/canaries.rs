//! Every deliberate bug is caught: these tests can fail.

use crate::clock::{leading, tick};
use crate::equivalence::differ;
use crate::harness::{Replica, b};
use crate::script::run;
use crate::watching::wrong;
use quorate_keyspace::canary::{Bug, Canary};
use quorate_keyspace::{Command, command};
use quorate_service::Service;

fn script_differs(name: &str, bug: Bug) -> bool {
    let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let wanted = std::fs::read_to_string(path).unwrap();
    assert_eq!(run(&wanted, Canary::NONE), wanted.trim_end().to_owned() + "\n");
    run(&wanted, Canary::of(bug)) != wanted.trim_end().to_owned() + "\n"
}

#[test]
fn a_retried_request_applied_again_is_caught() {
    assert!(script_differs("requests", Bug::ApplyRetriedRequest));
}

#[test]
fn an_internal_entry_that_consumes_a_revision_is_caught() {
    for script in ["leases", "members", "compact"] {
        assert!(script_differs(script, Bug::InternalEntryConsumesRevision), "{script}");
    }
    assert!(
        (0..20).any(|s| differ(s, 60, Canary::of(Bug::InternalEntryConsumesRevision)).is_err())
    );
}

#[test]
fn a_revoked_lease_that_leaves_a_key_is_caught() {
    assert!(script_differs("leases", Bug::RevokeLeavesKey));
    assert!((0..40).any(|s| differ(s, 120, Canary::of(Bug::RevokeLeavesKey)).is_err()));
}

#[test]
fn an_empty_delete_that_consumes_a_revision_is_caught() {
    assert!(script_differs("delete", Bug::EmptyDeleteConsumesRevision));
    assert!((0..20).any(|s| differ(s, 60, Canary::of(Bug::EmptyDeleteConsumesRevision)).is_err()));
}

#[test]
fn a_watcher_that_skips_an_event_is_caught() {
    assert!((0..20).any(|s| wrong(s, 400, Canary::of(Bug::WatchSkipsAtResync)).is_err()));
}

#[test]
fn a_lease_that_ends_early_is_caught() {
    let mut lessor = leading(Canary::of(Bug::LeaseExpiresEarly));
    assert!(!tick(&mut lessor, 5_999).is_empty());
}

#[test]
fn a_watcher_that_does_not_hear_of_compaction_is_caught() {
    assert!((0..40).any(|s| wrong(s, 400, Canary::of(Bug::WatchSkipsCompacted)).is_err()));
}

#[test]
fn a_deposed_leader_that_is_obeyed_is_caught() {
    assert!(script_differs("leases", Bug::ObeyDeposedLeader));
}

/// The whole's fingerprint would find it as well, later.
#[test]
fn a_part_of_a_snapshot_that_is_believed_is_caught() {
    let refuses = |canary| {
        let mut from = Replica::new(Canary::NONE);
        let put = command::Put { key: b("a"), ..command::Put::default() };
        from.run(Command::Put(put));
        let mut chunk = from.keyspace.snapshot().unwrap().next_chunk(1 << 20).unwrap();
        chunk.checksum ^= 1;
        let mut to = Replica::new(canary);
        let mut sink = to.keyspace.receive(from.keyspace.base()).unwrap();
        sink.write_chunk(chunk).is_err()
    };
    assert!(refuses(Canary::NONE));
    assert!(!refuses(Canary::of(Bug::BelieveSnapshot)));
}

#[test]
fn every_deliberate_bug_of_branches_is_caught() {
    let bugs = [
        ("branches", Bug::ReadIgnoresLocks),
        ("branches", Bug::WriteIgnoresLocks),
        ("branches", Bug::LocksReleasedAtPrepare),
        ("branches", Bug::CommitAtTwoRevisions),
        ("locks", Bug::OlderWaits),
        ("branches", Bug::TombstoneSkipped),
        ("branches", Bug::ComparesNotLocked),
        ("attempts", Bug::OldEpochAccepted),
        ("locks", Bug::LocksLostAtRestart),
        ("locks", Bug::PreparedDecidesAlone),
    ];
    for (script, bug) in bugs {
        assert!(script_differs(script, bug), "{bug:?} in {script}");
    }
}

#[test]
fn a_canary_changes_nothing_else() {
    let mut replica = Replica::new(Canary::of(Bug::WatchSkipsAtResync));
    let put = command::Put { key: b("a"), ..command::Put::default() };
    assert_eq!(replica.run(Command::Put(put)).revision, 2);
}
