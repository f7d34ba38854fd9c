//! A file as processes see it, and as a power failure would leave it.
//!
//! Invariant: a sector that is not marked dirty is the same in both, unless a sync failed. A
//! failed sync leaves it open what reached the disk and marks everything clean, which is what
//! Linux does, so that a second sync would succeed without writing anything.

use super::content::{ALL_SECTORS, Content, PAGE_BYTES, SECTORS_PER_PAGE, Sectors, parts, sectors};
use super::{Loss, Settle};
use quorate_base::Rng;
use std::collections::BTreeMap;

/// Both states of a file.
#[derive(Default, Debug)]
pub(crate) struct File {
    /// What is read.
    now: Content,
    /// What is certain to be on the disk.
    durable: Content,
    /// The sectors that may differ, by page.
    dirty: BTreeMap<u64, Sectors>,
    /// The whole durable state from before the file was cut off, as long as that is not durable:
    /// a truncation happens or does not, and comes before what is written after it.
    before_cut: Option<Content>,
}

impl File {
    /// What is read.
    pub fn content(&self) -> &Content {
        &self.now
    }

    /// How many more pages a write would take.
    pub fn needs(&self, offset: u64, len: u64) -> u64 {
        parts(offset, len).filter(|(page, _)| !self.now.has(*page)).count() as u64
    }

    /// Writes. What was there and was not yet durable may by now have been written back.
    pub fn write(&mut self, offset: u64, data: &[u8], rng: &mut Rng) {
        for (page, part) in parts(offset, data.len() as u64) {
            let touched = sectors(&part);
            let mask = self.dirty.entry(page).or_default();
            let again = *mask & touched & coins(rng, 500_000);
            if again != 0 {
                self.durable.take(&self.now, page, again);
            }
            *mask |= touched;
        }
        self.now.write(offset, data);
    }

    /// Gives room to these bytes, and makes the file as long as they need unless `keep_length`.
    pub fn allocate(&mut self, offset: u64, len: u64, keep_length: bool) {
        for (page, _) in parts(offset, len) {
            if !self.now.has(page) {
                self.dirty.insert(page, ALL_SECTORS);
            }
        }
        self.now.allocate(offset, len);
        if !keep_length {
            self.now.resize(self.now.len().max(offset + len));
        }
    }

    /// Sets the length.
    pub fn resize(&mut self, bytes: u64) {
        if bytes < self.now.len() {
            self.before_cut.get_or_insert_with(|| self.durable.clone());
            let kept = bytes.div_ceil(PAGE_BYTES as u64);
            self.dirty.split_off(&kept);
            self.durable.resize(bytes.min(self.durable.len()));
        }
        self.now.resize(bytes);
    }

    /// Makes everything durable.
    pub fn sync(&mut self) {
        for (page, _) in std::mem::take(&mut self.dirty) {
            self.durable.take(&self.now, page, ALL_SECTORS);
        }
        self.durable.resize(self.now.len());
        self.before_cut = None;
    }

    /// Decides what of the unsynced reached the disk, and takes the rest for written.
    pub fn settle(&mut self, how: Settle, rng: &mut Rng, loss: &mut Loss) {
        let dirty = std::mem::take(&mut self.dirty);
        if let Some(before) = self.before_cut.take()
            && !rng.chance_ppm(how.keep_ppm)
        {
            self.durable = before;
            loss.truncations_lost += 1;
            return;
        }
        let (mut kept, mut lost) = (0, 0);
        for (page, mask) in dirty {
            let keep = mask & coins(rng, how.keep_ppm);
            if keep != 0 {
                self.durable.take(&self.now, page, keep);
            }
            kept += u64::from(keep.count_ones());
            lost += u64::from((mask & !keep).count_ones());
        }
        let (old, new) = (self.durable.len(), self.now.len());
        // The length is metadata of its own: as it was, as it is, or as it was in between.
        let length = match rng.below(3) {
            _ if how.keep_ppm == 0 => old,
            _ if how.keep_ppm == 1_000_000 => new,
            0 => old,
            1 => new,
            _ => rng.between(old.min(new), old.max(new)),
        };
        self.durable.resize(length);
        loss.sectors_kept += kept;
        loss.sectors_lost += lost;
        loss.files_torn += u64::from(kept > 0 && lost > 0);
    }

    /// After a power failure: only what is durable is there.
    pub fn forget(&mut self) {
        self.now = self.durable.clone();
    }
}

/// Each sector with this probability.
fn coins(rng: &mut Rng, ppm: u32) -> Sectors {
    (0..SECTORS_PER_PAGE).fold(0, |all, sector| all | Sectors::from(rng.chance_ppm(ppm)) << sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Settle = Settle { keep_ppm: 500_000 };
    const NOTHING: Settle = Settle { keep_ppm: 0 };
    const EVERYTHING: Settle = Settle { keep_ppm: 1_000_000 };

    fn after(file: &mut File, how: Settle, seed: u64) -> Vec<u8> {
        file.settle(how, &mut Rng::new(seed), &mut Loss::default());
        file.forget();
        file.content().read(0, usize::MAX)
    }

    fn synced(data: &[u8]) -> File {
        let mut file = File::default();
        file.write(0, data, &mut Rng::new(1));
        file.sync();
        file
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_need_not() {
        let mut file = synced(b"old");
        file.write(0, b"new!", &mut Rng::new(2));
        assert_eq!(file.content().read(0, 9), b"new!", "processes see it at once");
        assert_eq!(after(&mut file, NOTHING, 3), b"old");
        file.write(0, b"new!", &mut Rng::new(2));
        assert_eq!(after(&mut file, EVERYTHING, 3), b"new!");
        file.write(0, b"more", &mut Rng::new(2));
        file.sync();
        assert_eq!(after(&mut file, NOTHING, 3), b"more");
    }

    #[test]
    fn a_write_in_flight_is_torn_between_sectors_and_never_within() {
        let mut torn = 0;
        for seed in 0..100 {
            let mut file = synced(&[1; 8192]);
            file.write(0, &[2; 8192], &mut Rng::new(seed));
            let found = after(&mut file, HALF, seed);
            for sector in found.chunks(512) {
                assert!(sector.iter().all(|byte| byte == &sector[0]), "torn within a sector");
            }
            torn += usize::from(found.contains(&1) && found.contains(&2));
        }
        assert!(torn > 90, "{torn} of 100 were torn");
    }

    #[test]
    fn an_older_unsynced_version_may_be_the_one_that_reached_the_disk() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let (mut file, mut rng) = (synced(&[1; 512]), Rng::new(seed));
            file.write(0, &[2; 512], &mut rng);
            file.write(0, &[3; 512], &mut rng);
            seen.insert(after(&mut file, HALF, seed)[0]);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_file_that_grew_has_any_length_and_zeros_where_nothing_arrived() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut file = synced(&[1; 100]);
            file.write(100, &[2; 4000], &mut Rng::new(seed));
            let found = after(&mut file, HALF, seed);
            assert!((100..=4100).contains(&found.len()));
            assert!(found[..100].iter().all(|byte| *byte == 1), "what was synced is whole");
            assert!(found[100..].iter().all(|byte| *byte == 2 || *byte == 0));
            lengths.insert(found.len());
        }
        assert!(lengths.contains(&100) && lengths.contains(&4100) && lengths.len() > 10);
    }

    #[test]
    fn a_truncation_that_was_not_synced_happened_or_did_not() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut file = synced(&[1; 5000]);
            file.resize(0);
            file.write(0, &[2; 3], &mut Rng::new(seed));
            let found = after(&mut file, HALF, seed);
            let whole = found == [1; 5000];
            assert!(whole || found.len() <= 3, "old bytes behind a cut: {found:?}");
            seen.insert(whole);
        }
        assert_eq!(seen.len(), 2);
        let mut file = synced(&[1; 5000]);
        file.resize(10);
        file.sync();
        assert_eq!(after(&mut file, NOTHING, 1), [1; 10]);
    }

    #[test]
    fn after_a_failed_sync_a_second_one_writes_nothing() {
        let mut file = synced(&[1; 512]);
        file.write(0, &[2; 512], &mut Rng::new(1));
        file.settle(NOTHING, &mut Rng::new(1), &mut Loss::default());
        assert_eq!(file.content().read(0, 1), [2], "the cache still shows it");
        file.sync();
        assert_eq!(after(&mut file, EVERYTHING, 1)[0], 1);
    }

    #[test]
    fn room_that_was_given_reads_as_zeros() {
        let mut file = File::default();
        file.allocate(0, 10_000, true);
        assert_eq!((file.content().len(), file.content().pages()), (0, 3));
        file.allocate(0, 10_000, false);
        assert_eq!(file.needs(0, 10_000), 0);
        assert_eq!(file.needs(8192, 8192), 1);
        file.sync();
        assert_eq!(after(&mut file, NOTHING, 1), [0; 10_000]);
    }
}
