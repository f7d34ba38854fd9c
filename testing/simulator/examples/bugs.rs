//! Looks for every deliberate bug from seed 0 on: `bugs [SEEDS] [NAME]`. Prints a table of what
//! each violated and how many seeds that took.
#![allow(clippy::unwrap_used)]

use quorate_replicated_log::Protocol;
use quorate_simulator::{Canary, Options, run_many};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let bound: u64 = args.first().and_then(|arg| arg.parse().ok()).unwrap_or(2_000);
    let name = args.get(1).map(String::as_str).unwrap_or_default();
    for canary in Canary::all() {
        let text = format!("{canary:?}");
        if !text.contains(name) {
            continue;
        }
        for protocol in Protocol::ALL.into_iter().filter(|p| canary.concerns(*p)) {
            let options = Options { canary, protocol, ..Options::default() };
            let summary = run_many(0..bound, &options, 1, |report| report.violation.is_none());
            let found = summary.failures.first().map(|report| {
                let violation = report.violation.as_ref().unwrap();
                (report.seed, format!("{:.150}", violation.to_string()))
            });
            match found {
                Some((seed, what)) => println!("{text:<44} {protocol:<6} {seed:>6}  {what}"),
                None => println!("{text:<44} {protocol:<6}      -  silent in {bound}"),
            }
        }
    }
}
