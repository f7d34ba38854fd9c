//! A reservation that an application makes itself, under the name that the cluster gives, and hands
//! in.

use crate::begin;
use crate::http::World;
use crate::quorate;
use quorate_databases::Stage;
use quorate_end_to_end::eventually;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Lets the hotel keep a room for this transaction; what to hand in.
fn reserve(world: &World, id: &str) -> String {
    let arguments = ["txn", "name", id, "--branch", "room", "--http", "hotel", "-o", "json"];
    let named = quorate(&world.cluster, &arguments, "").json();
    let headers = named["before"].as_array().unwrap().iter();
    let of: String = headers.map(|it| format!("{}\r\n", it.as_str().unwrap())).collect();
    let said = world.say("/rooms", "try", &of);
    assert!(said.contains("quorate-outcome: reserved"), "{said}");
    named["prepared"].as_str().unwrap().to_owned()
}

fn hand_in(world: &World, id: &str, prepared: &str) -> quorate_end_to_end::Ran {
    world.run(&format!(
        "id = {id:?}\npatience = '5s'\n\
         [[branch]]\nname = 'order'\nkeyspace = 'default'\n\
         if = [{{ key = 'closed', exists = false }}]\n\
         then = [{{ put = 'order/{id}', value = 'paid' }}]\n\
         [[branch]]\nname = 'room'\nhttp = 'hotel'\nprepared = {prepared:?}\n"
    ))
}

#[test]
fn an_application_reserves_by_itself_and_hands_that_in() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = World::open_with(&runtime, "hand-in-ms = 2000\n", &[]);
    let (free, _) = world.rooms();

    let good = reserve(&world, "good");
    assert_eq!(world.rooms(), (free - 1, 0));
    let ran = hand_in(&world, "good", &good).ok();
    assert!(ran.starts_with("OK, transaction good is committed\n"), "{ran}");
    assert_eq!((world.stage("good"), world.rooms()), (Some(Stage::Confirmed), (free - 1, 1)));
    // Handed in twice, it is done once; and the coordinator has tried nothing itself.
    assert!(hand_in(&world, "good", &good).ok().contains("good is committed"));
    assert_eq!((world.rooms(), world.asked("good", "try")), ((free - 1, 1), 0));

    // Another branch says no: the room is given back.
    quorate(&world.cluster, &["put", "closed", "yes"], "").ok();
    let bad = reserve(&world, "bad");
    let refused = hand_in(&world, "bad", &bad);
    assert!(refused.err.contains("bad is rolled back by branch order"), "{refused:?}");
    assert_eq!((world.stage("bad"), world.rooms()), (Some(Stage::Cancelled), (free - 1, 1)));
    quorate(&world.cluster, &["del", "closed"], "").ok();

    // Nothing is reserved under the name, or it is another's.
    let arguments = ["txn", "name", "none", "--branch", "room", "--http", "hotel", "-o", "json"];
    let named = quorate(&world.cluster, &arguments, "").json();
    let none = hand_in(&world, "none", named["prepared"].as_str().unwrap());
    assert!(none.err.contains("none is rolled back by branch room"), "{none:?}");
    let other = reserve(&world, "other");
    let foreign = hand_in(&world, "this", &other);
    assert!(foreign.err.contains("another transaction's: here it must be"), "{foreign:?}");

    // Nobody hands it in: the room is given back, and later it is too late.
    eventually("the room is given back", PATIENCE, || {
        world.stage("other") == Some(Stage::Cancelled)
    });
    let late = hand_in(&world, "other", &other);
    assert!(late.err.contains("a branch of it was found prepared"), "{late:?}");
    assert_eq!(world.rooms(), (free - 1, 1));
    let kept = quorate(&world.cluster, &["get", "order/", "--prefix", "--count-only"], "").ok();
    assert!(kept.starts_with('1'), "{kept}");
}
