//! What branches do, from the wire.

use quorate_coordinator::{Branch, BranchWork};
use quorate_etcd::branch::read_txn;
use quorate_resource_managers::{HttpWork, Isolation, Kind, Parameter, SqlWork, Statement, Work};
use quorate_wire::quorate as pb;
use quorate_wire::quorate::branch::Work as Wire;
use quorate_wire::quorate::sql_parameter::Value;

/// Reads one branch; what is wrong with it is said in words.
pub(crate) fn branch(branch: pb::Branch, max_ops: usize) -> Result<Branch, String> {
    let name = branch.name;
    let wrong = |why: String| format!("branch {name:?}: {why}");
    let Some(work) = branch.work else {
        return Err(wrong("it names no participant: keyspace, postgres, mariadb or http".into()));
    };
    let (participant, work) = match work {
        Wire::Keyspace(work) => {
            let txn = work.txn.unwrap_or_default();
            let txn = read_txn(txn, max_ops).map_err(|refusal| wrong(refusal.text().to_owned()))?;
            let done = BranchWork::Keyspace { txns: [txn].into(), or_else: work.or_else };
            (work.keyspace, done)
        }
        Wire::Postgres(work) => {
            (work.participant.clone(), sql(Kind::Postgres, work).map_err(wrong)?)
        }
        Wire::Mariadb(work) => (work.participant.clone(), sql(Kind::MariaDb, work).map_err(wrong)?),
        Wire::Http(work) if !work.prepared.is_empty() => {
            let alone = work.action.is_empty() && work.body.is_empty();
            (work.participant, own(Kind::Http, work.prepared, alone).map_err(wrong)?)
        }
        Wire::Http(work) => {
            let body = match work.body.is_empty() {
                true => None,
                // Kept as TOML, which has no null.
                false => Some(serde_json::from_str(&work.body).map_err(|error| {
                    wrong(format!("its body is no JSON object without null: {error}"))
                })?),
            };
            let http = HttpWork { action: work.action, body };
            (work.participant, BranchWork::Manager(Kind::Http, Work::Http(http)))
        }
    };
    Ok(Branch { name, participant, work })
}

/// A branch that the application has prepared itself: nothing else is said of it.
fn own(kind: Kind, id: String, alone: bool) -> Result<BranchWork, String> {
    match alone {
        true => Ok(BranchWork::Manager(kind, Work::Prepared(id))),
        false => Err("what is prepared already has nothing to be done beside it".to_owned()),
    }
}

fn sql(kind: Kind, work: pb::SqlWork) -> Result<BranchWork, String> {
    if !work.prepared.is_empty() {
        let alone = work.statements.is_empty() && !work.read_only && work.isolation.is_empty();
        return own(kind, work.prepared, alone);
    }
    let isolation = match work.isolation.as_str() {
        "" => None,
        "read-committed" => Some(Isolation::ReadCommitted),
        "repeatable-read" => Some(Isolation::RepeatableRead),
        "serializable" => Some(Isolation::Serializable),
        other => {
            return Err(format!(
                "there is no isolation level {other:?}: it is read-committed, repeatable-read or \
                 serializable"
            ));
        }
    };
    let statement = |statement: pb::SqlStatement| Statement {
        sql: statement.sql,
        parameters: statement.parameters.into_iter().map(parameter).collect(),
        affects: statement.affects,
    };
    let statements = work.statements.into_iter().map(statement).collect();
    let work = SqlWork { statements, read_only: work.read_only, isolation };
    Ok(BranchWork::Manager(kind, Work::Sql(work)))
}

fn parameter(parameter: pb::SqlParameter) -> Parameter {
    match parameter.value {
        None => Parameter::NULL,
        Some(Value::Boolean(value)) => Parameter::Boolean(value),
        Some(Value::Integer(value)) => Parameter::Integer(value),
        Some(Value::Number(value)) => Parameter::Float(value),
        Some(Value::Text(value)) => Parameter::Text(value),
    }
}
