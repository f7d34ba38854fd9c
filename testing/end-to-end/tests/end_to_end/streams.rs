//! Many transactions on one stream, as a client of any language can have it.

use crate::transactions::{branch, put};
use crate::{begin, quorate};
use quorate_client::connect;
use quorate_end_to_end::{Cluster, eventually};
use quorate_wire::quorate::run_many_response::Outcome;
use quorate_wire::quorate::transactions_client::TransactionsClient;
use quorate_wire::quorate::{RunManyRequest, RunManyResponse, RunTransactionRequest};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const PATIENCE: Duration = Duration::from_secs(30);

type Asks = mpsc::Sender<RunManyRequest>;

async fn open(cluster: &Cluster) -> (Asks, Streaming<RunManyResponse>) {
    let endpoint = cluster.nodes[0].client.parse().unwrap();
    let channel = connect(&endpoint, PATIENCE).await.unwrap();
    let (asks, asked) = mpsc::channel(16);
    let mut client = TransactionsClient::new(channel);
    let answers = client.run_many(ReceiverStream::new(asked)).await.unwrap().into_inner();
    (asks, answers)
}

fn ask(number: u64, id: &str, keyspace: &str) -> RunManyRequest {
    let operation = put(format!("by/{id}"), number.to_string());
    let transaction = RunTransactionRequest {
        id: id.to_owned(),
        branches: vec![branch(keyspace, Vec::new(), vec![operation])],
        ..Default::default()
    };
    RunManyRequest { number, transaction: Some(transaction), within_ms: 20_000 }
}

/// What became of so many, in whichever order they are told: the ids, or codes.
async fn told(answers: &mut Streaming<RunManyResponse>, n: usize) -> BTreeMap<u64, String> {
    let mut all = BTreeMap::new();
    while all.len() < n {
        let told = answers.message().await.unwrap().expect("there are more");
        let what = match told.outcome.unwrap() {
            Outcome::Answer(answer) => answer.transaction.unwrap().id,
            Outcome::Refusal(refusal) => format!("{:?}", Code::from_i32(refusal.code)),
        };
        assert_eq!(all.insert(told.number, what), None, "each is answered once");
    }
    all
}

#[test]
fn what_is_under_way_is_answered_before_a_stream_ends() {
    let _turn = begin();
    let mut cluster = Cluster::start(3);
    eventually("transactions can be run", PATIENCE, || {
        quorate(&cluster, &["txn", "list"], "").code == Some(0)
    });
    let slow = || RunManyRequest { within_ms: 2_000, ..ask(1, "slow", "default") };
    let (asks, mut answers) = cluster.runtime.block_on(open(&cluster));
    let (others, mut told_last) = cluster.runtime.block_on(open(&cluster));
    // Nothing can be decided any more.
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    cluster.runtime.block_on(async {
        let large = put("k".to_owned(), "v".repeat(5 << 20));
        let transaction = RunTransactionRequest {
            branches: vec![branch("default", Vec::new(), vec![large])],
            ..Default::default()
        };
        let large = RunManyRequest { number: 2, transaction: Some(transaction), within_ms: 0 };
        others.send(slow()).await.unwrap();
        others.send(large).await.unwrap();
        let first = told(&mut told_last, 1).await;
        assert!(first.contains_key(&1), "the answers come first: {first:?}");
        let status = told_last.message().await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status}");

        asks.send(slow()).await.unwrap();
        // It is read by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
    });
    cluster.nodes[0].stop();
    cluster.runtime.block_on(async {
        let last = told(&mut answers, 1).await;
        assert!(last.contains_key(&1), "{last:?}");
        assert!(answers.message().await.unwrap().is_none());
    });
}

#[test]
fn each_on_a_stream_is_answered_and_a_member_that_stops_ends_it() {
    let _turn = begin();
    let mut cluster = Cluster::start(1);
    eventually("transactions can be run", PATIENCE, || {
        quorate(&cluster, &["txn", "list"], "").code == Some(0)
    });
    let (asks, mut answers) = cluster.runtime.block_on(async {
        let (asks, mut answers) = open(&cluster).await;
        let requests = [
            ask(7, "a", "default"),
            ask(2, "", "default"),
            ask(9, "b", "nowhere"),
            RunManyRequest { number: 4, ..Default::default() },
            ask(5, "c", "default"),
        ];
        for request in requests {
            asks.send(request).await.unwrap();
        }
        let first = told(&mut answers, 5).await;
        let expected = [(7, "a"), (5, "c"), (9, "NotFound")];
        assert!(expected.iter().all(|(number, what)| first[number] == *what), "{first:?}");
        assert!([2, 4].iter().all(|number| first[number] == "InvalidArgument"), "{first:?}");
        // It goes on, and what was run once is not run again.
        asks.send(ask(1, "a", "default")).await.unwrap();
        assert_eq!(told(&mut answers, 1).await[&1], "AlreadyExists", "it puts another number");
        asks.send(ask(7, "a", "default")).await.unwrap();
        assert_eq!(told(&mut answers, 1).await[&7], "a");
        (asks, answers)
    });

    // Who has no more to ask has everything answered, and the end.
    cluster.runtime.block_on(async {
        let (asks, mut answers) = open(&cluster).await;
        asks.send(ask(1, "d", "default")).await.unwrap();
        drop(asks);
        assert_eq!(told(&mut answers, 1).await[&1], "d");
        assert!(answers.message().await.unwrap().is_none());
    });

    cluster.nodes[0].stop();
    let last = cluster.runtime.block_on(answers.message());
    assert!(matches!(last, Ok(None)), "it is ended, not cut off: {last:?}");
    drop(asks);
}
