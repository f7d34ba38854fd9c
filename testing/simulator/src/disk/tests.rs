//! What the disk keeps and what it may lose.

use super::*;

fn disk(seed: u64) -> SimDisk {
    let latency = (Duration::from_micros(10), Duration::from_micros(100));
    let plan = DiskPlan { latency, slow_ppm: 0, sync_failure_ppm: 0, write_failure_ppm: 0 };
    SimDisk::new(plan, Rng::new(seed))
}

fn finish(disk: &mut SimDisk) -> Vec<Completion> {
    let mut done = Vec::new();
    while let Some(at) = disk.next_completion() {
        assert!(disk.poll().is_none(), "not before its time");
        disk.set_now(at);
        done.extend(disk.poll());
    }
    done
}

fn setup(seed: u64) -> SimDisk {
    let mut disk = disk(seed);
    disk.submit(Operation::Create { file: "a".into(), bytes: 4096 });
    finish(&mut disk);
    disk.submit(Operation::Sync { file: "a".into() });
    disk.submit(Operation::SyncDirectory);
    finish(&mut disk);
    disk
}

fn write(disk: &mut SimDisk, offset: u64, byte: u8, n: usize) {
    let parts = vec![Bytes::from(vec![byte; n])];
    disk.submit(Operation::Write { file: "a".into(), offset, parts });
}

#[test]
fn a_sync_covers_what_completed_before_it_was_submitted() {
    let mut covered = [0; 2];
    for seed in 0..50 {
        let mut disk = setup(seed);
        write(&mut disk, 0, 1, 512);
        finish(&mut disk);
        write(&mut disk, 512, 2, 512);
        disk.submit(Operation::Sync { file: "a".into() });
        finish(&mut disk);
        disk.crash();
        let content = disk.read("a", 0, 1024).unwrap();
        assert_eq!(content[0], 1, "durable");
        covered[usize::from(content[512] == 2)] += 1;
    }
    assert!(covered[0] > 0 && covered[1] > 0, "{covered:?}");
}

#[test]
fn a_crash_leaves_every_mixture_of_sectors() {
    let mut counters = Counters::default();
    for seed in 0..200 {
        let mut disk = setup(seed);
        write(&mut disk, 0, 1, 2048);
        write(&mut disk, 2048, 2, 512);
        finish(&mut disk);
        disk.crash();
        assert_eq!(disk.len("a").unwrap(), 4096);
        counters.merge(&disk.take_counters());
    }
    for what in [Happening::WriteTorn, Happening::WriteLost, Happening::WriteReordered] {
        assert!(counters.get(what) > 5, "{what:?}");
    }
}

#[test]
fn a_name_is_durable_after_the_directory_was_synced() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut disk = setup(seed);
        disk.submit(Operation::Rename { from: "a".into(), to: "b".into() });
        finish(&mut disk);
        disk.crash();
        let names = disk.list().unwrap();
        assert!(names == ["a"] || names == ["b"]);
        lost += usize::from(names == ["a"]);
    }
    assert!(lost > 5 && lost < 45, "{lost}");
}

#[test]
fn a_failed_sync_may_lose_anything_and_a_second_one_saves_nothing() {
    let mut lost = 0;
    for seed in 0..50 {
        let mut disk = setup(seed);
        disk.state().plan.sync_failure_ppm = 1_000_000;
        write(&mut disk, 0, 1, 512);
        finish(&mut disk);
        disk.submit(Operation::Sync { file: "a".into() });
        assert!(finish(&mut disk)[0].result.is_err());
        disk.heal();
        disk.submit(Operation::Sync { file: "a".into() });
        assert!(finish(&mut disk)[0].result.is_ok());
        disk.crash();
        lost += usize::from(disk.read("a", 0, 1).unwrap()[0] == 0);
    }
    assert!(lost > 5 && lost < 45, "{lost}");
}
