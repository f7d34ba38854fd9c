//! A transaction's file. `docs/transactions.md` has its form.
//!
//! Invariant: a key that nobody reads is an error.

use crate::client::range::of_prefix;
use crate::exit::Failure;
use bytes::Bytes;
use quorate_resource_managers::{BranchSpec, Isolation, Kind, Parameter, SqlWork, Statement, Work};
use quorate_wire::etcdserverpb as etcd;
use quorate_wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::quorate as pb;
use serde::Deserialize;
use std::io::Read;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    id: String,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    patience: Option<String>,
    /// Never carried with others.
    #[serde(default)]
    alone: bool,
    #[serde(rename = "branch")]
    branches: Vec<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyspaceBranch {
    name: String,
    keyspace: String,
    #[serde(default, rename = "if")]
    compare: Vec<Condition>,
    #[serde(default)]
    then: Vec<Action>,
    #[serde(default, rename = "else")]
    otherwise: Option<Vec<Action>>,
}

/// `{ key = "a", value = "1" }`: one thing about a key, compared by `is`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Condition {
    key: String,
    #[serde(default)]
    prefix: bool,
    #[serde(default)]
    is: Option<String>,
    value: Option<String>,
    exists: Option<bool>,
    version: Option<i64>,
    create_revision: Option<i64>,
    mod_revision: Option<i64>,
    lease: Option<i64>,
}

/// `{ put = "a", value = "1" }`, `{ get = "a" }` or `{ delete = "a" }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    put: Option<String>,
    get: Option<String>,
    delete: Option<String>,
    value: Option<String>,
    lease: Option<i64>,
    #[serde(default)]
    prefix: bool,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<pb::RunTransactionRequest, Failure> {
    let text = match path.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(path),
    };
    let shown = path.display();
    let text = text.map_err(|error| Failure::Usage(format!("cannot read {shown}: {error}")))?;
    parse(&text).map_err(|why| Failure::Usage(format!("{shown}: {why}")))
}

fn parse(text: &str) -> Result<pb::RunTransactionRequest, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let patience = file.patience.as_deref().unwrap_or("10s");
    let patience = humantime::parse_duration(patience).map_err(|e| format!("patience: {e}"))?;
    Ok(pb::RunTransactionRequest {
        id: file.id,
        protocol: file.protocol,
        patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        branches: file.branches.iter().map(branch).collect::<Result<_, _>>()?,
        applied: true,
        alone: file.alone,
    })
}

fn branch(table: &toml::Table) -> Result<pb::Branch, String> {
    let outside = BranchSpec::from_toml(table).map_err(|error| error.to_string())?;
    let Some(spec) = outside else { return keyspace_branch(table) };
    let participant = spec.participant;
    let work = match (spec.kind, spec.work) {
        (Kind::Http, Work::Prepared(prepared)) => {
            pb::branch::Work::Http(pb::HttpWork { participant, prepared, ..Default::default() })
        }
        (Kind::MariaDb, Work::Prepared(prepared)) => {
            pb::branch::Work::Mariadb(pb::SqlWork { participant, prepared, ..Default::default() })
        }
        (Kind::Postgres, Work::Prepared(prepared)) => {
            pb::branch::Work::Postgres(pb::SqlWork { participant, prepared, ..Default::default() })
        }
        (_, Work::Http(work)) => pb::branch::Work::Http(pb::HttpWork {
            participant,
            action: work.action,
            body: match work.body {
                None => String::new(),
                Some(body) => serde_json::to_string(&body).map_err(|error| error.to_string())?,
            },
            prepared: String::new(),
        }),
        (Kind::MariaDb, Work::Sql(work)) => pb::branch::Work::Mariadb(sql(participant, work)),
        (_, Work::Sql(work)) => pb::branch::Work::Postgres(sql(participant, work)),
    };
    Ok(pb::Branch { name: spec.name, work: Some(work) })
}

fn sql(participant: String, work: SqlWork) -> pb::SqlWork {
    let isolation = match work.isolation {
        None => "",
        Some(Isolation::ReadCommitted) => "read-committed",
        Some(Isolation::RepeatableRead) => "repeatable-read",
        Some(Isolation::Serializable) => "serializable",
    };
    let statement = |statement: Statement| pb::SqlStatement {
        sql: statement.sql,
        parameters: statement.parameters.into_iter().map(parameter).collect(),
        affects: statement.affects,
    };
    pb::SqlWork {
        participant,
        statements: work.statements.into_iter().map(statement).collect(),
        read_only: work.read_only,
        isolation: isolation.to_owned(),
        prepared: String::new(),
    }
}

fn parameter(parameter: Parameter) -> pb::SqlParameter {
    use pb::sql_parameter::Value;
    let value = match parameter {
        Parameter::Boolean(value) => Some(Value::Boolean(value)),
        Parameter::Integer(value) => Some(Value::Integer(value)),
        Parameter::Float(value) => Some(Value::Number(value)),
        Parameter::Text(value) => Some(Value::Text(value)),
        Parameter::Null { .. } => None,
    };
    pb::SqlParameter { value }
}

fn keyspace_branch(table: &toml::Table) -> Result<pb::Branch, String> {
    let name = table.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    let wrong = |why: &str| format!("branch {name}: {why}");
    let it: KeyspaceBranch =
        table.clone().try_into().map_err(|e: toml::de::Error| wrong(e.message()))?;
    let named = |why: String| wrong(&why);
    let or_else = it.otherwise.is_some();
    let txn = etcd::TxnRequest {
        compare: it.compare.into_iter().map(condition).collect::<Result<_, _>>().map_err(named)?,
        success: it.then.into_iter().map(action).collect::<Result<_, _>>().map_err(named)?,
        failure: it
            .otherwise
            .unwrap_or_default()
            .into_iter()
            .map(action)
            .collect::<Result<_, _>>()
            .map_err(named)?,
    };
    let work = pb::KeyspaceWork { keyspace: it.keyspace, txn: Some(txn), or_else };
    Ok(pb::Branch { name: it.name, work: Some(pb::branch::Work::Keyspace(work)) })
}

/// A key, or all that begin so.
fn keys(key: String, prefix: bool) -> (Bytes, Bytes) {
    match prefix {
        true => {
            let (from, end) = of_prefix(key.into_bytes());
            (from.into(), end.into())
        }
        false => (key.into(), Bytes::new()),
    }
}

fn condition(it: Condition) -> Result<etcd::Compare, String> {
    let given = [
        it.value.map(|value| (CompareTarget::Value, TargetUnion::Value(value.into()))),
        it.exists.map(|_| (CompareTarget::Version, TargetUnion::Version(0))),
        it.version.map(|v| (CompareTarget::Version, TargetUnion::Version(v))),
        it.create_revision.map(|v| (CompareTarget::Create, TargetUnion::CreateRevision(v))),
        it.mod_revision.map(|v| (CompareTarget::Mod, TargetUnion::ModRevision(v))),
        it.lease.map(|v| (CompareTarget::Lease, TargetUnion::Lease(v))),
    ];
    let mut given = given.into_iter().flatten();
    let (Some((target, union)), None) = (given.next(), given.next()) else {
        return Err(format!(
            "the condition on {:?} names exactly one of value, exists, version, create-revision, \
             mod-revision and lease",
            it.key
        ));
    };
    let result = match (it.exists, it.is.as_deref()) {
        (Some(true), None) => CompareResult::Greater,
        (Some(_), Some(_)) => return Err(format!("{:?}: exists takes no \"is\"", it.key)),
        (_, None | Some("=")) => CompareResult::Equal,
        (_, Some("!=")) => CompareResult::NotEqual,
        (_, Some(">")) => CompareResult::Greater,
        (_, Some("<")) => CompareResult::Less,
        (_, Some(other)) => return Err(format!("is = {other:?}: it is =, !=, > or <")),
    };
    let (key, range_end) = keys(it.key, it.prefix);
    Ok(etcd::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(union),
    })
}

fn action(it: Action) -> Result<etcd::RequestOp, String> {
    let plain = it.value.is_none() && it.lease.is_none();
    let request = match (it.put, it.get, it.delete) {
        (Some(key), None, None) if !it.prefix => Op::RequestPut(etcd::PutRequest {
            key: key.into(),
            value: it.value.unwrap_or_default().into(),
            lease: it.lease.unwrap_or(0),
            ..Default::default()
        }),
        (None, Some(key), None) if plain => {
            let (key, range_end) = keys(key, it.prefix);
            Op::RequestRange(etcd::RangeRequest { key, range_end, ..Default::default() })
        }
        (None, None, Some(key)) if plain => {
            let (key, range_end) = keys(key, it.prefix);
            let prev_kv = false;
            Op::RequestDeleteRange(etcd::DeleteRangeRequest { key, range_end, prev_kv })
        }
        _ => {
            return Err(
                "an operation is { put = key, value = text, lease = number }, { get = key, prefix \
                 = true } or { delete = key, prefix = true }"
                    .to_owned(),
            );
        }
    };
    Ok(etcd::RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSFER: &str = r#"
        id = "order-17"
        patience = "3s"
        [[branch]]
        name = "stock"
        keyspace = "stock"
        if = [{ key = "apples", value = "5" }, { key = "closed", exists = false }]
        then = [
            { put = "apples", value = "4" },
            { get = "a", prefix = true },
            { get = "", prefix = true },
        ]
        [[branch]]
        name = "debit"
        postgres = "bank"
        statements = [{ sql = "UPDATE a SET b = b - $1", with = [1, { null = true }], affects = 1 }]
    "#;

    #[test]
    fn a_file_becomes_a_request() {
        let request = parse(TRANSFER).unwrap();
        assert_eq!((request.id.as_str(), request.patience_ms), ("order-17", 3_000));
        assert!(!request.alone && parse(&format!("alone = true\n{TRANSFER}")).unwrap().alone);
        let Some(pb::branch::Work::Keyspace(stock)) = &request.branches[0].work else { panic!() };
        let txn = stock.txn.as_ref().unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), stock.or_else), (2, 3, false));
        assert_eq!(txn.compare[1].result(), CompareResult::Equal);
        let Some(Op::RequestRange(range)) = &txn.success[1].request else { panic!() };
        assert_eq!(&range.range_end[..], b"b");
        let Some(Op::RequestRange(all)) = &txn.success[2].request else { panic!() };
        assert_eq!((&all.key[..], &all.range_end[..]), (&b"\0"[..], &b"\0"[..]));
        let Some(pb::branch::Work::Postgres(debit)) = &request.branches[1].work else { panic!() };
        assert_eq!(debit.statements[0].parameters[1].value, None);
        assert_eq!(debit.statements[0].affects, Some(1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let branch = "[[branch]]\nname = 'x'\nkeyspace = 'k'\n";
        for (text, why) in [
            ("", "missing field `branch`"),
            ("ids = 1\n[[branch]]", "unknown field `ids`"),
            ("patience = 'soon'\n[[branch]]", "patience"),
            (&format!("{branch}than = []"), "branch x: unknown field `than`"),
            (&format!("{branch}if = [{{ key = 'a' }}]"), "names exactly one of value"),
            (&format!("{branch}if = [{{ key = 'a', version = 1, is = '~' }}]"), "it is =, !="),
            (&format!("{branch}then = [{{ put = 'a', get = 'b' }}]"), "branch x: an operation is"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
