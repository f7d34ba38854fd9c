//! Bundles: transactions of many clients that one carries. Some are refused, some are asked for at
//! two nodes at once, all meet at a hot key, and every node dies in turn; each of them happens as
//! often as its client is told, in both keyspaces or in none.

use crate::begin;
use crate::transactions::{
    branch, client, committed, every_node_dies, get, holds, nothing_is_in_doubt, put, two_keyspaces,
};
use quorate_client::Client;
use quorate_end_to_end::Cluster;
use quorate_wire::etcdserverpb::RangeRequest;
use quorate_wire::quorate::{Branch, RunTransactionRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const CLIENTS: u64 = 36;

#[derive(Default)]
pub(crate) struct Ledger {
    /// What each was told, if it was: whether it commits.
    told: Mutex<BTreeMap<String, bool>>,
    /// How many were carried by a bundle.
    carried: AtomicU64,
    refused: AtomicU64,
    pub stop: AtomicBool,
}

impl Ledger {
    /// What was done must be what clients were told, and enough of everything.
    pub fn judge(&self, done: &BTreeSet<String>) {
        let told = self.told.lock().unwrap();
        for (id, commits) in told.iter() {
            assert_eq!(done.contains(id), *commits, "{id} did not end as its client was told");
        }
        let (carried, refused) = (self.carried.load(Relaxed), self.refused.load(Relaxed));
        println!(
            "{} transactions, {} told, {carried} carried, {refused} refused",
            done.len(),
            told.len()
        );
        assert!(done.len() > 200 && carried > 50 && refused > 5, "too little happened");
    }
}

/// What a client asks for, under this id and by its number; some of it is impossible, for the
/// reason in the words of the last.
pub(crate) type Asks = (fn(id: &str, me: u64, impossible: bool) -> Vec<Branch>, &'static str);

/// A transaction in both keyspaces.
fn in_keyspaces(id: &str, _: u64, impossible: bool) -> Vec<Branch> {
    let half = |keyspace: &str, impossible: bool| {
        let never = holds("never".to_owned(), "there".to_owned());
        let compare = if impossible { vec![never] } else { Vec::new() };
        let hot = put("hot".to_owned(), id.to_owned());
        let done = vec![put(format!("log/{id}"), String::new()), hot, get("log/", "")];
        branch(keyspace, compare, done)
    };
    vec![half("orders", false), half("stock", impossible)]
}

/// One transaction after the other.
pub(crate) async fn work(client: Client, me: u64, (asks, why): Asks, ledger: Arc<Ledger>) {
    let mut n = 0;
    while !ledger.stop.load(Relaxed) {
        n += 1;
        let id = format!("{me}-{n}");
        let impossible = (n + 7 * me).is_multiple_of(48);
        let branches = asks(&id, me, impossible);
        let guilty = branches.last().unwrap().name.clone();
        let request = RunTransactionRequest {
            id: id.clone(),
            patience_ms: 6_000,
            branches,
            ..Default::default()
        };
        // Now and then the client is impatient, and asks another node as well.
        let (first, second) = match (me + n) % 8 {
            0 => {
                let both = client.transaction_run(request.clone());
                let (first, second) = tokio::join!(both, client.transaction_run(request));
                (first, second.ok())
            }
            _ => (client.transaction_run(request).await, None),
        };
        for ran in first.into_iter().chain(second) {
            let Some(commits) = committed(&ran) else { continue };
            assert!(!(commits && impossible), "{id} cannot be");
            let known = *ledger.told.lock().unwrap().entry(id.clone()).or_insert(commits);
            assert_eq!(known, commits, "{id} was told two ends");
            let it = ran.transaction.unwrap();
            assert_eq!(it.id, id);
            ledger.carried.fetch_add(u64::from(!it.bundle.is_empty()), Relaxed);
            ledger.refused.fetch_add(u64::from(!commits), Relaxed);
            // Who is refused goes alone, and is refused for a reason of its own.
            assert!(commits || it.bundle.is_empty(), "{it:?}");
            if it.reason.contains(why) {
                assert!(impossible && it.guilty_branch == guilty, "{it:?}");
            }
        }
    }
}

#[test]
fn what_is_carried_with_others_happens_once_or_not_at_all() {
    let _turn = begin();
    let mut cluster = two_keyspaces();
    let ledger = Arc::new(Ledger::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|me| {
            let client = client(&cluster, None);
            let asks: Asks = (in_keyspaces, "compare");
            cluster.runtime.spawn(work(client, me, asks, ledger.clone()))
        })
        .collect();
    every_node_dies(&mut cluster);
    ledger.stop.store(true, Relaxed);
    for client in clients {
        cluster.runtime.block_on(client).unwrap();
    }
    nothing_is_in_doubt(&cluster);
    judge(&cluster, &ledger);
}

/// How often each has happened in a keyspace.
fn log(cluster: &Cluster, keyspace: &str) -> BTreeMap<String, i64> {
    let (key, range_end) = ("log/".into(), "log0".into());
    let range = RangeRequest { key, range_end, keys_only: true, ..Default::default() };
    let found = cluster.runtime.block_on(client(cluster, Some(keyspace)).range(range)).unwrap();
    let id = |key: &[u8]| String::from_utf8(key[4..].to_vec()).unwrap();
    found.kvs.iter().map(|kv| (id(&kv.key), kv.version)).collect()
}

fn judge(cluster: &Cluster, ledger: &Ledger) {
    let (orders, stock) = (log(cluster, "orders"), log(cluster, "stock"));
    assert_eq!(orders, stock, "half a transaction was done");
    for (id, times) in &orders {
        assert_eq!(*times, 1, "{id} was done {times} times");
    }
    ledger.judge(&orders.into_keys().collect());
}
