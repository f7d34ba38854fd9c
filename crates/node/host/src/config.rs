//! What a node is told when it starts.

use crate::error::StartError;
use quorate_base::{ClusterId, NodeId, Rng};
use quorate_driver::DriverLimits;
use quorate_keyspace::command::Member;
use quorate_replicated_log::Protocol;
use quorate_transport::peer_address;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where its data is: made if it is not there, locked while the node runs.
    pub data_dir: PathBuf,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The node itself. For a cluster that begins, its id must be among `members`.
    pub me: Member,
    /// Who founds the cluster, told identically to every founder; or, where the node joins a
    /// cluster that runs, whom it can reach there.
    pub members: Vec<Member>,
    /// Whether the cluster runs already: the node then waits to be sent its state.
    pub join: bool,
    /// Where peers are listened to.
    pub listen_peers: Vec<SocketAddr>,
    /// A leader is silent for at most one and a quarter times this; one of a keyspace made by
    /// request, for five times this.
    pub heartbeat: Duration,
    /// Base of the election timeout.
    pub election_timeout: Duration,
    /// How its log is replicated; nothing: as the data directory says, Raft for a new one.
    pub protocol: Option<Protocol>,
    /// Whether the records of transactions are decided on by one member alone, where this node is
    /// the one that makes their keyspace.
    pub one_vote_for_transactions: bool,
    /// A declared bound on clock drift between nodes, in parts per million: turns leader leases on.
    pub lease_clock_drift_ppm: Option<u32>,
    /// Limits of what the driver queues; among them how much log is kept for followers that lag.
    pub limits: DriverLimits,
    /// Bytes of keys and values that the keyspace may hold; zero means without limit.
    pub quota_bytes: u64,
    /// Length of a log segment in bytes.
    pub segment_bytes: u64,
    /// Memory for the state's block cache, in bytes.
    pub cache_bytes: u64,
    /// When the disk has fewer free bytes than this, writes are refused until there is room.
    pub free_bytes_min: u64,
    /// Whether the remaining time of leases is replicated now and then.
    pub lease_checkpoints: Option<Duration>,
}

impl NodeConfig {
    /// The defaults for a founder or a joiner.
    pub fn new(data_dir: PathBuf, cluster: ClusterId, me: Member) -> NodeConfig {
        NodeConfig {
            data_dir,
            cluster,
            members: vec![me.clone()],
            me,
            join: false,
            listen_peers: Vec::new(),
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1_000),
            protocol: None,
            one_vote_for_transactions: false,
            lease_clock_drift_ppm: None,
            limits: DriverLimits::default(),
            quota_bytes: 2 << 30,
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            free_bytes_min: 64 << 20,
            lease_checkpoints: None,
        }
    }

    /// Checks what can be checked before anything is touched.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let wrong = |why: String| Err(StartError::Config(why));
        if self.cluster.0 == 0 || self.me.id.is_none() {
            return wrong("the cluster id and the node id must not be zero".into());
        }
        let ids: BTreeSet<NodeId> = self.members.iter().map(|member| member.id).collect();
        if ids.len() != self.members.len() {
            return wrong("two members have the same id: their peer URLs must differ".into());
        }
        if !self.join && !ids.contains(&self.me.id) {
            return wrong(format!(
                "node {} ({}) is not among the initial members",
                self.me.id, self.me.name
            ));
        }
        if self.heartbeat.is_zero() || self.election_timeout < 5 * self.heartbeat {
            return wrong(format!(
                "the election timeout ({:?}) must be at least five times the heartbeat interval \
                 ({:?})",
                self.election_timeout, self.heartbeat
            ));
        }
        for member in self.members.iter().chain([&self.me]) {
            for url in &member.peer_urls {
                peer_address(url)?;
            }
        }
        Ok(())
    }
}

/// The id of a member, from its peer URLs and the cluster's token: the same on every node that is
/// told the same, never zero.
pub fn member_id(peer_urls: &[String], token: &str) -> NodeId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Hash::new(1);
    urls.iter().for_each(|url| hash.add(url.as_bytes()));
    hash.add(token.as_bytes());
    NodeId(hash.finish())
}

/// The id of a cluster, from its founders and its token: the same on every founder, never zero.
pub fn cluster_id(founders: &[NodeId], token: &str) -> ClusterId {
    let mut ids: Vec<NodeId> = founders.to_vec();
    ids.sort_unstable();
    let mut hash = Hash::new(2);
    ids.iter().for_each(|id| hash.add(&id.0.to_le_bytes()));
    hash.add(token.as_bytes());
    ClusterId(hash.finish())
}

/// FNV-1a over length-prefixed parts, mixed by the frozen generator. Identities are compared
/// within one cluster, not defended against forgers.
struct Hash(u64);

impl Hash {
    fn new(kind: u8) -> Self {
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        hash.add(&[kind]);
        hash
    }

    fn add(&mut self, part: &[u8]) {
        for byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(self) -> u64 {
        Rng::new(self.0).next_u64().max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_frozen_and_do_not_depend_on_order() {
        let urls = ["http://a:2380".to_owned(), "http://b:2380".to_owned()];
        let turned = [urls[1].clone(), urls[0].clone()];
        assert_eq!(member_id(&urls, "t"), member_id(&turned, "t"));
        assert_ne!(member_id(&urls, "t"), member_id(&urls, "u"));
        assert_ne!(member_id(&urls[..1], "t"), member_id(&urls[1..], "t"));
        let ids = [NodeId(1), NodeId(2)];
        assert_eq!(cluster_id(&ids, "t"), cluster_id(&[ids[1], ids[0]], "t"));
        assert_ne!(cluster_id(&ids, "t"), cluster_id(&ids[..1], "t"));
        assert_eq!(member_id(&urls, "quorate"), NodeId(GOLDEN_MEMBER));
        assert_eq!(cluster_id(&ids, "quorate"), ClusterId(GOLDEN_CLUSTER));
    }

    const GOLDEN_MEMBER: u64 = 0xd30e_85a5_6835_c36d;
    const GOLDEN_CLUSTER: u64 = 0x9452_9531_e8d8_4d6f;

    #[test]
    fn contradictions_are_refused() {
        let me = Member { id: NodeId(1), name: "a".into(), ..Member::default() };
        let good = NodeConfig::new("d".into(), ClusterId(1), me.clone());
        assert!(good.check().is_ok());
        let with = |change: &dyn Fn(&mut NodeConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check()
        };
        assert!(with(&|c| c.cluster = ClusterId(0)).is_err());
        assert!(with(&|c| c.members.clear()).is_err());
        assert!(with(&|c| c.members.push(me.clone())).is_err());
        assert!(with(&|c| c.election_timeout = c.heartbeat).is_err());
        assert!(with(&|c| c.me.peer_urls = vec!["https://a:1".into()]).is_err());
        assert!(
            with(&|c| {
                c.members.clear();
                c.join = true;
            })
            .is_ok()
        );
    }
}
