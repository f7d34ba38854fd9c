//! A whole state as a stream of chunks, and back.
//!
//! The stream is `QSNP`, a version byte, then items: a byte 1 + table, the key and the value as
//! byte strings, in ascending order of table and key; then a byte 255, the number of items, and
//! their fingerprint. An item is never split over chunks. Invariant: nothing that was received
//! takes effect before the end was seen, the fingerprint agrees, and every item reads as what its
//! table holds. Checksums of chunks are their carrier's business.

use crate::canary::{Bug, Canary};
use crate::engine::{Engine, Source, Staging, Table};
use crate::error::Error;
use crate::format::{
    HEADER_NAME, Header, MAX_KEY_BYTES, read_history_key, read_index_key, read_index_value,
    read_latest, read_record,
};
use crate::hash::Fingerprint;
use crate::reader::ReadState;
use crate::store::Store;
use bytes::Bytes;
use quorate_base::Index;
use quorate_base::codec::{DecodeError, Reader, Writer};

const MAGIC: &[u8; 4] = b"QSNP";
const VERSION: u8 = 1;
const END: u8 = 255;

/// The longest engine key: an index key of the longest key, all of it zeros.
const MAX_ENGINE_KEY_BYTES: u64 = 2 * MAX_KEY_BYTES as u64 + 16;

/// A part of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The content.
    pub bytes: Bytes,
    /// Whether it is the last.
    pub last: bool,
}

/// Reads a state out, chunk by chunk, unaffected by later writes.
pub struct SnapshotReader<E: Engine> {
    state: ReadState<E>,
    /// The next item: a table, and the least key not yet read out.
    table: Option<Table>,
    from: Vec<u8>,
    items: u64,
    fingerprint: Fingerprint,
    begun: bool,
}

impl<E: Engine> SnapshotReader<E> {
    pub(crate) fn new(state: ReadState<E>) -> Self {
        let (table, fingerprint) = (Some(Table::ALL[0]), Fingerprint::new());
        SnapshotReader { state, table, from: Vec::new(), items: 0, fingerprint, begun: false }
    }

    /// The index of the last entry applied to the state being read out.
    pub fn applied(&self) -> Index {
        self.state.applied()
    }

    /// The next chunk, of at most `max_bytes` and one item; nothing after the last.
    pub fn next_chunk(&mut self, max_bytes: usize) -> Result<Option<Chunk>, Error> {
        let Some(first) = self.table else { return Ok(None) };
        let mut w = Writer::with_capacity(max_bytes.min(4 << 20));
        if !std::mem::replace(&mut self.begun, true) {
            w.raw(MAGIC).u8(VERSION);
        }
        let view = self.state.view()?;
        for table in Table::ALL.into_iter().filter(|t| *t >= first) {
            self.table = Some(table);
            for pair in view.scan(table, &self.from, None) {
                let (key, value) = pair?;
                if w.len() >= max_bytes {
                    self.from = key.to_vec();
                    return Ok(Some(Chunk { bytes: w.into_bytes(), last: false }));
                }
                w.u8(1 + table as u8).bytes(&key).bytes(&value);
                self.items += 1;
                add_item(&mut self.fingerprint, table, &key, &value);
            }
            self.from.clear();
        }
        self.table = None;
        w.u8(END).varint(self.items).u64(self.fingerprint.value());
        Ok(Some(Chunk { bytes: w.into_bytes(), last: true }))
    }
}

fn add_item(fingerprint: &mut Fingerprint, table: Table, key: &[u8], value: &[u8]) {
    fingerprint.add(&[table as u8]);
    fingerprint.add(key);
    fingerprint.add(value);
}

/// Receives a state beside the present one. Dropped before [`Store::install`] it leaves nothing.
pub struct SnapshotReceiver<E: Engine> {
    staging: E::Staging,
    last: Option<(Table, Bytes)>,
    items: u64,
    fingerprint: Fingerprint,
    begun: bool,
    ended: bool,
    /// A deliberate bug.
    believes: bool,
}

impl<E: Engine> SnapshotReceiver<E> {
    pub(crate) fn new(staging: E::Staging, canary: Canary) -> Self {
        SnapshotReceiver {
            staging,
            last: None,
            items: 0,
            fingerprint: Fingerprint::new(),
            begun: false,
            ended: false,
            believes: canary.sings(Bug::BelieveSnapshot),
        }
    }

    /// Takes the next chunk, in order. After an error only dropping the receiver makes sense.
    pub fn write_chunk(&mut self, chunk: Chunk) -> Result<(), Error> {
        if self.ended {
            return Err(Error::Peer("a chunk after the last".into()));
        }
        let mut r = Reader::new(chunk.bytes);
        if !std::mem::replace(&mut self.begun, true) {
            begin(&mut r)?;
        }
        let mut pairs = Vec::new();
        while r.remaining() > 0 && !self.ended {
            match r.u8().map_err(bad)? {
                END => self.end(&mut r)?,
                tag => pairs.push(self.item(tag, &mut r)?),
            }
        }
        r.finish().map_err(bad)?;
        if chunk.last != self.ended {
            return Err(Error::Peer("the end and the last chunk do not agree".into()));
        }
        self.staging.write(pairs)
    }

    fn item(&mut self, tag: u8, r: &mut Reader) -> Result<(Table, Bytes, Bytes), Error> {
        let unknown = DecodeError::Unknown { field: "table", value: u64::from(tag) };
        let table = tag.checked_sub(1).and_then(Table::from_number).ok_or(unknown).map_err(bad)?;
        let key = r.bytes(MAX_ENGINE_KEY_BYTES).map_err(bad)?;
        let value = r.bytes(u64::MAX).map_err(bad)?;
        if self.last.as_ref().is_some_and(|(t, k)| (*t, k) >= (table, &key)) {
            return Err(Error::Peer("items out of order".into()));
        }
        check_item(table, &key, &value)?;
        self.items += 1;
        add_item(&mut self.fingerprint, table, &key, &value);
        self.last = Some((table, key.clone()));
        Ok((table, key, value))
    }

    fn end(&mut self, r: &mut Reader) -> Result<(), Error> {
        let (items, fingerprint) = (r.varint().map_err(bad)?, r.u64().map_err(bad)?);
        let agrees = items == self.items && fingerprint == self.fingerprint.value();
        if !agrees && !self.believes {
            return Err(Error::Peer(format!("{} items of {items} do not agree", self.items)));
        }
        self.ended = true;
        Ok(())
    }

    /// What was received, if it is whole, and the header in it.
    fn finish(self) -> Result<(E::Staging, Header), Error> {
        if !self.ended {
            return Err(Error::Peer(format!("it ends after {} items", self.items)));
        }
        match self.staging.get(Table::Meta, HEADER_NAME)? {
            Some(header) => Ok((self.staging, Header::decode(header)?)),
            None => Err(Error::Peer("it has no header".into())),
        }
    }
}

fn bad(e: DecodeError) -> Error {
    Error::Peer(e.to_string())
}

fn begin(r: &mut Reader) -> Result<(), Error> {
    let magic = r.take(MAGIC.len()).map_err(bad)?;
    let version = r.u8().map_err(bad)?;
    if magic[..] != MAGIC[..] {
        return Err(Error::Peer("it is no snapshot of a store".into()));
    }
    if version > VERSION {
        return Err(Error::NewerFormat { found: version.into(), supported: VERSION.into() });
    }
    if version < VERSION {
        return Err(Error::Peer(format!("version {version}")));
    }
    Ok(())
}

/// Checks that an item reads as what its table holds.
fn check_item(table: Table, key: &[u8], value: &Bytes) -> Result<(), Error> {
    let check = || match table {
        Table::Meta if key == HEADER_NAME => Header::decode(value.clone()).map(|_| ()),
        Table::Meta => Ok(()),
        Table::Current => read_latest(value.clone()).map(|_| ()),
        Table::Index => {
            read_index_key(key)?;
            read_index_value(value.clone()).map(|_| ())
        }
        Table::History => {
            read_history_key(key)?;
            read_record(value.clone()).map(|_| ())
        }
    };
    check().map_err(|e| match e {
        Error::Corrupt(why) => Error::Peer(why),
        other => other,
    })
}

impl<E: Engine> Store<E> {
    /// Reads the whole state out as of now, unaffected by later writes.
    pub fn snapshot(&self) -> SnapshotReader<E> {
        SnapshotReader::new(self.state())
    }

    /// Starts to receive another replica's whole state, beside the present one.
    pub fn receive(&self) -> Result<SnapshotReceiver<E>, Error> {
        Ok(SnapshotReceiver::new(self.engine().stage()?, self.canary()))
    }

    /// Replaces the state, atomically and durably, by what was received; readers see it at once.
    pub fn install(&mut self, received: SnapshotReceiver<E>) -> Result<(), Error> {
        let (staging, header) = received.finish()?;
        self.replace(staging, header)
    }
}
