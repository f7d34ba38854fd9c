//! Each way a transaction can end, step by step.

use quorate_atomic_commit::Protocol;
use quorate_base::{GroupId, Instant, NodeId};
use quorate_transactions::{
    BranchRecord, BranchState, Coordinator, Effect, End, Found, Input, Kind, Moment, Owner, Record,
    Settings, Stage, Start, Stored, Verdict, Vote, Voted,
};
use std::sync::Arc;
use std::time::Duration;

pub const ME: Owner = Owner { node: NodeId(1), run: 1 };
pub const OTHER: Owner = Owner { node: NodeId(2), run: 7 };

pub fn at(ms: u64) -> Moment {
    Moment { now: Instant(ms * 1_000_000), wall_ms: ms }
}

pub fn start(n: u64) -> Start {
    let branch =
        |group| BranchRecord::keyspace(&format!("b{group}"), &format!("p{group}"), GroupId(group));
    Start {
        content: 1,
        protocol: Protocol::TwoPhase,
        owner: ME,
        patience: Duration::from_millis(100),
        branches: (0..n).map(branch).collect(),
        carried: Arc::default(),
        free_as_of: 0,
        first_record: Duration::ZERO,
    }
}

/// With branches in databases, which bear no asker's name.
fn start_outside(n: u64) -> Start {
    let mut start = start(n);
    start.branches.iter_mut().for_each(|branch| branch.kind = Kind::Postgres);
    start
}

/// Whose votes are the decision.
pub fn start_by_votes(n: u64) -> Start {
    Start { protocol: Protocol::PaxosCommit, ..start(n) }
}

pub struct Lab {
    pub it: Coordinator,
    pub out: Vec<Effect>,
    pub revision: u64,
}

impl Lab {
    pub fn new(n: u64) -> Lab {
        Lab::of(start(n))
    }

    pub fn of(start: Start) -> Lab {
        let mut out = Vec::new();
        let it = Coordinator::begin(Settings::default(), 1, start, at(0), &mut out);
        Lab { it, out, revision: 0 }
    }

    /// What follows when another holds the record.
    pub fn lost(&mut self, ms: u64) -> Vec<Effect> {
        self.revision += 1;
        let number = self.revision;
        self.give(ms, Input::Stored { number, stored: Stored::Lost })
    }

    pub fn give(&mut self, ms: u64, input: Input) -> Vec<Effect> {
        self.out.clear();
        self.it.step(at(ms), input, &mut self.out);
        self.out.clone()
    }

    pub fn stored(&mut self, ms: u64) -> Vec<Effect> {
        self.revision += 1;
        let stored = Stored::Done(self.revision);
        let number = self.revision;
        self.give(ms, Input::Stored { number, stored })
    }

    pub fn vote(&mut self, ms: u64, branch: u16, vote: Vote) -> Vec<Effect> {
        let epoch = self.it.record().asked;
        self.give(ms, Input::Voted { branch, epoch, vote })
    }

    pub fn end(&mut self, ms: u64, branch: u16, end: End) -> Vec<Effect> {
        let epoch = self.it.record().epoch;
        self.give(ms, Input::Settled { branch, epoch, end })
    }

    pub fn verdict(&self) -> Option<&Verdict> {
        self.it.record().stage.verdict()
    }
}

pub fn stores(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Store(_)])
}

pub fn settles(effects: &[Effect], wanted: bool) -> usize {
    let settle =
        |effect: &&Effect| matches!(effect, Effect::Settle { commit, .. } if *commit == wanted);
    effects.iter().filter(settle).count()
}

#[test]
fn votes_and_times_outlive_what_became_of_branches() {
    let mut lab = Lab::of(start_outside(3));
    lab.stored(1);
    lab.vote(5, 0, Vote::Yes);
    let refused = Vote::No { reason: "too little".to_owned(), again: None };
    assert!(stores(&lab.vote(7, 1, refused)), "the decision");
    lab.vote(8, 2, Vote::Yes);
    assert_eq!(settles(&lab.stored(9), false), 2);
    lab.end(11, 2, End::RolledBack);
    assert!(stores(&lab.end(12, 0, End::RolledBack)), "the end");
    let known = Record::decode(lab.it.record().encode()).unwrap();
    let told = known.branches.iter().map(|it| (it.vote, it.voted_ms, it.ended_ms));
    let told: Vec<_> = told.collect();
    assert_eq!(told, [(Some(Voted::Yes), 5, 12), (Some(Voted::No), 7, 7), (None, 0, 11)]);
}

#[test]
fn each_attempt_has_votes_of_its_own() {
    let mut lab = Lab::of(start_outside(2));
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    lab.vote(3, 1, Vote::No { reason: "a younger one is there".to_owned(), again: Some(7) });
    let vote = |lab: &Lab, index: usize| {
        let branch = &lab.it.record().branches[index];
        (branch.vote, branch.voted_ms, branch.ended_ms)
    };
    assert_eq!([vote(&lab, 0), vote(&lab, 1)], [(Some(Voted::Yes), 2, 0), (Some(Voted::No), 3, 3)]);
    assert!(stores(&lab.end(4, 0, End::RolledBack)), "the next attempt");
    assert_eq!([vote(&lab, 0), vote(&lab, 1)], [(None, 0, 0); 2]);
}

#[test]
fn a_commit_leaves_only_after_its_record() {
    let mut lab = Lab::of(start_outside(2));
    assert!(stores(&lab.out), "nothing but the record");
    assert_eq!(lab.stored(1).len(), 2, "both are asked");
    assert_eq!(lab.vote(2, 0, Vote::Yes), []);
    assert!(stores(&lab.vote(2, 1, Vote::Yes)), "nothing but the record");
    let told = lab.stored(3);
    assert_eq!((told[0].clone(), settles(&told, true)), (Effect::Decided, 2));
    assert_eq!(lab.end(4, 0, End::Committed(8)), []);
    assert_eq!(lab.end(4, 0, End::Committed(8)), [], "a copy");
    assert!(stores(&lab.end(5, 1, End::Committed(9))), "both have proven it");
    assert_eq!(lab.it.record().stage, Stage::Finished(Verdict::Commit));
    assert_eq!(lab.stored(6), [Effect::Finished { forget: true }]);
    assert!(lab.it.is_over());
}

pub fn asks(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Prepare { .. })).count()
}

#[test]
fn keyspaces_are_asked_beside_the_first_record_but_nothing_is_decided_before_it() {
    for start in [start(2), start_by_votes(2)] {
        let mut lab = Lab::of(start.clone());
        assert_eq!((asks(&lab.out), lab.out.len()), (2, 3), "both, and the record");
        assert_eq!(lab.vote(1, 0, Vote::Yes), []);
        assert_eq!(lab.vote(1, 1, Vote::Yes), [], "there is no record");
        let decided = lab.stored(2);
        assert!(stores(&decided) || decided[0] == Effect::Decided);

        // Nor is a no told to anybody before.
        let mut lab = Lab::of(start.clone());
        let no = |again| Vote::No { reason: "too little".to_owned(), again };
        assert_eq!(lab.vote(1, 0, no(None)), []);
        assert_eq!(lab.vote(1, 1, no(Some(5))), [], "no attempt follows any more");
        assert!(stores(&lab.stored(2)));
        assert_eq!(lab.verdict().map(Verdict::commits), Some(false));

        // The next attempt waits for the first one's record and for what is left of it.
        let mut lab = Lab::of(start.clone());
        assert_eq!(settles(&lab.vote(1, 0, no(Some(5))), false), 1);
        assert_eq!(lab.end(2, 1, End::RolledBack), []);
        assert!(stores(&lab.stored(3)));
        assert_eq!(lab.it.record().asked, 2);
        assert_eq!(asks(&lab.stored(4)), 2);

        // Somebody else was first with this id.
        let mut lab = Lab::of(start.clone());
        lab.vote(1, 0, Vote::Yes);
        lab.vote(1, 1, Vote::Yes);
        assert_eq!(settles(&lab.lost(2), false), 2);
        assert_eq!(lab.end(3, 0, End::RolledBack), []);
        assert_eq!(lab.end(3, 1, End::RolledBack), [Effect::Deposed]);
        assert!(lab.it.is_over() && lab.verdict().is_none());
    }
}

#[test]
fn votes_that_are_the_decision_are_told_at_once_and_written_with_the_end() {
    let mut lab = Lab::of(start_by_votes(2));
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    let told = lab.vote(2, 1, Vote::Yes);
    assert_eq!((told[0].clone(), settles(&told, true), told.len()), (Effect::Decided, 2, 3));
    assert_eq!(lab.end(3, 0, End::Committed(4)), []);
    assert!(stores(&lab.end(3, 1, End::Committed(5))));
    assert_eq!(lab.it.record().stage, Stage::Finished(Verdict::Commit));
    assert_eq!(lab.stored(4), [Effect::Finished { forget: true }]);

    // To roll back needs a record: somebody may have found the votes meanwhile.
    let mut lab = Lab::of(start_by_votes(2));
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    assert!(stores(&lab.give(100, Input::Tick)));
    assert_eq!(lab.lost(101), [Effect::Deposed]);
}

#[test]
fn whoever_takes_over_what_votes_decide_closes_them_first() {
    let take = || {
        let mut lab = Lab::of(start_by_votes(2));
        lab.stored(1);
        let open = (lab.it.record().clone(), 1);
        let (settings, mut out) = (Settings::default(), Vec::new());
        let it = Coordinator::take_over(settings, 1, open, OTHER, at(50), &mut out);
        assert!(stores(&out), "the claim comes first");
        assert_eq!((it.record().stage.clone(), it.record().asker), (Stage::Open, ME));
        let mut lab = Lab { it, out, revision: 0 };
        let resolve = |branch| Effect::Resolve { branch, epoch: 2 };
        assert_eq!(lab.stored(51), [resolve(0), resolve(1)]);
        lab
    };
    let found = |branch, found| Input::Resolved { branch, epoch: 2, found };
    let mut lab = take();
    assert_eq!(lab.give(52, found(0, Found::Committed(7))), []);
    let told = lab.give(52, found(1, Found::Yes));
    assert_eq!((told[0].clone(), settles(&told, true), told.len()), (Effect::Decided, 1, 2));
    assert!(stores(&lab.end(53, 1, End::Committed(9))));

    let mut lab = take();
    assert_eq!(lab.give(52, found(0, Found::Yes)), []);
    assert!(stores(&lab.give(52, found(1, Found::No(None)))));
    let Some(Verdict::Abort { branch: Some(1), reason }) = lab.verdict() else { panic!() };
    assert!(reason.contains("coordinator 1 was lost"), "{reason}");
    assert_eq!(settles(&lab.stored(53), false), 1);

    let mut lab = take();
    let said = Found::No(Some("too little".to_owned()));
    assert!(stores(&lab.give(52, found(0, said))));
    let abort = Verdict::Abort { branch: Some(0), reason: "too little".to_owned() };
    assert_eq!(lab.verdict(), Some(&abort));

    let mut lab = take();
    assert_eq!(lab.give(52, found(0, Found::Superseded)), [Effect::Deposed]);
}

#[test]
fn a_no_names_its_branch_and_its_reason() {
    let mut lab = Lab::new(3);
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    let no = Vote::No { reason: "too little".to_owned(), again: None };
    assert!(stores(&lab.vote(2, 1, no)));
    let abort = Verdict::Abort { branch: Some(1), reason: "too little".to_owned() };
    assert_eq!(lab.verdict(), Some(&abort));
    assert_eq!(settles(&lab.stored(3), false), 2, "who refused needs not be told");
    lab.end(4, 0, End::RolledBack);
    assert!(stores(&lab.end(4, 2, End::RolledBack)));
    assert_eq!(lab.stored(5), [Effect::Finished { forget: true }]);
}

#[test]
fn the_deadline_names_who_did_not_vote() {
    let mut lab = Lab::new(2);
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    assert_eq!(lab.it.next_timeout(), Some(at(100).now));
    assert!(stores(&lab.give(100, Input::Tick)));
    let Some(Verdict::Abort { branch: Some(1), reason }) = lab.verdict() else { panic!() };
    assert!(reason.contains("deadline"), "{reason}");
}

#[test]
fn an_attempt_that_met_a_younger_one_is_made_again_as_a_younger_one() {
    let mut lab = Lab::new(2);
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    let no = || Vote::No { reason: "a conflict".to_owned(), again: Some(500) };
    let undone = lab.vote(3, 1, no());
    assert_eq!((undone.len(), settles(&undone, false)), (1, 1));
    assert!(stores(&lab.end(4, 0, End::RolledBack)), "the next attempt is on record first");
    let asked = lab.stored(5);
    let Effect::Prepare { epoch: 2, priority: 501, .. } = asked[0] else { panic!("{asked:?}") };
    // A vote of the first attempt is none of the second.
    let late = lab.give(6, Input::Voted { branch: 0, epoch: 1, vote: Vote::Yes });
    assert_eq!(late, []);
    // Nor does what the participant says of a copy of the first one's end depose anybody.
    let late = Input::Settled { branch: 0, epoch: 1, end: End::Superseded };
    assert_eq!(lab.give(6, late), []);
    // After the deadline the conflict is the reason.
    lab.vote(101, 1, no());
    let abort = Verdict::Abort { branch: Some(1), reason: "a conflict".to_owned() };
    assert_eq!(lab.verdict(), Some(&abort));
}

#[test]
fn one_participant_decides_in_one_phase() {
    let mut lab = Lab::new(1);
    let asked = lab.stored(1);
    assert!(matches!(asked[..], [Effect::Prepare { alone: true, .. }]), "{asked:?}");
    assert!(stores(&lab.vote(2, 0, Vote::Done(7))));
    let over = [Effect::Decided, Effect::Finished { forget: true }];
    assert_eq!(lab.stored(3), over, "decided and over in one write");

    // Where it does not say, it is asked how it ended: it may have committed.
    for (end, commits) in [(End::Committed(7), true), (End::RolledBack, false)] {
        let mut lab = Lab::new(1);
        lab.stored(1);
        assert_eq!(settles(&lab.give(100, Input::Tick), false), 1);
        assert!(stores(&lab.end(101, 0, end)));
        assert_eq!(lab.verdict().map(Verdict::commits), Some(commits));
    }
}

#[test]
fn whoever_takes_over_buries_what_is_undecided_and_ends_what_is_decided() {
    let mut lab = Lab::new(2);
    lab.stored(1);
    let open = lab.it.record().clone();
    let mut out = Vec::new();
    let it = Coordinator::take_over(Settings::default(), 1, (open, 1), OTHER, at(50), &mut out);
    let [Effect::Store(request)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((request.at, request.record.owner, request.record.epoch), (Some(1), OTHER, 2));
    let Some(Verdict::Abort { branch: None, reason }) = it.record().stage.verdict() else {
        panic!()
    };
    assert!(reason.contains("coordinator 1 was lost"), "{reason}");
    // The first one hears of it when it wants to decide.
    lab.vote(60, 0, Vote::Yes);
    lab.vote(60, 1, Vote::Yes);
    assert_eq!(lab.give(61, Input::Stored { number: 2, stored: Stored::Lost }), [Effect::Deposed]);

    let mut lab = Lab::new(2);
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    lab.vote(2, 1, Vote::Yes);
    lab.stored(3);
    let decided = lab.it.record().clone();
    let mut out = Vec::new();
    let mut it =
        Coordinator::take_over(Settings::default(), 1, (decided, 2), OTHER, at(50), &mut out);
    out.clear();
    it.step(at(51), Input::Stored { number: 1, stored: Stored::Done(3) }, &mut out);
    assert_eq!(settles(&out, true), 2);
    let epoch = it.record().epoch;
    assert_eq!(epoch, 2);
    for branch in 0..2 {
        it.step(at(52), Input::Settled { branch, epoch, end: End::Committed(5) }, &mut out);
    }
    out.clear();
    it.step(at(53), Input::Stored { number: 2, stored: Stored::Done(4) }, &mut out);
    assert_eq!(out, [Effect::Finished { forget: false }], "a lost node's words may still come");
    // Meanwhile the first one is told by a participant that it has no word any more.
    assert_eq!(lab.end(52, 0, End::Superseded), [Effect::Deposed]);
}

#[test]
fn what_somebody_ended_by_hand_is_kept_for_people_to_see() {
    let mut lab = Lab::new(2);
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    lab.vote(2, 1, Vote::Yes);
    lab.stored(3);
    let stored = lab.end(4, 0, End::Heuristic("rolled back by hand".to_owned()));
    assert!(stores(&stored));
    assert_eq!(lab.end(5, 1, End::Committed(3)), []);
    assert!(stores(&lab.stored(6)), "people see what became of the other one, too");
    assert_eq!(lab.stored(7), [], "it never finishes by itself");
    assert_eq!(lab.give(8, Input::Note), [], "and nothing moves");
    assert!(!lab.it.is_over() && lab.it.record().waits_for_people());
    // Only what is an alarm can be acknowledged.
    assert_eq!(lab.give(9, Input::Acknowledge { branch: 1 }), []);
    assert!(stores(&lab.give(10, Input::Acknowledge { branch: 0 })));
    assert_eq!(lab.it.record().stage, Stage::Finished(Verdict::Commit));
    let kept = BranchState::Acknowledged("rolled back by hand".to_owned());
    assert_eq!(lab.it.record().branches[0].state, kept);
    lab.stored(11);
    assert!(lab.it.is_over());
}

#[test]
fn an_alarm_is_acknowledged_by_who_takes_the_transaction_over() {
    for commits in [true, false] {
        let mut lab = Lab::new(2);
        lab.stored(1);
        lab.vote(2, 0, Vote::Yes);
        let vote = Vote::No { reason: "no".to_owned(), again: None };
        lab.vote(2, 1, if commits { Vote::Yes } else { vote });
        lab.stored(3);
        assert!(stores(&lab.end(4, 0, End::Heuristic("by hand".to_owned()))));
        let (record, mut out) = (lab.it.record().clone(), Vec::new());
        let settings = Settings::default();
        let mut it = Coordinator::take_over(settings, 1, (record, 3), OTHER, at(50), &mut out);
        it.step(at(50), Input::Acknowledge { branch: 0 }, &mut out);
        assert_eq!(out.len(), 1, "it has not the word yet");
        it.step(at(51), Input::Stored { number: 1, stored: Stored::Done(4) }, &mut out);
        if commits {
            let epoch = it.record().epoch;
            it.step(at(52), Input::Stored { number: 2, stored: Stored::Done(5) }, &mut out);
            let end = End::Committed(3);
            it.step(at(53), Input::Settled { branch: 1, epoch, end }, &mut out);
        }
        assert!(matches!(it.record().stage, Stage::Finished(_)), "{:?}", it.record());
    }
}

/// Why it is rolled back.
pub fn reason(it: &Coordinator) -> String {
    match it.record().stage.verdict() {
        Some(Verdict::Abort { reason, .. }) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_cancelled_before_it_is_decided_is_rolled_back() {
    // While the record is being written, and while votes are collected.
    for (start, voted) in [(start(2), false), (start(2), true), (start_by_votes(2), true)] {
        let mut lab = Lab::of(start);
        if !voted {
            assert_eq!(lab.give(1, Input::Cancel), [], "there is no record yet");
            assert!(stores(&lab.stored(2)));
        } else {
            lab.stored(1);
            lab.vote(2, 0, Vote::Yes);
            assert!(stores(&lab.give(3, Input::Cancel)));
        }
        assert_eq!(reason(&lab.it), "it was cancelled");
        // A Yes that comes now is too late.
        lab.vote(4, 1, Vote::Yes);
        assert_eq!(reason(&lab.it), "it was cancelled");
    }
    // The only participant is asked: it may have decided.
    for (end, commits) in [(End::RolledBack, false), (End::Committed(5), true)] {
        let mut lab = Lab::new(1);
        lab.stored(1);
        let asked = lab.give(2, Input::Cancel);
        assert!(matches!(asked[..], [Effect::Settle { commit: false, .. }]), "{asked:?}");
        lab.end(3, 0, end);
        match commits {
            true => assert_eq!(lab.it.record().stage, Stage::Finished(Verdict::Commit)),
            false => assert_eq!(reason(&lab.it), "it was cancelled"),
        }
    }
}

#[test]
fn what_is_decided_is_not_cancelled() {
    for start in [start(2), start_by_votes(2)] {
        let mut lab = Lab::of(start);
        lab.stored(1);
        lab.vote(2, 0, Vote::Yes);
        lab.vote(2, 1, Vote::Yes);
        assert_eq!(lab.give(3, Input::Cancel), []);
        assert_eq!(lab.it.record().stage, Stage::Decided(Verdict::Commit));
    }
}

#[test]
fn another_member_cancels_what_it_takes_over() {
    let mut lab = Lab::new(2);
    lab.stored(1);
    lab.vote(2, 0, Vote::Yes);
    let (record, mut out) = (lab.it.record().clone(), Vec::new());
    let settings = Settings::default();
    let it = Coordinator::take_to_cancel(settings, 1, (record, 1), OTHER, at(50), &mut out);
    assert_eq!(reason(&it), "it was cancelled");
    // Where the votes decide they are closed first: all Yes is a commit.
    let mut lab = Lab::of(start_by_votes(2));
    lab.stored(1);
    let (record, mut out) = (lab.it.record().clone(), Vec::new());
    let mut it = Coordinator::take_to_cancel(settings, 1, (record, 1), OTHER, at(50), &mut out);
    it.step(at(51), Input::Stored { number: 1, stored: Stored::Done(2) }, &mut out);
    let epoch = it.record().epoch;
    it.step(at(52), Input::Resolved { branch: 0, epoch, found: Found::Yes }, &mut out);
    it.step(at(53), Input::Resolved { branch: 1, epoch, found: Found::No(None) }, &mut out);
    assert_eq!(reason(&it), "it was cancelled");
}
