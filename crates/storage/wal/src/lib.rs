//! One log per disk, shared by every group.
//!
//! [`Wal`] takes [`Batch`]es of many groups' writes and makes each joined lot of them durable
//! with one contiguous write and one sync, in preallocated, recycled segments. [`Wal::open`]
//! finds again what was made durable, tells a torn tail from corruption, and reports what is
//! damaged by group and index instead of forgetting it. `docs/disk-format.md` has the format, bit
//! by bit, and the faults that it survives.

mod batch;
mod block;
mod canary;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod layout;
mod log;
mod open;
mod options;
mod pieces;
mod recap;
mod records;
mod replay;
mod row;
mod scan;
mod script;
mod segments;

pub use batch::{Batch, BatchId};
pub use canary::Canary;
pub use error::WalError;
pub use identity::{DIRECTORY_VERSION, IDENTITY_FILE, Identity};
pub use layout::FORMAT_VERSION;
pub use log::Wal;
pub use options::{Recovery, RecoveryReport, WalOptions, WalStats};
pub use replay::RecoveredGroup;
