//! The synchronous heart of a node: many groups, one inbox, one batch for the log at a time.
//!
//! The [`Driver`] is a pure state machine between three asynchronous neighbours: the network, the
//! log and the services ([`ServiceHost`]). Real threads drive it in `quorate-host`, virtual time
//! drives it in the simulator; the code is the same.
//!
//! Invariants: no clock, thread, file or socket here; a message that follows from a write leaves
//! after the write; a request is answered exactly once; every queue has a limit.

mod canary;
mod config;
mod driver;
mod event;
mod group;
mod peer;
mod resume;
mod service_host;

pub use canary::Canary;
pub use config::{DriverConfig, DriverLimits};
pub use driver::Driver;
pub use event::{
    Answer, Done, Event, Notice, Outputs, ReceiveState, Request, RequestError, Token, Work,
};
pub use group::{CommandCheck, Engines};
pub use peer::{ForwardRefusal, PeerMessage, SnapshotOutcome};
pub use resume::{lost_state, resume};
pub use service_host::ServiceHost;
