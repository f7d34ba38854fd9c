//! The wire types of etcd's v3 API and of our own: what `proto/*.proto` says, as Rust. No logic, no
//! state.
//!
//! Invariant: everything under `generated/` is written by `cargo xtask proto` and by nobody else;
//! a test there compares. Features `client` and `server` add the stubs and the service traits.

/// Users, roles and permissions.
#[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/authpb.rs"]
pub mod authpb;

/// The services and their messages.
#[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/etcdserverpb.rs"]
pub mod etcdserverpb;

/// The gRPC health checking protocol.
#[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/grpc.health.v1.rs"]
pub mod health;

/// Keys and events.
#[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/mvccpb.rs"]
pub mod mvccpb;

pub mod quorate;

/// Elections.
#[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/v3electionpb.rs"]
pub mod v3electionpb;

/// Locks.
#[allow(missing_docs, clippy::all, clippy::expect_used, clippy::unwrap_used)]
#[rustfmt::skip]
#[path = "generated/v3lockpb.rs"]
pub mod v3lockpb;
