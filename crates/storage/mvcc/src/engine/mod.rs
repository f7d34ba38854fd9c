//! The narrow ordered key-value engine that the store is built on.
//!
//! Invariant: a batch is atomic, for readers and for a crash. After a crash the engine holds a
//! prefix of the batches written, at least up to the last [`Engine::persist`] that returned.

mod fjall;
mod generations;
mod journal;
mod memory;
mod shelf;
mod tables;

pub use fjall::{FjallEngine, FjallStaging, FjallView};
pub use memory::{MemoryEngine, MemoryStaging, MemoryView};
pub use shelf::FjallShelf;
pub use tables::FjallSettings;

use crate::error::Error;
use bytes::Bytes;

/// The tables of an engine. The numbers are part of the disk and snapshot formats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Table {
    /// Small named records: the store's own header and what the service keeps.
    Meta = 0,
    /// Key to the facts of its latest version.
    Current = 1,
    /// Key and revision to the facts of a version that is no longer the latest.
    Index = 2,
    /// Revision to what it did, with the value.
    History = 3,
}

impl Table {
    /// All tables, in order of their numbers.
    pub const ALL: [Table; 4] = [Table::Meta, Table::Current, Table::Index, Table::History];

    /// The table of that number.
    pub fn from_number(number: u8) -> Option<Table> {
        Table::ALL.get(usize::from(number)).copied()
    }
}

/// One change of a batch: a value to store under the key, or none to remove it.
pub type Change = (Table, Bytes, Option<Bytes>);

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// A scan's results, in order of key.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<Pair, Error>> + 'a>;

/// Something whose tables can be read. Keys are any bytes up to 65,000, empty included.
pub trait Source {
    /// The value under a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// The pairs from `from` (included) to `to` (excluded; none means the end), ascending.
    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_>;

    /// The same pairs, descending.
    fn scan_back(&self, table: Table, from: &[u8], to: Option<&[u8]>) -> Scan<'_>;
}

/// A storage engine. A clone is another handle of the same engine.
///
/// Only one thread writes; any may read, view and persist.
pub trait Engine: Clone + Send + Sync + 'static {
    /// A state that later writes do not change. A clone is cheap.
    type View: Source + Clone + Send + Sync + 'static;
    /// A whole state being received, beside the present one.
    type Staging: Staging;

    /// Writes a batch, atomically, without making it durable. Of several changes of a key the
    /// last counts.
    fn write(&self, batch: Vec<Change>) -> Result<(), Error>;

    /// Makes all that was written before this call durable. Once it has failed it always fails,
    /// and so does every write.
    fn persist(&self) -> Result<(), Error>;

    /// The state right now.
    fn view(&self) -> Self::View;

    /// About how many bytes the engine occupies on disk.
    fn disk_bytes(&self) -> u64;

    /// Starts to receive a whole state. Dropped before it is installed, it leaves nothing behind.
    fn stage(&self) -> Result<Self::Staging, Error>;

    /// Replaces the whole state, atomically and durably. Views of the old state stay readable.
    fn install(&self, staging: Self::Staging) -> Result<(), Error>;
}

/// See [`Engine::stage`].
pub trait Staging: Send + 'static {
    /// Adds pairs, which come in ascending order of table and key.
    fn write(&mut self, pairs: Vec<(Table, Bytes, Bytes)>) -> Result<(), Error>;

    /// Reads one back: to check what was received before it replaces anything.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error>;
}
