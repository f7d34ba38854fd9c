//! Leaders go where their groups are asked, and are spread over the nodes otherwise: whoever leads
//! one that another node asks nearly everything of, or too many, hands some over.

use super::TRANSACTIONS;
use crate::handle::{KEYSPACE, KeyspaceHandle, NodeHandle};
use quorate_base::GroupId;
use quorate_base::NodeId;
use quorate_keyspace::Asked;
use quorate_placement::{Asking, Asks, Led, moves};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The pause between two looks: news of the last moves has come by then.
const PAUSE: Duration = Duration::from_secs(1);
/// Leaderships handed over at a time.
const MOVES: usize = 8;

/// Does so as long as the node lives. The default keyspace's leader stays where it was elected.
pub(crate) async fn place_leaders(handle: NodeHandle, timeout: Duration) {
    let me = handle.node();
    let mut asking: BTreeMap<GroupId, Asking> = BTreeMap::new();
    loop {
        sleep(PAUSE).await;
        let peers = handle.peers().into_iter().filter(|(_, peer)| peer.connected);
        let mut alive: Vec<NodeId> = peers.map(|(node, _)| node).collect();
        alive.push(me);
        let (mut groups, mut looked) = (Vec::new(), BTreeMap::new());
        for keyspace in handle.hosted() {
            let mut known = asking.remove(&keyspace.id()).unwrap_or_default();
            let asked_by = known.look(asks(&keyspace).into_iter());
            looked.insert(keyspace.id(), known);
            let mut heirs = keyspace.membership().voters;
            heirs.retain(|node| keyspace.id() != KEYSPACE && alive.contains(node));
            let leader = keyspace.consensus().leader;
            groups.push(Led { group: keyspace.id(), leader, heirs, asked_by });
        }
        asking = looked;
        let mut under_way = JoinSet::new();
        for (group, heir) in moves(me, &groups, MOVES) {
            let Some(keyspace) = handle.group(group) else { continue };
            under_way.spawn(async move {
                let moved = keyspace.transfer(heir, timeout).await;
                let name = keyspace.name();
                tracing::info!(name, to = %heir, ?moved, "leadership moves: asked or spread");
            });
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// What every node has asked of a keyspace. All that the records are asked is for transactions.
fn asks(keyspace: &KeyspaceHandle) -> Vec<(NodeId, Asks)> {
    let records = keyspace.name() == TRANSACTIONS;
    let of = |(node, asked): (NodeId, Asked)| {
        let transactions = if records { asked.commands } else { asked.branches };
        (node, Asks { all: asked.commands, transactions })
    };
    keyspace.reader().asked().into_iter().map(of).collect()
}
