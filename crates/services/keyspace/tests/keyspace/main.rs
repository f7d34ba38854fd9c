//! The keyspace, driven as its host drives it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(feature = "canary")]
mod canaries;
mod clock;
mod codec;
mod equivalence;
mod generate;
mod harness;
mod model;
mod replicas;
mod script;
mod scripts;
mod streams;
mod watching;
