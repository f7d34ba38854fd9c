//! The Watch service: gRPC streams over the keyspace's [`quorate_keyspace::WatchHub`].
//!
//! The hub decides who is told what; here are its drivers ([`hub`]: one task feeds it what the
//! node applies, another what lagging watchers need of history) and the streams ([`stream`]).
//!
//! Invariant: the apply thread only appends to a bounded list. A stream that does not read has at
//! most its budget queued; its watchers fall behind and are served from history later, alone.

mod hub;
mod responses;
mod service;
mod stream;

pub(crate) use hub::{Hub, HubStream, dispatch, serve_history};
pub(crate) use service::WatchService;
