//! A member that leaves the cluster is let go from every keyspace first, and from the directory
//! last: afterwards it votes nowhere any more.
//!
//! Invariant: no group needs a vote of a member that has left. Otherwise what has its only replica
//! there would be gone, and so would be every group that has yet to follow an earlier change: of
//! three members two removed one right after the other leave one, and a directory of three.

use super::admin::{current, left};
use super::{AdminError, directory};
use crate::handle::NodeHandle;
use quorate_base::NodeId;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often whoever waits looks.
const LOOK: Duration = Duration::from_millis(50);
/// How many keyspaces are named that a member cannot go from.
const MOST_NAMED: usize = 5;

impl NodeHandle {
    /// Lets a voter go from all keyspaces and from the directory, so that it can leave the cluster.
    /// If it takes too long it goes on: whoever asks again waits for the rest.
    ///
    /// # Errors
    /// [`AdminError`]: `Impossible`, if it is still needed at the end of the time.
    pub async fn let_go(&self, node: NodeId, timeout: Duration) -> Result<(), AdminError> {
        let deadline = Instant::now() + timeout;
        let cluster = self.membership();
        if !cluster.is_voter(node) || cluster.voters.len() < 2 {
            return Ok(()); // It has no replicas, or is the last: the log refuses that.
        }
        let system = self.directory_by(deadline).await?;
        loop {
            let directory = current(&system, left(deadline)).await?;
            if directory.leaving.contains(&node) {
                break;
            }
            let leave = directory::leave(&directory, node);
            if directory::change(&system, leave, left(deadline)).await? {
                tracing::info!(%node, "a member is about to leave: its replicas go elsewhere");
                break;
            }
        }
        // The keyspaces that still have a replica there; nothing before the first look.
        let mut held = None::<Vec<String>>;
        let mut was_there = false;
        loop {
            let is_there = system.membership().contains(node);
            // The directory lets it go last of all.
            was_there |= is_there;
            if !is_there && (was_there || held.as_ref().is_some_and(Vec::is_empty)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(AdminError::Impossible(needed(node, &held.unwrap_or_default())));
            }
            sleep(LOOK).await;
            // The directory's leader may be changing.
            if let Ok(directory) = current(&system, left(deadline).min(LOOK * 20)).await {
                let records = directory.listed.into_values().map(|(record, _)| record);
                let here = records.filter(|record| record.replicas.contains(&node));
                held = Some(here.map(|record| record.name).collect());
            }
        }
    }
}

/// Why a member cannot go yet.
fn needed(node: NodeId, held: &[String]) -> String {
    let more = held.len().saturating_sub(MOST_NAMED);
    let mut which = held[..held.len() - more].join(", ");
    if more > 0 {
        which = format!("{which} and {more} more");
    }
    match which.as_str() {
        "" => format!(
            "the member {node} is still part of the directory of keyspaces, which it leaves first: \
             ask again, and another member"
        ),
        which => format!(
            "the member {node} has replicas of the keyspaces {which}, which are on their way to \
             others: ask again. If it is lost, and with it the only replica of one of them, drop \
             that keyspace first (`quorate keyspace drop`)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_member_is_named() {
        let names = |n: usize| (0..n).map(|i| format!("k{i}")).collect::<Vec<_>>();
        let told = |n| needed(NodeId(7), &names(n));
        assert!(told(0).contains("directory of keyspaces, which it leaves first"), "{}", told(0));
        assert!(told(2).contains("keyspaces k0, k1, which"), "{}", told(2));
        assert!(told(8).contains("k0, k1, k2, k3, k4 and 3 more, which"), "{}", told(8));
    }
}
