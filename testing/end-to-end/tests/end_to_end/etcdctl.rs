//! etcd's own command-line client, unmodified: every command that the API covers.

use crate::begin;
use quorate_end_to_end::{Cluster, Tool, run, tool};
use std::process::Command;
use std::time::Duration;

fn cluster(test: &str) -> Option<Cluster> {
    match tool(test, "QUORATE_E2E_ETCDCTL", "etcdctl", &["version"]) {
        Tool::At(_) => Some(Cluster::start(3)),
        Tool::Missing => None,
    }
}

fn with_input(cluster: &Cluster, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", cluster.endpoints()));
    run(command.args(arguments), input).ok()
}

#[test]
fn keys() {
    let _turn = begin();
    let Some(cluster) = cluster("keys") else { return };
    let ctl = |arguments: &[&str]| cluster.etcdctl(arguments).ok();
    assert_eq!(ctl(&["put", "greeting", "hello"]), "OK\n");
    assert_eq!(ctl(&["get", "greeting"]), "greeting\nhello\n");
    assert_eq!(ctl(&["put", "--prev-kv", "greeting", "hi"]), "OK\ngreeting\nhello\n");
    assert_eq!(ctl(&["get", "greeting", "--rev=2", "--print-value-only"]), "hello\n");
    for (key, value) in [("k/a", "3"), ("k/b", "1"), ("k/c", "2")] {
        ctl(&["put", key, value]);
    }
    assert_eq!(ctl(&["get", "--prefix", "--keys-only", "k/"]), "k/a\n\nk/b\n\nk/c\n\n");
    let sorted = ["get", "--prefix", "k/", "--sort-by=VALUE", "--order=DESCEND"];
    assert_eq!(ctl(&sorted), "k/a\n3\nk/c\n2\nk/b\n1\n");
    assert_eq!(ctl(&["get", "--from-key", "k/b", "--limit=1"]), "k/b\n1\n");
    assert_eq!(ctl(&["get", "k/a", "k/c", "--consistency=s"]), "k/a\n3\nk/b\n1\n");
    assert_eq!(ctl(&["del", "--prev-kv", "k/a"]), "1\nk/a\n3\n");
    assert_eq!(ctl(&["del", "--prefix", "k/"]), "2\n");
    let error = cluster.etcdctl(&["get", "greeting", "--rev=1000"]).failed();
    assert!(error.contains("etcdserver: mvcc: required revision is a future revision"), "{error}");
    ctl(&["compaction", "5"]);
    let error = cluster.etcdctl(&["get", "greeting", "--rev=2"]).failed();
    assert!(error.contains("etcdserver: mvcc: required revision has been compacted"), "{error}");
}

#[test]
fn transactions() {
    let _turn = begin();
    let Some(cluster) = cluster("transactions") else { return };
    cluster.etcdctl(&["put", "user", "bad"]).ok();
    let script = "value(\"user\") = \"bad\"\n\ndel user\n\nput user good\n\n";
    assert_eq!(with_input(&cluster, &["txn"], script), "SUCCESS\n\n1\n");
    assert_eq!(with_input(&cluster, &["txn"], script), "FAILURE\n\nOK\n");
    assert_eq!(cluster.etcdctl(&["get", "user", "--print-value-only"]).ok(), "good\n");
}

#[test]
fn watches() {
    let _turn = begin();
    let Some(cluster) = cluster("watches") else { return };
    let revision = cluster.put("w/1", "one").unwrap();
    cluster.put("w/2", "two").unwrap();
    let mut watching = Command::new("timeout");
    watching
        .env("ETCDCTL_API", "3")
        .args(["2", "etcdctl", &format!("--endpoints={}", cluster.endpoints())])
        .args(["watch", "--prefix", "w/", "--rev", &revision.to_string()]);
    // It is stopped by the clock, for a watch never ends by itself.
    assert_eq!(run(&mut watching, "").out, "PUT\nw/1\none\nPUT\nw/2\ntwo\n");
}

#[test]
fn leases() {
    let _turn = begin();
    let Some(cluster) = cluster("leases") else { return };
    let granted = cluster.etcdctl(&["lease", "grant", "60"]).ok();
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    cluster.etcdctl(&["put", "--lease", &id, "leased", "yes"]).ok();
    let told = cluster.etcdctl(&["lease", "timetolive", "--keys", &id]).ok();
    assert!(told.contains("granted with TTL(60s)") && told.contains("[leased]"), "{told}");
    assert!(cluster.etcdctl(&["lease", "list"]).ok().contains(&id));
    let kept = cluster.etcdctl(&["lease", "keep-alive", "--once", &id]).ok();
    assert!(kept.contains("keepalived with TTL(60)"), "{kept}");
    cluster.etcdctl(&["lease", "revoke", &id]).ok();
    assert_eq!(cluster.etcdctl(&["get", "leased"]).ok(), "");
    let error = cluster.etcdctl(&["lease", "revoke", &id]).failed();
    assert!(error.contains("requested lease not found"), "{error}");
    let short = cluster.etcdctl(&["lease", "grant", "1"]).ok();
    let id = short.split_whitespace().nth(1).unwrap();
    cluster.etcdctl(&["put", "--lease", id, "short", "yes"]).ok();
    quorate_end_to_end::eventually("the lease expires", Duration::from_secs(10), || {
        cluster.etcdctl(&["get", "short"]).ok().is_empty()
    });
}

#[test]
fn endpoints_and_maintenance() {
    let _turn = begin();
    let Some(mut cluster) = cluster("endpoints_and_maintenance") else { return };
    cluster.put("a", "b").unwrap();
    let health = cluster.etcdctl(&["endpoint", "health"]);
    let health = health.out + &health.err;
    assert_eq!(health.matches("is healthy").count(), 3, "{health}");
    let status = cluster.etcdctl(&["endpoint", "status", "-w", "json"]).json();
    assert_eq!(status.as_array().unwrap().len(), 3);
    assert_eq!(status[0]["Status"]["version"], "3.7.0");
    // The replicas agree once all have applied the same.
    quorate_end_to_end::eventually("equal hashes", Duration::from_secs(10), || {
        let hashes = cluster.etcdctl(&["endpoint", "hashkv", "-w", "json"]).json();
        let hash = |i: usize| hashes[i]["HashKV"]["hash"].as_u64();
        hash(0).is_some() && hash(0) == hash(1) && hash(1) == hash(2)
    });
    assert_eq!(cluster.etcdctl(&["alarm", "list"]).ok(), "");
    assert_eq!(cluster.etcdctl(&["alarm", "disarm"]).ok(), "");
    let defragmented = cluster.etcdctl(&["defrag"]).ok();
    assert_eq!(defragmented.matches("Finished defragmenting").count(), 3, "{defragmented}");
    let file = cluster.folder.path().join("snapshot");
    let saved = quorate_end_to_end::etcdctl(
        &cluster.nodes[0].client,
        &["snapshot", "save", file.to_str().unwrap()],
    );
    saved.ok();
    assert!(std::fs::metadata(&file).unwrap().len() > 0);

    let leader = cluster.settled();
    let heir = (leader + 1) % 3;
    let heir_id = cluster.status(heir).unwrap().header.unwrap().member_id;
    cluster.etcdctl(&["move-leader", &format!("{heir_id:x}")]).ok();
    assert_eq!(cluster.settled(), heir);
}

#[test]
fn members() {
    let _turn = begin();
    let Some(cluster) = cluster("members") else { return };
    let listed = cluster.etcdctl(&["member", "list"]).ok();
    assert_eq!(listed.matches("started").count(), 3, "{listed}");
    let added =
        cluster.etcdctl(&["member", "add", "n4", "--learner", "--peer-urls=http://127.0.0.1:9"]);
    let added = added.ok();
    let id = added.split_whitespace().nth(1).unwrap().to_owned();
    assert!(added.contains("added to cluster"), "{added}");
    let again = cluster.etcdctl(&["member", "add", "n5", "--peer-urls=http://127.0.0.1:9"]);
    assert!(again.failed().contains("Peer URLs already exists"));
    let early = cluster.etcdctl(&["member", "promote", &id]).failed();
    assert!(early.contains("can only promote a learner member which is in sync"), "{early}");
    cluster.etcdctl(&["member", "update", &id, "--peer-urls=http://127.0.0.1:10"]).ok();
    assert!(cluster.etcdctl(&["member", "list"]).ok().contains("127.0.0.1:10"));
    cluster.etcdctl(&["member", "remove", &id]).ok();
    let gone = cluster.etcdctl(&["member", "remove", &id]).failed();
    assert!(gone.contains("member not found"), "{gone}");
}

#[test]
fn locks_and_elections() {
    let _turn = begin();
    let Some(cluster) = cluster("locks_and_elections") else { return };
    let locked = cluster.etcdctl(&["lock", "mutex", "echo", "inside"]).ok();
    assert!(locked.contains("inside"), "{locked}");
    let mut electing = Command::new("timeout");
    electing
        .env("ETCDCTL_API", "3")
        .args(["2", "etcdctl", &format!("--endpoints={}", cluster.endpoints())])
        .args(["elect", "office", "me"]);
    assert!(run(&mut electing, "").out.ends_with("me\n"));
}

#[test]
fn what_is_not_there_yet_says_so() {
    let _turn = begin();
    let Some(cluster) = cluster("what_is_not_there_yet_says_so") else { return };
    for arguments in [&["user", "add", "u:p"][..], &["role", "list"], &["auth", "enable"]] {
        let error = cluster.etcdctl(arguments).failed();
        assert!(error.contains("Unimplemented"), "{arguments:?}: {error}");
    }
}
