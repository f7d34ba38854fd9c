//! Random faults, and stories.

use quorate_atomic_commit::Protocol;
use quorate_atomic_commit::conformance::scenarios::SCENARIOS;
use quorate_atomic_commit::conformance::{Ended, Ending, random_calm, random_schedule};

/// Runs the schedules of a protocol, and tells how many ended in each way.
fn run(protocol: Protocol, ending: Ending, seeds: u64) -> [u64; 4] {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(seeds);
    let mut ended = [0; 4];
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| random_schedule(protocol, seed, ending, None));
        let report = run.unwrap_or_else(|_| panic!("{protocol}, seed {seed}: an assertion"));
        let must_hold = protocol != Protocol::NaiveThreePhase;
        let may_block = ending == Ending::CoordinatorLost && protocol == Protocol::TwoPhase;
        let held = report.ended != Ended::Split && (may_block || report.why.is_none());
        assert!(held || !must_hold, "{protocol}, seed {seed}, {ending:?}: {report:?}");
        ended[report.ended as usize] += 1;
    }
    println!("{protocol:>18} {ending:?}: committed, rolled back, blocked, SPLIT {ended:?}");
    ended
}

#[test]
fn two_phase_is_safe_and_ends_once_everybody_is_back() {
    let ended = run(Protocol::TwoPhase, Ending::Healed, 3_000);
    assert!(ended[0] > 300 && ended[1] > 300, "both ends are seen: {ended:?}");
}

#[test]
fn two_phase_blocks_without_its_coordinator() {
    let ended = run(Protocol::TwoPhase, Ending::CoordinatorLost, 1_000);
    assert!(ended[Ended::Blocked as usize] > 0, "{ended:?}");
}

#[test]
fn three_phase_is_safe_and_ends_with_a_majority() {
    let ended = run(Protocol::ThreePhase, Ending::Healed, 2_000);
    assert!(ended[0] > 200 && ended[1] > 200, "both ends are seen: {ended:?}");
    run(Protocol::ThreePhase, Ending::CoordinatorLost, 2_000);
}

#[test]
fn paxos_commit_is_safe_and_ends_with_a_majority_of_acceptors() {
    let ended = run(Protocol::PaxosCommit, Ending::Healed, 2_000);
    assert!(ended[0] > 200 && ended[1] > 200, "both ends are seen: {ended:?}");
    run(Protocol::PaxosCommit, Ending::CoordinatorLost, 2_000);
}

/// AC4: where nothing fails, what nobody refuses is committed.
#[test]
fn without_faults_what_nobody_refuses_is_committed() {
    for protocol in Protocol::ALL {
        for seed in 0..1_000 {
            let wrong = random_calm(protocol, seed, None);
            assert_eq!(wrong, None, "{protocol}, seed {seed}");
        }
    }
}

#[test]
fn the_original_three_phase_splits() {
    let ended = run(Protocol::NaiveThreePhase, Ending::Healed, 1_000);
    assert!(ended[Ended::Split as usize] > 0, "{ended:?}");
}

#[test]
fn every_story_ends_as_it_must() {
    for scenario in SCENARIOS {
        for protocol in Protocol::ALL.into_iter().filter(|p| scenario.is_about(*p)) {
            let told = scenario.run(protocol, 1);
            println!("{}: {protocol}: {told:?}", scenario.name);
            assert!(told.expected, "{}: {protocol}: {told:?}", scenario.name);
        }
    }
}

#[test]
fn a_seed_is_a_run() {
    for protocol in Protocol::ALL {
        let run = || random_schedule(protocol, 7, Ending::Healed, None);
        assert_eq!(run(), run());
    }
}
