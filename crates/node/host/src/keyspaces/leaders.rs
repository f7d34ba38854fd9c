//! Leaders go where their groups are asked, and are spread over the nodes otherwise: whoever leads
//! one that another node asks nearly everything of, or too many, hands some over.

use super::TRANSACTIONS;
use crate::handle::{KEYSPACE, KeyspaceHandle, NodeHandle};
use quorate_base::{GroupId, NodeId};
use quorate_driver::RequestError;
use quorate_keyspace::Asked;
use quorate_placement::{Asking, Asks, Led, moves};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The pause between two looks: news of the last moves has come by then.
const PAUSE: Duration = Duration::from_secs(1);
/// Leaderships handed over at a time.
const MOVES: usize = 8;

/// Who has not taken a leadership over in time is not given it again for so long: it may be slow,
/// and nothing is proposed while a leadership is on its way.
const REST: Duration = Duration::from_secs(60);

/// Does so as long as the node lives. The default keyspace's leader stays where it was elected.
pub(crate) async fn place_leaders(handle: NodeHandle, timeout: Duration) {
    let (me, mut view) = (handle.node(), View::default());
    loop {
        sleep(PAUSE).await;
        let groups = view.look(&handle);
        let mut under_way = JoinSet::new();
        for (group, heir) in moves(me, &groups, MOVES) {
            let Some(keyspace) = handle.group(group) else { continue };
            under_way.spawn(async move {
                let moved = keyspace.transfer(heir, timeout).await;
                let name = keyspace.name();
                tracing::info!(name, to = %heir, ?moved, "leadership moves: asked or spread");
                // Of the other errors none says anything of who was to take it over.
                (moved == Err(RequestError::TransferFailed)).then_some((group, heir))
            });
        }
        while let Some(failed) = under_way.join_next().await {
            let until = Instant::now() + REST;
            view.rests.extend(failed.ok().flatten().map(|it| (it, until)));
        }
    }
}

/// What a node has seen of its groups.
#[derive(Default)]
struct View {
    asking: BTreeMap<GroupId, Asking>,
    /// Who has not taken which group over, and until when it is not to.
    rests: BTreeMap<(GroupId, NodeId), Instant>,
}

impl View {
    fn look(&mut self, handle: &NodeHandle) -> Vec<Led> {
        let now = Instant::now();
        self.rests.retain(|_, until| now < *until);
        let peers = handle.peers().into_iter().filter(|(_, peer)| peer.connected);
        let mut alive: Vec<NodeId> = peers.map(|(node, _)| node).collect();
        alive.push(handle.node());
        let leaving = handle.shared().table.leaving();
        alive.retain(|node| !leaving.contains(node));
        let mut before = std::mem::take(&mut self.asking);
        let mut one = |keyspace: KeyspaceHandle| {
            let group = keyspace.id();
            let mut asking = before.remove(&group).unwrap_or_default();
            let asked_by = asking.look(asks(&keyspace).into_iter());
            self.asking.insert(group, asking);
            let mut heirs = keyspace.membership().voters;
            let able =
                |node: &NodeId| alive.contains(node) && !self.rests.contains_key(&(group, *node));
            heirs.retain(|node| group != KEYSPACE && able(node));
            Led { group, leader: keyspace.consensus().leader, heirs, asked_by }
        };
        handle.hosted().into_iter().map(&mut one).collect()
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
