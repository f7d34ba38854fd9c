//! The only door to files and clocks: the [`Disk`] and [`Clock`] traits, and the operating
//! system behind them ([`OsDisk`], [`OsClock`]).
//!
//! Invariant: whatever changes a file is *submitted* and later *completes*; only a completed
//! [`Operation::Sync`] makes earlier completed writes of that file durable. Until then the
//! simulator may hold, reorder, tear, lose or misdirect them, as a real disk may.

mod clock;
mod disk;
mod filling;
mod lock;
mod memory;
mod os;

pub use clock::{Clock, OsClock};
pub use disk::{Completion, Disk, DiskError, Operation, OperationId};
pub use lock::{DirectoryLock, LOCK_FILE};
pub use memory::MemoryDisk;
pub use os::OsDisk;
