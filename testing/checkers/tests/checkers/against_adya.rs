//! Our search for anomalies and the `adya` crate's must agree on random histories.

use adya::{History, Opts, Valid, Workload};
use quorate_base::{Instant, Rng};
use quorate_checkers::appends::{Ending, Kind, Step, Transaction, anomalies, json};
use std::collections::BTreeMap;

/// How a history comes about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Store {
    /// Each transaction is done at one moment.
    Serial,
    /// Each step is done at a moment of its own.
    StepByStep,
    /// At one moment, but reads may be of an earlier one.
    StaleReads,
    /// At one moment, and what is rolled back stays.
    DirtyRollback,
}

const LISTS: u64 = 3;

/// A random history; everything is read at its end.
fn history(rng: &mut Rng, store: Store) -> Vec<Transaction> {
    let mut all: Vec<Transaction> = Vec::new();
    let mut events: Vec<(u64, usize, usize)> = Vec::new();
    // Times are unique: the place in the list makes the last digits.
    let mut clocks = [0u64; 4];
    for at in 0..rng.between(3, 16) as usize {
        let client = rng.below(4) as usize;
        let unique = at as u64 * 2;
        let called = clocks[client] + 100 * rng.between(1, 5) + unique;
        let ended = called / 100 * 100 + 100 * rng.between(1, 12) + unique + 1;
        clocks[client] = ended / 100 * 100;
        let step = |rng: &mut Rng, n: u64| match rng.below(2) {
            0 => Step::Append(rng.below(LISTS), at as u64 * 10 + n),
            _ => Step::Read(rng.below(LISTS), None),
        };
        let steps: Vec<Step> = (0..rng.between(1, 4)).map(|n| step(rng, n)).collect();
        let ending = match rng.below(8) {
            0 => Ending::RolledBack,
            _ => Ending::Committed(Instant(ended)),
        };
        let moment = rng.between(called, ended);
        let mut moments: Vec<u64> = match store {
            Store::StepByStep => steps.iter().map(|_| rng.between(called, ended)).collect(),
            _ => vec![moment; steps.len()],
        };
        moments.sort_unstable();
        events.extend(moments.into_iter().enumerate().map(|(step, time)| (time, at, step)));
        let called = Instant(called);
        all.push(Transaction { client: client as u64, called, steps, ending });
    }
    events.sort_unstable();
    let mut lists: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for (_, at, step) in events {
        let left = all[at].ending == Ending::RolledBack && store != Store::DirtyRollback;
        let own: Vec<u64> = all[at].steps[..step]
            .iter()
            .filter_map(|step| if let Step::Append(_, value) = step { Some(*value) } else { None })
            .collect();
        match &mut all[at].steps[step] {
            Step::Append(..) if left => {}
            Step::Append(key, value) => lists.entry(*key).or_default().push(*value),
            Step::Read(key, found) if !left => {
                let mut now = lists.get(key).cloned().unwrap_or_default();
                if store == Store::StaleReads && rng.below(6) == 0 {
                    while now.last().is_some_and(|value| !own.contains(value)) {
                        now.pop();
                        if rng.below(2) == 0 {
                            break;
                        }
                    }
                }
                *found = Some(now);
            }
            Step::Read(..) => {}
        }
    }
    let called = Instant(1 << 40);
    let steps = (0..LISTS).map(|k| Step::Read(k, Some(lists.remove(&k).unwrap_or_default())));
    let ending = Ending::Committed(Instant(called.0 + 1));
    all.push(Transaction { client: 9, called, steps: steps.collect(), ending });
    all
}

#[test]
fn random_histories_get_the_same_verdict() {
    let mut verdicts: BTreeMap<Option<Kind>, u64> = BTreeMap::new();
    let stores = [Store::Serial, Store::StepByStep, Store::StaleReads, Store::DirtyRollback];
    for seed in 0..1_600 {
        let mut rng = Rng::new(seed);
        let store = stores[seed as usize % stores.len()];
        let history = history(&mut rng, store);
        let ours = anomalies(&history);
        let text = json(&history);
        let parsed = History::from_json(&text).unwrap();
        for model in ["serializable", "strict-serializable"] {
            let options = Opts { models: vec![model.into()], ..Opts::default() };
            let theirs = adya::check(&parsed, Workload::ListAppend, &options);
            // What only real time forbids is serializable.
            let strict = model == "strict-serializable";
            let bad = ours.iter().any(|anomaly| strict || anomaly.kind != Kind::RealTime);
            // Of a history without any dependency it does not want to say anything.
            assert_eq!(
                theirs.valid == Valid::False,
                bad,
                "seed {seed}, {store:?}, {model}: ours {ours:#?}, theirs {:?}\n{text}",
                theirs.anomaly_types
            );
        }
        if store == Store::Serial {
            assert_eq!(ours, [], "seed {seed}");
        }
        *verdicts.entry(ours.first().map(|anomaly| anomaly.kind)).or_default() += 1;
    }
    println!("{verdicts:?}");
    let enough = |kind| verdicts.get(&kind).is_some_and(|n| *n >= 10);
    for kind in [Kind::AbortedRead, Kind::ReadSkew, Kind::RealTime, Kind::AntiDependencyCycle] {
        assert!(enough(Some(kind)), "{kind:?}: {verdicts:?}");
    }
    assert!(enough(None), "{verdicts:?}");
}
