//! Many power failures of a cluster under load.
//!
//! After each the cluster must elect a leader, no acknowledged write may be gone, and all nodes
//! must say the same. Whatever is random here comes from one seed; the processes' own timing does
//! not, so that a seed names a kind of run rather than a run.

use crate::disk::{Loss, Settings};
use crate::ledger::{Ledger, PREFIX, PREFIX_END};
use crate::machines::{Machines, Server};
use quorate_base::Rng;
use quorate_end_to_end::{Cluster, Recorder};
use quorate_wire::etcdserverpb::{CompactionRequest, RangeResponse};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const NODES: u16 = 3;
const WRITERS: u64 = 8;
/// Clients whose history is checked for linearizability.
const RECORDED: u64 = 2;
/// A history is judged after so many power failures, and a new one begun.
const FAILURES_PER_HISTORY: u64 = 10;
/// Revisions that are kept when history is compacted, at least.
const KEPT: i64 = 200;
/// The cluster works for up to this long between two power failures.
const WORK: Duration = Duration::from_millis(500);
/// A machine stays without power for up to this long, while others have it.
const DARK: Duration = Duration::from_millis(400);
/// How long a node may take to notice a failed sync, and to end.
const NOTICE: Duration = Duration::from_secs(15);
/// How long a node may take until it answers a read.
const READABLE: Duration = Duration::from_secs(30);

/// Whose power fails.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Victims {
    /// One machine's, any.
    One,
    /// The leader's.
    Leader,
    /// That of all at the same moment.
    All,
    /// One machine's, after a sync of it failed and its node stopped by itself.
    FailedSync,
}

impl Victims {
    /// All there are.
    pub const ALL: [Victims; 4] =
        [Victims::One, Victims::Leader, Victims::All, Victims::FailedSync];
}

/// What is to be tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What runs.
    pub server: Server,
    /// What its disks are like, and the seed of everything.
    pub settings: Settings,
    /// How many power failures.
    pub failures: u64,
    /// Of whom: of each once, then at random.
    pub victims: Vec<Victims>,
    /// Whether the disks lie about their syncs, which must not go unnoticed.
    pub lying: bool,
    /// Where the disks are kept if something is wrong.
    pub keep: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Power failures by victims, in the order of [`Victims::ALL`].
    pub failures: [u64; 4],
    /// Of these, such as came while the last one was being recovered from.
    pub in_recovery: u64,
    /// Writes that were acknowledged.
    pub acknowledged: i64,
    /// Writes that were not answered.
    pub unanswered: i64,
    /// Requests in the histories that were found linearizable.
    pub linearizable: usize,
    /// How often history was compacted.
    pub compactions: u64,
    /// What the disks lost.
    pub loss: Loss,
    /// From the power's return until all nodes follow one leader.
    pub recoveries: Vec<Duration>,
    /// What should not have happened.
    pub wrong: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, leader, all, sync] = self.failures;
        let total: u64 = self.failures.iter().sum();
        let mut recoveries = self.recoveries.clone();
        recoveries.sort();
        let at = |part: usize| recoveries.get((recoveries.len() * part / 100).saturating_sub(1));
        let (median, longest) = (at(50).copied().unwrap_or_default(), at(100).copied());
        let loss = &self.loss;
        writeln!(
            f,
            "{total} power failures ({one} of one machine, {leader} of the leader, {all} of all, \
             {sync} after a failed sync; {} during recovery)",
            self.in_recovery
        )?;
        writeln!(
            f,
            "unsynced: {} sectors lost, {} kept, {} files torn, {} truncations undone, \
             {} names lost, {} kept; history compacted {} times",
            loss.sectors_lost,
            loss.sectors_kept,
            loss.files_torn,
            loss.truncations_lost,
            loss.names_lost,
            loss.names_kept,
            self.compactions
        )?;
        writeln!(
            f,
            "recovered in {median:.2?} (median), {:.2?} (longest); {} requests linearizable",
            longest.unwrap_or_default(),
            self.linearizable
        )?;
        write!(
            f,
            "{} writes acknowledged, {} not answered; {} wrong",
            self.acknowledged,
            self.unanswered,
            self.wrong.len()
        )?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n  {wrong}"))
    }
}

/// A trial under way.
struct Run<'a> {
    trial: &'a Trial,
    machines: Machines,
    ledger: Ledger,
    recorder: Option<Recorder>,
    rng: Rng,
    report: Report,
}

impl Trial {
    /// Runs it, and tells `progress` after each power failure how many there were. Ends at the
    /// first thing that is wrong.
    ///
    /// # Errors
    /// If the disks cannot be mounted.
    pub fn run(&self, mut progress: impl FnMut(u64, &Report)) -> io::Result<Report> {
        let machines = Machines::start(NODES, &self.server, &self.settings)?;
        let endpoints = machines.cluster.endpoints();
        let (seed, runtime) = (self.settings.seed, &machines.cluster.runtime);
        let ledger = Ledger::start(runtime, &endpoints, WRITERS, seed);
        let mut run = Run {
            trial: self,
            recorder: None,
            machines,
            ledger,
            rng: Rng::new(seed),
            report: Report::default(),
        };
        for disk in &run.machines.disks {
            disk.set_faults(|faults| faults.lying_syncs = self.lying);
        }
        let mut done = 0;
        while done < self.failures && run.report.wrong.is_empty() {
            if done.is_multiple_of(FAILURES_PER_HISTORY) {
                run.next_history(done);
            }
            run.fail_once(done);
            done += 1;
            progress(done, &run.report);
        }
        run.judge_history();
        let Run { machines, ledger, mut report, .. } = run;
        if let Some(keep) = self.keep.as_ref().filter(|_| !report.wrong.is_empty())
            && let Err(error) = machines.keep(keep)
        {
            report.wrong.push(format!("the disks were not kept: {error}"));
        }
        ledger.finish(&machines.cluster.runtime);
        report.loss = machines.loss();
        Ok(report)
    }
}

impl Run<'_> {
    fn next_history(&mut self, failures: u64) {
        self.judge_history();
        let cluster = &self.machines.cluster;
        let prefix = format!("register/{failures}/");
        let (runtime, endpoints) = (&cluster.runtime, cluster.endpoints());
        self.recorder = Some(Recorder::start_at(&prefix, runtime, &endpoints, RECORDED));
    }

    fn judge_history(&mut self) {
        let Some(recorder) = self.recorder.take() else { return };
        match recorder.judge(&self.machines.cluster.runtime) {
            Ok(answered) => self.report.linearizable += answered,
            Err(wrong) => self.report.wrong.push(wrong),
        }
    }

    fn pause(&mut self, longest: Duration) {
        std::thread::sleep(self.rng.duration(Duration::ZERO, longest));
    }

    /// One power failure, and what comes after. The first few are one of each kind.
    fn fail_once(&mut self, number: u64) {
        self.pause(WORK);
        let ended = self.machines.ended();
        self.report.wrong.extend(ended);
        let victims = &self.trial.victims;
        let in_turn = usize::try_from(number).ok().and_then(|number| victims.get(number));
        let kind = *in_turn.unwrap_or_else(|| self.rng.pick(victims).unwrap());
        let any = self.rng.below(u64::from(NODES)) as usize;
        let which: Vec<usize> = match kind {
            Victims::One | Victims::FailedSync => vec![any],
            Victims::Leader => vec![self.machines.cluster.leader().unwrap_or(any)],
            Victims::All => (0..usize::from(NODES)).collect(),
        };
        if kind == Victims::FailedSync {
            self.fail_a_sync(any);
        }
        self.machines.cut(&which);
        if which.len() < usize::from(NODES) {
            self.pause(DARK);
        }
        self.report.failures[kind as usize] += 1;
        self.machines.restore(&which);
        if self.rng.below(8) == 0 {
            self.pause(WORK);
            self.machines.cut(&which);
            self.machines.restore(&which);
            self.report.in_recovery += 1;
        }
        let restored = Instant::now();
        let mut agreed = self.machines.cluster.agreed();
        while agreed.is_none() && restored.elapsed() < READABLE {
            std::thread::sleep(Duration::from_millis(20));
            agreed = self.machines.cluster.agreed();
        }
        if agreed.is_none() {
            let cluster = &self.machines.cluster;
            let status: Vec<_> = (0..usize::from(NODES)).map(|n| cluster.status(n)).collect();
            let wrong = format!("not every node follows one leader after {READABLE:?}: {status:?}");
            return self.report.wrong.push(wrong);
        }
        self.report.recoveries.push(restored.elapsed());
        // Who ended is not waited for; that it should not have is said with the end of its log.
        let ended = self.machines.ended();
        if ended.is_empty() {
            self.verify();
        }
        self.report.wrong.extend(ended);
    }

    /// Lets one of a node's next syncs fail: it must stop, and say why. Every other time it is
    /// started once more while the power is still on, and finds what never reached the disk.
    fn fail_a_sync(&mut self, node: usize) {
        let nth = self.rng.between(1, 20);
        self.machines.disks[node].set_faults(|faults| faults.failing_sync = nth);
        let deadline = Instant::now() + NOTICE;
        while self.machines.cluster.nodes[node].runs() {
            if Instant::now() > deadline {
                self.report.wrong.push("a failed sync did not stop the node".to_owned());
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let node = &mut self.machines.cluster.nodes[node];
        node.kill();
        if !node.log().contains("Input/output error") {
            self.report.wrong.push(format!("{} does not say that a sync failed", node.name));
        }
        if self.rng.below(2) == 0 {
            node.start_again();
            self.pause(WORK);
        }
    }

    /// Nothing acknowledged is lost, and all nodes say the same of the revision that the first of
    /// them is at: a write that was not answered may be done while they are asked.
    fn verify(&mut self) {
        let cluster = &self.machines.cluster;
        let _quiet = self.ledger.quiet(&cluster.runtime);
        let mut first: Option<RangeResponse> = None;
        for node in 0..usize::from(NODES) {
            let revision = first.as_ref().and_then(|found| found.header).map_or(0, |h| h.revision);
            let found = match read_from(cluster, node, revision) {
                Ok(found) => found,
                Err(wrong) => {
                    self.report.wrong.push(wrong);
                    continue;
                }
            };
            self.ledger.check(&found);
            match &first {
                Some(first) if first.kvs != found.kvs => {
                    self.report.wrong.push(format!("node {node} says other things than node 0"));
                }
                Some(_) => {}
                None => first = Some(found),
            }
        }
        if let Some(header) = first.and_then(|found| found.header) {
            // As an operator does, so that a state is as large as what is in it. Where it fails,
            // the next time compacts more.
            let revision = header.revision - KEPT;
            let request = CompactionRequest { revision, ..Default::default() };
            let compacted =
                (revision > 0).then(|| cluster.runtime.block_on(cluster.client().compact(request)));
            self.report.compactions += u64::from(matches!(compacted, Some(Ok(_))));
        }
        (self.report.acknowledged, self.report.unanswered) = self.ledger.counts();
        self.report.wrong.extend(self.ledger.wrong());
        self.report.loss = self.machines.loss();
    }
}

/// All keys as a node has them, which may take as long as it takes to elect a leader.
fn read_from(cluster: &Cluster, node: usize, revision: i64) -> Result<RangeResponse, String> {
    let deadline = Instant::now() + READABLE;
    loop {
        match cluster.range_at(node, PREFIX, PREFIX_END, revision) {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                let status: Vec<_> = (0..usize::from(NODES)).map(|n| cluster.status(n)).collect();
                return Err(format!("node {node} cannot be read: {error}; {status:?}"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
