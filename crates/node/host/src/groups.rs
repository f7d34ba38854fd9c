//! What operators ask of groups: how they stand, and to go on under another protocol.
//!
//! Invariant: a switch is asked for in the epoch that is to end, and only ever ends that one:
//! asking again, here or at another node, does nothing twice.

use crate::handle::{KeyspaceHandle, NodeHandle};
use crate::hosted::KeyspaceRefusal;
use quorate_base::{GroupId, NodeId};
use quorate_driver::RequestError;
use quorate_replicated_log::{Epoch, Membership, Protocol, Status};
use quorate_transport::{EPOCHS_SINCE, PeerStats};
use std::fmt;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The pause before a group that was busy with something else is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// A group, as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDescription {
    /// Its number.
    pub group: GroupId,
    /// The name of its keyspace.
    pub keyspace: String,
    /// Who has a replica.
    pub members: Membership,
    /// How this node's replica stands, if it has one.
    pub status: Option<Status>,
}

/// Why a group does not go on under another protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SwitchError {
    /// The caller's: there is no such group.
    Unknown(String),
    /// The group cannot be asked on this node.
    NotHere(KeyspaceRefusal),
    /// It has the protocol already, in this epoch.
    Already(Protocol, Epoch),
    /// The epoch that was to end is not the present one: that is this, and this its protocol.
    Outdated(Epoch, Protocol),
    /// This member's version has no words for epochs.
    PeerTooOld(NodeId),
    /// Nobody leads these members; nothing was done.
    NoLeader(Membership),
    /// Its members were being changed all the time.
    ChangeInProgress,
    /// It has not happened in time, and may happen yet.
    Late(Epoch),
    /// The node refused.
    Failed(RequestError),
}

impl fmt::Display for SwitchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SwitchError::Unknown(which) => write!(f, "there is no group {which}"),
            SwitchError::NotHere(why) => why.fmt(f),
            SwitchError::Already(protocol, epoch) => {
                write!(f, "the group is under {protocol} already, in epoch {}", epoch.0)
            }
            SwitchError::Outdated(epoch, protocol) => {
                write!(f, "the group is in epoch {} now, under {protocol}: judge again", epoch.0)
            }
            SwitchError::PeerTooOld(node) => write!(
                f,
                "member {:x} runs a version that cannot change protocols: upgrade it first",
                node.0
            ),
            SwitchError::NoLeader(members) => {
                let (n, quorum) = (members.voters.len(), members.voters.len() / 2 + 1);
                write!(
                    f,
                    "the group has no leader that a quorum follows, and nothing was done: {quorum} \
                     of its {n} voting members must run and reach each other"
                )
            }
            SwitchError::ChangeInProgress => {
                f.write_str("the members of the group are being changed: ask again later")
            }
            SwitchError::Late(epoch) => write!(
                f,
                "the switch has not happened in time, and may happen yet: ask again for the end \
                 of epoch {}, which does nothing twice",
                epoch.0
            ),
            SwitchError::Failed(error) => write!(f, "the node refused: {error}"),
        }
    }
}

impl std::error::Error for SwitchError {}

impl NodeHandle {
    /// Every group that this node knows of, in order of number.
    pub async fn list_groups(&self) -> Vec<GroupDescription> {
        let mut all = Vec::new();
        for keyspace in self.hosted() {
            all.push(keyspace.describe_group().await);
        }
        let elsewhere = self.shared().table.listed_elsewhere().into_iter();
        all.extend(elsewhere.map(|(group, record)| GroupDescription {
            group,
            keyspace: record.name,
            members: Membership { voters: record.replicas, ..Membership::default() },
            status: None,
        }));
        all.sort_by_key(|known| known.group);
        all
    }

    /// The group of this number, of this name, or of both, if it has a replica here.
    ///
    /// # Errors
    /// [`SwitchError::Unknown`], [`SwitchError::NotHere`]
    pub fn find_group(
        &self,
        number: Option<GroupId>,
        name: Option<&str>,
    ) -> Result<KeyspaceHandle, SwitchError> {
        let table = &self.shared().table;
        let known = number.map(|group| {
            let name = table.name_of(group);
            name.ok_or_else(|| match table.is_read() {
                true => SwitchError::Unknown(group.0.to_string()),
                false => SwitchError::NotHere(KeyspaceRefusal::NotYet),
            })
        });
        let known = known.transpose()?;
        let name = match (&known, name) {
            (Some(known), Some(name)) if known != name => {
                let number = number.unwrap_or_default().0;
                let both = format!("{number} with the keyspace {name}: its keyspace is {known}");
                return Err(SwitchError::Unknown(both));
            }
            (Some(known), _) => known,
            (None, Some(name)) => name,
            (None, None) => return Err(SwitchError::Unknown("without number and name".into())),
        };
        self.keyspace(name).map_err(|why| match why {
            KeyspaceRefusal::Unknown => {
                SwitchError::Unknown(format!("of a keyspace named {name:?}"))
            }
            other => SwitchError::NotHere(other),
        })
    }
}

impl KeyspaceHandle {
    /// The keyspace's group.
    pub async fn describe_group(&self) -> GroupDescription {
        GroupDescription {
            group: self.id(),
            keyspace: self.name().to_owned(),
            members: self.membership(),
            status: self.status().await.ok(),
        }
    }

    /// Lets the group go on under another protocol, and answers once it does on this node. Without
    /// an epoch the present one is to end; with one, asking again has the same answer.
    ///
    /// # Errors
    /// [`SwitchError`]
    pub async fn switch_to(
        &self,
        to: Protocol,
        epoch: Option<Epoch>,
        timeout: Duration,
    ) -> Result<(), SwitchError> {
        let deadline = Instant::now() + timeout;
        // After it, the epoch that is known here is the present one.
        self.read(timeout).await.map_err(|error| match error {
            RequestError::Unavailable => SwitchError::NoLeader(self.membership()),
            other => SwitchError::Failed(other),
        })?;
        let mut judged = epoch;
        let mut last = None;
        loop {
            let status = self.status().await.map_err(SwitchError::Failed)?;
            let now = status.epoch;
            let judged = *judged.get_or_insert(now);
            if now == judged.next() && status.protocol == to {
                return Ok(());
            } else if now != judged {
                return Err(SwitchError::Outdated(now, status.protocol));
            } else if status.protocol == to {
                return Err(SwitchError::Already(to, now));
            }
            self.all_know_epochs()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(last.unwrap_or(SwitchError::Late(judged)));
            }
            match self.switch(to, judged, left).await {
                Ok(_) => return Ok(()),
                Err(RequestError::ChangeInProgress) => last = Some(SwitchError::ChangeInProgress),
                // This node has gone on meanwhile, or the leader's term has only begun.
                Err(RequestError::Outdated) => last = None,
                Err(RequestError::Unavailable | RequestError::DeadlineExceeded) => {
                    return Err(SwitchError::Late(judged));
                }
                Err(error) => return Err(SwitchError::Failed(error)),
            }
            sleep(PAUSE.min(left)).await;
        }
    }

    /// Whether every member of the group that is connected can be told of an epoch.
    fn all_know_epochs(&self) -> Result<(), SwitchError> {
        let found = too_old(&self.node.transport.stats(), &self.membership());
        found.map_or(Ok(()), |node| Err(SwitchError::PeerTooOld(node)))
    }
}

/// A member that is connected and whose version of the peer protocol has no words for epochs.
fn too_old(peers: &[(NodeId, PeerStats)], members: &Membership) -> Option<NodeId> {
    let members = members.all();
    let old = |peer: &PeerStats| peer.connected && peer.version < EPOCHS_SINCE;
    peers.iter().find(|(node, peer)| old(peer) && members.contains(node)).map(|(node, _)| *node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_an_old_version_is_found_and_nobody_else() {
        let peer = |node, connected, version| {
            (NodeId(node), PeerStats { connected, version, ..PeerStats::default() })
        };
        let members = Membership::of([NodeId(1), NodeId(2), NodeId(3)]);
        let new = [peer(2, true, EPOCHS_SINCE), peer(3, true, EPOCHS_SINCE + 1)];
        assert_eq!(too_old(&new, &members), None);
        let away = [peer(2, false, 0), peer(4, true, EPOCHS_SINCE - 1)];
        assert_eq!(too_old(&away, &members), None, "one is not there, one is no member");
        let old = [peer(2, true, EPOCHS_SINCE), peer(3, true, EPOCHS_SINCE - 1)];
        assert_eq!(too_old(&old, &members), Some(NodeId(3)));
    }
}
