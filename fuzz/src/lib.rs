//! The bodies of the fuzz targets: each takes any bytes and panics only over a bug of ours.

mod wal;

pub use wal::{wal_identity, wal_records, wal_recovery};
