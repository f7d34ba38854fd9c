//! Connections, clients, and the window in which they are measured.

use super::pauses::{Pause, Pauses};
use super::transfers::Ways;
use super::workload::{Client, prepare};
use super::{Arguments, Workload, cpu, watching};
use crate::exit::Failure;
use hdrhistogram::Histogram;
use quorate_client::{Endpoint, connect};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// The longest latency that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// What came of a run.
#[derive(Debug)]
pub struct Figures {
    /// Of successful operations, or of events told to watchers; in microseconds.
    pub latency: Histogram<u64>,
    /// How long was measured.
    pub window: Duration,
    /// When it ended, in seconds since 1970.
    pub ended_unix: f64,
    /// When none of the clients succeeded for a while.
    pub pauses: Vec<Pause>,
    /// Failures by their text, the warm-up included.
    pub errors: BTreeMap<String, u64>,
    /// CPU seconds of the servers within the window, where known.
    pub server_cpu: Option<f64>,
    /// And of this process.
    pub own_cpu: Option<f64>,
    /// Which processes `server_cpu` is of.
    pub server_pids: Vec<u32>,
}

/// When what is measured begins and ends.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub begin: Instant,
    pub end: Instant,
}

/// One task's part of the figures.
#[derive(Debug)]
pub struct Part {
    pub latency: Histogram<u64>,
    pub errors: BTreeMap<String, u64>,
}

impl Part {
    pub fn new() -> Part {
        Part { latency: histogram(), errors: BTreeMap::new() }
    }

    /// Notes a success.
    pub fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
        self.latency.saturating_record(us.max(1));
    }

    /// Notes a failure.
    pub fn failed(&mut self, status: &tonic::Status) {
        *self.errors.entry(format!("{}: {}", status.code(), status.message())).or_default() += 1;
    }
}

/// Three digits are what a benchmark of this kind can tell apart.
fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LONGEST_US, 3) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("these bounds are allowed: {error}"),
    }
}

/// Runs the load.
pub async fn run(arguments: &Arguments) -> Result<Figures, Failure> {
    let endpoints: Vec<Endpoint> =
        arguments.endpoints.iter().map(|e| e.parse()).collect::<Result<_, _>>()?;
    let mut channels = Vec::new();
    for i in 0..arguments.connections as usize {
        let endpoint = &endpoints[i % endpoints.len()];
        channels.push((endpoint.clone(), connect(endpoint, CONNECT_WITHIN).await?));
    }
    let ways = Arc::new(Ways::new(channels));
    prepare(arguments, &ways.any(0)).await?;
    let shared = Arc::new(arguments.clone());
    let now = Instant::now();
    let begin = now + arguments.warmup;
    let window = Window { begin, end: begin + arguments.duration };
    let mut tasks: JoinSet<Part> = JoinSet::new();
    let epoch = Instant::now();
    let pauses = Arc::new(Pauses::new(window.begin));
    if arguments.workload == Workload::Watch {
        for i in 0..arguments.watchers as usize {
            let responses = watching::open(&ways.any(i)).await?;
            tasks.spawn(watching::count(responses, window, epoch));
        }
    }
    for i in 0..arguments.clients {
        let client = Client::new(i, ways.clone(), shared.clone(), epoch);
        tasks.spawn(drive(client, window, arguments.request_timeout, pauses.clone()));
    }
    let server_pids = cpu::servers(arguments, &endpoints);
    let own = [std::process::id()];
    tokio::time::sleep_until(window.begin).await;
    let before = (cpu::total(&server_pids), cpu::total(&own));
    tokio::time::sleep_until(window.end).await;
    let after = (cpu::total(&server_pids), cpu::total(&own));
    let used = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
    let mut figures = Figures {
        latency: histogram(),
        window: arguments.duration,
        ended_unix: pauses.unix(window.end),
        pauses: Vec::new(),
        errors: BTreeMap::new(),
        server_cpu: used(before.0, after.0),
        own_cpu: used(before.1, after.1),
        server_pids,
    };
    while let Some(part) = tasks.join_next().await {
        let part = part.map_err(|e| Failure::Failed(format!("a client failed: {e}")))?;
        figures.latency.add(&part.latency).map_err(|e| Failure::Failed(e.to_string()))?;
        for (text, n) in part.errors {
            *figures.errors.entry(text).or_default() += n;
        }
    }
    pauses.success(window.end);
    figures.pauses = pauses.all();
    Ok(figures)
}

/// One closed loop.
async fn drive(
    mut client: Client,
    window: Window,
    timeout: Option<Duration>,
    pauses: Arc<Pauses>,
) -> Part {
    let mut part = Part::new();
    // With watchers, theirs are the figures that count; writers only tell their failures.
    let measured = client.is_measured();
    loop {
        let started = Instant::now();
        if started >= window.end {
            return part;
        }
        let deadline = timeout.map_or(window.end, |timeout| window.end.min(started + timeout));
        let outcome = tokio::time::timeout_at(deadline, client.once()).await;
        let finished = Instant::now();
        if matches!(outcome, Ok(Ok(()))) {
            pauses.success(finished);
        }
        match outcome {
            // The end of the window cut it off: neither a success nor a failure.
            Err(_) if deadline == window.end => return part,
            Err(_) => part.failed(&tonic::Status::deadline_exceeded("no answer in time")),
            Ok(Err(status)) => {
                part.failed(&status);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(Ok(())) if measured && finished >= window.begin => part.record(finished - started),
            Ok(Ok(())) => {}
        }
    }
}
