//! Members that come, go, and come back with nothing.

use crate::begin;
use quorate_end_to_end::{Cluster, Node, eventually, ports};
use quorate_wire::etcdserverpb::{MemberAddRequest, MemberPromoteRequest, MemberRemoveRequest};
use std::time::Duration;

/// Adds a member and starts it; `learner` first, as is prudent.
fn join(cluster: &mut Cluster, mut node: Node) -> u64 {
    let request =
        MemberAddRequest { peer_ur_ls: vec![format!("http://{}", node.peer)], is_learner: true };
    let client = cluster.client();
    let added = cluster.runtime.block_on(client.member_add(request)).unwrap();
    let id = added.member.unwrap().id;
    let mut names: Vec<String> =
        cluster.nodes.iter().map(|n| format!("{}=http://{}", n.name, n.peer)).collect();
    names.push(format!("{}=http://{}", node.name, node.peer));
    let initial = names.join(",");
    node.start(&["--initial-cluster-state", "existing", "--initial-cluster", &initial]);
    eventually("the learner can be promoted", Duration::from_secs(30), || {
        let request = MemberPromoteRequest { id };
        cluster.runtime.block_on(client.member_promote(request)).is_ok()
    });
    cluster.nodes.push(node);
    id
}

#[test]
fn a_wiped_member_is_removed_and_added_again() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    for i in 0..50 {
        cluster.put(&format!("k/{i:02}"), "value").unwrap();
    }
    let leader = cluster.settled();
    let victim = (leader + 1) % 3;
    let id = cluster.status(victim).unwrap().header.unwrap().member_id;
    let mut lost = cluster.nodes.remove(victim);
    lost.kill();
    std::fs::remove_dir_all(&lost.data_dir).unwrap();
    let client = cluster.client();
    cluster.runtime.block_on(client.member_remove(MemberRemoveRequest { id })).unwrap();
    let port = lost.client.rsplit_once(':').unwrap().1.parse().unwrap();
    let anew = Node::new(cluster.folder.path(), &lost.name, port);
    drop(lost);
    let new_id = join(&mut cluster, anew);
    assert_ne!(new_id, id, "a member that forgot everything is another member");
    cluster.settled();
    let seen = cluster.range_from(2, "k/", "k0").unwrap();
    assert_eq!(seen.kvs.len(), 50);
    // It counts now: with one of the others gone there is still a quorum.
    cluster.nodes[0].kill();
    cluster.writable();
}

#[test]
fn a_single_node_grows_to_three() {
    let _turn = begin();
    let mut cluster = Cluster::start(1);
    cluster.put("seed", "1").unwrap();
    for name in ["n2", "n3"] {
        let node = Node::new(cluster.folder.path(), name, ports(2));
        join(&mut cluster, node);
        cluster.settled();
    }
    for i in 0..3 {
        assert_eq!(cluster.get_from(i, "seed").unwrap().as_deref(), Some("1"));
    }
    cluster.nodes[0].kill();
    cluster.writable();
}
