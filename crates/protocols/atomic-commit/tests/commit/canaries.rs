//! Every deliberate bug is found out: by a search of everything, by a random schedule, or by the
//! story told for it.

use crate::{model, rules};
use quorate_atomic_commit::conformance::{Ended, Ending, random_schedule};
use quorate_atomic_commit::{Canary, Protocol};
use std::panic::catch_unwind;

const HONEST: [Protocol; 3] = [Protocol::TwoPhase, Protocol::ThreePhase, Protocol::PaxosCommit];

/// A rule, told message by message.
type Story = fn(Option<Canary>);

const STORIES: [(Canary, Story); 3] = [
    (Canary::IgnoreEpoch, rules::an_earlier_attempt_changes_nothing),
    (Canary::AnswerBeforeWritten, rules::ballots_are_durable_before_they_are_told),
    (Canary::AcknowledgeEarly, rules::a_commit_is_proven_before_it_is_acknowledged),
];

/// Whether a random schedule breaks a promise: it splits, somebody stays in doubt though
/// everybody is back, or an assertion fails.
fn breaks(protocol: Protocol, seed: u64, bug: Option<Canary>) -> bool {
    let run = catch_unwind(|| random_schedule(protocol, seed, Ending::Healed, bug));
    run.map_or(true, |report| report.ended == Ended::Split || report.why.is_some())
}

fn found_by(bug: Canary) -> Option<String> {
    if let Some(search) = model::search_for(bug) {
        return search.breaks().then(|| "the exhaustive search, 3 sites".into());
    }
    if let Some((_, story)) = STORIES.iter().find(|(of, _)| *of == bug) {
        return catch_unwind(|| story(Some(bug))).is_err().then(|| "its story".into());
    }
    for seed in 0..6_000 {
        for protocol in HONEST {
            if breaks(protocol, seed, Some(bug)) && !breaks(protocol, seed, None) {
                return Some(format!("{protocol}, seed {seed}"));
            }
        }
    }
    None
}

#[test]
fn every_deliberate_bug_is_found_out() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in Canary::ALL {
        let found = found_by(bug);
        println!("{bug:?}: {}", found.as_deref().unwrap_or("MISSED"));
        missed.extend(found.is_none().then_some(bug));
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "{missed:?}");
}

/// Each rule is held in whatever is run: who breaks it is convicted by its number, at the moment
/// when he does, under every protocol that has the rule.
#[test]
fn each_rule_is_asserted_on_every_run() {
    use Protocol::{PaxosCommit, ThreePhase, TwoPhase};
    let broken: [(u8, Canary, &[Protocol]); 11] = [
        (1, Canary::VoteBeforeWritten, &HONEST),
        (1, Canary::RefuseBeforeWritten, &[PaxosCommit]),
        (2, Canary::CommitBeforeWritten, &[TwoPhase, ThreePhase]),
        (2, Canary::CountOneAcceptor, &[PaxosCommit]),
        (2, Canary::AnswerBeforeWritten, &[PaxosCommit]),
        (3, Canary::PreparedGivesUp, &HONEST),
        (3, Canary::ForgetPrepared, &HONEST),
        (4, Canary::NoTombstone, &[TwoPhase]),
        (5, Canary::ForgetEarly, &[TwoPhase]),
        (5, Canary::AcknowledgeEarly, &HONEST),
        (6, Canary::IgnoreEpoch, &HONEST),
    ];
    let mut missed = Vec::new();
    for (rule, bug, protocols) in broken {
        for protocol in protocols {
            let convicted = |seed: &u64| {
                let report = random_schedule(*protocol, *seed, Ending::Healed, Some(bug));
                report.why.is_some_and(|why| why.starts_with(&format!("rule {rule}:")))
            };
            let found = (0..300).find(convicted);
            println!("rule {rule}, {bug:?}, {protocol}: seed {found:?}");
            missed.extend(found.is_none().then_some((rule, bug, *protocol)));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
