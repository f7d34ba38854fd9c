//! Starts the nodes, stays with them, and tells what happens to them.

use super::Arguments;
use super::child::{self, Running};
use super::plan::{Lock, Plan, Seat, lock};
use super::report;
use super::state::State;
use crate::exit::Failure;
use crate::output::say;
use std::future::{pending, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

/// How long the first election may take before the table is printed anyway.
const READY_WITHIN: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The pause before a dead node is started again, so that one that cannot start does not spin.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

struct Cluster {
    arguments: Arguments,
    members: String,
    nodes: Vec<(Seat, Option<Running>)>,
    _lock: Lock,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs the cluster until it is told to stop.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
    };
    let _lock = lock(&arguments.data)?;
    let plan = Plan::establish(&arguments)?;
    let seats = plan.seats(&arguments.data);
    let members: Vec<String> =
        seats.iter().map(|seat| format!("{}=http://{}", seat.name, seat.peer)).collect();
    let nodes = seats.into_iter().map(|seat| (seat, None)).collect();
    let mut cluster = Cluster { arguments, members: members.join(","), nodes, _lock };
    let outcome = cluster.live(&mut signals).await;
    cluster.stop().await;
    outcome
}

impl Cluster {
    async fn live(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        for (seat, running) in &mut self.nodes {
            *running = Some(child::start(seat, &self.members)?);
        }
        self.write_state()?;
        tokio::select! {
            ready = self.ready() => ready?,
            () = signals.any() => return Ok(()),
        }
        self.print().await;
        let endpoints: Vec<&str> = self.nodes.iter().map(|(s, _)| s.client.as_str()).collect();
        say!("endpoints: {}", endpoints.join(","));
        say!("logs: {}/<node>.log; Ctrl-C stops the cluster", self.data().display());
        loop {
            let (i, how) = tokio::select! {
                died = self.next_death() => died,
                () = signals.any() => return Ok(()),
            };
            tokio::select! {
                after = self.after_death(i, &how) => after?,
                () = signals.any() => return Ok(()),
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.arguments.data.clone()
    }

    fn write_state(&self) -> Result<(), Failure> {
        let nodes = self.nodes.iter().map(|(seat, r)| (seat, r.as_ref().map(|r| r.pid)));
        State::write(&self.arguments.data, nodes)
    }

    /// Waits until there is a leader that all nodes follow, or for as long as is reasonable. A
    /// node that dies meanwhile could not start.
    async fn ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let look = async {
                sleep(LOOK_INTERVAL).await;
                report::roles(self.nodes.iter().map(|(seat, r)| (seat, r.is_some()))).await
            };
            let roles = look.await;
            if let Ok((i, how)) = timeout(Duration::from_millis(1), self.next_death()).await {
                let seat = &self.nodes[i].0;
                let why = last_words(&seat.log_file);
                return Err(Failure::Machine(format!(
                    "{} did not start ({how}): {why}",
                    seat.name
                )));
            }
            let settled = |role: &Option<&str>| matches!(role, Some("leader" | "follower"));
            if roles.iter().all(settled) && roles.contains(&Some("leader")) {
                return Ok(());
            }
        }
        eprintln!("warning: the cluster has no leader yet");
        Ok(())
    }

    /// Waits for any node to end: which, and how. Never returns if none runs.
    async fn next_death(&mut self) -> (usize, String) {
        let mut waits: Vec<_> = Vec::new();
        for (i, (_, running)) in self.nodes.iter_mut().enumerate() {
            if let Some(running) = running {
                waits.push(Box::pin(async move { (i, running.ended().await) }));
            }
        }
        if waits.is_empty() {
            return pending().await;
        }
        let mut first = pin!(poll_fn(move |context| {
            let ready = waits.iter_mut().find_map(|wait| match wait.as_mut().poll(context) {
                Poll::Ready(died) => Some(died),
                Poll::Pending => None,
            });
            ready.map_or(Poll::Pending, Poll::Ready)
        }));
        first.as_mut().await
    }

    async fn after_death(&mut self, i: usize, how: &str) -> Result<(), Failure> {
        self.nodes[i].1 = None;
        let (name, log) = (self.nodes[i].0.name.clone(), self.nodes[i].0.log_file.clone());
        say!("{name} died ({how}); its log is {}", log.display());
        self.write_state()?;
        if self.arguments.restart {
            sleep(RESTART_PAUSE).await;
            let running = child::start(&self.nodes[i].0, &self.members)?;
            say!("{name} is started again, pid {}", running.pid);
            self.nodes[i].1 = Some(running);
            return self.write_state();
        }
        if self.nodes.iter().all(|(_, running)| running.is_none()) {
            return Err(Failure::Failed("every node is dead".to_owned()));
        }
        // Most deaths are somebody's experiment: show who leads now, once that is settled.
        for _ in 0..30 {
            sleep(LOOK_INTERVAL).await;
            let alive = self.nodes.iter().map(|(seat, r)| (seat, r.is_some()));
            if report::roles(alive).await.contains(&Some("leader")) {
                break;
            }
        }
        self.print().await;
        Ok(())
    }

    async fn print(&self) {
        let alive = self.nodes.iter().map(|(seat, running)| (seat, running.is_some()));
        let roles = report::roles(alive).await;
        let nodes = self.nodes.iter().zip(roles);
        report::print(nodes.map(|((seat, r), role)| (seat, r.as_ref().map(|r| r.pid), role)));
    }

    async fn stop(&mut self) {
        let running = || self.nodes.iter().filter(|(_, running)| running.is_some());
        if running().count() > 0 {
            say!("stopping");
        }
        for running in self.nodes.iter().filter_map(|(_, running)| running.as_ref()) {
            running.ask_to_stop();
        }
        for (seat, running) in &mut self.nodes {
            if let Some(mut running) = running.take()
                && !running.stopped().await
            {
                eprintln!("warning: {} did not stop in time and was killed", seat.name);
            }
        }
        State::remove(&self.arguments.data);
    }
}

/// The last line of a log: why a node that could not start could not.
fn last_words(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    format!("{} (log: {})", last.trim_start_matches("error: "), log.display())
}
