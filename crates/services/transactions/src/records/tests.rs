//! Each rule of the records, against a real keyspace in memory.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::record::{BranchRecord, Carried, Kind, Owner, Stage};
use quorate_base::{Ballot, GroupId, NodeId, Position, RequestId};
use quorate_keyspace::{Config, Keyspace, codec};
use quorate_mvcc::MemoryEngine;
use quorate_replicated_log::{Base, Entries, Entry, Payload};
use quorate_service::{Applied, Envelope, Service};

const BALLOT: Ballot = Ballot::new(1, NodeId(1));
const OWNER: Owner = Owner { node: NodeId(1), run: 1 };

/// The keyspace that has the records, on one replica.
struct Store {
    keyspace: Keyspace<MemoryEngine>,
    entries: u64,
}

impl Store {
    fn new() -> Store {
        let position = Position::new(0, BALLOT);
        let config = Config { base: Base { position, ..Base::default() }, ..Config::default() };
        Store { keyspace: Keyspace::open(MemoryEngine::new(), config).unwrap(), entries: 0 }
    }

    fn run(&mut self, command: &Command) -> (Revision, Outcome) {
        self.entries += 1;
        let request = RequestId {
            node: NodeId(1),
            run: 1,
            sequence: self.entries,
            settled: self.entries - 1,
        };
        let bytes = Envelope::encode(request, &codec::encode(command).unwrap());
        let (index, payload) = (self.entries, Payload::Command(bytes));
        let mut applied = Applied::default();
        let entry = Entry { index, ballot: BALLOT, payload };
        self.keyspace.apply(&Entries::new(vec![entry]), &mut applied).unwrap();
        let (_, reply) = applied.replies.pop().unwrap();
        (reply.revision, reply.result.unwrap())
    }

    fn write_all(&mut self, batch: &[(&str, &StoreRequest)]) -> Vec<Stored> {
        let (revision, outcome) = self.run(&write_all(batch));
        written(batch, revision, outcome)
    }

    fn write(&mut self, id: &str, at: Option<Revision>, record: &Record) -> Stored {
        let request = StoreRequest { number: 1, at, record: record.clone(), free_as_of: 0 };
        self.write_all(&[(id, &request)])[0]
    }

    /// A write that must succeed: its revision.
    fn wrote(&mut self, id: &str, at: Option<Revision>, record: &Record) -> Revision {
        match self.write(id, at, record) {
            Stored::Done(revision) => revision,
            Stored::Lost => panic!("{id} as of {at:?} is lost: {record:?}"),
        }
    }

    fn look(&self, id: &str) -> Option<Kept> {
        look(&self.keyspace.reader(), id).unwrap()
    }

    fn look_for(&self, id: &str) -> Option<Known> {
        look_for(&self.keyspace.reader(), id).unwrap()
    }

    fn ids(&self, prefix: &str) -> Vec<String> {
        let listed = list(&self.keyspace.reader(), prefix, "", 100).unwrap();
        listed.into_iter().map(|(id, _, _)| id).collect()
    }

    fn remove(&mut self, id: &str, kept: Kept) {
        self.remove_with(id, kept, 0);
    }

    /// With the strays of this revision.
    fn remove_with(&mut self, id: &str, (record, revision): Kept, noted: Revision) {
        let (id, strays) = (id.to_owned(), Vec::new());
        self.run(&remove(&[Over { id, record, revision, strays, noted }]));
    }

    /// Notes a stray beside those of this revision; whether that was done.
    fn note(&mut self, id: &str, kept: &Kept, noted: Revision, name: &str) -> bool {
        let (mut all, _) = strays(&self.keyspace.reader(), id).unwrap();
        all.push(Stray { kind: Kind::Postgres, name: name.to_owned() });
        let (_, outcome) = self.run(&note_strays(id, kept, noted, &all));
        matches!(outcome, Outcome::Txn(done) if done.succeeded)
    }

    fn strays(&self, id: &str) -> (Vec<String>, Revision) {
        let (all, noted) = strays(&self.keyspace.reader(), id).unwrap();
        (all.into_iter().map(|stray| stray.name).collect(), noted)
    }
}

fn open(content: u128) -> Record {
    let branches = [2, 3].map(|n| BranchRecord::keyspace("b", "k", GroupId(n))).to_vec();
    Record { content, asked: 1, stage: Stage::Open, branches, ..Record::void(OWNER, 7, "") }
}

fn bundle(ids: &[&str]) -> Record {
    let carried = ids.iter().zip(1..).map(|(id, content)| Carried { id: (*id).into(), content });
    Record { carried: carried.collect(), ..open(99) }
}

fn decided(record: &Record, verdict: &Verdict) -> Record {
    Record { stage: Stage::Decided(verdict.clone()), ..record.clone() }
}

fn finished(record: &Record, verdict: &Verdict) -> Record {
    Record { stage: Stage::Finished(verdict.clone()), ..record.clone() }
}

fn abort() -> Verdict {
    Verdict::Abort { branch: Some(1), reason: "no".to_owned() }
}

#[test]
fn who_begins_twice_has_begun_once() {
    let (mut store, record) = (Store::new(), open(1));
    let begun = store.wrote("t", None, &record);
    // The answer to the first was lost.
    assert_eq!(store.write("t", None, &record), Stored::Done(begun));
    assert_eq!(store.look("t"), Some((record, begun)));
    assert_eq!(store.keyspace.reader().revision(), begun, "the second changes nothing");
}

#[test]
fn an_id_stands_for_one_content() {
    let (mut store, record) = (Store::new(), open(1));
    let begun = store.wrote("t", None, &record);
    assert_eq!(store.write("t", None, &open(2)), Stored::Lost);
    assert_eq!(store.look("t"), Some((record.clone(), begun)));
    // Also when it is over.
    let over = finished(&record, &Verdict::Commit);
    let ended = store.wrote("t", Some(begun), &over);
    assert_eq!(store.write("t", None, &open(2)), Stored::Lost);
    assert_eq!(store.look("t"), Some((over, ended)));
}

#[test]
fn a_decision_is_made_once() {
    let (mut store, record) = (Store::new(), open(1));
    let begun = store.wrote("t", None, &record);
    let commit = decided(&record, &Verdict::Commit);
    let at = store.wrote("t", Some(begun), &commit);
    assert_eq!(store.write("t", Some(begun), &commit), Stored::Done(at), "the same once more");
    // Somebody else, who has not heard of it.
    assert_eq!(store.write("t", Some(begun), &decided(&record, &abort())), Stored::Lost);
    assert_eq!(store.look("t"), Some((commit, at)));
}

#[test]
fn a_finished_record_takes_the_place_of_the_open_one() {
    let (mut store, record) = (Store::new(), open(1));
    let begun = store.wrote("t", None, &record);
    assert_eq!((store.ids(OPEN), store.ids(FINISHED)), (vec!["t".to_owned()], vec![]));
    let over = finished(&record, &abort());
    let at = store.wrote("t", Some(begun), &over);
    assert_eq!((store.ids(OPEN), store.ids(FINISHED)), (vec![], vec!["t".to_owned()]));
    assert_eq!(store.write("t", Some(begun), &over), Stored::Done(at), "the same once more");
    // It is not opened again.
    assert_eq!(store.write("t", Some(begun), &record), Stored::Lost);
    assert_eq!(store.write("t", Some(at), &record), Stored::Lost);
    assert_eq!(store.look("t"), Some((over, at)));
}

#[test]
fn a_tombstone_keeps_others_from_beginning() {
    let mut store = Store::new();
    let tombstone = Record::void(OWNER, 7, "nobody began it");
    let at = store.wrote("t", None, &tombstone);
    assert_eq!(store.write("t", None, &open(1)), Stored::Lost);
    assert_eq!(store.write("t", None, &tombstone), Stored::Done(at), "the same once more");
    assert_eq!(store.ids(OPEN), Vec::<String>::new());
    // The other way round: what was begun gets none.
    let begun = store.wrote("u", None, &open(1));
    assert_eq!(store.write("u", None, &tombstone), Stored::Lost);
    assert_eq!(store.look("u"), Some((open(1), begun)));
}

#[test]
fn what_is_void_is_settled_and_names_no_content() {
    let mut store = Store::new();
    let at = store.wrote("t", None, &Record::void(OWNER, 7, "nobody began it"));
    let known = store.look_for("t").unwrap();
    assert!(known.record.is_void() && known.is_settled() && !known.carried);
    assert_eq!((known.id.as_str(), known.content, known.revision), ("t", 0, at));
    store.wrote("u", None, &open(1));
    let known = store.look_for("u").unwrap();
    assert!(!known.record.is_void() && !known.is_settled());
    assert_eq!(store.look_for("v"), None);
}

#[test]
fn only_what_is_as_it_was_is_forgotten() {
    let (mut store, record) = (Store::new(), open(1));
    let over = finished(&record, &Verdict::Commit);
    let begun = store.wrote("t", None, &record);
    let first = store.wrote("t", Some(begun), &over);
    store.remove("t", (over.clone(), begun));
    assert_eq!(store.look("t"), Some((over.clone(), first)), "it was not yet over then");
    store.remove("t", (over.clone(), first));
    assert_eq!(store.look("t"), None);
    // Whoever forgets it late meets the next of that id.
    let next = store.wrote("t", None, &record);
    let second = store.wrote("t", Some(next), &over);
    store.remove("t", (over.clone(), first));
    assert_eq!(store.look("t"), Some((over, second)));
}

#[test]
fn strays_are_kept_as_long_as_their_record_and_no_longer() {
    let mut store = Store::new();
    let record = Record::void(OWNER, 7, "late");
    assert!(!store.note("t", &(record.clone(), 3), 0, "a"), "there is no record");
    let kept = (record.clone(), store.wrote("t", None, &record));
    assert!(store.note("t", &kept, 0, "a"));
    assert!(!store.note("t", &kept, 0, "b"), "somebody else noted one meanwhile");
    let (_, first) = store.strays("t");
    assert!(store.note("t", &kept, first, "b"));
    let (names, second) = store.strays("t");
    assert_eq!(names, ["a", "b"]);
    store.remove("t", kept.clone());
    store.remove_with("t", kept.clone(), first);
    assert_eq!(store.look("t"), Some(kept.clone()), "one more was noted than was forgotten");
    store.remove_with("t", kept.clone(), second);
    assert_eq!((store.look("t"), store.strays("t")), (None, (Vec::new(), 0)));
    assert!(!store.note("t", &kept, 0, "c"), "whoever comes late looks again");
    // Beside one that is not over as well.
    let begun = (open(1), store.wrote("t", None, &open(1)));
    assert!(store.note("t", &begun, 0, "c"));
    let over = finished(&open(1), &abort());
    let revision = store.wrote("t", Some(begun.1), &over);
    let (_, noted) = store.strays("t");
    store.remove_with("t", (over, revision), noted);
    assert_eq!((store.look("t"), store.strays("t")), (None, (Vec::new(), 0)));
}

#[test]
fn what_is_open_is_not_forgotten() {
    let mut store = Store::new();
    let begun = store.wrote("t", None, &open(1));
    store.remove("t", (open(1), begun));
    assert_eq!(store.look("t"), Some((open(1), begun)));
}

#[test]
fn an_id_has_a_record_or_is_carried() {
    let mut store = Store::new();
    store.wrote("a", None, &open(1));
    assert_eq!(store.write("x", None, &bundle(&["a", "b"])), Stored::Lost);
    assert_eq!((store.look_for("x"), store.look_for("b")), (None, None), "nothing of it is there");
    let at = store.wrote("x", None, &bundle(&["b", "c"]));
    assert_eq!(store.write("b", None, &open(1)), Stored::Lost);
    assert_eq!(store.write("y", None, &bundle(&["d", "c"])), Stored::Lost);
    let known = store.look_for("c").unwrap();
    assert_eq!((known.id.as_str(), known.content, known.revision), ("x", 2, at));
    assert!(known.carried && !known.is_settled());
}

#[test]
fn an_aborted_bundle_lets_go_and_a_committed_one_does_not() {
    let mut store = Store::new();
    let (x, y) = (bundle(&["a", "b"]), bundle(&["c"]));
    let (at_x, at_y) = (store.wrote("x", None, &x), store.wrote("y", None, &y));
    let at_x = store.wrote("x", Some(at_x), &decided(&x, &abort()));
    assert_eq!(store.look_for("a"), None);
    let begun = store.wrote("a", None, &open(1));
    // That it is finished says the same once more, and must not touch what came since.
    store.wrote("x", Some(at_x), &finished(&x, &abort()));
    assert_eq!(store.look("a"), Some((open(1), begun)));
    store.wrote("y", Some(at_y), &decided(&y, &Verdict::Commit));
    assert!(store.look_for("c").unwrap().is_settled());
    assert_eq!(store.write("c", None, &open(1)), Stored::Lost);
}

#[test]
fn what_is_void_from_the_beginning_takes_its_own_id_alone() {
    let mut store = Store::new();
    let x = bundle(&["a"]);
    let at = store.wrote("x", None, &decided(&x, &abort()));
    assert_eq!((store.look_for("a"), store.look_for("x").unwrap().revision), (None, at));
    let y = bundle(&["a"]);
    store.wrote("y", None, &y);
    store.wrote("x", Some(at), &finished(&x, &abort()));
    assert_eq!(store.look_for("a").unwrap().id, "y");
    assert_eq!(store.write("x", None, &open(1)), Stored::Lost);
}

#[test]
fn who_is_carried_by_another_since_is_not_let_go() {
    let mut store = Store::new();
    let (x, y) = (bundle(&["a"]), bundle(&["a"]));
    let at = store.wrote("x", None, &x);
    let at = store.wrote("x", Some(at), &decided(&x, &abort()));
    store.wrote("y", None, &y);
    store.wrote("x", Some(at), &finished(&x, &abort()));
    assert_eq!(store.look_for("a").unwrap().id, "y");
}

#[test]
fn whom_a_committed_bundle_carried_is_forgotten_with_it() {
    let (mut store, x) = (Store::new(), bundle(&["a", "b"]));
    let at = store.wrote("x", None, &x);
    let over = finished(&x, &Verdict::Commit);
    let at = store.wrote("x", Some(at), &over);
    assert!(store.look_for("b").unwrap().is_settled());
    store.remove("x", (over, at));
    assert_eq!(["x", "a", "b"].map(|id| store.look_for(id)), [None, None, None]);
    store.wrote("a", None, &open(1));
}

#[test]
fn an_aborted_bundle_that_is_forgotten_leaves_what_others_carry() {
    let (mut store, x) = (Store::new(), bundle(&["a"]));
    let at = store.wrote("x", None, &x);
    let over = finished(&x, &abort());
    let at = store.wrote("x", Some(at), &over);
    store.wrote("y", None, &bundle(&["a"]));
    store.remove("x", (over, at));
    assert_eq!(store.look("x"), None);
    assert_eq!(store.look_for("a").unwrap().id, "y");
}

#[test]
fn each_record_of_a_batch_has_a_condition_of_its_own() {
    let mut store = Store::new();
    let begun = store.wrote("a", None, &open(1));
    let request = |at, record| StoreRequest { number: 1, at, record, free_as_of: 0 };
    let (again, other, new) = (
        request(None, open(1)),
        request(Some(begun + 5), decided(&open(1), &abort())),
        request(None, open(3)),
    );
    let stored = store.write_all(&[("a", &again), ("a", &other), ("b", &new)]);
    let at = store.keyspace.reader().revision();
    assert_eq!(stored, [Stored::Done(begun), Stored::Lost, Stored::Done(at)]);
    assert_eq!(store.look("b"), Some((open(3), at)));
}

#[test]
fn what_was_seen_to_be_free_may_have_been_taken_since() {
    let mut store = Store::new();
    let (seen, begun) = (store.keyspace.reader().revision(), store.wrote("a", None, &open(1)));
    let mut carrying = open(2);
    carrying.carried = ["a", "b"].map(|id| Carried { id: id.to_owned(), content: 1 }).into();
    for (id, record) in [("a", open(3)), ("~1", carrying)] {
        let request = StoreRequest { number: 1, at: None, record, free_as_of: seen };
        assert_eq!(store.write_all(&[(id, &request)]), [Stored::Lost], "{id}");
    }
    assert_eq!((store.look("~1"), store.look_for("b")), (None, None));
    // What was over and is forgotten is free again.
    let over = finished(&open(1), &abort());
    let over = (over.clone(), store.wrote("a", Some(begun), &over));
    store.remove("a", over);
    let as_of = store.keyspace.reader().revision();
    let request = StoreRequest { number: 1, at: None, record: open(3), free_as_of: as_of };
    assert_eq!(store.write_all(&[("a", &request)]), [Stored::Done(as_of + 1)]);
}

#[test]
fn what_is_no_answer_to_a_batch_is_no_success() {
    let request = StoreRequest { number: 1, at: None, record: open(1), free_as_of: 0 };
    let batch = [("a", &request), ("b", &request)];
    assert_eq!(written(&batch, 9, Outcome::Compacted), [Stored::Lost, Stored::Lost]);
}

#[test]
fn records_are_listed_by_id() {
    let mut store = Store::new();
    let at = store.wrote("a", None, &open(1));
    store.wrote("b", None, &open(2));
    store.wrote("ab", None, &open(3));
    store.wrote("a", Some(at), &decided(&open(1), &abort()));
    store.wrote("z", None, &Record::void(OWNER, 7, "nobody began it"));
    let listed = |after, limit| {
        let found = list(&store.keyspace.reader(), OPEN, after, limit).unwrap();
        found.into_iter().map(|(id, _, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(listed("", 10), ["a", "ab", "b"]);
    assert_eq!(listed("a", 1), ["ab"]);
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let mut store = Store::new();
    let put = Put { key: key(OPEN, "t"), value: Bytes::from_static(b"?"), ..Put::default() };
    store.run(&Command::Put(put));
    let error = look(&store.keyspace.reader(), "t").unwrap_err();
    assert!(matches!(error, LookError::Decode(_)), "{error}");
}
