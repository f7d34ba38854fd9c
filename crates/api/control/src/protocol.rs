//! The names of the protocols.

use quorate_replicated_log::Protocol;
use tonic::Status;

/// The protocol of this name.
pub(crate) fn named(name: &str) -> Result<Protocol, Status> {
    let known = Protocol::ALL.into_iter().find(|protocol| protocol.to_string() == name);
    known.ok_or_else(|| {
        Status::invalid_argument(format!(
            "quorate: there is no protocol {name:?}: it is \"raft\" or \"paxos\""
        ))
    })
}
