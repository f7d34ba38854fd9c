//! What is asked of the cluster.

use crate::money::{Holding, Shares, leaving, notes};
use crate::places::{BALANCE, Map, Place, key};
use quorate_wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use quorate_wire::quorate::branch::Work;
use quorate_wire::quorate::sql_parameter::Value;
use quorate_wire::quorate::{
    Branch, KeyspaceWork, RunTransactionRequest, SqlParameter, SqlStatement, SqlWork,
};
use std::collections::BTreeMap;

/// How long a transaction may stay undecided.
const PATIENCE_MS: u64 = 3_000;

/// Writes a key.
pub fn put(key: String, value: String) -> RequestOp {
    let (key, value) = (key.into(), value.into());
    let put = PutRequest { key, value, ..Default::default() };
    RequestOp { request: Some(Op::RequestPut(put)) }
}

/// Reads a key.
pub fn range(key: String) -> RangeRequest {
    RangeRequest { key: key.into(), ..Default::default() }
}

/// Opens the accounts of these circles, if they are not there yet: repeated, it changes nothing.
pub fn open(circles: std::ops::Range<u64>) -> TxnRequest {
    let absent = |circle| holds(key(circle), None);
    let new = Holding { balance: BALANCE, left: 0 };
    TxnRequest {
        compare: circles.clone().map(absent).collect(),
        success: circles.map(|circle| put(key(circle), new.text())).collect(),
        ..Default::default()
    }
}

/// A branch in a keyspace.
pub fn keyspace(name: &str, txn: TxnRequest) -> Branch {
    let work = KeyspaceWork { keyspace: name.to_owned(), txn: Some(txn), or_else: false };
    Branch { name: name.to_owned(), work: Some(Work::Keyspace(work)) }
}

/// A key has this value, or none.
pub fn holds(key: String, value: Option<&str>) -> Compare {
    let key = key.into();
    let (target, union) = match value {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(value.to_owned().into())),
        None => (CompareTarget::Version, TargetUnion::Version(0)),
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key,
        target_union: Some(union),
        ..Default::default()
    }
}

/// The half of a transfer in a keyspace: nobody has changed the account since it was read.
pub fn half(circle: u64, was: Holding, is: Holding) -> TxnRequest {
    let same = holds(key(circle), Some(&was.text()));
    let success = vec![put(key(circle), is.text())];
    TxnRequest { compare: vec![same], success, ..Default::default() }
}

fn sql(participant: &str, text: &str, share: i64, circle: u64) -> SqlWork {
    let number = |n| SqlParameter { value: Some(Value::Integer(n)) };
    let circle = i64::try_from(circle).unwrap_or(i64::MAX);
    let statement = SqlStatement {
        sql: text.to_owned(),
        parameters: vec![number(share), number(circle)],
        affects: Some(1),
    };
    let participant = participant.to_owned();
    SqlWork { participant, statements: vec![statement], ..SqlWork::default() }
}

/// What every account in a keyspace has after these shares. `was` has what was read, by place.
pub fn after(
    map: &Map,
    shares: &Shares,
    was: &BTreeMap<usize, Holding>,
) -> BTreeMap<usize, Holding> {
    let (noted, left) = (notes(map, shares), leaving(map, shares));
    let of = |(place, share): &(usize, i64)| {
        let was = was.get(place)?;
        let left = was.left + if noted == Some(*place) { left } else { 0 };
        Some((*place, Holding { balance: was.balance + share, left }))
    };
    shares.iter().filter_map(of).collect()
}

/// A transfer of these shares.
pub fn transfer(
    id: &str,
    map: &Map,
    circle: u64,
    shares: &Shares,
    was: &BTreeMap<usize, Holding>,
) -> RunTransactionRequest {
    let is = after(map, shares, was);
    let branch = |(place, share): &(usize, i64)| match &map.places[*place] {
        Place::Keyspace(name) => keyspace(name, half(circle, was[place], is[place])),
        Place::Postgres => {
            let text = "UPDATE account SET balance = balance + $1, version = version + 1 \
                        WHERE id = $2";
            let work = Work::Postgres(sql("bank", text, *share, circle));
            Branch { name: "postgres".to_owned(), work: Some(work) }
        }
        Place::MariaDb => {
            let text = "UPDATE account SET balance = balance + ?, version = version + 1 \
                        WHERE id = ?";
            let work = Work::Mariadb(sql("shop", text, *share, circle));
            Branch { name: "mariadb".to_owned(), work: Some(work) }
        }
    };
    RunTransactionRequest {
        id: id.to_owned(),
        patience_ms: PATIENCE_MS,
        branches: shares.iter().map(branch).collect(),
        ..Default::default()
    }
}

/// Reads all of a circle's accounts in keyspaces, at one moment.
pub fn audit(id: &str, map: &Map, circle: u64) -> RunTransactionRequest {
    let read = RequestOp { request: Some(Op::RequestRange(range(key(circle)))) };
    let branch = |name: &&str| {
        keyspace(name, TxnRequest { success: vec![read.clone()], ..Default::default() })
    };
    RunTransactionRequest {
        id: id.to_owned(),
        patience_ms: PATIENCE_MS,
        branches: map.keyspaces().iter().map(branch).collect(),
        ..Default::default()
    }
}
