//! Bytes of a file, page by page.
//!
//! Pages are shared, so that a copy of a file costs no copy of its bytes. What was never written
//! reads as zeros and takes no room; zeros that were written take room on the disk but one page
//! of memory, however many there are.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Bytes of a page, the unit of allocation.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Bytes of a sector, the unit that a disk writes wholly or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Sectors of a page, a bit of a [`Sectors`] each.
pub(crate) const SECTORS_PER_PAGE: usize = PAGE_BYTES / SECTOR_BYTES;

/// Some of the sectors of a page.
pub(crate) type Sectors = u8;
/// All of them.
pub(crate) const ALL_SECTORS: Sectors = Sectors::MAX;

type Page = Arc<[u8; PAGE_BYTES]>;

static ZEROS: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE_BYTES]));

/// A length and the pages that were written. No page holds anything but zeros behind the length.
#[derive(Clone, Default, Debug)]
pub(crate) struct Content {
    bytes: u64,
    pages: BTreeMap<u64, Page>,
}

/// A page's number, and the part of it that is meant.
pub(crate) type Part = (u64, std::ops::Range<usize>);

/// The parts of pages that `len` bytes from `offset` on lie in.
pub(crate) fn parts(offset: u64, len: u64) -> impl Iterator<Item = Part> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let page = at / PAGE_BYTES as u64;
            let from = (at % PAGE_BYTES as u64) as usize;
            let to = PAGE_BYTES.min(from + usize::try_from(end - at).unwrap_or(PAGE_BYTES));
            at += (to - from) as u64;
            (page, from..to)
        })
    })
}

/// The sectors that a part of a page touches.
pub(crate) fn sectors(part: &std::ops::Range<usize>) -> Sectors {
    let (first, last) = (part.start / SECTOR_BYTES, (part.end - 1) / SECTOR_BYTES);
    (first..=last).fold(0, |all, sector| all | 1 << sector)
}

impl Content {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// How many pages take room.
    pub fn pages(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Whether a page takes room.
    pub fn has(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Up to `len` bytes from `offset`; fewer only at the end.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = self.bytes.saturating_sub(offset).min(len as u64);
        let mut out = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        for (number, part) in parts(offset, len) {
            let page = self.pages.get(&number).unwrap_or(&ZEROS);
            out.extend_from_slice(&page[part]);
        }
        out
    }

    /// Writes bytes, making the file as long as that needs.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        for (number, part) in parts(offset, data.len() as u64) {
            let (piece, after) = rest.split_at(part.len());
            rest = after;
            if piece.len() == PAGE_BYTES && piece.iter().all(|byte| *byte == 0) {
                self.pages.insert(number, ZEROS.clone());
            } else {
                let page = self.pages.entry(number).or_insert_with(|| ZEROS.clone());
                Arc::make_mut(page)[part].copy_from_slice(piece);
            }
        }
        self.bytes = self.bytes.max(offset + data.len() as u64);
    }

    /// Gives room to every page that these bytes lie in.
    pub fn allocate(&mut self, offset: u64, len: u64) {
        for (number, _) in parts(offset, len) {
            self.pages.entry(number).or_insert_with(|| ZEROS.clone());
        }
    }

    /// Sets the length; what is behind it is gone.
    pub fn resize(&mut self, bytes: u64) {
        self.bytes = bytes;
        self.pages.split_off(&bytes.div_ceil(PAGE_BYTES as u64));
        let (last, used) = (bytes / PAGE_BYTES as u64, (bytes % PAGE_BYTES as u64) as usize);
        if let Some(page) = self.pages.get_mut(&last)
            && page[used..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(page)[used..].fill(0);
        }
    }

    /// Takes some sectors of a page from another content; the length stays.
    pub fn take(&mut self, other: &Content, page: u64, which: Sectors) {
        let Some(theirs) = other.pages.get(&page) else {
            // Nothing there is zeros here, which only matters where there is something here.
            if let Some(own) = self.pages.get_mut(&page) {
                copy(own, &ZEROS, which);
            }
            return;
        };
        if which == ALL_SECTORS {
            self.pages.insert(page, theirs.clone());
        } else {
            copy(self.pages.entry(page).or_insert_with(|| ZEROS.clone()), theirs, which);
        }
    }
}

fn copy(to: &mut Page, from: &Page, which: Sectors) {
    let to = Arc::make_mut(to);
    for sector in (0..SECTORS_PER_PAGE).filter(|sector| which & 1 << sector != 0) {
        let bytes = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        to[bytes.clone()].copy_from_slice(&from[bytes]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_where_they_were_written_and_zeros_are_between() {
        let mut content = Content::default();
        content.write(5000, b"abc");
        assert_eq!((content.len(), content.pages()), (5003, 1));
        assert_eq!(content.read(4998, 100), b"\0\0abc");
        content.write(4094, b"wxyz");
        assert_eq!(content.read(4094, 4), b"wxyz");
        content.resize(4096);
        content.resize(5003);
        assert_eq!(content.read(4094, 4), b"wx\0\0");
        assert_eq!(content.read(5000, 3), b"\0\0\0", "what was cut off is not there again");
        assert_eq!(content.read(9000, 1), b"");
    }

    #[test]
    fn zeros_that_were_written_take_room_and_holes_do_not() {
        let mut content = Content::default();
        content.write(0, &[0; 3 * PAGE_BYTES]);
        assert_eq!(content.pages(), 3);
        content.resize(100 * PAGE_BYTES as u64);
        assert_eq!(content.pages(), 3);
        content.allocate(3 * PAGE_BYTES as u64, 1);
        assert_eq!((content.pages(), content.has(3), content.has(4)), (4, true, false));
    }

    #[test]
    fn sectors_are_taken_one_by_one() {
        let (mut old, mut new) = (Content::default(), Content::default());
        old.write(0, &[1; PAGE_BYTES]);
        new.write(0, &[2; PAGE_BYTES]);
        old.take(&new, 0, 0b0000_0101);
        let is: Vec<u8> = (0..8).map(|sector| old.read(sector * 512, 1)[0]).collect();
        assert_eq!(is, [2, 1, 2, 1, 1, 1, 1, 1]);
        old.take(&Content::default(), 0, 0b1000_0000);
        assert_eq!(old.read(7 * 512, 1), [0]);
        assert_eq!(sectors(&(511..513)), 0b11);
        assert_eq!(sectors(&(0..PAGE_BYTES)), ALL_SECTORS);
    }
}
