//! Our own services: groups, keyspaces, transactions.
//!
//! The generated module is one level down because it refers to etcd's types by way of its package,
//! which has two parts.

/// Version 1 of them.
#[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/quorate.v1.rs"]
pub mod v1;

pub use v1::*;
