//! What is waited for, as people and other members see it: notes, alarms, and what looks like a
//! lost coordinator.

use crate::ends::{Lab, ME, OTHER, at, reason, settles, start_by_votes, stores};
use quorate_transactions::{
    Coordinator, Effect, End, Found, Input, Record, Settings, Sight, Stage, Stored, Suspicion,
    SuspicionSettings, Verdict, Vote,
};

#[test]
fn who_waits_for_people_hears_that_somebody_else_has_ended_it() {
    let idle = || {
        let mut lab = Lab::new(2);
        lab.stored(1);
        lab.vote(2, 0, Vote::Yes);
        lab.vote(2, 1, Vote::Yes);
        lab.stored(3);
        lab.end(4, 1, End::Committed(3));
        assert!(stores(&lab.end(4, 0, End::Heuristic("by hand".to_owned()))));
        lab.revision += 1;
        lab
    };
    let seen = |as_of, record| Input::Seen { as_of, record };
    let mut lab = idle();
    assert_eq!(lab.give(5, seen(9, None)), [], "its own write is under way");
    let stored = Stored::Done(3);
    lab.give(6, Input::Stored { number: 3, stored });
    assert!(lab.it.record().waits_for_people());
    assert_eq!(lab.give(7, seen(9, Some(3))), []);
    assert_eq!(lab.give(7, seen(2, Some(2))), [], "the replica lags");
    assert_eq!(lab.give(8, seen(9, Some(7))), [Effect::Deposed]);
    assert!(lab.it.is_over());
    let mut lab = idle();
    lab.give(6, Input::Stored { number: 3, stored });
    assert_eq!(lab.give(8, seen(9, None)), [Effect::Deposed], "it is forgotten");
}

fn trouble(branch: u16, what: &str) -> Input {
    Input::Trouble { branch, what: what.to_owned() }
}

#[test]
fn what_is_waited_for_is_told_before_the_decision_as_well() {
    // The only participant may have committed, and is away.
    for (end, commits) in [(End::Committed(7), true), (End::RolledBack, false)] {
        let mut lab = Lab::new(1);
        lab.stored(1);
        lab.give(2, trouble(0, "it is away"));
        assert_eq!(lab.give(2, Input::Note), [], "its vote is still waited for");
        assert_eq!(settles(&lab.give(100, Input::Tick), false), 1);
        assert!(stores(&lab.give(101, Input::Note)));
        let record = lab.it.record();
        assert_eq!((&record.stage, record.epoch), (&Stage::Open, 1));
        assert_eq!(record.branches[0].trouble, "it is away");
        // It answers, and again, while that is written.
        assert_eq!(lab.end(102, 0, end.clone()), []);
        assert_eq!(lab.end(102, 0, end), []);
        assert!(stores(&lab.stored(103)));
        assert_eq!(lab.verdict().map(Verdict::commits), Some(commits));
        assert_eq!(lab.it.record().branches[0].trouble, "");
        lab.stored(104);
        assert!(lab.it.is_over());
    }
    // Each once, and not when somebody else has it.
    let mut lab = Lab::new(1);
    lab.stored(1);
    lab.give(100, Input::Tick);
    assert_eq!(lab.give(101, Input::Note), [], "there is nothing to tell");
    lab.give(102, trouble(0, "it is away"));
    assert!(stores(&lab.give(102, Input::Note)));
    assert_eq!(lab.stored(103), []);
    lab.give(104, trouble(0, "it is away"));
    assert_eq!(lab.give(104, Input::Note), []);
    lab.give(105, trouble(0, "it has no table"));
    assert!(stores(&lab.give(105, Input::Note)));
    assert_eq!(lab.lost(106), [Effect::Deposed]);
}

#[test]
fn what_is_waited_for_is_told_while_votes_are_closed_as_well() {
    let take = || {
        let mut lab = Lab::of(start_by_votes(2));
        lab.stored(1);
        let (record, mut out) = (lab.it.record().clone(), Vec::new());
        let settings = Settings::default();
        let it = Coordinator::take_over(settings, 1, (record, 1), OTHER, at(50), &mut out);
        let mut lab = Lab { it, out, revision: 0 };
        lab.stored(51);
        lab.give(52, Input::Resolved { branch: 0, epoch: 2, found: Found::Yes });
        lab.give(53, trouble(1, "its group has no leader"));
        assert!(stores(&lab.give(53, Input::Note)));
        assert_eq!((&lab.it.record().stage, lab.it.record().epoch), (&Stage::Open, 2));
        lab
    };
    let mut lab = take();
    assert_eq!(lab.give(54, Input::Resolved { branch: 1, epoch: 2, found: Found::Yes }), []);
    let told = lab.stored(55);
    assert_eq!((told[0].clone(), settles(&told, true), told.len()), (Effect::Decided, 2, 3));
    assert!(lab.it.record().branches.iter().all(|branch| branch.trouble.is_empty()));
    let mut lab = take();
    assert_eq!(lab.stored(54), []);
    let no = Input::Resolved { branch: 1, epoch: 2, found: Found::No(None) };
    assert!(stores(&lab.give(55, no.clone())));
    // And while it is written.
    let mut lab = take();
    assert_eq!(lab.give(54, no), []);
    assert!(stores(&lab.stored(55)));
    assert!(reason(&lab.it).contains("coordinator 1 was lost"));
}

#[test]
fn suspicion_rests_on_what_was_seen() {
    let settings = SuspicionSettings::default();
    let mut suspicion = Suspicion::new(settings);
    let lab = Lab::new(2);
    let record = lab.it.record();
    let sight = |ms, leads| Sight { now: at(ms).now, me: OTHER.node, leads, able: true };
    assert!(!suspicion.look("t", (record, 1), true, sight(0, true)));
    assert!(!suspicion.look("t", (record, 1), false, sight(10, true)));
    assert!(!suspicion.look("t", (record, 1), true, sight(150, true)), "it is back");
    assert!(!suspicion.look("t", (record, 1), false, sight(200, true)));
    assert!(suspicion.look("t", (record, 1), false, sight(360, true)));
    assert!(!suspicion.look("t", (record, 1), false, sight(360, false)), "the leader is first");
    let unable = Sight { able: false, ..sight(6_000, true) };
    assert!(!suspicion.look("t", (record, 1), false, unable), "who can do it is first");
    let unable = Sight { able: false, ..sight(6_300, true) };
    assert!(suspicion.look("t", (record, 1), false, unable));
    // Connected, but its deadline has passed long ago.
    let next = Record { epoch: 2, asked: 2, ..record.clone() };
    assert!(!suspicion.look("u", (record, 1), true, sight(0, true)));
    assert!(!suspicion.look("u", (&next, 2), true, sight(900, true)), "it moved");
    assert!(!suspicion.look("u", (&next, 3), true, sight(1_900, true)));
    assert!(suspicion.look("u", (&next, 4), true, sight(2_000, true)), "notes are no moves");
    // Once it is decided, they are.
    let decided = Record { stage: Stage::Decided(Verdict::Commit), ..next };
    assert!(!suspicion.look("u", (&decided, 5), true, sight(2_100, true)));
    assert!(!suspicion.look("u", (&decided, 6), true, sight(32_000, true)));
    assert!(!suspicion.look("u", (&decided, 6), true, sight(61_900, true)));
    assert!(suspicion.look("u", (&decided, 6), true, sight(62_000, true)));
    // One's own earlier life.
    let mine = Sight { now: at(0).now, me: ME.node, leads: false, able: true };
    assert!(suspicion.look("v", (record, 1), true, mine));
}
