//! Between the keyspace's words and the checkers': requests out, replies and events in.

use bytes::Bytes;
use quorate_checkers::{Change, Compare, Kv, Op, Outcome, Refusal, Reply, Request, Span, Target};
use quorate_keyspace::command::{
    self as ks, Command, CompareOperator, CompareTarget, Delete, Put, Range, Txn,
};
use quorate_keyspace::reply as rep;
use quorate_mvcc::{Event, KeyRange, KeyValue};

/// A set of keys in the keyspace's words.
pub fn key_range(span: &Span) -> KeyRange {
    match &span.to {
        None => KeyRange::One(span.from.clone()),
        Some(to) => KeyRange::Between(span.from.clone(), to.clone()),
    }
}

/// The command that a request is replicated as; a plain read is none.
pub fn command(request: &Request, ttl_seconds: i64) -> Option<Command> {
    Some(match request {
        Request::Op(Op::Put { key, value, lease }) => Command::Put(put(key, value, *lease)),
        Request::Op(Op::Delete(span)) => Command::Delete(delete(span)),
        Request::Op(Op::Range(_)) | Request::Old { .. } => return None,
        Request::Txn { compares, success, failure } => Command::Txn(Txn {
            compare: compares.iter().map(compare).collect(),
            success: success.iter().map(operation).collect(),
            failure: failure.iter().map(operation).collect(),
        }),
        Request::Compact { revision } => Command::Compact { revision: *revision },
        Request::Grant { id } => Command::LeaseGrant { id: *id, ttl_seconds },
        Request::Revoke { id } => Command::LeaseRevoke { id: *id },
    })
}

fn put(key: &Bytes, value: &Bytes, lease: i64) -> Put {
    Put { key: key.clone(), value: value.clone(), lease, ..Put::default() }
}

fn delete(span: &Span) -> Delete {
    Delete { range: key_range(span), prev_kv: false }
}

fn operation(op: &Op) -> ks::Operation {
    match op {
        Op::Put { key, value, lease } => ks::Operation::Put(put(key, value, *lease)),
        Op::Delete(span) => ks::Operation::Delete(delete(span)),
        Op::Range(span) => ks::Operation::Range(Range::of(key_range(span))),
    }
}

fn compare(compare: &Compare) -> ks::Compare {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    ks::Compare {
        range: KeyRange::One(compare.key.clone()),
        operator: CompareOperator::Equal,
        target: match &compare.target {
            Target::Value(value) => CompareTarget::Value(value.clone()),
            Target::Mod(revision) => CompareTarget::Mod(number(*revision)),
            Target::Create(revision) => CompareTarget::Create(number(*revision)),
            Target::Version(version) => CompareTarget::Version(number(*version)),
        },
    }
}

/// What a command was answered.
pub fn reply(reply: &rep::Reply) -> Reply {
    let outcome = match &reply.result {
        Ok(outcome) => self::outcome(outcome),
        Err(error) => Outcome::Refused(refusal(error)),
    };
    Reply { revision: reply.revision, outcome }
}

/// Why a keyspace refused; what no client of ours provokes counts as "no room".
pub fn refusal(error: &rep::KeyspaceError) -> Refusal {
    match error {
        rep::KeyspaceError::Compacted => Refusal::Compacted,
        rep::KeyspaceError::FutureRevision => Refusal::Future,
        rep::KeyspaceError::LeaseNotFound => Refusal::LeaseNotFound,
        rep::KeyspaceError::LeaseExists => Refusal::LeaseExists,
        _ => Refusal::NoSpace,
    }
}

fn outcome(outcome: &rep::Outcome) -> Outcome {
    match outcome {
        rep::Outcome::Delete(deleted) => Outcome::Deleted(deleted.deleted),
        rep::Outcome::Txn(txn) => self::txn(txn),
        _ => Outcome::Done,
    }
}

fn txn(txn: &rep::TxnOutcome) -> Outcome {
    let one = |outcome: &rep::OperationOutcome| match outcome {
        rep::OperationOutcome::Range(range) => found(&range.kvs),
        rep::OperationOutcome::Put(_) => Outcome::Done,
        rep::OperationOutcome::Delete(deleted) => Outcome::Deleted(deleted.deleted),
        rep::OperationOutcome::Txn(inner) => self::txn(inner),
    };
    Outcome::Txn { succeeded: txn.succeeded, outcomes: txn.responses.iter().map(one).collect() }
}

/// What a range found.
pub fn found(kvs: &[KeyValue]) -> Outcome {
    Outcome::Found(kvs.iter().map(kv).collect())
}

/// A key as of its latest change.
pub fn kv(kv: &KeyValue) -> Kv {
    Kv {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

/// What an event changed.
pub fn change(event: &Event) -> Change {
    match event {
        Event::Put(put) => Change::Put(kv(put)),
        Event::Delete { key, .. } => Change::Delete(key.clone()),
    }
}
