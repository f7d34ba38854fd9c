//! A branch that somebody ends against the decision: an alarm that outlives every node, until an
//! operator acknowledges it.

use crate::http::World;
use crate::{begin, quorate};
use quorate_databases::Stage;
use quorate_end_to_end::eventually;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a member's `/metrics` tells under this name.
fn metric(address: &str, name: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let told = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    told.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

#[test]
fn an_alarm_is_shown_until_somebody_acknowledges_it() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut world = World::open(&runtime);
    let alarms = |world: &World| quorate(&world.cluster, &["txn", "alarms"], "").ok();
    assert_eq!(alarms(&world), "no alarms\n");

    // It is decided to commit, and the hotel's staff gives the room away before it hears of that.
    world.hotel.hotel.lock().deaf = Some("confirm");
    let asked = world.begin(0, "given-away");
    eventually("it is decided", PATIENCE, || world.asked("given-away", "confirm") > 0);
    {
        let mut hotel = world.hotel.hotel.lock();
        let mut all = hotel.barrier.iter_mut();
        let room = all.find(|((name, _), _)| name.ends_with(":given-away")).unwrap();
        *room.1 = Stage::Cancelled;
        hotel.free += 1;
        hotel.deaf = None;
    }
    let ran = world.cluster.runtime.block_on(asked).unwrap().unwrap();
    assert_eq!(ran.transaction.unwrap().reason, "");
    eventually("there is an alarm", PATIENCE, || alarms(&world).contains("given-away"));
    let shown = world.shown("given-away");
    assert_eq!(
        (&shown["state"], &shown["branches"][1]["state"]),
        (&"committing".into(), &"heuristic".into())
    );

    let told = |name: &str| -> Vec<u64> {
        world.cluster.nodes.iter().map(|node| metric(&node.client, name)).collect()
    };
    eventually("every member tells of it", PATIENCE, || {
        told("quorate_transactions_in_doubt") == [1; 3]
            && told("quorate_transaction_alarms") == [1; 3]
    });
    assert_eq!(told("quorate_alarms"), [0; 3]);
    assert_eq!(told("quorate_transactions_committed_total").iter().sum::<u64>(), 1);

    // Nobody forgets it: not even when all nodes die at once.
    world.cluster.nodes.iter_mut().for_each(quorate_end_to_end::Node::kill);
    world.cluster.nodes.iter_mut().for_each(quorate_end_to_end::Node::start_again);
    world.cluster.settled();
    eventually("the alarm is there again", PATIENCE, || {
        let told = quorate(&world.cluster, &["txn", "alarms", "-o", "json"], "");
        told.code == Some(0) && told.json()[0]["participant"] == "hotel"
    });
    let told = alarms(&world);
    assert!(told.contains("room") && told.contains("decided to commit"), "{told}");
    let other = quorate(&world.cluster, &["txn", "acknowledge", "another"], "");
    assert!(other.err.contains("there is no alarm about the transaction \"another\""), "{other:?}");
    let branch = ["txn", "acknowledge", "given-away", "--branch", "order"];
    let branch = quorate(&world.cluster, &branch, "");
    assert!(branch.err.contains("there is no alarm"), "{branch:?}");

    let ended = quorate(&world.cluster, &["txn", "acknowledge", "given-away"], "").ok();
    assert_eq!(ended, "OK, given-away, branch room: acknowledged\n");
    assert_eq!(alarms(&world), "no alarms\n");
    eventually("the transaction is over", PATIENCE, || {
        let shown = world.shown("given-away");
        shown["state"] == "committed" && shown["branches"][1]["state"] == "acknowledged"
    });
    let taken = "quorate_transactions_taken_over_total";
    let taken = world.cluster.nodes.iter().map(|node| metric(&node.client, taken)).sum::<u64>();
    assert!(taken > 0, "its coordinator died");
    let again = quorate(&world.cluster, &["txn", "acknowledge", "given-away"], "");
    assert!(again.err.contains("there is no alarm"), "{again:?}");
    what_comes_back(&world);
}

/// Nobody asks for these transactions any more, and their records say that they are over: a scan
/// alone meets their branches, which a restored service has reserved again.
fn what_comes_back(world: &World) {
    let alarms = || quorate(&world.cluster, &["txn", "alarms"], "").ok();
    let ran = world.cluster.runtime.block_on(world.begin(0, "sold")).unwrap().unwrap();
    assert_eq!(ran.transaction.unwrap().reason, "");
    eventually("the room is sold", PATIENCE, || world.stage("sold") == Some(Stage::Confirmed));
    eventually("it is over", PATIENCE, || world.shown("sold")["state"] == "committed");
    world.set_stage("sold", Stage::Reserved);
    world.set_stage("given-away", Stage::Reserved);

    // It was proven to be committed: so it is once more.
    eventually("the room is sold again", PATIENCE, || {
        world.stage("sold") == Some(Stage::Confirmed)
    });
    // About this one people have done something: nothing is done, and they are told.
    eventually("there is an alarm", PATIENCE, || alarms().contains("given-away"));
    let told = alarms();
    assert!(told.contains("is prepared again") && !told.contains("sold"), "{told}");
    assert_eq!(world.stage("given-away"), Some(Stage::Reserved));
    assert_eq!(world.shown("given-away")["state"], "committed");
    // Who acknowledges it and leaves the branch as it is, is told again.
    quorate(&world.cluster, &["txn", "acknowledge", "given-away"], "").ok();
    eventually("there is an alarm again", PATIENCE, || alarms().contains("given-away"));
    world.set_stage("given-away", Stage::Confirmed);
    std::thread::sleep(Duration::from_secs(1));
    quorate(&world.cluster, &["txn", "acknowledge", "given-away"], "").ok();
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(alarms(), "no alarms\n");
}
