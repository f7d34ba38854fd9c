//! The member that drives a transaction dies between the votes and the decision. Where the records
//! are replicated, the others end it; where one member alone decides on them, it blocks.

use crate::http::World;
use crate::{begin, quorate};
use quorate_databases::Stage;
use quorate_end_to_end::{Ran, eventually};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than anybody waits before a transaction is taken over.
const LONG: Duration = Duration::from_secs(10);

/// What the directory says of the records.
fn records(world: &World) -> serde_json::Value {
    quorate(&world.cluster, &["keyspace", "describe", "transactions", "-o", "json"], "").json()
}

/// A first transaction makes the records; the node that leads them.
fn first(world: &World) -> usize {
    let text = "id = 'first'\n[[branch]]\nname = 'a'\nkeyspace = 'default'\n\
                then = [{ put = 'k', value = 'v' }]";
    assert!(world.run(text).ok().contains("first is committed"));
    // The others have it as well, voting or not, and say so.
    eventually("every member has the records", PATIENCE, || {
        (0..3).all(|i| of_one(world, i, &["txn", "show", "first"]).out.contains("committed"))
    });
    // Each of them can drive one.
    for node in 0..3 {
        let ran = world.begin(node, &format!("by-{node}"));
        let ran = world.cluster.runtime.block_on(ran).unwrap().unwrap();
        assert_eq!(ran.transaction.unwrap().reason, "");
    }
    let leads = records(world)["leader"].as_u64().unwrap();
    let of = |i: &usize| world.cluster.status(*i).and_then(|it| it.header).unwrap().member_id;
    (0..3).find(|i| of(i) == leads).unwrap()
}

/// Asks one node.
fn of_one(world: &World, node: usize, arguments: &[&str]) -> Ran {
    let endpoint = world.cluster.nodes[node].client.as_str();
    quorate(&world.cluster, &[arguments, &["--endpoints", endpoint]].concat(), "")
}

/// Whether a reader of the keyspace meets the branch's lock.
fn is_locked(world: &World, alive: &[usize]) -> bool {
    let client = world.cluster.client_of(alive.iter().copied(), Duration::from_millis(1_500));
    let key =
        quorate_wire::etcdserverpb::RangeRequest { key: "kept/left".into(), ..<_>::default() };
    world.cluster.runtime.block_on(client.range(key)).is_err()
}

/// Kills the member that decides on the records while it has both votes' participants prepared, and
/// waits for the last vote; which it was, and who lives.
fn kill_in_doubt(world: &mut World) -> (usize, Vec<usize>) {
    let node = first(world);
    let alive: Vec<usize> = (0..3).filter(|i| *i != node).collect();
    world.hotel.hotel.lock().mute = Some("try");
    let asked = world.begin(node, "left");
    eventually("a room is kept", PATIENCE, || world.stage("left") == Some(Stage::Reserved));
    eventually("the key is locked", PATIENCE, || is_locked(world, &alive));
    world.cluster.nodes[node].kill();
    world.hotel.hotel.lock().mute = None;
    drop(asked);
    (node, alive)
}

#[test]
fn without_the_one_that_decides_a_transaction_stays_in_doubt() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut world = World::open_with(&runtime, "", &["--coordinator", "unreplicated"]);
    let (node, alive) = kill_in_doubt(&mut world);
    assert!(world.cluster.nodes.iter().any(|it| it.log().contains("are not replicated")));
    std::thread::sleep(LONG);

    // Nobody else may decide: the room is kept, the key is locked, and the others say why.
    assert_eq!(world.stage("left"), Some(Stage::Reserved));
    assert!(is_locked(&world, &alive), "nobody has decided");
    for i in &alive {
        let shown = of_one(&world, *i, &["txn", "show", "left"]).ok();
        assert!(shown.contains("state        open\nin doubt "), "{shown}");
        assert!(shown.contains("which alone decides on them"), "{shown}");
        assert!(shown.contains("http hotel"), "{shown}");
    }
    let absent = of_one(&world, alive[0], &["txn", "show", "never", "--timeout", "3s"]);
    assert!(absent.code != Some(0) && !absent.err.contains("no transaction"), "{absent:?}");
    // What is no transaction goes on.
    world.cluster.writable();

    world.cluster.nodes[node].start_again();
    let took = eventually("the room is given back", PATIENCE, || {
        world.stage("left") == Some(Stage::Cancelled)
    });
    println!("a transaction in doubt was over {took:?} after its coordinator was back");
    eventually("the key is free", PATIENCE, || !is_locked(&world, &alive));
    world.cluster.settled();
    let shown = world.shown("left");
    let why = shown["reason"].as_str().unwrap();
    assert!(why.contains("was lost before it had decided"), "{shown}");
    assert_eq!(shown["unconfirmed"], "");
    // It was decided once, and stays so whatever the nodes are told later.
    let all: Vec<String> = world.cluster.arguments().into_iter().map(str::to_owned).collect();
    let all = all.iter().map(String::as_str);
    let all: Vec<&str> = all.filter(|it| !["--coordinator", "unreplicated"].contains(it)).collect();
    for node in &mut world.cluster.nodes {
        node.kill();
        node.start(&all);
    }
    world.cluster.settled();
    let ran = world.run(
        "id = 'later'\n[[branch]]\nname = 'a'\nkeyspace = 'default'\n\
                         then = [{ put = 'k', value = 'v' }]",
    );
    assert!(ran.ok().contains("later is committed"));
    assert_eq!(records(&world)["replicas_wanted"], 1);
    assert_eq!(records(&world)["replicas"].as_array().unwrap().len(), 3);
}

#[test]
fn where_the_records_are_replicated_the_others_end_it() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut world = World::open(&runtime);
    let (node, alive) = kill_in_doubt(&mut world);
    let took = eventually("the room is given back", PATIENCE, || {
        world.stage("left") == Some(Stage::Cancelled)
    });
    eventually("the key is free", PATIENCE, || !is_locked(&world, &alive));
    println!("a transaction in doubt was over {took:?} after its coordinator had died");
    let shown = of_one(&world, alive[0], &["txn", "show", "left"]).ok();
    assert!(shown.contains("was lost before it had decided"), "{shown}");
    assert!(!world.cluster.nodes[node].runs(), "it is dead all the while");
    assert_eq!(records(&world)["replicas_wanted"], 3);
}
