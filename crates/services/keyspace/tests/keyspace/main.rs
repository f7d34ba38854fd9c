//! The keyspace, driven as its host drives it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod codec;
mod harness;
mod script;
mod scripts;
