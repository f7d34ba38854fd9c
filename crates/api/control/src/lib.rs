//! Our own gRPC services, for operators and applications: `quorate.v1`, served beside etcd's on the
//! client port.
//!
//! Invariant: nothing is decided here; requests are checked, handed to the node, and its answers
//! and refusals put into words.

mod deadline;
mod groups;
mod keyspaces;
mod many;
mod measures;
mod protocol;
mod relay;
mod transactions;
mod work;

pub use measures::measures;

use crate::relay::Relay;
use quorate_coordinator::Transactions;
use quorate_host::NodeHandle;
use tokio::sync::watch;
use tonic::service::Routes;

/// All of them, for this node. A keyspace branch has at most `max_txn_ops` operations. Streams end
/// when `stopping` says so.
pub fn routes(
    node: &NodeHandle,
    transactions: &Transactions,
    max_txn_ops: usize,
    stopping: watch::Receiver<bool>,
) -> Routes {
    let mut routes = Routes::builder();
    routes.add_service(groups::service(node.clone()));
    routes.add_service(keyspaces::service(node.clone(), transactions.clone()));
    routes.add_service(transactions::service(
        transactions.clone(),
        Relay::new(node.clone()),
        max_txn_ops,
        stopping,
    ));
    routes.routes().prepare()
}
