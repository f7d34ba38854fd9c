//! One log per disk, shared by every group.

mod batch;

pub use batch::{Batch, BatchId};
