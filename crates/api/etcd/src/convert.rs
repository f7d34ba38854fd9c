//! Wire messages to commands, and outcomes back to wire messages.
//!
//! Invariant: nothing is copied that can be shared (keys and values are reference counted).

use crate::errors::Refusal;
use quorate_keyspace::command::{
    Compare, CompareOperator, CompareTarget, Delete, Operation, Put, Range, SortTarget, Txn,
};
use quorate_keyspace::reply::{
    DeleteOutcome, OperationOutcome, PutOutcome, RangeOutcome, TxnOutcome,
};
use quorate_mvcc::{KeyRange, KeyValue, Revision};
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::compare::{
    CompareResult, CompareTarget as WireTarget, TargetUnion,
};
use quorate_wire::etcdserverpb::range_request::SortOrder;
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::response_op::Response as Done;
use quorate_wire::mvccpb;

/// A revision on the wire; revisions stay far below the sign bit.
pub fn wire(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A revision from the wire: zero or less means "now".
pub fn revision(wire: i64) -> Revision {
    Revision::try_from(wire).unwrap_or(0)
}

/// A range request. An order with an unknown number was refused before.
pub fn range(request: pb::RangeRequest) -> Range {
    let target = match request.sort_target {
        1 => SortTarget::Version,
        2 => SortTarget::Create,
        3 => SortTarget::Mod,
        4 => SortTarget::Value,
        _ => SortTarget::Key,
    };
    let sort = match SortOrder::try_from(request.sort_order) {
        Ok(SortOrder::Descend) => Some((target, true)),
        // etcd: a target without an order means ascending.
        _ if target != SortTarget::Key => Some((target, false)),
        _ => None,
    };
    Range {
        range: KeyRange::from_etcd(request.key, request.range_end),
        limit: u64::try_from(request.limit).unwrap_or(0),
        revision: revision(request.revision),
        sort,
        keys_only: request.keys_only,
        count_only: request.count_only,
        mod_revision: bounds(request.min_mod_revision, request.max_mod_revision),
        create_revision: bounds(request.min_create_revision, request.max_create_revision),
    }
}

/// Zero is no bound; a negative upper bound lets nothing through.
fn bounds(min: i64, max: i64) -> (Revision, Revision) {
    if max < 0 { (Revision::MAX, 1) } else { (revision(min), revision(max)) }
}

/// A put request.
pub fn put(request: pb::PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A delete request.
pub fn delete(request: pb::DeleteRangeRequest) -> Delete {
    Delete { range: KeyRange::from_etcd(request.key, request.range_end), prev_kv: request.prev_kv }
}

/// A transaction that passed its checks.
pub fn txn(request: pb::TxnRequest) -> Result<Txn, Refusal> {
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.into_iter().map(operation).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn operation(op: pb::RequestOp) -> Result<Operation, Refusal> {
    Ok(match op.request.ok_or(Refusal::KeyNotFound)? {
        Op::RequestRange(request) => Operation::Range(range(request)),
        Op::RequestPut(request) => Operation::Put(put(request)),
        Op::RequestDeleteRange(request) => Operation::Delete(delete(request)),
        Op::RequestTxn(request) => Operation::Txn(txn(request)?),
    })
}

/// A number beside the wrong target counts as zero, as in etcd. A result or target of a later
/// version cannot be evaluated and is refused, where etcd lets it hold.
fn compare(compare: pb::Compare) -> Result<Compare, Refusal> {
    let operator = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => CompareOperator::Equal,
        Ok(CompareResult::Greater) => CompareOperator::Greater,
        Ok(CompareResult::Less) => CompareOperator::Less,
        Ok(CompareResult::NotEqual) => CompareOperator::NotEqual,
        Err(_) => return Err(Refusal::NotCapable),
    };
    let given = compare.target_union;
    let target = match (WireTarget::try_from(compare.target), given) {
        (Ok(WireTarget::Version), Some(TargetUnion::Version(v))) => CompareTarget::Version(v),
        (Ok(WireTarget::Version), _) => CompareTarget::Version(0),
        (Ok(WireTarget::Create), Some(TargetUnion::CreateRevision(v))) => CompareTarget::Create(v),
        (Ok(WireTarget::Create), _) => CompareTarget::Create(0),
        (Ok(WireTarget::Mod), Some(TargetUnion::ModRevision(v))) => CompareTarget::Mod(v),
        (Ok(WireTarget::Mod), _) => CompareTarget::Mod(0),
        (Ok(WireTarget::Value), Some(TargetUnion::Value(v))) => CompareTarget::Value(v),
        (Ok(WireTarget::Value), _) => CompareTarget::Value(bytes::Bytes::new()),
        (Ok(WireTarget::Lease), Some(TargetUnion::Lease(v))) => CompareTarget::Lease(v),
        (Ok(WireTarget::Lease), _) => CompareTarget::Lease(0),
        (Err(_), _) => return Err(Refusal::NotCapable),
    };
    let range = KeyRange::from_etcd(compare.key, compare.range_end);
    Ok(Compare { range, operator, target })
}

/// A key as clients see it.
pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: wire(kv.create_revision),
        mod_revision: wire(kv.mod_revision),
        version: i64::try_from(kv.version).unwrap_or(i64::MAX),
        value: kv.value,
        lease: kv.lease,
    }
}

/// What a range found.
pub fn range_response(header: pb::ResponseHeader, outcome: RangeOutcome) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: outcome.kvs.into_iter().map(key_value).collect(),
        more: outcome.more,
        count: i64::try_from(outcome.count).unwrap_or(i64::MAX),
    }
}

/// What a put did.
pub fn put_response(header: pb::ResponseHeader, outcome: PutOutcome) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: outcome.previous.map(key_value) }
}

/// What a delete did.
pub fn delete_response(
    header: pb::ResponseHeader,
    outcome: DeleteOutcome,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: i64::try_from(outcome.deleted).unwrap_or(i64::MAX),
        prev_kvs: outcome.previous.into_iter().map(key_value).collect(),
    }
}

/// What a transaction did. Nested answers carry the revision alone in their headers, as in etcd.
pub fn txn_response(header: pb::ResponseHeader, outcome: TxnOutcome) -> pb::TxnResponse {
    let inner = pb::ResponseHeader { revision: header.revision, ..Default::default() };
    let done = |outcome| match outcome {
        OperationOutcome::Range(outcome) => Done::ResponseRange(range_response(inner, outcome)),
        OperationOutcome::Put(outcome) => Done::ResponsePut(put_response(inner, outcome)),
        OperationOutcome::Delete(outcome) => {
            Done::ResponseDeleteRange(delete_response(inner, outcome))
        }
        OperationOutcome::Txn(outcome) => Done::ResponseTxn(txn_response(inner, outcome)),
    };
    pb::TxnResponse {
        header: Some(header),
        succeeded: outcome.succeeded,
        responses: outcome
            .responses
            .into_iter()
            .map(|outcome| pb::ResponseOp { response: Some(done(outcome)) })
            .collect(),
    }
}

/// Whether a transaction may write keys.
pub fn puts(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}
