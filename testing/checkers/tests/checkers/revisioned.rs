//! Histories made by an atomic store at random moments are right; each kind of tampering is found.

use bytes::Bytes;
use quorate_base::{Instant, Rng};
use quorate_checkers::{
    Change, Compare, End, Limit, Op, Operation, Outcome, Reply, Request, Span, Store, Target,
    Truth, check_registers, check_revisions,
};

struct Made {
    truth: Truth,
    history: Vec<Operation>,
}

fn key(rng: &mut Rng) -> Bytes {
    Bytes::from(format!("r{}", rng.below(3)))
}

fn all() -> Span {
    Span { from: Bytes::from_static(b"r"), to: Some(Bytes::from_static(b"s")) }
}

fn request(rng: &mut Rng, n: u64) -> Request {
    let value = Bytes::from(format!("v{n}"));
    let put = Op::Put { key: key(rng), value: value.clone(), lease: 0 };
    match rng.below(6) {
        0 => Request::Op(Op::Delete(Span::one(key(rng)))),
        1 => Request::Op(Op::Range(all())),
        2 => Request::Op(Op::Range(Span::one(key(rng)))),
        3 => {
            let target = if rng.below(2) == 0 {
                Target::Version(0)
            } else {
                Target::Value(Bytes::from(format!("v{}", n.saturating_sub(rng.below(4)))))
            };
            let compares = vec![Compare { key: key(rng), target }];
            Request::Txn { compares, success: vec![put], failure: vec![Op::Range(all())] }
        }
        _ => Request::Op(put),
    }
}

/// Operations take effect in order, each at a moment between its call and its answer; they
/// overlap. Some answers are lost, and some of those never took effect.
fn make(seed: u64) -> Made {
    let mut rng = Rng::new(seed);
    let mut store = Store::default();
    let mut truth = Truth::default();
    let mut history = Vec::new();
    for n in 0..40 {
        let at = 1_000 + n * 10;
        let called = Instant(at - rng.below(25));
        let request = request(&mut rng, n);
        let lost = rng.below(10) == 0;
        if lost && rng.below(2) == 0 {
            history.push(Operation { called, request, end: End::Unknown });
            continue;
        }
        let (reply, changes) = store.plan(&request);
        if !changes.is_empty() {
            store.advance(&changes);
            truth.record(1, store.revision, &changes, Instant(at)).unwrap();
        }
        let answered = Instant(at + 1 + rng.below(25));
        let end = if lost { End::Unknown } else { End::Answered { at: answered, reply } };
        history.push(Operation { called, request, end });
    }
    Made { truth, history }
}

#[test]
fn what_an_atomic_store_does_is_accepted() {
    for seed in 0..300 {
        let made = make(seed);
        let (store, expiries) = check_revisions(&made.truth, &made.history).unwrap();
        assert_eq!((store.revision, expiries.len()), (made.truth.last(), 0));
        assert_eq!(check_registers(&made.history, b"r", Limit(100_000)), Ok(0), "seed {seed}");
    }
}

/// Changes one answered operation; says whether there was one to change.
fn tamper(made: &mut Made, mut with: impl FnMut(&mut Operation) -> bool) -> bool {
    made.history.iter_mut().rev().any(&mut with)
}

fn reply(operation: &mut Operation) -> Option<(&mut Instant, &mut Reply)> {
    match &mut operation.end {
        End::Answered { at, reply } => Some((at, reply)),
        _ => None,
    }
}

type Tampering = fn(&mut Operation) -> bool;

const TAMPERINGS: [(&str, bool, Tampering); 5] = [
    ("a read that misses what it must see", true, |o| {
        let Some((_, Reply { outcome: Outcome::Found(kvs), .. })) = reply(o) else { return false };
        kvs.pop().is_some()
    }),
    ("a transaction that claims to have compared otherwise", true, |o| {
        let Some((_, Reply { outcome: Outcome::Txn { succeeded, outcomes }, .. })) = reply(o)
        else {
            return false;
        };
        let was = std::mem::replace(succeeded, false);
        if was {
            *outcomes = vec![Outcome::Found(Vec::new())];
        }
        was
    }),
    ("an acknowledged write that nobody made", false, |o| {
        let put = matches!(o.request, Request::Op(Op::Put { .. }));
        if let (true, Some((_, reply))) = (put, reply(o)) {
            reply.revision += 1;
            return true;
        }
        false
    }),
    ("a refused write that was done", false, |o| {
        let put = matches!(o.request, Request::Op(Op::Put { .. }));
        if put && o.answer().is_some() {
            o.end = End::NotDone;
            return true;
        }
        false
    }),
    ("a write that took effect before it was asked for", false, |o| {
        let put = matches!(o.request, Request::Op(Op::Put { .. }));
        if let (true, Some((at, reply))) = (put, reply(o))
            && reply.revision < 10
        {
            *at = Instant(9_001);
            o.called = Instant(9_000);
            return true;
        }
        false
    }),
];

#[test]
fn every_tampering_is_found() {
    for (what, values_show_it, with) in TAMPERINGS {
        let (mut tried, mut by_values) = (0, 0);
        for seed in 0..200 {
            let mut made = make(seed);
            if !tamper(&mut made, with) {
                continue;
            }
            tried += 1;
            let verdict = check_revisions(&made.truth, &made.history);
            assert!(verdict.is_err(), "{what}, seed {seed}");
            by_values += usize::from(check_registers(&made.history, b"r", Limit(100_000)).is_err());
        }
        assert!(tried > 20, "{what}: {tried} tried");
        assert!(!values_show_it || by_values > 20, "{what}: {by_values} of {tried} by values");
    }
}

#[test]
fn a_request_done_twice_is_found() {
    let mut truth = Truth::default();
    let mut store = Store::default();
    let put = Request::Op(Op::Put {
        key: Bytes::from_static(b"r"),
        value: Bytes::from_static(b"v"),
        lease: 0,
    });
    for revision in [2, 3] {
        let (_, changes) = store.plan(&put);
        store.advance(&changes);
        truth.record(1, revision, &changes, Instant(revision)).unwrap();
    }
    let lost = Operation { called: Instant(1), request: put, end: End::Unknown };
    let violation = check_revisions(&truth, &[lost]).unwrap_err();
    assert_eq!(violation.promise, "exactly once");
}

#[test]
fn a_lease_that_ends_takes_all_its_keys() {
    let put = |key: &'static str| {
        let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from(format!("of {key}")));
        Request::Op(Op::Put { key, value, lease: 7 })
    };
    let requests = [put("a"), put("b")];
    let mut truth = Truth::default();
    let mut store = Store::default();
    let mut history = Vec::new();
    for request in requests {
        let (reply, changes) = store.plan(&request);
        store.advance(&changes);
        let at = Instant(reply.revision);
        truth.record(1, reply.revision, &changes, at).unwrap();
        history.push(Operation { called: at, request, end: End::Answered { at, reply } });
    }
    let gone = |key: &'static str| Change::Delete(Bytes::from_static(key.as_bytes()));
    let mut half = truth.clone();
    half.record(1, 4, &[gone("a")], Instant(9)).unwrap();
    assert!(check_revisions(&half, &history).is_err(), "half of a lease");
    truth.record(1, 4, &[gone("a"), gone("b")], Instant(9)).unwrap();
    let (store, expiries) = check_revisions(&truth, &history).unwrap();
    assert_eq!((store.all().count(), expiries.len()), (0, 1));
    assert_eq!((expiries[0].lease, expiries[0].revision), (7, 4));
}
