//! Whether somebody leads, for streams that asked to be ended when nobody does.
//!
//! As in etcd, a new request is refused at once, but a stream is only ended after three election
//! timeouts without a leader: opening it anew would cost more than waiting.

use crate::backend::Backend;
use crate::errors::Refusal;
use crate::node::Node;
use quorate_base::NodeId;
use tokio::sync::watch;
use tonic::Status;

const PATIENCE_IN_ELECTIONS: u32 = 3;

/// The latest word on leadership.
pub(crate) struct Leadership {
    lost: watch::Sender<bool>,
    /// The keyspace is no longer on this node.
    closed: watch::Sender<bool>,
}

impl Leadership {
    pub fn new(leader: NodeId) -> Leadership {
        Leadership { lost: watch::Sender::new(leader.is_none()), closed: watch::Sender::new(false) }
    }

    /// Ends, with the reason, when the keyspace has gone, or when leadership is `required` and has
    /// been lost for long.
    pub async fn lost(&self, required: bool) -> Status {
        let (mut lost, mut closed) = (self.lost.subscribe(), self.closed.subscribe());
        // The senders live as long as this.
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => {
                Status::unavailable("the keyspace was dropped, or moved to other nodes")
            }
            _ = lost.wait_for(|lost| *lost), if required => Refusal::NoLeader.into(),
        }
    }
}

/// Watches the backend's leader for as long as the server runs.
pub(crate) async fn monitor<B: Backend>(node: Node<B>) {
    let mut ticks = tokio::time::interval(node.options.election_timeout);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut without, mut last) = (0u32, NodeId::NONE);
    loop {
        ticks.tick().await;
        let leader = node.backend.consensus().leader;
        without = if leader.is_none() { without.saturating_add(1) } else { 0 };
        if !leader.is_none() && leader != last {
            node.metrics.leader_changed();
            last = leader;
        }
        let lost = without >= PATIENCE_IN_ELECTIONS;
        node.leadership.lost.send_if_modified(|old| std::mem::replace(old, lost) != lost);
        if node.backend.is_closed() {
            node.leadership.closed.send_replace(true);
        }
    }
}
