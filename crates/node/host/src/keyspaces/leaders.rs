//! Leaders spread over the nodes: whoever leads too many groups hands some over.

use crate::handle::{KEYSPACE, NodeHandle};
use quorate_base::NodeId;
use quorate_placement::{Led, surplus};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The pause between two looks: news of the last moves has come by then.
const PAUSE: Duration = Duration::from_secs(1);
/// Leaderships handed over at a time.
const MOVES: usize = 8;

/// Does so as long as the node lives. The default keyspace's leader stays where it was elected.
pub(crate) async fn spread_leaders(handle: NodeHandle, timeout: Duration) {
    let me = handle.node();
    loop {
        sleep(PAUSE).await;
        let peers = handle.peers().into_iter().filter(|(_, peer)| peer.connected);
        let mut alive: Vec<NodeId> = peers.map(|(node, _)| node).collect();
        alive.push(me);
        let mut groups = Vec::new();
        for keyspace in handle.hosted() {
            let mut heirs = keyspace.membership().voters;
            heirs.retain(|node| keyspace.id() != KEYSPACE && alive.contains(node));
            groups.push(Led { group: keyspace.id(), leader: keyspace.consensus().leader, heirs });
        }
        let mut moves = JoinSet::new();
        for (group, heir) in surplus(me, &groups, MOVES) {
            let Some(keyspace) = handle.group(group) else { continue };
            moves.spawn(async move {
                let moved = keyspace.transfer(heir, timeout).await;
                let name = keyspace.name();
                tracing::info!(name, to = %heir, ?moved, "leadership moves, to be spread");
            });
        }
        while moves.join_next().await.is_some() {}
    }
}
