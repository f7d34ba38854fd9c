//! Random faults, and then the demand that everybody come to know the end.

use super::world::{Ended, Setup, World};
use crate::{Address, AtomicCommit, Canary, Outcome, Phase, Protocol, Reason, Vote};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::Rng;

/// How the faults of a schedule end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Everything comes back.
    Healed,
    /// Everything but the coordinator comes back.
    CoordinatorLost,
}

/// What came of a schedule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// How things stood at the end.
    pub ended: Ended,
    /// Which promise was broken, or who is in doubt.
    pub why: Option<String>,
}

/// Runs a transaction of two to six participants through faults drawn from `seed`, judged at every
/// step; then ends them.
pub fn random_schedule(
    protocol: Protocol,
    seed: u64,
    ending: Ending,
    canary: Option<Canary>,
) -> Report {
    let mut rng = Rng::new(seed ^ 0xc0_3317);
    let mut setup = draw(protocol, seed, canary, &mut rng);
    // One participant and its coordinator are no majority without the coordinator.
    if rng.below(40) == 0 && ending == Ending::Healed {
        setup.votes.truncate(1);
    }
    let mut world = World::new(setup);
    world.loss_ppm = *rng.pick(&[0, 20_000, 150_000]).unwrap_or(&0);
    world.delay_max = rng.between(1, 15);
    world.write_max = rng.below(10);
    let begins = rng.below(4) == 0;
    if !begins {
        world.begin(Duration::from_secs(2));
    }
    for _ in 0..rng.between(4, 40) {
        disturb(&mut world, &mut rng);
        let time = *rng.pick(&[3, 12, 60, 300]).unwrap_or(&3);
        world.run_for(rng.duration(Duration::ZERO, Duration::from_millis(time)));
    }
    world.begin(Duration::from_secs(2));
    world.run_for(rng.duration(Duration::ZERO, Duration::from_millis(40)));
    heal(&mut world, ending)
}

/// Two to six participants, and how they vote.
fn draw(protocol: Protocol, seed: u64, canary: Option<Canary>, rng: &mut Rng) -> Setup {
    let participants = rng.between(2, 6) as usize;
    let mut setup = Setup::new(protocol, participants, seed);
    setup.config.canary = canary;
    setup.faults = rng.between(1, 2) as u16;
    for vote in &mut setup.votes {
        *vote = match rng.below(24) {
            0 => Vote::No(Reason::Refused(String::from("no"))),
            1 => Vote::ReadOnly,
            _ => Vote::Yes,
        };
    }
    setup
}

/// Runs a transaction of two to six participants to which nothing happens but delays shorter than
/// anybody's patience, and tells what is wrong with its end: whoever asks for a commit that nobody
/// refuses gets it, everywhere, and is told (AC4); one that somebody refuses is rolled back.
pub fn random_calm(protocol: Protocol, seed: u64, canary: Option<Canary>) -> Option<String> {
    let mut rng = Rng::new(seed ^ 0xca_1a11);
    let setup = draw(protocol, seed, canary, &mut rng);
    let commits = setup.votes.iter().all(Vote::allows_commit);
    let mut world = World::new(setup);
    world.delay_max = rng.between(1, 5);
    world.write_max = rng.below(5);
    world.begin(Duration::from_secs(2));
    world.run_for(Duration::from_secs(1));
    let everybody: Vec<Address> = world.terms().participants().collect();
    let ended = world.ended(&everybody);
    let wanted = if commits { Ended::Committed } else { Ended::RolledBack };
    let told = world.judge.decision_of(Address::Coordinator);
    let wanted_told = if commits { Outcome::Commit } else { Outcome::Abort };
    let right = ended == wanted && told.is_none_or(|told| told == wanted_told);
    let right = right && (!commits || told.is_some());
    (!right).then(|| format!("{ended:?} and told {told:?}, not {wanted:?}"))
}

fn disturb(world: &mut World, rng: &mut Rng) {
    let sites = world.sites();
    let Some(&site) = rng.pick(&sites) else { return };
    let Some(&other) = rng.pick(&sites) else { return };
    match rng.below(16) {
        0..3 => world.crash(site),
        3..7 => sites.iter().for_each(|site| world.start(*site)),
        7..9 => {
            world.cut.insert((site, other));
        }
        9..11 => {
            let side: Vec<Address> = sites.into_iter().filter(|_| rng.below(2) == 0).collect();
            world.partition(&side);
        }
        11..14 => world.cut.clear(),
        14 => {
            // The application prepares its branch by itself.
            world.step(site, crate::Input::Prepare);
        }
        _ => world.start(site),
    }
}

/// Ends the faults, and tells who is in doubt nevertheless.
fn heal(world: &mut World, ending: Ending) -> Report {
    world.cut.clear();
    world.loss_ppm = 0;
    world.delay_max = 2;
    for site in world.sites() {
        world.start(site);
    }
    if ending == Ending::CoordinatorLost {
        world.crash(Address::Coordinator);
    }
    world.run_for(Duration::from_secs(20));
    let participants: Vec<Address> = world.terms().participants().collect();
    let ended = world.ended(&participants);
    let unfinished = |world: &World| {
        let site = world.site(Address::Coordinator);
        let phase = site.map(|site| site.status().phase);
        matches!(phase, Some(Phase::Collecting | Phase::Deciding | Phase::PreCommitted))
    };
    let why = match ended {
        Ended::Split => world.judge.breach().map(String::from),
        Ended::Blocked => Some(names(&world.in_doubt(&participants))),
        _ if unfinished(world) => Some(String::from("the coordinator")),
        _ => None,
    };
    let ended = if why.is_some() { ended.max(Ended::Blocked) } else { ended };
    Report { ended, why }
}

/// Sites, for people.
pub(super) fn names(sites: &[Address]) -> String {
    let names: Vec<String> = sites.iter().map(Address::to_string).collect();
    names.join(", ")
}
