//! One key that everybody wants, in two keyspaces: nobody is starved past its deadline.

use crate::begin;
use crate::transactions::{branch, client, committed, put, two_keyspaces};
use quorate_client::Client;
use quorate_wire::etcdserverpb::RangeRequest;
use quorate_wire::quorate::RunTransactionRequest;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(20);

/// The protocol, and whether each goes by itself.
type Way = (&'static str, bool);

/// One transaction after the other; how long the slowest took.
async fn work(client: Client, me: u64, (protocol, alone): Way, rounds: u64) -> Duration {
    let mut slowest = Duration::ZERO;
    for n in 0..rounds {
        let half =
            |keyspace: &str| branch(keyspace, Vec::new(), vec![put("hot".into(), "x".into())]);
        let request = RunTransactionRequest {
            id: format!("{protocol}-{alone}-{me}-{n}"),
            patience_ms: PATIENCE.as_millis() as u64,
            protocol: protocol.to_owned(),
            branches: vec![half("orders"), half("stock")],
            alone,
            ..Default::default()
        };
        let began = Instant::now();
        let ran = client.transaction_run(request).await.unwrap();
        assert_eq!(committed(&ran), Some(true), "{ran:?}");
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

#[test]
fn nobody_starves_on_one_key() {
    let _turn = begin();
    let cluster = two_keyspaces();
    let mut all = 0;
    let ways = [("paxos-commit", false), ("two-phase", false), ("two-phase", true)];
    for (way @ (protocol, alone), rounds) in ways.into_iter().zip([10, 10, 2]) {
        let began = Instant::now();
        let work = |me| work(client(&cluster, None), me, way, rounds);
        let clients: Vec<_> = (0..CLIENTS).map(|me| cluster.runtime.spawn(work(me))).collect();
        let waits = clients.into_iter().map(|it| cluster.runtime.block_on(it).unwrap());
        let slowest = waits.max().unwrap();
        let took = began.elapsed();
        let how = if alone { "each by itself" } else { "together" };
        println!(
            "{protocol}, {how}: {rounds} of each of {CLIENTS} in {took:.1?}, slowest {slowest:.1?}"
        );
        assert!(slowest < PATIENCE, "{protocol}: somebody waited {slowest:?}");
        all += CLIENTS * rounds;
    }
    for keyspace in ["orders", "stock"] {
        let range = RangeRequest { key: "hot".into(), ..Default::default() };
        let client = client(&cluster, Some(keyspace));
        let kvs = cluster.runtime.block_on(client.range(range)).unwrap().kvs;
        assert_eq!(kvs[0].version as u64, all, "each was done once in {keyspace}");
    }
}
