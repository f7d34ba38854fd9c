//! A running node: the driver, the log, the service and the transport, with real threads.
//!
//! | thread | what it does |
//! | --- | --- |
//! | driver | takes what happened, steps the protocols, hands out what follows |
//! | log | makes batches of writes durable, all that wait with one sync |
//! | apply | runs the services: one for the default keyspace, a few for all others |
//! | persist | makes the services' states durable, beside the applies |
//! | keyspaces | opens and closes replicas as the directory of keyspaces says |
//! | tokio's | the transport's sockets, and whatever the caller runs there |
//!
//! Invariants: the threads share no state but mailboxes and what is published to be read; a
//! request is one item in the driver's inbox and one answer; each thread takes all that waits for
//! it at once, so that there are fewer wake-ups the busier it is.

mod apply_thread;
mod births;
mod board;
mod config;
mod directory;
mod driver_thread;
mod ending;
mod error;
mod groups;
mod handle;
mod hosted;
mod inbox;
mod keyspaces;
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
mod states;
mod subscribers;
mod upkeep;
mod waiting;

pub use board::Consensus;
pub use config::{NodeConfig, cluster_id, member_id};
pub use directory::Directory;
pub use error::{End, StartError};
pub use groups::{GroupDescription, SwitchError};
pub use handle::{DEFAULT, HostedKeyspace, KEYSPACE, KeyspaceHandle, NodeHandle};
pub use hosted::KeyspaceRefusal;
pub use keyspaces::{AdminError, Description, NewKeyspace, SYSTEM, TRANSACTIONS};
pub use node::Node;
pub use protocol::stored_protocol;
pub use start::LogEngine;
pub use subscribers::Subscriber;
