//! The keyspace does what the model does, whatever it is told.

use crate::generate::Generator;
use crate::harness::{Replica, b};
use crate::model::Model;
use quorate_keyspace::command::Range;
use quorate_keyspace::{Canary, ReadError};
use quorate_mvcc::KeyRange;

/// Runs random commands through both; tells where they first differ.
pub fn differ(seed: u64, commands: usize, canary: Canary) -> Result<(), String> {
    let mut generator = Generator { claims: seed % 2 == 1, ..Generator::new(seed) };
    let (mut replica, mut model) = (Replica::new(canary), Model::new());
    for n in 0..commands {
        generator.revision = model.revision();
        let command = generator.command();
        let (came, wanted) = (replica.run(command.clone()), model.run(&command));
        if came != wanted {
            return Err(format!("seed {seed}, {n}: {command:?}\n came {came:?}\n not {wanted:?}"));
        }
        let range = generator.range();
        let came = replica.keyspace.reader().range(&range);
        if came != model.range(&range).map_err(ReadError::Refused) {
            return Err(format!("seed {seed}, {n}: {range:?} came as {came:?}"));
        }
        if generator.rng.below(40) == 0 {
            replica.persist();
        }
        if generator.rng.below(40) == 0 {
            replica.crash();
        }
    }
    compare_ends(&replica, &model).map_err(|e| format!("seed {seed}: {e}"))
}

fn compare_ends(replica: &Replica, model: &Model) -> Result<(), String> {
    let reader = replica.keyspace.reader();
    for revision in model.compacted.max(1)..=model.revision() {
        let all = Range { revision, ..Range::of(KeyRange::From(b(""))) };
        let found = reader.range(&all).map_err(|e| e.to_string())?;
        if !found.kvs.iter().eq(model.at(revision).values()) {
            return Err(format!("revision {revision} reads {found:?}"));
        }
    }
    if replica.events != model.events {
        return Err("watchers were told something else".into());
    }
    let from = model.compacted.max(1);
    let history = reader.history(from, usize::MAX).map_err(|e| e.to_string())?;
    let told = model.events.iter().filter(|e| e.revision() > from);
    if !history.events.iter().filter(|e| e.revision() > from).eq(told) {
        return Err(format!("history from {from} is {:?}", history.events));
    }
    if reader.leases().iter().ne(&model.leases) {
        return Err(format!("leases are {:?}", reader.leases()));
    }
    for name in ["a", "aa", "b", "c", "d"].map(b) {
        let claim = reader.claim(&name).map_err(|e| e.to_string())?;
        if claim.as_ref() != model.claims.get(&name) {
            return Err(format!("{name:?} is held as {claim:?}"));
        }
    }
    for id in reader.leases() {
        let attached = reader.lease(id).map(|lease| lease.keys).unwrap_or_default();
        let last = model.at(model.revision()).values();
        if !last.filter(|kv| kv.lease == id).map(|kv| &kv.key).eq(&attached) {
            return Err(format!("lease {id} has {attached:?}"));
        }
    }
    Ok(())
}

#[test]
fn the_keyspace_and_the_model_agree() {
    for seed in 0..300 {
        differ(seed, 120, Canary::NONE).unwrap();
    }
}
