//! Our own commands: what they print, and what their exit codes mean.

use crate::begin;
use quorate_end_to_end::{Cluster, Ran, binary, ports, run};
use std::process::{Command, Stdio};

fn quorate(cluster: &Cluster, arguments: &[&str]) -> Ran {
    run(Command::new(binary()).env("QUORATE_ENDPOINTS", cluster.endpoints()).args(arguments), "")
}

#[test]
fn keys_members_and_status() {
    let _turn = begin();
    let cluster = Cluster::start(3);
    let q = |arguments: &[&str]| quorate(&cluster, arguments);
    assert_eq!(q(&["put", "a", "1"]).ok(), "OK, revision 2\n");
    let json = q(&["get", "a", "--output", "json"]).json();
    assert_eq!((&json["kvs"][0]["value"], &json["count"]), (&"MQ==".into(), &1.into()));
    assert!(q(&["get", "a"]).ok().contains("1 key at revision 2"));
    let watched = q(&["watch", "--prefix", "", "--rev", "2", "--events", "1"]).ok();
    assert_eq!(watched.trim(), "2  PUT     a = 1");
    assert!(q(&["del", "a"]).ok().starts_with("1 deleted"));
    assert!(q(&["get", "a", "--count-only"]).ok().starts_with('0'));
    assert_eq!(q(&["members", "-o", "json"]).json().as_array().unwrap().len(), 3);
    let status = q(&["status", "-o", "json"]).json();
    let leaders = status.as_array().unwrap().iter().filter(|row| row["role"] == "leader").count();
    assert_eq!((status.as_array().unwrap().len(), leaders), (3, 1));
}

/// Of commands of every kind, whose output nobody reads any more.
#[test]
fn a_reader_who_has_seen_enough_ends_a_command_quietly() {
    let _turn = begin();
    let cluster = Cluster::start(1);
    let unread = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(binary());
        command.env("QUORATE_ENDPOINTS", cluster.endpoints()).args(arguments);
        command.args(["--timeout", "30s"]).stdout(writer).stderr(Stdio::piped());
        let ended = command.spawn().unwrap().wait_with_output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    assert_eq!(quorate(&cluster, &["put", "a", "1"]).code, Some(0));
    for arguments in [
        &["put", "a", "1"][..],
        &["get", "a"],
        &["get", "a", "--value-only"],
        &["get", "a", "-o", "json"],
        &["watch", "a", "--rev", "2"],
        &["members"],
        &["status"],
        &["group", "list"],
        &["keyspace", "list"],
        &["txn", "list"],
        &["txn", "alarms"],
    ] {
        assert_eq!(unread(arguments), (Some(0), String::new()), "{arguments:?}");
    }
    // What the command has found out is told by its code all the same.
    let (code, why) = unread(&["get", "a", "--rev", "99"]);
    assert!(code == Some(1) && why.contains("revision"), "{why}");
}

#[test]
fn exit_codes_mean_something() {
    let _turn = begin();
    let cluster = Cluster::start(1);
    assert_eq!(quorate(&cluster, &["get", "a", "--rev", "99"]).code, Some(1));
    assert_eq!(quorate(&cluster, &["get"]).code, Some(2));
    assert_eq!(quorate(&cluster, &["get", "a", "--endpoints", "https://a:1"]).code, Some(2));
    let nobody = format!("127.0.0.1:{}", ports(1));
    let unavailable = ["get", "a", "--endpoints", &nobody, "--timeout", "300ms"];
    assert_eq!(quorate(&cluster, &unavailable).code, Some(3));
    for topic in [&["--help"][..], &["up", "--help"], &["completions", "bash"], &["man"]] {
        assert!(quorate(&cluster, topic).ok().contains("quorate"));
    }
}

#[test]
fn a_flag_outranks_a_variable_and_a_variable_the_file() {
    let _turn = begin();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "name = \"file\"\nmax-txn-ops = 7\nelection-timeout = 300\n").unwrap();
    let mut command = Command::new(binary());
    command.args(["start", "--print-config", "--name", "flag", "--config-file"]).arg(&file);
    command.env("QUORATE_NAME", "variable").env("QUORATE_MAX_TXN_OPS", "8");
    let printed = run(&mut command, "").ok();
    for line in ["name = \"flag\"", "max-txn-ops = 8", "election-timeout = 300"] {
        assert!(printed.contains(line), "{line} is not in {printed}");
    }
    assert!(printed.contains("heartbeat-interval = 40"), "the default: {printed}");
}

#[test]
fn every_workload_runs() {
    let _turn = begin();
    let cluster = Cluster::start(3);
    for workload in ["put", "range", "txn", "watch", "lease"] {
        let arguments = [
            "bench",
            workload,
            "--clients=4",
            "--connections=3",
            "--duration=500ms",
            "--warmup=100ms",
            "--keys=100",
            "--watchers=3",
            "--output=json",
        ];
        let figures = quorate(&cluster, &arguments).json();
        assert!(figures["operations"].as_u64().unwrap() > 0, "{figures}");
        assert_eq!(figures["errors"].as_object().unwrap().len(), 0, "{figures}");
    }
}

#[test]
fn seeds_are_simulated_and_replayed() {
    let _turn = begin();
    let sim = |arguments: &[&str]| run(Command::new(binary()).arg("sim").args(arguments), "").ok();
    for protocol in ["raft", "paxos"] {
        let ran = sim(&["--protocol", protocol, "--seeds", "1..4"]);
        assert!(ran.contains("3 seeds, 0 failed"), "{ran}");
    }
    let first = sim(&["--seed", "1", "--trace"]);
    assert!(first.lines().count() > 100, "{first}");
    assert_eq!(first, sim(&["--seed", "1", "--trace"]), "the same seed gives the same run");
}
