//! How nodes talk: framed, versioned messages over long-lived TCP streams.
//!
//! Each node dials its peers for what it has to say: one stream for ordinary messages and, while
//! needed, one for bulk, so that a snapshot never delays a heartbeat. A frame carries a batch of
//! messages. `docs/peer-protocol.md` is the specification.
//!
//! Invariants: sending never blocks and nothing queues without a limit (a slow peer is shed, and
//! catches up by the protocols' own means); bytes off the wire never panic, and nothing is
//! allocated by a length that was not checked; who connects is asked for cluster, node and
//! version before anything it says is believed.

mod accept;
mod address;
pub mod codec;
mod config;
mod dial;
mod error;
mod frame;
mod handshake;
mod outbox;
mod receiver;
mod stats;
mod stream;
mod transport;

pub use address::peer_address;
pub use codec::EPOCHS_SINCE;
pub use config::{Config, Limits, Timing};
pub use error::{FrameError, Oversized, Refusal, TransportError};
pub use receiver::Receiver;
pub use stats::PeerStats;
pub use transport::{Transport, inquire};
