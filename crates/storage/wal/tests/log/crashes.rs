//! Power failures and kills at every point: what was acknowledged stays, what was not is all or
//! nothing (as far as it fits one block), and what was truncated never comes back.

use crate::fault_disk::FaultDisk;
use crate::model::{Model, random_batch};
use crate::support::*;
use proptest::prelude::*;
use quorate_base::Rng;
use quorate_disk::Disk;
use quorate_replicated_log::{Entries, Write};
use quorate_wal::{Wal, WalError, WalOptions};

/// Segments so small that they are recycled all the time.
fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 64 << 10,
        max_record_bytes: 8 << 10,
        max_block_bytes: 16 << 10,
        reserve_bytes: 8 << 10,
        ..WalOptions::default()
    }
}

/// Runs batches until the power fails or `batches` are done; returns the disk after the crash.
fn run(disk: FaultDisk, model: &mut Model, batches: u64, rng: &mut Rng) -> FaultDisk {
    let cut = disk.cut_at;
    let (mut wal, recovery) = match Wal::open(disk.clone(), options()) {
        Ok(opened) => opened,
        Err(error) => panic!("open: {error}"),
    };
    // A recovered state counts only once it is durable again.
    let mut check = model.clone();
    check.recover(&recovery.groups);
    if wal.is_ready() {
        *model = check;
    } else {
        assert!(cut < u64::MAX);
        return wal.into_disk();
    }
    for id in 1..=batches {
        let batch = random_batch(id, model.latest(), rng);
        model.submit(&batch);
        wal.submit(batch).expect("the disk has room and works");
        while let Some((done, result)) = wal.poll() {
            result.expect("nothing fails");
            assert_eq!(done.0, model.acknowledged as u64 + 1, "in order");
            model.acknowledged += 1;
        }
        if wal.disk().operations() >= cut {
            break;
        }
    }
    wal.into_disk()
}

#[test]
fn a_power_failure_at_every_operation() {
    let mut total = FaultDisk::new();
    total = run(total, &mut Model::new(), 60, &mut Rng::new(5));
    let operations = total.operations();
    assert!(operations > 150, "{operations}");
    for cut in 1..=operations {
        for tear in 0..4 {
            let mut model = Model::new();
            let mut disk = FaultDisk::new();
            disk.cut_at = cut;
            disk = run(disk, &mut model, 60, &mut Rng::new(5));
            let mut rng = Rng::new(cut * 31 + tear);
            disk.crash(&mut rng);
            disk = run(disk, &mut model, 2, &mut rng);
            disk.crash(&mut rng);
            run(disk, &mut model, 0, &mut rng);
        }
    }
}

/// The last block may be in the machine's cache only when the log is opened again: nothing may be
/// written behind it before it is durable, or a power failure leaves what looks like damage.
#[test]
fn a_power_failure_right_after_a_kill() {
    let mut total = run(FaultDisk::new(), &mut Model::new(), 12, &mut Rng::new(5));
    let operations = total.operations();
    total.kill_with_cache();
    for cut in 1..=operations {
        for later in 1..=12 {
            let mut model = Model::new();
            let mut disk = FaultDisk::new();
            disk.cut_at = cut;
            disk = run(disk, &mut model, 12, &mut Rng::new(5));
            disk.kill_with_cache();
            disk.cut_at = disk.operations() + later;
            let mut rng = Rng::new(cut * 31 + later);
            disk = run(disk, &mut model, 0, &mut rng);
            disk.crash(&mut rng);
            run(disk, &mut model, 1, &mut rng);
        }
    }
}

/// A log whose first segment holds the only base and hard state of group 2, and is given up once
/// these are repeated. Group 1 goes on, and is compacted.
fn gives_up_its_first_segment(disk: FaultDisk) -> FaultDisk {
    let (mut wal, _) = Wal::open(disk, options()).expect("it begins");
    let begin = Write { hard_state: Some(hard_state(9, 7)), ..nothing() };
    let begin = Write { reset: Some(Box::new(base(7, 3))), ..begin };
    let mut batches = vec![batch(1, vec![(2, begin)])];
    for id in 2..14 {
        batches.push(batch(id, vec![(1, entries(id - 1, 1, 1, 7_000))]));
    }
    let compact = Write { compact: Some(Box::new(base(12, 1))), ..nothing() };
    batches.push(batch(14, vec![(1, compact)]));
    for batch in batches {
        wal.submit(batch).expect("the disk has room and works");
        while wal.poll().is_some() {}
    }
    wal.into_disk()
}

/// What the first block of a run repeats of a segment that was given up then is nowhere else. That
/// block promises nothing to anybody, and may be torn; but damage to it is no tear.
#[test]
fn what_the_first_block_repeats_is_not_cut_off_with_it() {
    const FIRST: &str = "0000000000000001.log";
    let total = gives_up_its_first_segment(FaultDisk::new());
    assert!(!total.list().unwrap().contains(&FIRST.to_owned()), "it was given up");
    let (mut flipped, mut refused) = (0, 0);
    for cut in 1..=total.operations() {
        let mut disk = FaultDisk::new();
        disk.cut_at = cut;
        disk = gives_up_its_first_segment(disk);
        disk.crash(&mut Rng::new(cut));
        let names = disk.list().unwrap();
        let before: Vec<_> = names.into_iter().map(|it| (disk.content(&it), it)).collect();
        let (wal, known) = Wal::open(disk, options()).unwrap();
        let mut disk = wal.into_disk();
        let there = |name: &str, disk: &FaultDisk| disk.list().unwrap().iter().any(|it| it == name);
        if !before.iter().any(|(_, name)| name == FIRST) || there(FIRST, &disk) {
            continue; // It was not given up at this start.
        }
        for (content, name) in &before {
            if !there(name, &disk) {
                continue;
            }
            let now = disk.content(name);
            for at in (8_192..now.len()).filter(|at| now[*at] != content[*at]) {
                flipped += 1;
                let mut disk = disk.clone();
                disk.flip(name, at, 0x41);
                match Wal::open(disk, options()) {
                    Ok((_, found)) => assert_eq!(found.groups, known.groups, "{name} at {at}"),
                    Err(WalError::Damaged { .. }) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    assert!(flipped > 100, "{flipped}");
    assert!(refused < flipped / 2, "{refused} of {flipped}");
}

/// A write of more than a block fills slots that held something older, and says that all of it is
/// committed. Wherever power fails, what is said to be committed is there, and new.
#[test]
fn what_is_committed_is_never_more_than_what_is_there() {
    let slots = |round, bytes| {
        let entries = entries(1, 6, round, bytes).entries;
        Write { entries: Entries::default(), slots: vec![entries], ..nothing() }
    };
    let new = Write { hard_state: Some(hard_state(2, 6)), ..slots(2, 6_000) };
    let mut found = Vec::new();
    for cut in 1.. {
        let (mut wal, _) = Wal::open(FaultDisk::new(), options()).unwrap();
        put(&mut wal, 1, vec![(1, Write { reset: Some(Box::new(base(0, 0))), ..slots(1, 10) })]);
        wal.disk_mut().cut_at = wal.disk().operations() + cut;
        wal.submit(batch(2, vec![(1, new.clone())])).unwrap();
        let done = wal.poll().is_some();
        let mut disk = wal.into_disk();
        disk.crash(&mut Rng::new(cut));
        let (_, recovery) = Wal::open(disk, options()).unwrap();
        let group = &recovery.groups[&quorate_base::GroupId(1)];
        let commit = group.hard_state.commit;
        let all = positions(group);
        let stale = all.iter().find(|(index, round)| *index <= commit && *round == 1);
        assert_eq!(stale, None, "{commit} are committed: {all:?}");
        found.push(commit);
        if done {
            break;
        }
    }
    assert!(found.iter().any(|commit| (1..6).contains(commit)), "in part, too: {found:?}");
    assert_eq!(found.last(), Some(&6));
}

/// A repair takes entries away that were promised, and puts them back, in more than a block.
/// Wherever power fails, each is there, or known to be missing.
#[test]
fn a_repair_that_is_cut_short_leaves_no_log_that_is_merely_shorter() {
    let old = Write { reset: Some(Box::new(base(0, 0))), ..entries(1, 8, 1, 10) };
    let new = entries(3, 6, 1, 6_000);
    let repairs = [
        Write { truncate_from: Some(3), ..new.clone() },
        Write { reset: Some(Box::new(base(2, 1))), ..new },
    ];
    for repair in repairs {
        let mut in_part = 0;
        for cut in 1.. {
            let (mut wal, _) = Wal::open(FaultDisk::new(), options()).unwrap();
            put(&mut wal, 1, vec![(1, old.clone())]);
            wal.disk_mut().cut_at = wal.disk().operations() + cut;
            wal.submit(batch(2, vec![(1, repair.clone())])).unwrap();
            let done = wal.poll().is_some();
            let mut disk = wal.into_disk();
            disk.crash(&mut Rng::new(cut));
            // Also after it was opened, and once more.
            for _ in 0..2 {
                let (wal, recovery) = Wal::open(disk, options()).unwrap();
                let group = &recovery.groups[&quorate_base::GroupId(1)];
                assert_eq!(group.end(), 8, "{group:?}");
                in_part += usize::from(!group.damaged.is_empty());
                assert!(!done || group.damaged.is_empty());
                disk = wal.into_disk();
            }
            if done {
                break;
            }
        }
        assert!(in_part > 0, "{repair:?} was never cut short");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 120,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_chain_of_crashes(seed: u64, lives in 2..12_usize) {
        chain_of_crashes(seed, lives);
    }
}

/// A group's first entries are truncated before anything else of it is written.
#[test]
fn a_group_may_have_nothing_left() {
    chain_of_crashes(5_632_799_132_987_608_029, 4);
}

/// Power fails between the two blocks of a batch that does not fit one.
#[test]
fn a_batch_that_is_split_may_be_found_in_part() {
    chain_of_crashes(3_039_310_187_797_534_033, 7);
}

fn chain_of_crashes(seed: u64, lives: usize) {
    let mut rng = Rng::new(seed);
    let mut model = Model::new();
    let mut disk = FaultDisk::new();
    for _ in 0..lives {
        let batches = rng.below(80);
        // Sometimes the power fails while the log is being opened.
        let span = if rng.below(3) == 0 { 8 } else { 3 * batches + 8 };
        disk.cut_at = disk.operations() + 1 + rng.below(span);
        disk = run(disk, &mut model, batches, &mut rng);
        if rng.below(3) == 0 { disk.kill() } else { disk.crash(&mut rng) }
    }
    run(disk, &mut model, 0, &mut rng);
}

#[test]
fn completions_may_come_late_and_in_any_order() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut model = Model::new();
        let mut disk = FaultDisk::new();
        disk.held = true;
        let (mut wal, _) = Wal::open(disk, options()).unwrap();
        assert!(!wal.is_ready(), "nothing completes by itself");
        let mut id = 0;
        while id < 120 {
            if rng.below(2) == 0 {
                id += 1;
                let batch = random_batch(id, model.latest(), &mut rng);
                model.submit(&batch);
                wal.submit(batch).unwrap();
            } else {
                wal.disk_mut().step(&mut rng);
            }
            while let Some((done, result)) = wal.poll() {
                result.unwrap();
                model.acknowledged += 1;
                assert_eq!(done.0, model.acknowledged as u64);
                assert!(wal.is_ready());
            }
        }
        let stats = wal.stats();
        assert!(stats.syncs < model.acknowledged as u64, "batches are joined: {stats:?}");
        let mut disk = wal.into_disk();
        disk.crash(&mut rng);
        run(disk, &mut model, 0, &mut rng);
    }
}
