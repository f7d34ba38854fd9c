//! The end of fjall's journal after a power failure.
//!
//! Batches go into the journal without a sync until the next persist, so that a power failure may
//! leave any mixture of the sectors written since. fjall takes a journal that merely ends for cut
//! off, but refuses to open one whose last batches have holes. So the first batch that is not
//! whole, and all behind it, are cut off before fjall sees them.
//!
//! Invariant: only the last journal can have unsynced bytes, and only behind what any table holds,
//! for fjall syncs a journal before it begins another, and before it writes a table out. So a cut
//! leaves all tables at the same batch, and what it takes is in the consensus log still. A hole
//! further up is no power failure's: then a table holds more than the journal, which
//! [`Cut::contradicts`] tells. Format: fjall 3, as its journals are.

use super::generations::disk_error;
use crate::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Of an item, behind its tag: kind, compression, tree (8), key, value, stored value (2, 4, 4).
const ITEM_HEADER_BYTES: usize = 20;
const NOT_COMPRESSED: u8 = 0;
const BUFFER_BYTES: usize = 256 << 10;

/// Where the last journal was cut.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cut {
    /// The sequence number of the last whole batch in it.
    last_kept: Option<u64>,
    /// That of the first batch that was not whole, if its beginning could be read.
    first_lost: Option<u64>,
}

impl Cut {
    /// Whether a table that holds `persisted` shows that durable batches were lost.
    pub fn contradicts(self, persisted: u64) -> bool {
        match (self.last_kept, self.first_lost) {
            (Some(kept), _) => persisted > kept,
            (None, Some(lost)) => persisted >= lost,
            // An empty journal says nothing: what tables hold was in earlier ones.
            (None, None) => false,
        }
    }
}

/// Cuts the last journal in `directory` off behind its last whole batch, durably.
pub(crate) fn cut_torn_end(directory: &Path) -> Result<Cut, Error> {
    let Some(path) = last_journal(directory)? else { return Ok(Cut::default()) };
    let failed = |e: io::Error| disk_error(format_args!("cutting off {}", path.display()), &e);
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let (whole, cut) = scan(&file, length).map_err(failed)?;
    if whole < length {
        file.set_len(whole).map_err(failed)?;
        file.sync_all().map_err(failed)?;
    }
    Ok(cut)
}

fn last_journal(directory: &Path) -> Result<Option<PathBuf>, Error> {
    let failed = |e: io::Error| disk_error(format_args!("listing {}", directory.display()), &e);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut last: Option<(u64, PathBuf)> = None;
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_suffix(".jnl").and_then(|number| number.parse().ok());
        if let Some(number) = number
            && last.as_ref().is_none_or(|(highest, _)| *highest < number)
        {
            last = Some((number, path));
        }
    }
    Ok(last.map(|(_, path)| path))
}

/// How long the journal's whole batches are, and what they say.
fn scan(file: &File, length: u64) -> io::Result<(u64, Cut)> {
    let file = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut journal = Journal { file, left: length };
    let (mut whole, mut cut) = (0, Cut::default());
    loop {
        let mut seqno = None;
        if journal.batch(&mut seqno)?.is_none() {
            cut.first_lost = seqno;
            return Ok((whole, cut));
        }
        (whole, cut.last_kept) = (length - journal.left, seqno);
    }
}

/// What of the journal is still to be read. Nothing is believed beyond its end.
struct Journal<R> {
    file: R,
    left: u64,
}

impl<R: Read> Journal<R> {
    /// Reads a batch; nothing, if there is none or it is not whole. Its number is told as soon as
    /// it is known.
    fn batch(&mut self, seqno: &mut Option<u64>) -> io::Result<Option<()>> {
        let Some([START]) = self.bytes()? else { return Ok(None) };
        let Some(items) = self.bytes()?.map(u32::from_le_bytes) else { return Ok(None) };
        *seqno = self.bytes()?.map(u64::from_le_bytes);
        let mut hasher = Xxh3::new();
        for _ in 0..items {
            let whole = match self.bytes()? {
                Some([ITEM]) => self.item(&mut hasher)?,
                Some([CLEAR]) => self.clear(&mut hasher)?,
                _ => None,
            };
            if whole.is_none() {
                return Ok(None);
            }
        }
        let Some([END]) = self.bytes()? else { return Ok(None) };
        let Some(checksum) = self.bytes()?.map(u64::from_le_bytes) else { return Ok(None) };
        let ends = self.bytes()? == Some(TRAILER) && checksum == hasher.digest();
        Ok(ends.then_some(()))
    }

    fn item(&mut self, hasher: &mut Xxh3) -> io::Result<Option<()>> {
        let Some(header) = self.bytes::<ITEM_HEADER_BYTES>()? else { return Ok(None) };
        let [_, compression, _, _, _, _, _, _, _, _, k0, k1, _, _, _, _, s0, s1, s2, s3] = header;
        if compression != NOT_COMPRESSED {
            return Ok(None);
        }
        hasher.update(&[ITEM]);
        hasher.update(&header);
        let key = u64::from(u16::from_le_bytes([k0, k1]));
        let stored = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        self.hash(key + stored, hasher)
    }

    fn clear(&mut self, hasher: &mut Xxh3) -> io::Result<Option<()>> {
        hasher.update(&[CLEAR]);
        self.hash(8, hasher)
    }

    fn hash(&mut self, bytes: u64, hasher: &mut Xxh3) -> io::Result<Option<()>> {
        if bytes > self.left {
            return Ok(None);
        }
        let mut buffer = [0; 4096];
        let mut rest = bytes;
        while rest > 0 {
            let n = rest.min(buffer.len() as u64) as usize;
            self.file.read_exact(&mut buffer[..n])?;
            hasher.update(&buffer[..n]);
            rest -= n as u64;
        }
        self.left -= bytes;
        Ok(Some(()))
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        if self.left < N as u64 {
            return Ok(None);
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.left -= N as u64;
        Ok(Some(bytes))
    }
}
