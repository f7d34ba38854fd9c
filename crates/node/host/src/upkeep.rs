//! What a node does by itself now and then: tells its name and addresses, minds its disk space.

use crate::handle::{KeyspaceHandle, NodeHandle};
use quorate_disk::{Disk, OsDisk};
use quorate_keyspace::command::{Member, MemberChange};
use quorate_keyspace::{Command, codec};
use std::time::Duration;
use tokio::time::sleep;

/// How often space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_millis(250);
/// At every so many looks at the default keyspace the others are looked at as well.
const OTHERS_EVERY: u64 = 8;
/// How long an attempt of upkeep may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The wait before the next.
const PAUSE: Duration = Duration::from_millis(200);

/// Tells the cluster this node's name and client URLs, until the member table has them.
pub(crate) async fn publish(handle: NodeHandle, me: Member) {
    loop {
        let members = handle.reader().members();
        let known = members.iter().find(|member| member.id == me.id);
        if known.is_some_and(|m| m.name == me.name && m.client_urls == me.client_urls) {
            return;
        }
        // A node that joins is in the table only once it was sent the state.
        if known.is_some() {
            let change = MemberChange::Publish {
                id: me.id,
                name: me.name.clone(),
                client_urls: me.client_urls.clone(),
            };
            propose(&handle, &Command::Member(change), "publish this member").await;
        }
        sleep(PAUSE).await;
    }
}

/// Raises and clears this node's NOSPACE alarm, in each keyspace, as its quota and its disk call
/// for.
pub(crate) async fn mind_space(handle: NodeHandle, disk: OsDisk) {
    let guard = *handle.space();
    for round in 0_u64.. {
        sleep(SPACE_INTERVAL).await;
        let free = disk.free_bytes().ok();
        // There may be hundreds: they are looked at less often.
        let all = round % OTHERS_EVERY == 0;
        for keyspace in if all { handle.hosted() } else { vec![(*handle).clone()] } {
            if let Some(command) = keyspace.reader().space_command(&guard, free) {
                if let Command::Alarm { raise, .. } = &command {
                    let name = keyspace.name();
                    tracing::warn!(name, raise, free_bytes = free, "space is short, or no longer");
                }
                propose(&keyspace, &command, "tell about this member's space").await;
            }
        }
    }
}

async fn propose(handle: &KeyspaceHandle, command: &Command, doing: &str) {
    let Ok(body) = codec::encode(command) else { return };
    if let Err(error) = handle.propose(body, TIMEOUT).await {
        tracing::debug!(?error, "could not {doing} yet");
    }
}

/// Bytes that `disk` has, about, for this node: what is free and what the node's files hold.
pub(crate) fn disk_bytes(disk: &OsDisk) -> Option<u64> {
    let files = disk.list().ok()?;
    let held: u64 = files.iter().filter_map(|file| disk.len(file).ok()).sum();
    disk.free_bytes().ok().map(|free| free.saturating_add(held))
}
