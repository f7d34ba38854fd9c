//! Running seeds: one, or many on several threads.

use crate::canary::Canary;
use crate::counters::Counters;
use crate::plan::Plan;
use crate::switches::Switch;
use crate::trace::{Sink, Trace};
use crate::world::World;
use quorate_base::{Instant, Rng};
use quorate_checkers::Violation;
use quorate_checkers::appends::Transaction;
use quorate_replicated_log::Protocol;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voters at the start, 1 to 9; drawn from the seed if not given.
    pub nodes: Option<u64>,
    /// Virtual time under faults; healing and the final check come on top.
    pub duration: Duration,
    /// A deliberate bug.
    pub canary: Canary,
    /// How the log is replicated.
    pub protocol: Protocol,
    /// Nothing fails; clients write all the time, and the protocol is changed over and over.
    pub calm: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            nodes: None,
            duration: Duration::from_secs(20),
            canary: Canary::None,
            protocol: Protocol::Raft,
            calm: false,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was violated, if anything.
    pub violation: Option<Violation>,
    /// The same for the same seed and options, and for hardly any other.
    pub trace_hash: u64,
    /// How long the world lived, in its own time.
    pub virtual_time: Duration,
    /// What happened, how often.
    pub counters: Counters,
    /// The changes of protocols, if the run was calm.
    pub switches: Vec<Switch>,
    /// What clients of transactions did to lists and were told of it, if there were any.
    pub appends: Vec<Transaction>,
}

/// Whether a seed has clients of transactions.
pub fn has_transactions(seed: u64, options: &Options) -> bool {
    Plan::draw(&mut Rng::new(seed), options).scribes > 0
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Report {
    run_with(seed, options, None)
}

/// Runs one seed and tells its readable trace, line by line.
pub fn run_traced(seed: u64, options: &Options, sink: Sink<'_>) -> Report {
    run_with(seed, options, Some(sink))
}

fn run_with(seed: u64, options: &Options, sink: Option<Sink<'_>>) -> Report {
    let mut rng = Rng::new(seed);
    let plan = Plan::draw(&mut rng, options);
    let mut world = World::new(seed, rng, plan, options.canary, Trace::new(sink));
    world.begin();
    let caught = panics::quietly(|| {
        catch_unwind(AssertUnwindSafe(|| {
            world.run_until(Instant::ZERO + options.duration);
            if world.violation.is_none() {
                world.finish();
            }
        }))
    });
    if let Err(panic) = caught {
        let evidence = format!("at {:?}: {}", world.now, panics::text(&*panic));
        world.check(Err(Violation::new("assertion", evidence)));
    }
    for node in &world.nodes {
        world.counters.merge(&node.disk.take_counters());
    }
    Report {
        seed,
        violation: world.violation.take(),
        trace_hash: world.trace.hash(),
        virtual_time: world.now.since(Instant::ZERO),
        counters: world.counters.clone(),
        switches: world.switches(),
        appends: world.transactions.take_history(),
    }
}

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many ran.
    pub runs: u64,
    /// Those with a violation, in order of seed.
    pub failures: Vec<Report>,
    /// Virtual time of all together.
    pub virtual_time: Duration,
    /// What happened in all together.
    pub counters: Counters,
}

/// Runs many seeds on `threads` threads; `progress` hears of each run as it ends and says whether
/// to go on.
pub fn run_many(
    seeds: Range<u64>,
    options: &Options,
    threads: usize,
    mut progress: impl FnMut(&Report) -> bool,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(64);
        for _ in 0..threads.max(1) {
            let sender = sender.clone();
            let (next, stop, end) = (&next, &stop, seeds.end);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send(run(seed, options)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for report in receiver {
            summary.runs += 1;
            summary.virtual_time += report.virtual_time;
            summary.counters.merge(&report.counters);
            if !progress(&report) {
                stop.store(true, Ordering::Relaxed);
            }
            if report.violation.is_some() {
                summary.failures.push(report);
            }
        }
    });
    summary.failures.sort_by_key(|report| report.seed);
    summary
}

/// Assertions of the code under test are violations of a run, not the end of the process.
mod panics {
    use std::any::Any;
    use std::cell::{Cell, RefCell};
    use std::sync::Once;

    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
        static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
    }

    /// Runs `act` without a panic's usual words on the standard error.
    pub fn quietly<T>(act: impl FnOnce() -> T) -> T {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if QUIET.get() {
                    let place = info.location().map(ToString::to_string).unwrap_or_default();
                    PLACE.with_borrow_mut(|known| *known = place);
                } else {
                    usual(info);
                }
            }));
        });
        QUIET.set(true);
        let result = act();
        QUIET.set(false);
        result
    }

    /// What a panic said, and where.
    pub fn text(panic: &(dyn Any + Send)) -> String {
        let said = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (_, Some(text)) => text.clone(),
            _ => "a panic without words".to_owned(),
        };
        format!("{said} ({})", PLACE.with_borrow(String::clone))
    }
}
