//! The API, served in this process and called by real clients over loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;
mod http;
mod kv;
mod lease;
mod local;
mod operators;
mod queue;
mod watch;
