//! etcd's v3 API over a node: wire formats in front, [`Backend`] behind, no state of its own.
//!
//! Invariant: codes, texts and the order of checks are etcd's 3.7 (see `docs/etcd-api.md` for the
//! differences); nothing a client sends makes this crate panic or keep memory without bound.
//!
//! ```text
//! sockets ─ serve ─┬─ unary ─┬─ kv, lease ──────────────┐
//!                  ├─ tonic ─┴─ watch, cluster, … ──────┼─ node ─ Backend
//!                  └─ http (version, health, metrics) ──┘
//! ```

mod auth;
pub mod backend;
pub mod branch;
mod call;
mod cluster;
mod convert;
mod election;
mod errors;
mod health;
mod http;
mod keyspaces;
mod kv;
mod leader;
mod lease;
mod lease_ids;
mod lock;
mod maintenance;
mod metrics;
mod node;
mod options;
mod queue;
mod serve;
mod sha256;
mod unary;
mod validate;
mod watch;

pub use backend::Backend;
pub use call::parse_timeout;
pub use errors::Refusal;
pub use metrics::{Measure, Measures};
pub use options::{Options, SERVER_VERSION};
pub use serve::{Door, serve, serve_doors};
