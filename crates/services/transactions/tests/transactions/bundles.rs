//! Bundles with branches in databases, each of their ends by itself.

use crate::ends::{Lab, asks, at, settles, start, stores};
use quorate_transactions::{
    Carried, Effect, End, Input, Kind, Stage, Start, StoreRequest, Verdict, Vote,
};
use std::time::Duration;

/// A bundle, of which one branch is in a database.
fn start_bundle() -> Start {
    let mut start = start(2);
    start.branches[1].kind = Kind::Postgres;
    start.carried = [Carried { id: "x".to_owned(), content: 7 }].into();
    start
}

#[test]
fn a_bundle_asks_databases_beside_its_first_record_and_is_disbanded_by_one() {
    let mut lab = Lab::of(start_bundle());
    assert_eq!((asks(&lab.out), lab.out.len()), (2, 3), "both, and the record");
    lab.vote(1, 0, Vote::Yes);
    assert_eq!(lab.vote(1, 1, Vote::Yes), [], "there is no record");
    assert!(stores(&lab.stored(2)), "the decision");
    assert_eq!(lab.stored(3)[0], Effect::Decided);
    assert_eq!(lab.verdict(), Some(&Verdict::Commit));

    // One of those it carries was begun elsewhere.
    let mut lab = Lab::of(start_bundle());
    lab.vote(1, 0, Vote::Yes);
    let [Effect::Store(request)] = &lab.lost(2)[..] else { panic!("{:?}", lab.out) };
    assert_eq!((request.at, &request.record.carried[..]), (None, &[][..]));
    assert_eq!(request.record.stage.verdict().map(Verdict::commits), Some(false));
    assert_eq!(lab.vote(3, 1, Vote::Yes), [], "too late");
    let told = lab.stored(4);
    assert_eq!((told[0].clone(), settles(&told, false)), (Effect::Decided, 2));
    lab.end(5, 0, End::RolledBack);
    assert!(stores(&lab.end(6, 1, End::RolledBack)), "the end");

    // And somebody has found a branch of it, and made it void: what is outside is for them.
    let mut lab = Lab::of(start_bundle());
    lab.lost(1);
    assert_eq!(settles(&lab.lost(2), false), 1);
    assert_eq!(lab.end(3, 0, End::RolledBack), [Effect::Deposed]);
    assert!(lab.it.is_over() && !lab.it.is_told());

    // It cannot be written: databases do not wait for that with what they have locked.
    let mut lab = Lab::of(start_bundle());
    lab.vote(1, 0, Vote::Yes);
    lab.vote(2, 1, Vote::Yes);
    assert_eq!(lab.it.next_timeout(), Some(at(100).now));
    assert_eq!(lab.give(99, Input::Tick), [], "all votes are there");
    assert_eq!(settles(&lab.give(100, Input::Tick), false), 2);
    assert_eq!((lab.it.next_timeout(), lab.give(101, Input::Tick)), (None, Vec::new()));
    assert!(stores(&lab.stored(200)), "the decision");
    assert_eq!(lab.verdict().map(Verdict::commits), Some(false));
    let mut lab = Lab::of(start_bundle());
    lab.vote(1, 1, Vote::Yes);
    assert_eq!(settles(&lab.give(100, Input::Tick), false), 2);
    lab.end(101, 1, End::RolledBack);
    lab.vote(102, 0, Vote::Yes);
    assert_eq!(lab.verdict(), None, "nothing is told before there is a record");
    assert!(stores(&lab.stored(200)), "the decision");
    assert_eq!(lab.verdict().map(Verdict::commits), Some(false));
    assert_eq!(settles(&lab.stored(201), false), 2);
}

#[test]
fn a_bundle_whose_votes_are_there_soon_has_the_decision_for_its_first_record() {
    let soon = || Lab::of(Start { first_record: Duration::from_millis(20), ..start_bundle() });
    let begun = |out: &[Effect]| match out {
        [.., Effect::Store(StoreRequest { at: None, record, .. })] => record.clone(),
        other => panic!("no first record: {other:?}"),
    };
    let mut lab = soon();
    assert_eq!((asks(&lab.out), lab.out.len()), (2, 2), "both, and no record");
    assert_eq!(lab.it.next_timeout(), Some(at(20).now));
    lab.vote(1, 0, Vote::Yes);
    let record = begun(&lab.vote(2, 1, Vote::Yes));
    assert_eq!((record.stage, record.carried.len()), (Stage::Decided(Verdict::Commit), 1));
    assert_eq!(lab.it.next_timeout(), None, "nobody can take it back");
    let told = lab.stored(3);
    assert_eq!((told[0].clone(), settles(&told, true)), (Effect::Decided, 2));

    // So it has where somebody refuses or nobody wants it any more: nothing is rolled back of which
    // there is no record.
    let no = |again| Vote::No { reason: "too little".to_owned(), again };
    for refused in [Input::Voted { branch: 0, epoch: 1, vote: no(None) }, Input::Cancel] {
        let mut lab = soon();
        lab.vote(1, 1, Vote::Yes);
        let out = lab.give(2, refused);
        assert_eq!(settles(&out, false), 0);
        assert_eq!(begun(&out).stage.verdict().map(Verdict::commits), Some(false));
        let told = lab.stored(3);
        assert_eq!((told[0].clone(), settles(&told, false) > 0), (Effect::Decided, true));
    }

    // Who has to give way is tried again, and on record from then on.
    let mut lab = soon();
    lab.vote(1, 1, Vote::Yes);
    let out = lab.vote(2, 0, no(Some(9)));
    let [Effect::Store(first), Effect::Settle { branch: 1, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((first.at, first.record.stage.clone(), first.record.epoch), (None, Stage::Open, 1));
    assert_eq!(
        (lab.end(3, 1, End::RolledBack), lab.it.next_timeout()),
        (vec![], Some(at(100).now))
    );
    let [Effect::Store(second)] = &lab.stored(4)[..] else { panic!("{:?}", lab.out) };
    assert_eq!((second.at, second.record.epoch), (Some(1), 2));
    assert_eq!(asks(&lab.stored(5)), 2);

    // Nobody has anything to be told: decision and end are one.
    let mut lab = soon();
    lab.vote(1, 0, Vote::ReadOnly);
    let record = begun(&lab.vote(2, 1, Vote::ReadOnly));
    assert_eq!(record.stage, Stage::Finished(Verdict::Commit));

    // The votes take their time: it is as with any other bundle.
    let mut lab = soon();
    lab.vote(1, 0, Vote::Yes);
    assert_eq!(begun(&lab.give(20, Input::Tick)).stage, Stage::Open);
    assert_eq!(lab.vote(30, 1, Vote::Yes), [], "the record is being written");
    assert!(stores(&lab.stored(31)), "the decision");

    // It is refused a record because of somebody whom it carries, and then any: the first one may
    // be there after all, and taken over.
    let mut lab = soon();
    lab.vote(1, 0, Vote::Yes);
    lab.vote(2, 1, Vote::Yes);
    assert_eq!(begun(&lab.lost(3)).stage.verdict().map(Verdict::commits), Some(false));
    assert_eq!(lab.lost(4), [Effect::Deposed]);
}
