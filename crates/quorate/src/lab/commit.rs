//! `quorate lab commit`: which way of committing holds, which blocks, and which splits.

use crate::exit::Failure;
use crate::output::{Output, print_json, say, table};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_atomic_commit::Protocol;
use quorate_atomic_commit::conformance::scenarios::{SCENARIOS, Scenario, Told};
use quorate_atomic_commit::conformance::{Ended, Ending, random_schedule};
use serde_json::json;

/// The arguments of `quorate lab commit`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Which protocol, or all if not given
    #[arg(long)]
    protocol: Option<Protocol>,
    /// Random schedules of faults for each protocol
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(..1 << 20))]
    schedules: u64,
    /// The first schedule's seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What came of the random schedules of a protocol.
struct Row {
    protocol: Protocol,
    ending: Ending,
    /// By [`Ended`].
    counts: [u64; 4],
    /// Seeds that broke a promise of this protocol.
    broken: Vec<u64>,
    /// The first seed that split it.
    split: Option<u64>,
}

impl Row {
    fn run(
        protocol: Protocol,
        ending: Ending,
        seeds: std::ops::Range<u64>,
        bar: &ProgressBar,
    ) -> Self {
        let (counts, broken, split) = ([0; 4], Vec::new(), None);
        let mut row = Row { protocol, ending, counts, broken, split };
        for seed in seeds {
            let ended = random_schedule(protocol, seed, ending, None).ended;
            row.counts[ended as usize] += 1;
            if ended == Ended::Split {
                row.split.get_or_insert(seed);
            }
            if row.breaks(ended) {
                row.broken.push(seed);
            }
            bar.inc(1);
        }
        row
    }

    /// Two-phase commit waits for its coordinator, and the naive protocol promises nothing.
    fn breaks(&self, ended: Ended) -> bool {
        match (self.protocol, ended) {
            (Protocol::NaiveThreePhase, _) => false,
            (_, Ended::Split) => true,
            (Protocol::TwoPhase, Ended::Blocked) => self.ending == Ending::Healed,
            (_, Ended::Blocked) => true,
            (_, Ended::Committed | Ended::RolledBack) => false,
        }
    }

    fn ending(&self) -> &'static str {
        match self.ending {
            Ending::Healed => "everybody comes back",
            Ending::CoordinatorLost => "all but the coordinator come back",
        }
    }
}

fn word(ended: Ended) -> &'static str {
    match ended {
        Ended::Committed => "committed",
        Ended::RolledBack => "rolled back",
        Ended::Blocked => "BLOCKED",
        Ended::Split => "SPLIT",
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let wanted = |p: &Protocol| arguments.protocol.is_none_or(|wanted| wanted == *p);
    let protocols: Vec<Protocol> = Protocol::ALL.into_iter().filter(wanted).collect();
    let mut stories = Vec::new();
    for scenario in SCENARIOS {
        for &protocol in protocols.iter().filter(|p| scenario.is_about(**p)) {
            stories.push((scenario, protocol, scenario.run(protocol, arguments.seed)));
        }
    }
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.schedules);
    let endings = [Ending::Healed, Ending::CoordinatorLost];
    let total = arguments.schedules * (endings.len() * protocols.len()) as u64;
    let bar = ProgressBar::new(total);
    let style = "{bar:40} {pos}/{len} schedules, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).map_err(|e| Failure::Failed(e.to_string()))?);
    let mut rows = Vec::new();
    for &protocol in &protocols {
        for ending in endings {
            rows.push(Row::run(protocol, ending, seeds.clone(), &bar));
        }
    }
    bar.finish_and_clear();
    print(arguments.output, &stories, &rows)?;
    judge(arguments, &stories, &rows)
}

/// Whether everything came as it must.
fn judge(
    arguments: &Arguments,
    stories: &[(Scenario, Protocol, Told)],
    rows: &[Row],
) -> Result<(), Failure> {
    if let Some((scenario, protocol, _)) = stories.iter().find(|(_, _, told)| !told.expected) {
        let what = format!("{protocol}, \"{}\": not what must come of it", scenario.name);
        return Err(Failure::Failed(what));
    }
    if let Some(row) = rows.iter().find(|row| !row.broken.is_empty()) {
        let what = format!("{} broke its promise, first at seed {}", row.protocol, row.broken[0]);
        return Err(Failure::Failed(what));
    }
    // A laboratory in which the bad ones never fail shows nothing. A few schedules may miss it.
    let enough = arguments.schedules >= 1_000;
    let of = |protocol| rows.iter().filter(move |row: &&Row| row.protocol == protocol);
    let naive = of(Protocol::NaiveThreePhase);
    if enough && naive.clone().count() > 0 && naive.clone().all(|row| row.split.is_none()) {
        return Err(Failure::Failed("the naive three-phase commit never split".to_owned()));
    }
    let waits = of(Protocol::TwoPhase).find(|row| row.ending == Ending::CoordinatorLost);
    if enough && waits.is_some_and(|row| row.counts[Ended::Blocked as usize] == 0) {
        return Err(Failure::Failed("two-phase commit never blocked".to_owned()));
    }
    Ok(())
}

fn print(
    output: Output,
    stories: &[(Scenario, Protocol, Told)],
    rows: &[Row],
) -> Result<(), Failure> {
    if output == Output::Json {
        return print_json(&as_json(stories, rows));
    }
    let mut shown = table(&["scenario", "protocol", "while it lasts", "in doubt", "afterwards"]);
    let mut before = "";
    for (scenario, protocol, told) in stories {
        let name = if scenario.name == before { "" } else { scenario.name };
        before = scenario.name;
        let during = word(told.during);
        let in_doubt = told.in_doubt.replace("participant ", "");
        shown.add_row([name, protocol.name(), during, &in_doubt, word(told.after)]);
    }
    say!("{shown}");
    say!("Four participants; \"while it lasts\" is about those that can reach each other.");
    say!("");
    let header =
        ["random faults, then", "protocol", "committed", "rolled back", "blocked", "SPLIT"];
    let mut shown = table(&header);
    for row in rows {
        let [committed, rolled_back, blocked, split] = row.counts.map(|count| count.to_string());
        let protocol = row.protocol.name();
        shown.add_row([row.ending(), protocol, &committed, &rolled_back, &blocked, &split]);
    }
    say!("{shown}");
    for row in rows {
        if let Some(seed) = row.split {
            say!("{} splits first at seed {seed}", row.protocol);
        }
    }
    Ok(())
}

fn as_json(stories: &[(Scenario, Protocol, Told)], rows: &[Row]) -> serde_json::Value {
    let stories = stories.iter().map(|(scenario, protocol, told)| {
        json!({
            "scenario": scenario.name,
            "what": scenario.what,
            "protocol": protocol.name(),
            "during": word(told.during),
            "in_doubt": told.in_doubt,
            "after": word(told.after),
            "breach": told.breach,
            "expected": told.expected,
        })
    });
    let rows = rows.iter().map(|row| {
        let [committed, rolled_back, blocked, split] = row.counts;
        json!({
            "ending": row.ending(),
            "protocol": row.protocol.name(),
            "committed": committed,
            "rolled_back": rolled_back,
            "blocked": blocked,
            "split": split,
            "broken_promises": row.broken,
            "first_split": row.split,
        })
    });
    json!({ "scenarios": stories.collect::<Vec<_>>(), "schedules": rows.collect::<Vec<_>>() })
}
