//! What a run did, as one number to compare runs by, and as lines to read if somebody reads.

use quorate_base::Instant;
use std::fmt;
use std::hash::Hasher;

/// A fast hasher whose result depends on the input alone (no random keys).
#[derive(Clone, Copy, Debug)]
pub struct StableHasher(u64);

impl Default for StableHasher {
    fn default() -> Self {
        StableHasher(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.write_u64(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.0 = (mixed ^ (mixed >> 32)).rotate_left(23);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
}

/// Takes a readable trace, line by line.
pub type Sink<'a> = &'a mut dyn FnMut(&str);

/// The trace of a run.
pub struct Trace<'a> {
    hash: StableHasher,
    sink: Option<Sink<'a>>,
}

impl<'a> Trace<'a> {
    /// A trace that is hashed, and told to `sink` if there is one.
    pub fn new(sink: Option<Sink<'a>>) -> Self {
        Trace { hash: StableHasher::default(), sink }
    }

    /// Something happened: `kind` and `detail` go into the hash.
    pub fn note(&mut self, now: Instant, node: u64, kind: u64, detail: u64) {
        self.hash.write_u64(now.0);
        self.hash.write_u64(node << 8 | kind);
        self.hash.write_u64(detail);
    }

    /// Whether anybody reads.
    pub fn is_read(&self) -> bool {
        self.sink.is_some()
    }

    /// A line for people; ask [`Trace::is_read`] first where the line costs something to make.
    pub fn line(&mut self, now: Instant, node: u64, text: fmt::Arguments<'_>) {
        if let Some(sink) = &mut self.sink {
            match node {
                0 => sink(&format!("{now:?}      {text}")),
                _ => sink(&format!("{now:?}  n{node}  {text}")),
            }
        }
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.hash.finish()
    }
}
