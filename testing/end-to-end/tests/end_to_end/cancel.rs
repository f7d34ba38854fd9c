//! A client does not want a transaction any more that is carried together with others: its bundle
//! is taken apart, and the others go alone.

use crate::http::{Asked, World};
use crate::transactions::{branch, committed, put};
use crate::{begin, quorate};
use quorate_databases::Stage;
use quorate_end_to_end::eventually;
use quorate_wire::quorate::{
    CancelTransactionRequest, RunTransactionRequest, ShowTransactionRequest,
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for a transaction that has to wait for the one of the name `holder`.
fn ask(world: &World, id: &str) -> Asked {
    let log = || put(format!("log/{id}"), String::new());
    let hot = put("kept/holder".to_owned(), id.to_owned());
    let request = RunTransactionRequest {
        id: id.to_owned(),
        patience_ms: 20_000,
        branches: vec![
            branch("default", Vec::new(), vec![hot, log()]),
            branch("orders", Vec::new(), vec![log()]),
        ],
        ..Default::default()
    };
    let client = world.cluster.client_of(0..3, Duration::from_secs(30));
    world.cluster.runtime.spawn(async move { client.transaction_run(request).await })
}

/// Whether it is carried at this moment, and undecided.
fn is_carried(world: &World, id: &str) -> bool {
    let client = world.cluster.client_of(0..3, Duration::from_secs(5));
    let request = ShowTransactionRequest { id: id.to_owned() };
    let shown = world.cluster.runtime.block_on(client.transaction_show(request));
    shown.is_ok_and(|shown| !shown.transaction.unwrap().bundle.is_empty())
}

#[test]
fn who_cancels_what_is_carried_lets_the_others_go_alone() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = World::open(&runtime);
    quorate(&world.cluster, &["keyspace", "create", "orders"], "").ok();
    let warm = ask(&world, "warm");
    world.cluster.runtime.block_on(warm).unwrap().unwrap();
    // It holds the key for as long as the hotel says nothing.
    world.hotel.hotel.lock().mute = Some("try");
    let holder = world.begin(0, "holder");
    eventually("a room is kept", PATIENCE, || world.stage("holder") == Some(Stage::Reserved));

    // The first one goes at once, and waits for the key. Those that come meanwhile go together.
    let first = ask(&world, "first");
    eventually("the first one is under way", PATIENCE, || {
        quorate(&world.cluster, &["txn", "show", "first"], "").code == Some(0)
    });
    let names = ["a", "b", "unwanted", "c"];
    let asked: Vec<Asked> = names.iter().map(|id| ask(&world, id)).collect();
    eventually("it is carried", PATIENCE, || is_carried(&world, "unwanted"));
    let client = world.cluster.client_of(0..3, Duration::from_secs(15));
    let request = CancelTransactionRequest { id: "unwanted".to_owned() };
    let told = world.cluster.runtime.block_on(client.transaction_cancel(request)).unwrap();
    let told = told.transaction.unwrap();
    assert_eq!((told.reason.as_str(), told.bundle.as_str()), ("it was cancelled", ""));
    world.hotel.hotel.lock().mute = None;

    let ran = |asked: Asked| world.cluster.runtime.block_on(asked).unwrap().unwrap();
    assert_eq!(committed(&ran(holder)), Some(true));
    assert_eq!(committed(&ran(first)), Some(true));
    for (id, asked) in names.into_iter().zip(asked) {
        let ran = ran(asked);
        assert_eq!(committed(&ran), Some(id != "unwanted"), "{id}");
        let it = ran.transaction.unwrap();
        assert!(id != "unwanted" || it.reason == "it was cancelled", "{it:?}");
    }
    // Nothing of it was done, and the others' in both keyspaces.
    for keyspace in ["default", "orders"] {
        let found = ["get", "log/", "--prefix", "-o", "json", "--keyspace", keyspace];
        let found = quorate(&world.cluster, &found, "").json();
        assert_eq!(found["kvs"].as_array().unwrap().len(), 5, "{found}");
        let unwanted = ["get", "log/unwanted", "--count-only", "--keyspace", keyspace];
        assert!(quorate(&world.cluster, &unwanted, "").ok().starts_with('0'));
    }
}
