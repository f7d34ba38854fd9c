//! docs/two-phase-commit.md, docs/three-phase-commit.md and docs/paxos-commit.md say what the
//! protocols cost; here it is counted.

use core::time::Duration;
use quorate_atomic_commit::conformance::{Counts, Setup, World};
use quorate_atomic_commit::{Address, Outcome, Phase, Protocol, Reason, Vote};

/// Runs a transaction without faults: what it cost, how it ended, and after how many message
/// delays the coordinator knew.
fn run(protocol: Protocol, faults: u16, votes: Vec<Vote>) -> (Counts, Outcome, u64) {
    let mut setup = Setup::new(protocol, votes.len(), 1);
    setup.votes = votes;
    setup.faults = faults;
    let mut world = World::new(setup);
    world.begin(Duration::from_secs(1));
    // Less than any patience, or recovery would be counted.
    world.run_for(Duration::from_millis(40));
    assert_eq!(world.judge.breach(), None);
    assert!(world.completed, "{protocol}: everybody has proven the decision");
    assert_eq!(world.counts.recovery, 0);
    let delays = world.decided_at[&Address::Coordinator].0 / 1_000_000;
    (world.counts, world.judge.outcome().unwrap(), delays)
}

fn yes(n: u64) -> Vec<Vote> {
    vec![Vote::Yes; n as usize]
}

fn one_no(n: u64, at: usize) -> Vec<Vote> {
    let mut votes = yes(n);
    votes[at] = Vote::No(Reason::Refused("no".into()));
    votes
}

#[test]
fn two_phase_commit() {
    for n in [2, 3, 5, 8] {
        let (c, outcome, delays) = run(Protocol::TwoPhase, 0, yes(n));
        assert_eq!((outcome, delays), (Outcome::Commit, 2));
        assert_eq!(c.messages(), 4 * n);
        assert_eq!((c.prepares, c.votes, c.decisions, c.acknowledgements), (n, n, n, n));
        assert_eq!((c.forced_by_coordinator, c.forced_by_participants), (1, 2 * n));
        for no in [0, n as usize - 1] {
            let (c, outcome, delays) = run(Protocol::TwoPhase, 0, one_no(n, no));
            assert_eq!((outcome, delays), (Outcome::Abort, 2));
            assert_eq!(c.messages(), 3 * n - 1);
            assert_eq!((c.forced_by_coordinator, c.forced_by_participants), (0, n - 1));
        }
    }
}

#[test]
fn two_phase_read_only_and_one_phase() {
    for n in [2u64, 3, 5] {
        for readers in 0..=n {
            let mut votes = yes(n);
            votes[..readers as usize].fill(Vote::ReadOnly);
            let (c, outcome, _) = run(Protocol::TwoPhase, 0, votes);
            let writers = n - readers;
            assert_eq!(outcome, Outcome::Commit);
            assert_eq!(c.messages(), 2 * n + 2 * writers);
            assert_eq!(c.forced_by_coordinator, u64::from(writers > 0));
            assert_eq!(c.forced_by_participants, 2 * writers);
        }
    }
    let (c, outcome, delays) = run(Protocol::TwoPhase, 0, yes(1));
    assert_eq!((outcome, delays), (Outcome::Commit, 2));
    assert_eq!((c.messages(), c.forced()), (2, 1));
    let (c, outcome, _) = run(Protocol::TwoPhase, 0, one_no(1, 0));
    assert_eq!((outcome, c.messages(), c.forced()), (Outcome::Abort, 2, 0));
}

#[test]
fn three_phase_commit() {
    for n in [2, 3, 5, 8] {
        let (c, outcome, delays) = run(Protocol::ThreePhase, 0, yes(n));
        assert_eq!((outcome, delays), (Outcome::Commit, 4));
        assert_eq!(c.messages() - c.acknowledgements, 5 * n);
        assert_eq!(c.acknowledgements, n);
        assert_eq!((c.pre_decisions, c.pre_decided), (n, n));
        assert_eq!((c.forced_by_coordinator, c.forced_by_participants), (2, 3 * n));
        for no in [0, n as usize - 1] {
            let (c, outcome, delays) = run(Protocol::ThreePhase, 0, one_no(n, no));
            assert_eq!((outcome, delays), (Outcome::Abort, 2));
            assert_eq!(c.messages() - c.acknowledgements, 3 * n - 1);
            assert_eq!(c.acknowledgements, n - 1);
            assert_eq!((c.forced_by_coordinator, c.forced_by_participants), (0, 2 * (n - 1)));
        }
    }
}

#[test]
fn an_election_without_the_coordinator() {
    for n in [2u64, 3, 5, 8] {
        let mut world = World::new(Setup::new(Protocol::ThreePhase, n as usize, 1));
        world.begin(Duration::from_secs(1));
        let participants: Vec<Address> = world.terms().participants().collect();
        let prepared = |world: &World, site| world.phase(site) == Some(Phase::Prepared);
        assert!(world.run_until(|world| participants.iter().all(|site| prepared(world, *site))));
        world.crash(Address::Coordinator);
        world.counts = Counts::default();
        // Long enough for the first to lose its patience, and not for the second.
        world.run_for(Duration::from_millis(250));
        assert_eq!(world.judge.outcome(), Some(Outcome::Abort));
        let c = world.counts;
        assert_eq!(c.recovery + c.pre_decisions + c.pre_decided, 4 * n - 2, "n {n}");
        // Promised, accepted, and the end.
        assert_eq!(c.forced(), 2 * n + n);
    }
}

#[test]
fn paxos_commit() {
    for n in [1, 2, 3, 5, 8] {
        for faults in [0u16, 1, 2, 3] {
            let f = u64::from(faults);
            let (c, outcome, delays) = run(Protocol::PaxosCommit, faults, yes(n));
            assert_eq!((outcome, delays), (Outcome::Commit, 3));
            assert_eq!(c.messages() - c.acknowledgements, n * (f + 3) + f + 1, "n {n}, F {f}");
            assert_eq!(c.acknowledgements, n);
            assert_eq!((c.accepts, c.accepted), (n * (f + 1), f + 1));
            assert_eq!((c.forced_by_coordinator, c.forced_by_acceptors), (0, f + 1));
            // Prepared and committed.
            assert_eq!(c.forced_by_participants, 2 * n);
            for no in [0, n as usize - 1] {
                let (c, outcome, delays) = run(Protocol::PaxosCommit, faults, one_no(n, no));
                assert_eq!((outcome, delays), (Outcome::Abort, 2));
                let messages = n + (n - 1) * (f + 1) + 1 + (n - 1);
                assert_eq!(c.messages() - c.acknowledgements, messages);
                assert_eq!((c.acknowledgements, c.forced_by_acceptors), (n - 1, 0));
                assert_eq!(c.forced_by_participants, 2 * (n - 1) + 1);
            }
        }
    }
}
