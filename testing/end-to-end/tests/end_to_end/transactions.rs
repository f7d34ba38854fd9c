//! Transactions across keyspaces: from the command line, and under `kill -9` of the nodes that
//! coordinate them and lead their keyspaces.

use crate::{begin, quorate};
use quorate_client::{Client, Config, Error};
use quorate_end_to_end::{Cluster, Node, eventually};
use quorate_wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::response_op::Response as Done;
use quorate_wire::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse,
};
use quorate_wire::quorate::branch::Work;
use quorate_wire::quorate::{
    Branch, KeyspaceWork, ListTransactionsRequest, RunTransactionRequest, RunTransactionResponse,
    TransactionState,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const ACCOUNTS: u64 = 8;
const BALANCE: i64 = 1_000;
const CLIENTS: u64 = 4;

/// A cluster with two keyspaces, one under each protocol.
pub(crate) fn two_keyspaces() -> Cluster {
    let cluster = Cluster::start(3);
    eventually("the directory of keyspaces is there", PATIENCE, || {
        quorate(&cluster, &["keyspace", "describe", "system"], "").code == Some(0)
    });
    for (name, protocol) in [("orders", "raft"), ("stock", "paxos")] {
        // The directory's leader may be on the move.
        eventually("the keyspace is made", PATIENCE, || {
            let made = ["keyspace", "create", name, "--protocol", protocol];
            let made = quorate(&cluster, &made, "");
            made.code == Some(0) || made.err.contains("already")
        });
    }
    cluster
}

pub(crate) fn client(cluster: &Cluster, keyspace: Option<&str>) -> Client {
    let endpoints = cluster.nodes.iter().map(|node| node.client.as_str());
    let mut config = Config::of(endpoints).unwrap();
    config.keyspace = keyspace.map(str::to_owned);
    config.timeout = PATIENCE;
    config.attempt_timeout = Duration::from_secs(8);
    Client::new(config)
}

const ORDER: &str = r#"
    id = "order-1"
    [[branch]]
    name = "order"
    keyspace = "orders"
    then = [{ put = "order/1", value = "apples" }]
    [[branch]]
    name = "take"
    keyspace = "stock"
    if = [{ key = "apples", value = "5" }]
    then = [{ get = "apples" }, { put = "apples", value = "4" }]
"#;

fn refused_before_anything_is_prepared(cluster: &Cluster) {
    let txn = |text: &str| quorate(cluster, &["txn", "run", "-"], text);
    let unknown = txn(&ORDER.replace("order-1", "order-3").replace("\"stock\"", "\"stocks\""));
    assert!(unknown.err.contains("there is no keyspace \"stocks\""), "{unknown:?}");
    let twice = txn(&ORDER.replace("order-1", "order-3").replace("\"stock\"", "\"orders\""));
    assert!(twice.err.contains("\"orders\" is named by two branches"), "{twice:?}");
    let own = txn(&ORDER.replace("order-1", "order-3").replace("\"stock\"", "\"system\""));
    assert!(own.err.contains("is the cluster's own"), "{own:?}");
    let database = "[[branch]]\nname = 'a'\npostgres = 'bank'\nstatements = [{ sql = 'SELECT 1' }]";
    let database = txn(database);
    assert!(database.err.contains("no participant postgres = \"bank\""), "{database:?}");
    let three =
        txn(&format!("protocol = \"three-phase\"\n{}", ORDER.replace("order-1", "order-3")));
    assert!(three.err.contains("three-phase is not run"), "{three:?}");
    let absent = quorate(cluster, &["txn", "show", "order-3"], "");
    assert!(absent.err.contains("there is no transaction \"order-3\""), "{absent:?}");
}

#[test]
fn transactions_from_the_command_line() {
    let _turn = begin();
    let cluster = two_keyspaces();
    let q = |arguments: &[&str], input: &str| quorate(&cluster, arguments, input);
    let txn = |text: &str| q(&["txn", "run", "-"], text);
    q(&["put", "apples", "5", "--keyspace", "stock"], "").ok();

    let ran = txn(ORDER).ok();
    assert!(ran.starts_with("OK, transaction order-1 is committed\n"), "{ran}");
    assert!(ran.contains("order: orders committed at 2\n"), "{ran}");
    assert!(ran.contains("take: stock committed at 3\n  apples = 5\n"), "{ran}");
    let get = |key: &str, keyspace: &str| {
        let found = q(&["get", key, "--keyspace", keyspace, "-o", "json"], "").json();
        found["kvs"][0]["value"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(
        (get("apples", "stock"), get("order/1", "orders")),
        ("NA==".into(), "YXBwbGVz".into())
    );

    // Run again it is not done twice, and has the same outcome. Another of its id is refused.
    assert!(txn(ORDER).ok().contains("order-1 is committed"));
    assert_eq!(get("apples", "stock"), "NA==");
    let other = txn(&ORDER.replace("\"apples\" }]", "\"pears\" }]"));
    assert!(other.code == Some(1) && other.err.contains("another transaction"), "{other:?}");

    // A branch that says no takes the other one with it, and is named.
    let refused = txn(&ORDER.replace("order-1", "order-2").replace("order/1", "order/2"));
    assert!(refused.code == Some(1), "{refused:?}");
    let why = "order-2 is rolled back by branch take: a compare does not hold";
    assert!(refused.err.contains(why), "{refused:?}");
    assert_eq!(get("order/2", "orders"), "");
    // That outcome is kept as well, though the transaction would commit now.
    q(&["put", "apples", "5", "--keyspace", "stock"], "").ok();
    let again = txn(&ORDER.replace("order-1", "order-2").replace("order/1", "order/2"));
    assert!(again.err.contains(why), "{again:?}");

    refused_before_anything_is_prepared(&cluster);

    // One keyspace: one phase.
    let one = "id = 'one'\n[[branch]]\nname = 'a'\nkeyspace = 'orders'\n\
               then = [{ put = 'k', value = 'v' }]";
    assert!(txn(one).ok().contains("one is committed"));

    let listed = q(&["txn", "list"], "").ok();
    assert!(listed.contains("order-1") && listed.contains("rolled back"), "{listed}");
    let shown = q(&["txn", "show", "order-2", "-o", "json"], "").json();
    assert_eq!(shown["guilty_branch"], "take");
    assert_eq!(shown["branches"][0]["state"], "rolled-back");
    assert_eq!(shown["branches"][1]["state"], "refused");
    assert_eq!(shown["branches"][1]["vote"], "no");
    let shown = q(&["txn", "show", "order-1", "-o", "json"], "").json();
    let at = |value: &serde_json::Value| value.as_u64().unwrap();
    for branch in shown["branches"].as_array().unwrap() {
        let times = [&shown["began_ms"], &branch["voted_ms"], &branch["ended_ms"]].map(at);
        assert!(branch["vote"] == "yes" && times.is_sorted(), "{shown}");
    }
    // The records' keyspace is nobody's to write to, or to drop.
    let hidden = q(&["get", "o/", "--keyspace", "transactions"], "");
    assert!(hidden.err.contains("the cluster's own"), "{hidden:?}");
    let kept = q(&["keyspace", "drop", "transactions", "--yes"], "");
    assert!(kept.code == Some(1), "{kept:?}");
}

#[test]
fn a_member_says_why_before_its_client_gives_up() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    quorate(&cluster, &["txn", "list"], "").ok();
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    let told = |arguments: &[&str], input: &str| {
        let mut command = std::process::Command::new(quorate_end_to_end::binary());
        command.env("QUORATE_ENDPOINTS", cluster.endpoints());
        let ran = quorate_end_to_end::run(command.args(arguments), input);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        ran.err
    };
    let listed = told(&["txn", "list"], "");
    assert!(listed.contains("quorate: the ") && listed.contains("records"), "{listed}");
    let one = "id = 'one'\npatience = '300ms'\n[[branch]]\nname = 'a'\nkeyspace = 'default'\n\
               then = [{ put = 'k', value = 'v' }]";
    let ran = told(&["txn", "run", "-", "--timeout", "1s"], one);
    assert!(ran.contains("\"one\" is in doubt"), "{ran}");
    let large = one.replace("'v'", &format!("'{}'", "v".repeat(1 << 20)));
    let large = quorate(&cluster, &["txn", "run", "-"], &large);
    assert!(large.code == Some(1) && large.err.contains("has up to 1048576"), "{}", large.err);
}

pub(crate) fn put(key: String, value: String) -> RequestOp {
    let (key, value) = (key.into_bytes().into(), value.into_bytes().into());
    let request = PutRequest { key, value, ..Default::default() };
    RequestOp { request: Some(Op::RequestPut(request)) }
}

pub(crate) fn get(key: &str, end: &str) -> RequestOp {
    let (key, range_end) = (key.as_bytes().to_vec().into(), end.as_bytes().to_vec().into());
    let request = RangeRequest { key, range_end, ..Default::default() };
    RequestOp { request: Some(Op::RequestRange(request)) }
}

pub(crate) fn holds(key: String, value: String) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key: key.into_bytes().into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(TargetUnion::Value(value.into_bytes().into())),
    }
}

pub(crate) fn branch(keyspace: &str, compare: Vec<Compare>, success: Vec<RequestOp>) -> Branch {
    let txn = TxnRequest { compare, success, failure: Vec::new() };
    let keyspace_work =
        KeyspaceWork { keyspace: keyspace.to_owned(), txn: Some(txn), or_else: false };
    Branch { name: keyspace.to_owned(), work: Some(Work::Keyspace(keyspace_work)) }
}

fn request(id: String, branches: Vec<Branch>) -> RunTransactionRequest {
    let patience_ms = 6_000;
    // Both protocols, and by itself or perhaps with others: the same for one id whoever asks.
    let two_phase = id.bytes().map(u64::from).sum::<u64>().is_multiple_of(2);
    let protocol = if two_phase { "two-phase" } else { "paxos-commit" }.to_owned();
    let alone = two_phase && id.len().is_multiple_of(2);
    RunTransactionRequest { id, patience_ms, protocol, branches, alone, applied: false }
}

/// The balances that a branch read.
fn balances(answer: &TxnResponse) -> BTreeMap<String, i64> {
    let Some(Done::ResponseRange(range)) = &answer.responses[0].response else { panic!() };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    range.kvs.iter().map(|kv| (text(&kv.key), text(&kv.value).parse().unwrap())).collect()
}

/// What the clients did.
#[derive(Default)]
struct Ledger {
    /// What each transfer was told: it commits, or it does not. Nothing, if it never was.
    told: Mutex<BTreeMap<String, Option<bool>>>,
    audits: AtomicU64,
    stop: AtomicBool,
}

/// Reads both keyspaces in one transaction: the balances, where it was answered.
async fn audit(client: &Client, id: String) -> Option<[BTreeMap<String, i64>; 2]> {
    let of = |keyspace: &str| branch(keyspace, Vec::new(), vec![get("a/", "a0")]);
    let ran = client.transaction_run(request(id, vec![of("orders"), of("stock")])).await.ok()?;
    let committed =
        matches!(state(&ran), TransactionState::Committing | TransactionState::Committed);
    match &ran.answers[..] {
        [orders, stock] if committed => {
            Some([balances(orders.txn.as_ref()?), balances(stock.txn.as_ref()?)])
        }
        _ => None,
    }
}

pub(crate) fn state(ran: &RunTransactionResponse) -> TransactionState {
    ran.transaction.as_ref().unwrap().state()
}

/// Whether it commits, if that is decided.
pub(crate) fn committed(ran: &RunTransactionResponse) -> Option<bool> {
    match state(ran) {
        TransactionState::Open => None,
        TransactionState::Committing | TransactionState::Committed => Some(true),
        _ => Some(false),
    }
}

/// Each node in turn is killed, and comes back.
pub(crate) fn every_node_dies(cluster: &mut Cluster) {
    for victim in 0..cluster.nodes.len() {
        std::thread::sleep(Duration::from_millis(1_200));
        cluster.nodes[victim].kill();
        std::thread::sleep(Duration::from_millis(1_000));
        cluster.nodes[victim].start_again();
        cluster.settled();
    }
}

/// Waits until every transaction is over.
pub(crate) fn nothing_is_in_doubt(cluster: &Cluster) {
    let asked = client(cluster, None);
    eventually("no transaction is in doubt", PATIENCE, || {
        let listed = asked.transaction_list(ListTransactionsRequest { limit: 10_000 });
        cluster.runtime.block_on(listed).is_ok_and(|listed| {
            listed.transactions.iter().all(|it| {
                matches!(it.state(), TransactionState::Committed | TransactionState::RolledBack)
            })
        })
    });
}

/// Moves money from one keyspace to the other, again and again, and looks at it now and then.
async fn transfers(client: Client, me: u64, ledger: Arc<Ledger>) {
    let mut n = 0u64;
    while !ledger.stop.load(Relaxed) {
        n += 1;
        let Some(seen) = audit(&client, format!("audit-{me}-{n}")).await else { continue };
        let sum: i64 = seen.iter().flat_map(BTreeMap::values).sum();
        let whole = i64::try_from(2 * ACCOUNTS).unwrap() * BALANCE;
        assert_eq!(sum, whole, "a reader saw half a transfer: {seen:?}");
        ledger.audits.fetch_add(1, Relaxed);
        let id = format!("move-{me}-{n}");
        let (from, to) =
            (format!("a/{}", (me + n) % ACCOUNTS), format!("a/{}", (n * 7) % ACCOUNTS));
        let (debit, credit) = (seen[0][&from] - 1, seen[1][&to] + 1);
        let half = |keyspace, key: &str, was: i64, is: i64| {
            let compare = vec![holds(key.to_owned(), was.to_string())];
            let log = put(format!("log/{id}"), String::new());
            branch(keyspace, compare, vec![put(key.to_owned(), is.to_string()), log])
        };
        let branches =
            vec![half("orders", &from, debit + 1, debit), half("stock", &to, credit - 1, credit)];
        let ran = client.transaction_run(request(id.clone(), branches)).await;
        let told = match ran {
            Ok(ran) => committed(&ran),
            Err(Error::Refused(status)) => panic!("{id}: {status:?}"),
            Err(_) => None,
        };
        ledger.told.lock().unwrap().insert(id, told);
    }
}

#[test]
fn transfers_across_keyspaces_survive_the_death_of_every_node() {
    let _turn = begin();
    let mut cluster = two_keyspaces();
    for keyspace in ["orders", "stock"] {
        let it = client(&cluster, Some(keyspace));
        for account in 0..ACCOUNTS {
            let Some(Op::RequestPut(put)) =
                put(format!("a/{account}"), BALANCE.to_string()).request
            else {
                panic!()
            };
            cluster.runtime.block_on(it.put(put)).unwrap();
        }
    }
    let ledger = Arc::new(Ledger::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|me| {
            let client = client(&cluster, None);
            cluster.runtime.spawn(transfers(client, me, ledger.clone()))
        })
        .collect();
    // They take milliseconds, so that it may be that no death meets one.
    for _ in 0..4 {
        every_node_dies(&mut cluster);
        if taken_over(&cluster) > 0 {
            break;
        }
    }
    ledger.stop.store(true, Relaxed);
    for client in clients {
        cluster.runtime.block_on(client).unwrap();
    }
    let healed = Instant::now();
    nothing_is_in_doubt(&cluster);
    println!("nothing was in doubt after {:?}", healed.elapsed());
    judge(&cluster, &ledger);
}

fn taken_over(cluster: &Cluster) -> usize {
    let by = |node: &Node| node.log().matches("taking a transaction over").count();
    cluster.nodes.iter().map(by).sum()
}

fn judge(cluster: &Cluster, ledger: &Ledger) {
    let ids = |keyspace: &str| {
        let it = client(cluster, Some(keyspace));
        let (key, range_end) = ("log/".into(), "log0".into());
        let range = RangeRequest { key, range_end, keys_only: true, ..Default::default() };
        let found = cluster.runtime.block_on(it.range(range)).unwrap();
        let id = |key: &[u8]| String::from_utf8(key[4..].to_vec()).unwrap();
        found.kvs.iter().map(|kv| id(&kv.key)).collect::<Vec<_>>()
    };
    let (orders, stock) = (ids("orders"), ids("stock"));
    assert_eq!(orders, stock, "half a transfer was done");
    let told = ledger.told.lock().unwrap();
    for (id, told) in told.iter() {
        if let Some(committed) = told {
            assert_eq!(orders.contains(id), *committed, "{id} did not end as its client was told");
        }
    }
    let seen = cluster.runtime.block_on(audit(&client(cluster, None), "the-last".to_owned()));
    let sum: i64 = seen.unwrap().iter().flat_map(BTreeMap::values).sum();
    assert_eq!(sum, i64::try_from(2 * ACCOUNTS).unwrap() * BALANCE);
    let committed = told.values().filter(|told| **told == Some(true)).count();
    let taken = taken_over(cluster);
    let (all, audits) = (told.len(), ledger.audits.load(Relaxed));
    println!("{all} transfers, {committed} committed, {audits} audits, {taken} taken over");
    assert!(committed > 20 && audits > 30 && taken > 0, "too little happened");
}
