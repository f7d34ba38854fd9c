//! How the store's records look in the engine's tables. Described in `docs/state-format.md`.
//!
//! Invariant: the order of encoded keys is the order of what they mean, for any bytes.

use crate::error::Error;
use crate::key_value::{KeyMeta, Revision, RevisionSub};
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};

/// The longest key in bytes. Twice that and a revision still fit the engine's keys.
pub const MAX_KEY_BYTES: usize = 32_000;

/// The version of everything in this file.
pub const FORMAT_VERSION: u8 = 1;

/// What is counted for a version beside its key and value, in bytes: about what the tables hold.
pub const VERSION_OVERHEAD_BYTES: u64 = 64;

/// Between two versions of a key that have index entries a walk takes so many steps, or fewer.
const STEPS_PER_INDEX_ENTRY: u8 = 16;

/// A version counts as another step for each so many bytes of its value: a walk reads them.
const BYTES_PER_STEP: u64 = 4096;

/// Ends a key within an index key; sorts before any escaped byte.
const END: [u8; 2] = [0, 1];
/// A zero byte within an index key.
const ZERO: [u8; 2] = [0, 0xff];

/// The name of the header in the meta table. The service's names follow [`SERVICE_PREFIX`].
pub const HEADER_NAME: &[u8] = &[0];
/// The name of the record of how far scrubbing got.
pub const SCRUB_NAME: &[u8] = &[1];
/// What precedes a name of the service's in the meta table.
pub const SERVICE_PREFIX: u8 = 2;

/// Turns a record that cannot be read into the disk's fault.
pub fn damaged(what: &'static str) -> impl Fn(DecodeError) -> Error {
    move |e| Error::Corrupt(format!("{what}: {e}"))
}

/// A name of the service's as a key of the meta table.
pub fn service_name(name: &[u8]) -> Bytes {
    let mut w = Writer::with_capacity(name.len() + 1);
    w.u8(SERVICE_PREFIX).raw(name);
    w.into_bytes()
}

/// A key of the history table: twelve bytes, big-endian, main and then sub.
pub fn history_key(at: RevisionSub) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&at.main.to_be_bytes());
    key[8..].copy_from_slice(&at.sub.to_be_bytes());
    key
}

/// Reads a key of the history table, or the end of one of the index table.
pub fn read_history_key(key: &[u8]) -> Result<RevisionSub, Error> {
    let bad = || Error::Corrupt(format!("a revision of {} bytes", key.len()));
    let (main, sub) = key.split_first_chunk::<8>().ok_or_else(bad)?;
    Ok(RevisionSub {
        main: u64::from_be_bytes(*main),
        sub: u32::from_be_bytes(sub.try_into().map_err(|_| bad())?),
    })
}

/// The part of an index key that all versions of `key` share: escaped, without its end.
fn escaped(key: &[u8], room: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + room);
    for &byte in key {
        match byte {
            0 => out.extend_from_slice(&ZERO),
            _ => out.push(byte),
        }
    }
    out
}

/// Where the versions of `key` begin in the index table.
pub fn index_start(key: &[u8]) -> Vec<u8> {
    let mut out = escaped(key, 14);
    out.extend_from_slice(&END);
    out
}

/// Where the versions of `key` end in the index table (excluded).
pub fn index_end(key: &[u8]) -> Vec<u8> {
    let mut out = escaped(key, 2);
    out.extend_from_slice(&[END[0], END[1] + 1]);
    out
}

/// A key of the index table.
pub fn index_key(key: &[u8], at: RevisionSub) -> Vec<u8> {
    let mut out = index_start(key);
    out.extend_from_slice(&history_key(at));
    out
}

/// The key within an index key, and the revision.
pub fn read_index_key(encoded: &[u8]) -> Result<(Bytes, RevisionSub), Error> {
    let bad = || {
        let shown: String = encoded.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
        Error::Corrupt(format!("the index key {shown} was never written"))
    };
    let (head, at) = encoded.split_last_chunk::<12>().ok_or_else(bad)?;
    let body = head.strip_suffix(&END).ok_or_else(bad)?;
    let mut key = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            0 => tail.strip_prefix(&[ZERO[1]]).ok_or_else(bad)?,
            _ => tail,
        };
        key.push(byte);
    }
    Ok((Bytes::from(key), read_history_key(at)?))
}

/// The latest version of a key, as the current table holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latest {
    /// What is known of the version.
    pub meta: KeyMeta,
    /// Steps of a walk from this version down to the latest one that has an index entry, or to
    /// the first; zero if this one has. Below [`STEPS_PER_INDEX_ENTRY`].
    pub steps: u8,
}

impl Latest {
    /// The version `meta`, which superseded `previous`.
    pub fn after(previous: Option<Latest>, meta: KeyMeta) -> Latest {
        // The first version superseded nothing that would have to be found.
        let Some(previous) = previous else { return Latest { meta, steps: 1 } };
        let step = 1 + u64::from(meta.value_bytes) / BYTES_PER_STEP;
        let steps = u8::try_from(u64::from(previous.steps) + step).unwrap_or(u8::MAX);
        Latest { meta, steps: if steps < STEPS_PER_INDEX_ENTRY { steps } else { 0 } }
    }

    /// Whether the version has an index entry.
    pub fn is_indexed(&self) -> bool {
        self.steps == 0
    }
}

/// How many bytes a varint takes. Room for exactly what is written spares an allocation.
fn varint_len(v: u64) -> usize {
    (70 - (v | 1).leading_zeros() as usize) / 7
}

/// A signed number as the varint that it is written as.
fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// The value of a pair of the current table.
pub fn write_latest(latest: &Latest) -> Bytes {
    let meta = &latest.meta;
    let numbers = [
        meta.at.main,
        u64::from(meta.at.sub),
        meta.create_revision,
        meta.version,
        zigzag(meta.lease),
        u64::from(meta.value_bytes),
    ];
    let mut w = Writer::with_capacity(numbers.map(varint_len).iter().sum::<usize>() + 1);
    w.varint(meta.at.main).varint(u64::from(meta.at.sub));
    w.varint(meta.create_revision).varint(meta.version).signed(meta.lease);
    w.varint(u64::from(meta.value_bytes)).u8(latest.steps);
    debug_assert_eq!(w.len(), numbers.map(varint_len).iter().sum::<usize>() + 1);
    w.into_bytes()
}

/// Reads the value of a pair of the current table.
pub fn read_latest(bytes: Bytes) -> Result<Latest, Error> {
    let read = |mut r: Reader| {
        let meta = KeyMeta {
            at: RevisionSub { main: r.varint()?, sub: narrow(r.varint()?)? },
            create_revision: r.varint()?,
            version: r.varint()?,
            lease: r.signed()?,
            value_bytes: narrow(r.varint()?)?,
        };
        let steps = r.u8()?;
        if steps >= STEPS_PER_INDEX_ENTRY {
            return Err(DecodeError::Unknown { field: "steps", value: u64::from(steps) });
        }
        r.finish()?;
        Ok(Latest { meta, steps })
    };
    read(Reader::new(bytes)).map_err(damaged("the facts of a key"))
}

fn narrow(v: u64) -> Result<u32, DecodeError> {
    u32::try_from(v).map_err(|_| DecodeError::TooLong { claimed: v, limit: u64::from(u32::MAX) })
}

/// The value of a pair of the index table: the version that was superseded.
pub fn write_index_value(previous: RevisionSub) -> Bytes {
    let mut w = Writer::with_capacity(12);
    w.varint(previous.main).varint(u64::from(previous.sub));
    w.into_bytes()
}

/// Reads the value of a pair of the index table.
pub fn read_index_value(bytes: Bytes) -> Result<RevisionSub, Error> {
    let read = |mut r: Reader| {
        let previous = RevisionSub { main: r.varint()?, sub: narrow(r.varint()?)? };
        r.finish()?;
        Ok(previous)
    };
    read(Reader::new(bytes)).map_err(damaged("an index entry"))
}

/// One pair of the history table, but for its revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// What was written, or nothing for a deletion.
    pub put: Option<PutRecord>,
    /// The key.
    pub key: Bytes,
    /// The version of the key that this one superseded.
    pub previous: Option<RevisionSub>,
    /// Whether that version has an index entry: scrubbing removes both.
    pub previous_is_indexed: bool,
    /// Bytes superseded by this and every earlier record, ever.
    pub superseded_bytes: u64,
}

/// What a put wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PutRecord {
    /// When the key came to be.
    pub create_revision: Revision,
    /// How often it was changed since.
    pub version: u64,
    /// The lease it is attached to.
    pub lease: i64,
    /// The value.
    pub value: Bytes,
}

/// A bit of a record's first byte: it is a put, not a deletion.
const PUT: u8 = 1;
/// Another: what it superseded has an index entry.
const PREVIOUS_IS_INDEXED: u8 = 2;

/// The value of a pair of the history table.
pub fn write_record(record: &Record) -> Bytes {
    let previous = record.previous.unwrap_or_default();
    let key_len = record.key.len() as u64;
    let numbers = [previous.main, u64::from(previous.sub), record.superseded_bytes, key_len];
    let mut room = 1 + numbers.map(varint_len).iter().sum::<usize>() + record.key.len();
    if let Some(put) = &record.put {
        let numbers = [put.create_revision, put.version, zigzag(put.lease)];
        room += numbers.map(varint_len).iter().sum::<usize>() + put.value.len();
    }
    let mut w = Writer::with_capacity(room);
    let put = if record.put.is_some() { PUT } else { 0 };
    w.u8(put | if record.previous_is_indexed { PREVIOUS_IS_INDEXED } else { 0 });
    w.varint(previous.main).varint(u64::from(previous.sub)).varint(record.superseded_bytes);
    w.bytes(&record.key);
    if let Some(put) = &record.put {
        w.varint(put.create_revision).varint(put.version).signed(put.lease).raw(&put.value);
    }
    debug_assert_eq!(w.len(), room);
    w.into_bytes()
}

/// Reads the value of a pair of the history table.
pub fn read_record(bytes: Bytes) -> Result<Record, Error> {
    let read = |mut r: Reader| {
        let kind = r.u8()?;
        if kind & !(PUT | PREVIOUS_IS_INDEXED) != 0 {
            return Err(DecodeError::Unknown { field: "record", value: u64::from(kind) });
        }
        let previous = RevisionSub { main: r.varint()?, sub: narrow(r.varint()?)? };
        let superseded_bytes = r.varint()?;
        let key = r.bytes(MAX_KEY_BYTES as u64)?;
        let put = match kind & PUT {
            PUT => Some(PutRecord {
                create_revision: r.varint()?,
                version: r.varint()?,
                lease: r.signed()?,
                value: r.rest(),
            }),
            _ => {
                r.finish()?;
                None
            }
        };
        let previous = (previous.main != 0).then_some(previous);
        let previous_is_indexed = kind & PREVIOUS_IS_INDEXED != 0;
        Ok(Record { put, key, previous, previous_is_indexed, superseded_bytes })
    };
    read(Reader::new(bytes)).map_err(damaged("a record of history"))
}

/// What a version counts for in the logical size.
pub fn version_bytes(key: &[u8], value_bytes: u32) -> u64 {
    key.len() as u64 + u64::from(value_bytes) + VERSION_OVERHEAD_BYTES
}

/// The store's own record: written in every batch, with what the batch did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Header {
    /// The log's entries up to this index were applied.
    pub applied: u64,
    /// The latest revision.
    pub revision: Revision,
    /// The oldest revision that can be read; zero before the first compaction.
    pub compacted: Revision,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes written by all versions, ever.
    pub written_bytes: u64,
    /// Bytes superseded by later versions, ever.
    pub superseded_bytes: u64,
    /// Bytes superseded up to the compacted revision: these are gone.
    pub compacted_bytes: u64,
}

impl Header {
    /// The header of an empty store, whose revision is 1.
    pub fn empty() -> Header {
        Header { revision: 1, ..Header::default() }
    }

    /// The bytes of the versions that can be read.
    pub fn logical_bytes(&self) -> u64 {
        self.written_bytes.saturating_sub(self.compacted_bytes)
    }

    /// The value of the header's pair.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(48);
        w.u8(FORMAT_VERSION).varint(self.applied).varint(self.revision).varint(self.compacted);
        w.varint(self.keys).varint(self.written_bytes).varint(self.superseded_bytes);
        w.varint(self.compacted_bytes);
        w.into_bytes()
    }

    /// Reads the header's pair.
    pub fn decode(bytes: Bytes) -> Result<Header, Error> {
        let mut r = Reader::new(bytes);
        let version = r.u8().map_err(damaged("the header"))?;
        if version > FORMAT_VERSION {
            let supported = u64::from(FORMAT_VERSION);
            return Err(Error::NewerFormat { found: u64::from(version), supported });
        }
        let read = |mut r: Reader| {
            if version == 0 {
                return Err(DecodeError::Unknown { field: "format", value: 0 });
            }
            let header = Header {
                applied: r.varint()?,
                revision: r.varint()?,
                compacted: r.varint()?,
                keys: r.varint()?,
                written_bytes: r.varint()?,
                superseded_bytes: r.varint()?,
                compacted_bytes: r.varint()?,
            };
            r.finish()?;
            Ok(header)
        };
        read(r).map_err(damaged("the header"))
    }
}
