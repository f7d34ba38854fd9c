//! Segments: which are in use, which is prepared to follow, which are kept for reuse.
//!
//! One segment is prepared ahead, beside the writing, so that going on to it costs the log
//! nothing. Invariant: at most one change of files is under way here at a time, and a segment is
//! given up only when a later, durable segment holds everything of it that is still needed.

use crate::canary::Canary;
use crate::error::WalError;
use crate::layout::{PAGE_BYTES, SegmentHeader, segment_name, spare_name};
use crate::options::WalOptions;
use crate::script::{Progress, Script};
use quorate_base::{GroupId, Index};
use quorate_disk::{Completion, Disk, Operation};
use std::collections::{BTreeMap, VecDeque};

/// A segment that holds records.
#[derive(Clone, Default, Debug)]
pub(crate) struct Live {
    pub bytes: u64,
    /// Highest index of each group in it.
    pub ends: BTreeMap<GroupId, Index>,
    /// Number of the last block before it, if its header says so; else zero.
    pub after: u64,
    /// Number of its own last block; zero if none is known.
    pub last: u64,
}

#[derive(Debug)]
pub(crate) enum Job {
    Prepare { sequence: u64, script: Script },
    Retire { name: String, script: Script },
    Discard { script: Script },
}

/// The segments of one log.
#[derive(Default, Debug)]
pub(crate) struct Segments {
    pub live: BTreeMap<u64, Live>,
    /// Files of the right length that may be reused.
    pub spares: VecDeque<String>,
    /// Files to be removed.
    pub discards: Vec<String>,
    /// Segments given up, to become spares or be removed.
    pub retired: VecDeque<(u64, u64)>,
    pub prepared: Option<u64>,
    pub job: Option<Job>,
    /// The disk was full at the last attempt to make a segment.
    pub full: bool,
    pub next_sequence: u64,
    pub run: u64,
}

impl Segments {
    /// Whether a segment is ready to be gone on to.
    pub fn is_prepared(&self) -> bool {
        self.prepared.is_some()
    }

    /// How many segments are ready or kept.
    pub fn spare_count(&self) -> usize {
        self.spares.len() + usize::from(self.prepared.is_some())
    }

    /// Goes on to the prepared segment.
    pub fn advance(&mut self, options: &WalOptions) -> Option<u64> {
        let sequence = self.prepared.take()?;
        self.live.insert(sequence, Live { bytes: options.segment_bytes, ..Live::default() });
        Some(sequence)
    }

    /// Gives up the oldest segment.
    pub fn retire_oldest(&mut self) {
        if let Some((sequence, live)) = self.live.pop_first() {
            self.retired.push_back((sequence, live.bytes));
            if let Some(mut next) = self.live.first_entry().filter(|_| live.last > 0) {
                next.get_mut().after = live.last;
            }
        }
    }

    /// Whether files are being changed.
    pub fn is_busy(&self) -> bool {
        self.job.is_some()
    }

    /// Starts what is to be done with files, if anything; says whether it did. A full disk is
    /// tried again only when `retry` says so or when a segment was given up.
    pub fn work(&mut self, options: &WalOptions, retry: bool, disk: &mut impl Disk) -> bool {
        if self.job.is_some() {
            return false;
        }
        self.job = self.retire(options, disk).or_else(|| {
            let wanted =
                self.prepared.is_none() && (!self.full || retry || !self.spares.is_empty());
            if wanted { Some(self.prepare(options, disk)) } else { self.discard(disk) }
        });
        self.job.is_some()
    }

    fn retire(&mut self, options: &WalOptions, disk: &mut impl Disk) -> Option<Job> {
        let (sequence, bytes) = self.retired.pop_front()?;
        let old = segment_name(sequence);
        // What the log begins with then may have become unreadable: that nothing else was there
        // than the blocks after it tell, only the number of the last block before it can show.
        let oldest = self.live.first_key_value().filter(|(_, live)| live.after > 0);
        let mut todo = match oldest.map(|(sequence, _)| *sequence) {
            Some(oldest) if oldest == sequence + 1 => {
                let file = segment_name(oldest);
                vec![self.header_write(oldest, options), Operation::Sync { file }]
            }
            _ => Vec::new(),
        };
        // Durable one by one, oldest first: else a power failure may bring back an older segment
        // and not the one after it, and the log would seem to miss what was in that.
        let mut start = |change, disk| {
            todo.extend([change, Operation::SyncDirectory]);
            Script::start(std::mem::take(&mut todo), disk)
        };
        if bytes != options.segment_bytes || self.spares.len() >= options.spares {
            return Some(Job::Discard { script: start(Operation::Remove { file: old }, disk) });
        }
        let name = spare_name(sequence);
        let rename = Operation::Rename { from: old, to: name.clone() };
        Some(Job::Retire { name, script: start(rename, disk) })
    }

    fn prepare(&mut self, options: &WalOptions, disk: &mut impl Disk) -> Job {
        let sequence = self.next_sequence;
        let file = segment_name(sequence);
        let bytes = options.segment_bytes;
        let mut todo = Vec::new();
        match self.spares.pop_front() {
            Some(spare) if spare == file => {}
            Some(spare) => todo.push(Operation::Rename { from: spare, to: file.clone() }),
            None => todo.push(Operation::Create { file: file.clone(), bytes }),
        }
        // A file with a header that is too short lost its end: none may ever begin so.
        todo.push(Operation::Sync { file: file.clone() });
        todo.push(self.header_write(sequence, options));
        todo.push(Operation::Sync { file });
        if options.canary() != Canary::SkipDirectorySync {
            todo.push(Operation::SyncDirectory);
        }
        Job::Prepare { sequence, script: Script::start(todo, disk) }
    }

    fn discard(&mut self, disk: &mut impl Disk) -> Option<Job> {
        let file = self.discards.pop()?;
        Some(Job::Discard { script: Script::start(vec![Operation::Remove { file }], disk) })
    }

    /// Both copies of a segment's header.
    pub fn header_write(&self, sequence: u64, options: &WalOptions) -> Operation {
        let bytes = self.live.get(&sequence).map_or(options.segment_bytes, |live| live.bytes);
        let after = self.live.get(&sequence).map_or(0, |live| live.after);
        let header = SegmentHeader { sequence, bytes, run: self.run, owner: options.owner, after };
        let mut pages = vec![0; 2 * PAGE_BYTES as usize];
        let copy = header.encode();
        pages[..copy.len()].copy_from_slice(&copy);
        pages[PAGE_BYTES as usize..][..copy.len()].copy_from_slice(&copy);
        Operation::Write { file: segment_name(sequence), offset: 0, parts: vec![pages.into()] }
    }

    /// Takes a completion; gives it back if it belongs to something else.
    pub fn on(
        &mut self,
        completion: Completion,
        disk: &mut impl Disk,
    ) -> Result<Option<Completion>, WalError> {
        let progress = match &mut self.job {
            None => return Ok(Some(completion)),
            Some(
                Job::Prepare { script, .. } | Job::Retire { script, .. } | Job::Discard { script },
            ) => script.on(completion, disk),
        };
        match progress {
            Progress::NotMine(completion) => return Ok(Some(completion)),
            Progress::Going => return Ok(None),
            Progress::Done => match self.job.take() {
                Some(Job::Prepare { sequence, .. }) => {
                    self.prepared = Some(sequence);
                    self.next_sequence = sequence + 1;
                    self.full = false;
                }
                Some(Job::Retire { name, .. }) => self.spares.push_back(name),
                Some(Job::Discard { .. }) | None => {}
            },
            Progress::Failed(error) => {
                let job = self.job.take();
                // A disk that is full did not break: what was being made is not there.
                if error.is_full() && matches!(job, Some(Job::Prepare { .. })) {
                    self.full = true;
                } else {
                    return Err(WalError::Disk(error));
                }
            }
        }
        Ok(None)
    }
}
