//! Versioned keys over an ordered storage engine.
//!
//! A [`Store`] is written by one thread, a batch of commands at a time ([`WriteTxn`]), and read
//! by any number of others ([`Reader`]). Below it is an [`Engine`].
//!
//! Invariant: a committed batch holds all that its commands did and the index of its last entry;
//! after a crash the store is as it was after some batch, at least the last one persisted.

mod canary;
mod engine;
mod error;
mod format;
mod hash;
mod key_value;
mod overlay;
mod reader;
mod recent;
mod scrub;
mod snapshot;
mod store;
mod txn;
mod versions;

pub use canary::{Bug, Canary};
pub use engine::{
    Change as EngineChange, Engine, FjallEngine, FjallSettings, FjallShelf, FjallStaging,
    FjallView, MemoryEngine, MemoryStaging, MemoryView, Pair, Scan, Source, Staging, Table,
};
pub use error::Error;
pub use format::{FORMAT_VERSION, MAX_KEY_BYTES, VERSION_OVERHEAD_BYTES};
pub use key_value::{Event, KeyMeta, KeyRange, KeyValue, LeaseId, Revision, RevisionSub};
pub use reader::{RangeRequest, RangeResult, ReadState, Reader};
pub use snapshot::{Chunk, SnapshotReader, SnapshotReceiver};
pub use store::Store;
pub use txn::{WriteTxn, Written};
pub use versions::{Change, Changes, ChangesRequest, Visit};
