//! Writers that know what they were promised.
//!
//! Each key has one writer, which writes it once at a time and asks for what was there before. So
//! every answer says whether the last acknowledged write of the key was still there, even if that
//! write was lost and written over a moment later. A write without an answer may be done later, or
//! never; only its value may then appear, with a later revision.

use quorate_base::Rng;
use quorate_client::{Client, Config, Error};
use quorate_wire::etcdserverpb::{PutRequest, RangeResponse};
use quorate_wire::mvccpb::KeyValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::task::JoinHandle;

/// Where the writers' keys begin.
pub const PREFIX: &str = "ledger/";
/// Where they end.
pub const PREFIX_END: &str = "ledger0";

const KEYS_PER_WRITER: u64 = 8;
/// Values are between these, so that small and large writes go into one log.
const SHORTEST_BYTES: u64 = 16;
const LONGEST_BYTES: u64 = 8 << 10;

/// A key, as its writer knows it.
#[derive(Default, Debug)]
struct Account {
    /// The write that was acknowledged, or seen, last: its number and revision.
    sure: Option<(u64, i64)>,
    /// Writes that were not answered and not seen.
    open: Vec<u64>,
}

impl Account {
    /// Judges what was found under the key.
    fn judge(&mut self, key: &str, found: Option<&KeyValue>) -> Result<(), String> {
        let found = found.map(|kv| (number_of(&kv.value), kv.mod_revision));
        let lost = |found: Option<(Option<u64>, i64)>, sure| {
            format!("lost: {key} was acknowledged as (write, revision) {sure:?}, found {found:?}")
        };
        match (self.sure, found) {
            (Some(sure), None) => Err(lost(None, sure)),
            (Some(sure), Some((number, revision))) if revision <= sure.1 => {
                match (number, revision) == (Some(sure.0), sure.1) {
                    true => Ok(()),
                    false => Err(lost(found, sure)),
                }
            }
            (None, None) => Ok(()),
            (_, Some((number, revision))) => {
                let number = number.ok_or_else(|| format!("{key} holds what nobody wrote"))?;
                let at = self.open.iter().position(|open| *open == number);
                let at = at.ok_or_else(|| format!("{key}: write {number} came again"))?;
                self.open.remove(at);
                self.sure = Some((number, revision));
                Ok(())
            }
        }
    }
}

/// The number of a write, if the value is one of ours and whole.
fn number_of(value: &[u8]) -> Option<u64> {
    let (number, rest) = value.split_first_chunk::<8>()?;
    rest.iter().all(|byte| *byte == number[7]).then(|| u64::from_be_bytes(*number))
}

fn value_of(number: u64, bytes: u64) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(8 + usize::try_from(bytes).unwrap(), value[7]);
    value
}

#[derive(Default)]
struct Shared {
    accounts: Mutex<BTreeMap<String, Account>>,
    wrong: Mutex<Vec<String>>,
    acknowledged: AtomicI64,
    unanswered: AtomicI64,
    /// The highest revision that was acknowledged.
    revision: AtomicI64,
    stop: AtomicBool,
    /// Held for writing while nobody may write.
    quiet: RwLock<()>,
}

impl Shared {
    fn accounts(&self) -> MutexGuard<'_, BTreeMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complain(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Takes an answer, or its absence, to a write of `number`.
    fn account(&self, key: &str, number: u64, before: i64, answer: Answer) {
        let mut accounts = self.accounts();
        let account = accounts.entry(key.to_owned()).or_default();
        match answer {
            Answer::Done { previous, revision } => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                if let Err(wrong) = account.judge(key, previous.as_ref()) {
                    self.complain(wrong);
                }
                if revision <= before {
                    self.complain(format!("{key}: revision {revision} after {before} was seen"));
                }
                account.sure = Some((number, revision));
                self.revision.fetch_max(revision, Ordering::SeqCst);
            }
            Answer::Unknown => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
                account.open.push(number);
            }
            Answer::NotDone => {}
        }
    }
}

enum Answer {
    Done { previous: Option<KeyValue>, revision: i64 },
    Unknown,
    NotDone,
}

/// The writers at work.
pub struct Ledger {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<()>>,
}

impl Ledger {
    /// Starts `writers` writers that write to these endpoints.
    pub fn start(runtime: &Runtime, endpoints: &str, writers: u64, seed: u64) -> Ledger {
        let shared = Arc::new(Shared::default());
        let writers = (0..writers).map(|writer| {
            let mut config = Config::of(endpoints.split(',')).unwrap();
            config.timeout = Duration::from_secs(2);
            config.attempt_timeout = Duration::from_millis(500);
            let rng = Rng::new(seed).fork(writer);
            runtime.spawn(write(writer, Client::new(config), shared.clone(), rng))
        });
        let writers = writers.collect();
        Ledger { shared, writers }
    }

    /// Waits until no write is under way, and lets none begin.
    pub fn quiet(&self, runtime: &Runtime) -> RwLockWriteGuard<'_, ()> {
        runtime.block_on(self.shared.quiet.write())
    }

    /// Judges all keys as a node has them, while the ledger is quiet.
    pub fn check(&self, found: &RangeResponse) {
        let mut accounts = self.shared.accounts();
        for (key, account) in accounts.iter_mut() {
            let kv = found.kvs.iter().find(|kv| kv.key == key.as_bytes());
            if let Err(wrong) = account.judge(key, kv) {
                self.shared.complain(wrong);
            }
        }
        let revision = found.header.map_or(0, |header| header.revision);
        let acknowledged = self.shared.revision.load(Ordering::SeqCst);
        if revision < acknowledged {
            self.shared.complain(format!("revision {revision} after {acknowledged} was promised"));
        }
    }

    /// Writes that were acknowledged, and those that were not answered.
    pub fn counts(&self) -> (i64, i64) {
        let load = |counter: &AtomicI64| counter.load(Ordering::Relaxed);
        (load(&self.shared.acknowledged), load(&self.shared.unanswered))
    }

    /// What was wrong so far.
    pub fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the writers.
    pub fn finish(self, runtime: &Runtime) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            runtime.block_on(writer).unwrap();
        }
    }
}

async fn write(writer: u64, client: Client, shared: Arc<Shared>, mut rng: Rng) {
    let mut number = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        {
            let _may_write = shared.quiet.read().await;
            number += 1;
            let key = format!("{PREFIX}{writer}/{}", rng.below(KEYS_PER_WRITER));
            // Mostly small, now and then large.
            let longest = if rng.below(8) == 0 { LONGEST_BYTES } else { 4 * SHORTEST_BYTES };
            let put = PutRequest {
                key: key.clone().into_bytes().into(),
                value: value_of(number, rng.between(SHORTEST_BYTES, longest)).into(),
                prev_kv: true,
                ..Default::default()
            };
            let before = shared.revision.load(Ordering::SeqCst);
            let answer = match client.put(put).await {
                Ok(response) => Answer::Done {
                    previous: response.prev_kv,
                    revision: response.header.unwrap_or_default().revision,
                },
                Err(Error::Unknown { .. }) => Answer::Unknown,
                Err(_) => Answer::NotDone,
            };
            shared.account(&key, number, before, answer);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(number: u64, revision: i64) -> KeyValue {
        let value = value_of(number, 20).into();
        KeyValue { value, mod_revision: revision, ..Default::default() }
    }

    #[test]
    fn a_lost_write_is_noticed_even_if_an_older_one_is_there() {
        let mut account = Account { sure: Some((5, 50)), open: vec![6] };
        assert!(account.judge("k", Some(&kv(5, 50))).is_ok());
        assert!(account.judge("k", None).unwrap_err().starts_with("lost"));
        assert!(account.judge("k", Some(&kv(4, 40))).unwrap_err().starts_with("lost"));
        assert!(account.judge("k", Some(&kv(4, 50))).is_err());
        assert!(account.judge("k", Some(&kv(4, 60))).unwrap_err().contains("came again"));
        assert!(account.judge("k", Some(&kv(6, 60))).is_ok(), "not answered, but done");
        assert!(account.judge("k", Some(&kv(6, 70))).is_err(), "done twice");
        let torn = KeyValue { mod_revision: 70, ..Default::default() };
        assert!(account.judge("k", Some(&torn)).is_err());
    }

    #[test]
    fn a_value_names_its_write() {
        assert_eq!(number_of(&value_of(700, 33)), Some(700));
        let mut damaged = value_of(700, 33);
        damaged[20] ^= 1;
        assert_eq!(number_of(&damaged), None);
    }
}
