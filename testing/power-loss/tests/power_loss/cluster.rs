//! Clusters of real nodes whose machines lose power.

use crate::{begin, cannot_mount};
use quorate_power_loss::{Report, Server, Settings, Trial, Victims};

fn run(test: &str, trial: &Trial) -> Option<Report> {
    match trial.run(|_, _| {}) {
        Ok(report) => {
            println!("{test}: {report}");
            Some(report)
        }
        Err(error) => {
            cannot_mount(test, &error);
            None
        }
    }
}

fn trial(protocol: &str, failures: u64, victims: &[Victims]) -> Trial {
    let settings =
        Settings { capacity_bytes: 256 << 20, sync_delay_us: 2_000, ..Settings::default() };
    let (server, victims) = (Server::Quorate(protocol.to_owned()), victims.to_vec());
    Trial { server, settings, failures, victims, lying: false, keep: None }
}

fn nothing_is_lost(protocol: &str) {
    let _turn = begin();
    let trial = trial(protocol, 5, &[Victims::One, Victims::Leader, Victims::All]);
    let Some(report) = run("power failures", &trial) else { return };
    assert_eq!(report.wrong, Vec::<String>::new());
    assert!(report.failures.iter().take(3).all(|n| *n > 0), "{:?}", report.failures);
    assert!(report.acknowledged > 100, "only {} writes", report.acknowledged);
    // A slow machine may not have come to what is compacted.
    assert!(report.acknowledged < 1_000 || report.compactions > 0, "history was never compacted");
    assert!(report.linearizable > 20, "only {} requests", report.linearizable);
    let loss = report.loss;
    assert!(loss.sectors_lost + loss.names_lost > 0, "nothing was at stake: {loss:?}");
}

#[test]
fn no_acknowledged_write_is_lost_when_power_fails_on_raft() {
    nothing_is_lost("raft");
}

#[test]
fn no_acknowledged_write_is_lost_when_power_fails_on_paxos() {
    nothing_is_lost("paxos");
}

#[test]
fn a_node_whose_sync_fails_stops_says_so_and_recovers() {
    let _turn = begin();
    let trial = trial("raft", 2, &[Victims::FailedSync]);
    let Some(report) = run("failed syncs", &trial) else { return };
    assert_eq!(report.wrong, Vec::<String>::new());
    assert_eq!(report.failures[Victims::FailedSync as usize], 2);
}

/// The harness can fail: on disks that sync nothing, acknowledged writes are lost, and it says so.
#[test]
fn disks_that_lie_are_found_out() {
    let _turn = begin();
    let mut trial = trial("raft", 1, &[Victims::All]);
    trial.lying = true;
    trial.settings.keep_ppm = Some(0);
    let Some(report) = run("lying disks", &trial) else { return };
    assert!(report.wrong.iter().any(|wrong| wrong.starts_with("lost")), "{:?}", report.wrong);
}
