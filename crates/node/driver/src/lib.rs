//! The synchronous heart of a node: many groups, one inbox, one batch for the log at a time.
//!
//! The driver is a pure state machine between three asynchronous neighbours: the network, the log
//! and the services. Real threads drive it in `quorate-host`, the simulator drives it in tests.

mod event;
mod peer;

pub use event::{
    Answer, Done, Event, Notice, Outputs, ReceiveState, Request, RequestError, Token, Work,
};
pub use peer::{ForwardRefusal, PeerMessage, SnapshotOutcome};
