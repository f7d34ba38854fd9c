//! Which requests were already applied: what makes a retried proposal apply once.

use quorate_base::{NodeId, RequestId};
use std::collections::{BTreeMap, BTreeSet};

/// The applied requests of every node's latest run. Part of the replicated state.
///
/// Bounded: a run's set holds only what it has not settled, and the driver bounds how many
/// requests it keeps unsettled.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sessions(BTreeMap<NodeId, Session>);

/// One node's latest run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Session {
    /// The run.
    pub run: u64,
    /// Every sequence below this is settled.
    pub settled: u64,
    /// The applied sequences from `settled` on.
    pub applied: BTreeSet<u64>,
}

impl Sessions {
    /// Whether `request` is to be applied now; remembers that it was. A request of an earlier run,
    /// a settled one, or one applied before is not.
    pub fn admit(&mut self, request: RequestId) -> bool {
        let session = self.0.entry(request.node).or_default();
        if request.run < session.run {
            return false;
        }
        if request.run > session.run {
            *session = Session { run: request.run, ..Session::default() };
        }
        if request.settled > session.settled {
            session.settled = request.settled;
            session.applied = session.applied.split_off(&request.settled);
        }
        request.sequence >= session.settled && session.applied.insert(request.sequence)
    }

    /// Every node's latest run, in order of node.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Session)> {
        self.0.iter().map(|(node, session)| (*node, session))
    }

    /// One node's latest run.
    pub fn get(&self, node: NodeId) -> Option<&Session> {
        self.0.get(&node)
    }

    /// Puts back what [`Sessions::iter`] gave.
    pub fn restore(&mut self, node: NodeId, session: Session) {
        self.0.insert(node, session);
    }

    /// Forgets a node that has left the cluster for ever.
    pub fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(run: u64, sequence: u64, settled: u64) -> RequestId {
        RequestId { node: NodeId(1), run, sequence, settled }
    }

    #[test]
    fn a_request_is_admitted_once_in_any_order() {
        let mut s = Sessions::default();
        assert!(s.admit(request(1, 2, 1)));
        assert!(s.admit(request(1, 1, 1)));
        assert!(!s.admit(request(1, 2, 1)));
        assert!(s.admit(request(1, 5, 3)));
        assert!(!s.admit(request(1, 2, 1)), "settled");
        assert_eq!(s.get(NodeId(1)).map(|s| s.applied.len()), Some(1));
    }

    #[test]
    fn a_later_run_ends_the_earlier_one() {
        let mut s = Sessions::default();
        assert!(s.admit(request(1, 1, 1)));
        assert!(s.admit(request(2, 1, 1)));
        assert!(!s.admit(request(1, 2, 1)));
    }
}
