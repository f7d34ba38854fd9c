//! For the fuzz targets: segments whose checksums are right and whose content is anything.
//!
//! Random bytes never pass a checksum, so they would exercise nothing behind it. This is the log
//! of a hostile or mad writer: recovery owes it no meaning, only that it neither panics nor
//! allocates by what it claims.

use crate::block::{BlockBuilder, BlockHeader};
use crate::layout::{FIRST_BLOCK, SegmentHeader};
use crate::row::Kind;
use bytes::{Bytes, BytesMut};
use quorate_base::{Ballot, GroupId, NodeId};

const KINDS: [Kind; 13] = [
    Kind::Noop,
    Kind::Command,
    Kind::Members,
    Kind::HardState,
    Kind::Truncate,
    Kind::Reset,
    Kind::Compact,
    Kind::Recap,
    Kind::SlotNoop,
    Kind::SlotCommand,
    Kind::SlotMembers,
    Kind::Lead,
    Kind::SlotLead,
];

/// Takes numbers off the front of the input; zeros when it is used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Small, close to the limit of 64 bits, or anything.
    fn number(&mut self) -> u64 {
        match self.byte() {
            small @ ..=0xbf => u64::from(small % 16),
            large @ ..=0xdf => u64::MAX - u64::from(large % 16),
            _ => (0..8).fold(0, |n, _| n << 8 | u64::from(self.byte())),
        }
    }

    fn payload(&mut self) -> Bytes {
        let len = usize::from(self.byte()).min(self.0.len());
        let (payload, rest) = self.0.split_at(len);
        self.0 = rest;
        Bytes::copy_from_slice(payload)
    }
}

/// The content of segment 1: a good header and blocks made of `data`.
pub fn segment_of(data: &[u8]) -> Vec<u8> {
    let mut choices = Choices(data);
    let header = SegmentHeader {
        sequence: 1,
        bytes: 256 << 10,
        run: 1,
        owner: crate::Identity::default(),
        after: 0,
    };
    let mut out = BytesMut::zeroed(FIRST_BLOCK as usize);
    let copy = header.encode();
    out[..copy.len()].copy_from_slice(&copy);
    let mut previous = 0;
    while !choices.0.is_empty() && out.len() < 200 << 10 {
        let mut builder = BlockBuilder::default();
        for _ in 0..choices.byte() % 8 {
            let kind = KINDS[usize::from(choices.byte()) % KINDS.len()];
            let group = GroupId(choices.number());
            let (index, ballot) = (choices.number(), Ballot::new(choices.number(), NodeId(1)));
            let payload = choices.payload();
            builder.push(kind, group, index, ballot, payload);
            if choices.byte() == 0xff {
                builder.mislead(choices.number() as u32, choices.number() as u32);
            }
        }
        let number = previous + 1 + u64::from(choices.byte() / 100);
        let skipped = u64::from(choices.byte() == 0xff);
        let header = BlockHeader {
            segment: 1,
            start: out.len() as u64,
            number: number + skipped,
            previous: previous + skipped,
            run: choices.number().min(1 << 40),
            pages: 0,
            rows: 0,
            flags: u32::from(choices.byte()),
        };
        builder.finish(header, &mut out);
        previous = number + skipped;
    }
    out.resize(256 << 10, 0);
    out.to_vec()
}
