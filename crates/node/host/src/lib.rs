//! A running node: the driver, the log, the service and the transport, with real threads.
//!
//! | thread | what it does |
//! | --- | --- |
//! | driver | takes what happened, steps the protocols, hands out what follows |
//! | log | makes batches of writes durable, all that wait with one sync |
//! | apply | runs the service |
//! | persist | makes the service's state durable, beside the applies |
//! | tokio's | the transport's sockets, and whatever the caller runs there |
//!
//! Invariants: the threads share no state but mailboxes and what is published to be read; a
//! request is one item in the driver's inbox and one answer; each thread takes all that waits for
//! it at once, so that there are fewer wake-ups the busier it is.

mod apply_thread;
mod board;
mod config;
mod directory;
mod driver_thread;
mod error;
mod handle;
mod inbox;
mod lanes;
mod log_thread;
mod mailbox;
mod node;
mod number_file;
mod peers;
mod protocol;
mod recover;
mod run_number;
mod start;
mod subscribers;
mod upkeep;
mod waiting;

pub use board::Consensus;
pub use config::{NodeConfig, cluster_id, member_id};
pub use directory::Directory;
pub use error::{End, StartError};
pub use handle::{HostedKeyspace, KEYSPACE, NodeHandle};
pub use node::Node;
pub use protocol::stored_protocol;
pub use start::LogEngine;
pub use subscribers::Subscriber;
