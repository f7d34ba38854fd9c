//! Random schedules: crashes at every step, take-overs by mistake, copies, votes of every kind.

use crate::world::World;
use quorate_atomic_commit::Protocol;
use quorate_transactions::{Settings, Stage};
use std::time::Duration;

#[derive(Default, Debug)]
struct Seen {
    commits: usize,
    aborts: usize,
    deposed: u32,
    taken_over: u32,
    second: u32,
    found: u32,
    carried: u32,
    let_go: u32,
    disbanded: u32,
    staked: u32,
}

fn run(seed: u64, settings: Settings) -> Seen {
    let mut world = World::new(seed, 3, 3);
    world.settings = settings;
    let mut began = 0;
    for _ in 0..300 {
        let node = usize::try_from(world.rng.below(3)).unwrap();
        match world.rng.below(100) {
            0..10 if began < 12 => {
                began += 1;
                let n = world.rng.between(1, 3);
                let participants: Vec<u64> = (0..n).collect();
                let protocol = protocol(began);
                world.begin(node, &format!("t{began}"), protocol, &participants);
                if world.rng.chance_ppm(200_000) {
                    // The client asks another node as well.
                    world.begin((node + 1) % 3, &format!("t{began}"), protocol, &participants);
                }
            }
            10..13 => world.crash(node),
            13..15 if began < 12 => {
                began += 3;
                // In half of them some are begun elsewhere, or carried by somebody else, too.
                let more = if world.rng.chance_ppm(500_000) { 2 } else { 4 };
                let several: Vec<String> =
                    (began.saturating_sub(more)..=began).map(|n| format!("t{n}")).collect();
                world.bundle(node, &format!("b{began}.{node}"), &[0, 1], &several);
            }
            15..19 => {
                let bundle = world.rng.chance_ppm(600_000);
                let open = world.store.records.iter().filter(|(_, (record, _))| {
                    !record.carried.is_empty() && !matches!(record.stage, Stage::Finished(_))
                });
                let ids: Vec<String> = open.map(|(id, _)| id.clone()).collect();
                match world.rng.pick(&ids) {
                    Some(id) if bundle => world.take_over(node, id),
                    _ => {
                        let id = format!("t{}", world.rng.between(1, 12));
                        world.take_over(node, &id);
                    }
                }
            }
            19..21 => world.pass(Duration::from_millis(60)),
            21 => world.scan(),
            22..24 => world.hear(node),
            _ => {
                world.arrive();
            }
        }
    }
    world.heal();
    world.judge();
    let commits = world.told.values().filter(|commits| **commits).count();
    let aborts = world.told.len() - commits;
    let World { deposed, taken_over, second, found, carried, let_go, .. } = world;
    let World { disbanded, staked, .. } = world;
    Seen { commits, aborts, deposed, taken_over, second, found, carried, let_go, disbanded, staked }
}

/// Every other transaction is decided by its votes, if it can be.
fn protocol(number: u32) -> Protocol {
    if number.is_multiple_of(2) { Protocol::PaxosCommit } else { Protocol::TwoPhase }
}

#[test]
fn whatever_fails_all_participants_end_alike() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3_000);
    let mut all = Seen::default();
    for seed in 0..seeds {
        let seen = run(seed, Settings::default());
        all.commits += seen.commits;
        all.aborts += seen.aborts;
        all.deposed += seen.deposed;
        all.taken_over += seen.taken_over;
        all.second += seen.second;
        all.found += seen.found;
        all.carried += seen.carried;
        all.let_go += seen.let_go;
        all.disbanded += seen.disbanded;
        all.staked += seen.staked;
    }
    println!("{all:?}");
    // The schedules are worth something only if all of that happens.
    assert!(all.commits > 3_000 && all.aborts > 3_000, "{all:?}");
    assert!(all.deposed > 300 && all.taken_over > 3_000, "{all:?}");
    assert!(all.second > 300 && all.found > 300, "{all:?}");
    assert!(all.carried > 300 && all.let_go > 300, "{all:?}");
    assert!(all.disbanded > 30 && all.staked > 300, "{all:?}");
}

/// Transactions and bundles of which nothing goes wrong: messages are repeated and arrive in any
/// order, and half of the runs have participants that refuse. Returns how many were committed and
/// how many were not.
fn calm(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed, 3, 3);
    world.moody = if seed.is_multiple_of(2) { 0 } else { 100_000 };
    let mut began = 0;
    while began < 12 {
        let node = usize::try_from(world.rng.below(3)).unwrap();
        match world.rng.below(10) {
            0 => {
                began += 1;
                let participants: Vec<u64> = (0..world.rng.between(1, 3)).collect();
                world.begin(node, &format!("t{began}"), protocol(began), &participants);
            }
            1 => {
                let several: Vec<String> =
                    (began + 1..=began + 3).map(|n| format!("t{n}")).collect();
                world.bundle(node, &format!("b{began}"), &[0, 1], &several);
                began += 3;
            }
            _ => {
                world.arrive();
            }
        }
    }
    world.calm();
    world.judge_calm();
    world.judge();
    let commits = world.told.values().filter(|commits| **commits).count();
    if world.moody == 0 {
        assert_eq!(commits, world.told.len(), "AC4");
    }
    (commits, world.told.len() - commits)
}

/// AC4, which whoever aborts everything would break and nothing else.
#[test]
fn without_faults_what_nobody_refuses_is_committed() {
    let (mut commits, mut aborts) = (0, 0);
    for seed in 0..1_000 {
        let run = std::panic::catch_unwind(|| calm(seed));
        let (committed, aborted) = run.unwrap_or_else(|_| panic!("seed {seed} failed"));
        (commits, aborts) = (commits + committed, aborts + aborted);
    }
    println!("{commits} committed, {aborts} not");
    assert!(commits > 8_000 && aborts > 300, "{commits}, {aborts}");
}

/// The schedules can fail: each deliberate bug of the coordinator breaks a promise in one of them.
#[cfg(feature = "canary")]
#[test]
fn every_deliberate_bug_is_found() {
    use quorate_transactions::Canary;
    use quorate_transactions::canary::Bug;
    for bug in Bug::ALL {
        let settings = Settings { canary: Canary::of(bug), ..Settings::default() };
        let fails = |seed: &u64| std::panic::catch_unwind(|| run(*seed, settings)).is_err();
        let found = (0..3_000).find(fails);
        println!("{bug:?}: seed {found:?}");
        assert!(found.is_some(), "{bug:?} is not found");
    }
}
