//! `quorate up`, as a person uses it.

use crate::begin;
use quorate_end_to_end::{Ran, binary, eventually, ports, run};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Up(Child);

impl Up {
    fn start(data: &Path, arguments: &[&str]) -> Up {
        let out = std::fs::File::create(data.with_extension("out")).unwrap();
        let child = Command::new(binary())
            .arg("up")
            .arg("--data")
            .arg(data)
            .args(arguments)
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .stdin(Stdio::null())
            .spawn();
        Up(child.unwrap())
    }

    fn stop(mut self) -> Option<i32> {
        signal(self.0.id(), Signal::INT);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Its nodes end with it: they watch a pipe that only it holds.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

fn out(data: &Path) -> String {
    std::fs::read_to_string(data.with_extension("out")).unwrap()
}

fn quorate(arguments: &[&str]) -> Ran {
    run(Command::new(binary()).args(arguments), "")
}

/// The pids of the last table that was printed, and which of them leads.
fn table(out: &str) -> Vec<(u32, bool)> {
    let rows = out.lines().filter(|line| line.contains(" node"));
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().filter(|w| *w != "│").collect();
        Some((words.get(1)?.parse().ok()?, words.contains(&"leader")))
    };
    rows.filter_map(row).collect()
}

#[test]
fn a_cluster_comes_up_survives_its_leader_and_is_resumed() {
    let _turn = begin();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let port = ports(6);
    let endpoints = format!("127.0.0.1:{port},127.0.0.1:{},127.0.0.1:{}", port + 2, port + 4);
    let up = Up::start(&data, &["--port", &port.to_string()]);
    eventually("the endpoints are printed", Duration::from_secs(30), || {
        out(&data).contains(&format!("endpoints: {endpoints}"))
    });
    let nodes = table(&out(&data));
    assert_eq!(nodes.len(), 3, "{}", out(&data));
    quorate(&["put", "greeting", "hello", "--endpoints", &endpoints]).ok();

    let again = quorate(&["up", "--data", data.to_str().unwrap()]);
    assert_eq!(again.code, Some(4), "{}", again.err);
    assert!(again.err.contains("in use by another"), "{}", again.err);
    let other = folder.path().join("other");
    let taken = quorate(&["up", "--data", other.to_str().unwrap(), "--port", &port.to_string()]);
    assert_eq!(taken.code, Some(4));
    assert!(taken.err.contains(&format!("port {port} is taken")), "{}", taken.err);

    let leader = nodes.iter().find(|(_, leads)| *leads).unwrap().0;
    signal(leader, Signal::KILL);
    eventually("the death is told", Duration::from_secs(10), || out(&data).contains("died"));
    eventually("writes go on", Duration::from_secs(10), || {
        quorate(&["put", "after", "death", "--endpoints", &endpoints]).code == Some(0)
    });
    eventually("the dead stay dead", Duration::from_secs(10), || out(&data).contains(" dead"));
    assert_eq!(up.stop(), Some(0));

    let wrong = quorate(&["up", "--data", data.to_str().unwrap(), "--nodes", "5"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    let up = Up::start(&data, &[]);
    eventually("it is resumed", Duration::from_secs(30), || out(&data).contains("endpoints:"));
    let got = quorate(&["get", "after", "--value-only", "--endpoints", &endpoints]).ok();
    assert_eq!(got, "death\n");
    assert_eq!(up.stop(), Some(0));
}

#[test]
fn restart_brings_the_dead_back_and_nobody_outlives_the_supervisor() {
    let _turn = begin();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--port", &ports(6).to_string(), "--restart"]);
    eventually("it is up", Duration::from_secs(30), || out(&data).contains("endpoints:"));
    let nodes = table(&out(&data));
    signal(nodes[0].0, Signal::KILL);
    eventually("the dead is back", Duration::from_secs(10), || {
        out(&data).contains("is started again")
    });
    drop(up);
    eventually("the nodes end with their supervisor", Duration::from_secs(15), || {
        nodes.iter().all(|(pid, _)| !Path::new(&format!("/proc/{pid}")).exists())
    });
}
