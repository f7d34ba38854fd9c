//! What a service is: a deterministic state machine fed by a group's committed entries.
//!
//! Invariant: [`Service::apply`] is a function of the state and the entries alone, so that every
//! replica that applied the same entries has the same state. Time enters only through the leader,
//! which turns it into commands ([`Service::tick`]).
//!
//! A command is an [`Envelope`]: the request's identity, then the service's own bytes.

mod envelope;
mod service;
mod sessions;

pub use envelope::Envelope;
pub use service::{
    Applied, Persist, Service, ServiceError, SnapshotChunk, SnapshotSink, SnapshotSource,
};
pub use sessions::{Session, Sessions, Stretches};
