//! A client of any cluster that speaks etcd's v3 API: finds the members, spreads its calls over
//! them, and fails over when one is gone.
//!
//! Invariant: a call that changes something is sent again only when it certainly was not executed;
//! everything else that may have happened is the caller's to know ([`Error::Unknown`]).
//!
//! ```no_run
//! # async fn example() -> Result<(), quorate_client::Error> {
//! use quorate_client::{Client, Config};
//! use quorate_wire::etcdserverpb::PutRequest;
//!
//! let client = Client::new(Config::of(["127.0.0.1:2379", "127.0.0.1:2381"])?);
//! let put = PutRequest { key: "greeting".into(), value: "hello".into(), ..Default::default() };
//! client.put(put).await?;
//! # Ok(())
//! # }
//! ```

mod balancer;
mod calls;
mod client;
mod config;
mod endpoint;
mod error;
mod link;
mod retry;
mod routes;
mod runner;
mod watch;

pub use client::{Client, connect};
pub use config::Config;
pub use endpoint::Endpoint;
pub use error::Error;
pub use link::{Link, Named};
pub use quorate_wire as wire;
pub use retry::Safety;
pub use runner::Runner;
pub use watch::Watcher;
