//! Versioned keys over an ordered storage engine.

mod key_value;

pub use key_value::{Event, KeyRange, KeyValue, LeaseId, Revision};
