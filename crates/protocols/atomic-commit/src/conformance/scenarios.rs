//! Stories told to every protocol: who holds, who blocks, who splits. Four participants; three
//! acceptors for Paxos Commit.

use super::schedule::names;
use super::world::{Ended, Setup, World};
use crate::{AcceptorId, Address, BranchId, Phase, Protocol};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// One story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    tell: fn(&mut World),
    /// Whose end is promised while the faults last: participants that are not cut off.
    reachable: &'static [u16],
    /// Who has an end to its doubts while the faults last, and who blocks. Everybody else may do
    /// either.
    decides: &'static [Protocol],
    blocks: &'static [Protocol],
    splits: &'static [Protocol],
    /// Which protocols it is about.
    of: &'static [Protocol],
}

/// What came of a story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// How things stand with those who can reach each other, while the faults last.
    pub during: Ended,
    /// Who is in doubt meanwhile, anywhere.
    pub in_doubt: String,
    /// How things stand once the faults are over.
    pub after: Ended,
    /// The breach, if there was one.
    pub breach: Option<String>,
    /// Whether it came as it must: nobody breaks a promise, and who is here to show how it fails
    /// does fail.
    pub expected: bool,
}

use Protocol::{NaiveThreePhase, PaxosCommit, ThreePhase, TwoPhase};

const ALL: &[Protocol] = &Protocol::ALL;
const SURVIVORS: &[u16] = &[2, 3, 4];

/// Every story.
pub const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "no fault",
        what: "nothing fails",
        tell: |world| world.begin(PATIENT),
        reachable: &[1, 2, 3, 4],
        decides: ALL,
        blocks: &[],
        splits: &[],
        of: ALL,
    },
    Scenario {
        name: "coordinator dies after prepare",
        what: "everybody has voted Yes, and the coordinator dies before it decides",
        tell: |world| {
            prepare(world);
            world.crash(Address::Coordinator);
        },
        reachable: &[1, 2, 3, 4],
        decides: &[NaiveThreePhase, ThreePhase, PaxosCommit],
        blocks: &[TwoPhase],
        splits: &[],
        of: ALL,
    },
    Scenario {
        name: "partition between pre-commits",
        what: "the coordinator and participant 1 are cut off when only that one has been told",
        tell: |world| {
            tell_one(world);
        },
        reachable: SURVIVORS,
        decides: &[ThreePhase, PaxosCommit],
        blocks: &[TwoPhase],
        splits: &[NaiveThreePhase],
        of: ALL,
    },
    Scenario {
        name: "coordinator and one participant die",
        what: "the same, but the two die",
        tell: |world| {
            tell_one(world);
            world.run_for(Duration::from_millis(5));
            world.crash(Address::Coordinator);
            world.crash(Address::Participant(BranchId(1)));
        },
        reachable: SURVIVORS,
        decides: &[NaiveThreePhase, ThreePhase, PaxosCommit],
        blocks: &[TwoPhase],
        splits: &[],
        of: ALL,
    },
    Scenario {
        name: "a majority of the sites dies",
        what: "the coordinator and participants 1 and 2 die when everybody has voted Yes",
        tell: |world| {
            prepare(world);
            world.crash(Address::Coordinator);
            world.crash(Address::Participant(BranchId(1)));
            world.crash(Address::Participant(BranchId(2)));
        },
        reachable: &[3, 4],
        decides: &[PaxosCommit],
        blocks: &[TwoPhase, ThreePhase],
        splits: &[],
        of: ALL,
    },
    Scenario {
        name: "a minority of the acceptors is lost",
        what: "one of three acceptors is dead from the beginning",
        tell: |world| {
            world.crash(Address::Acceptor(AcceptorId(1)));
            world.begin(PATIENT);
        },
        reachable: &[1, 2, 3, 4],
        decides: &[PaxosCommit],
        blocks: &[],
        splits: &[],
        of: &[PaxosCommit],
    },
    Scenario {
        name: "a majority of the acceptors is lost",
        what: "two of three acceptors are dead from the beginning",
        tell: |world| {
            world.crash(Address::Acceptor(AcceptorId(1)));
            world.crash(Address::Acceptor(AcceptorId(2)));
            world.begin(PATIENT);
        },
        reachable: &[1, 2, 3, 4],
        decides: &[],
        blocks: &[PaxosCommit],
        splits: &[],
        of: &[PaxosCommit],
    },
];

const PATIENT: Duration = Duration::from_secs(2);

/// Lets everybody prepare and vote Yes; the votes are under way.
fn prepare(world: &mut World) {
    world.begin(PATIENT);
    let participants: Vec<Address> = world.terms().participants().collect();
    world.run_until(|world| {
        participants.iter().all(|site| world.phase(*site) == Some(Phase::Prepared))
    });
}

/// Lets the coordinator tell (two-phase, Paxos Commit) or pre-commit (three-phase), and cuts it off
/// together with participant 1 and acceptor 1 before anybody else hears of it.
fn tell_one(world: &mut World) {
    world.begin(PATIENT);
    world.run_until(|world| {
        let phase = world.phase(Address::Coordinator);
        matches!(phase, Some(Phase::PreCommitted | Phase::Deciding))
    });
    let one = Address::Participant(BranchId(1));
    world.partition(&[Address::Coordinator, one, Address::Acceptor(AcceptorId(1))]);
}

impl Scenario {
    /// Whether the story is about this protocol.
    pub fn is_about(&self, protocol: Protocol) -> bool {
        self.of.contains(&protocol)
    }

    /// Tells it.
    pub fn run(&self, protocol: Protocol, seed: u64) -> Told {
        let mut world = World::new(Setup::new(protocol, 4, seed));
        (self.tell)(&mut world);
        world.run_for(Duration::from_secs(10));
        let participants: Vec<Address> = world.terms().participants().collect();
        let reachable = self.reachable.iter().map(|b| Address::Participant(BranchId(*b)));
        let reachable: Vec<Address> = reachable.collect();
        let during = world.ended(&reachable);
        let in_doubt = names(&world.in_doubt(&participants));
        world.cut.clear();
        for site in world.sites() {
            world.start(site);
        }
        world.run_for(Duration::from_secs(20));
        let after = world.ended(&participants);
        let breach = world.judge.breach().map(String::from);
        let decided = |ended| matches!(ended, Ended::Committed | Ended::RolledBack);
        let expected = if self.splits.contains(&protocol) {
            after == Ended::Split
        } else {
            decided(after)
                && (!self.decides.contains(&protocol) || decided(during))
                && (!self.blocks.contains(&protocol) || during == Ended::Blocked)
        };
        Told { during, in_doubt, after, breach, expected }
    }
}
