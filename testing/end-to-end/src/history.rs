//! Clients that work all the while, and a record of what they saw, for the checkers.

use bytes::Bytes;
use quorate_base::Instant;
use quorate_checkers::{
    End, Kv, Limit, Op, Operation, Outcome, Reply, Request, Span, check_registers,
};
use quorate_client::{Client, Config, Error};
use quorate_wire::etcdserverpb::{PutRequest, RangeRequest};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Keys that all clients share, so that they get in each other's way.
const KEYS: u64 = 5;
/// Where they are, if nothing else is said.
const PREFIX: &str = "register/";
/// Search steps per key; a history of a minute needs a small part of it.
const LIMIT: Limit = Limit(5_000_000);

/// Clients at work.
pub struct Recorder {
    prefix: String,
    history: Arc<Mutex<Vec<Operation>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Starts `clients` clients of these endpoints.
    pub fn start(runtime: &Runtime, endpoints: &str, clients: u64) -> Recorder {
        Recorder::start_at(PREFIX, runtime, endpoints, clients)
    }

    /// The same with keys that begin with `prefix` and do not exist yet.
    pub fn start_at(prefix: &str, runtime: &Runtime, endpoints: &str, clients: u64) -> Recorder {
        let history = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let epoch = std::time::Instant::now();
        let clients = (0..clients)
            .map(|number| {
                let mut config = Config::of(endpoints.split(',')).unwrap();
                config.timeout = Duration::from_secs(2);
                config.attempt_timeout = Duration::from_millis(500);
                let client = Client::new(config);
                let worker = Worker { number, client, prefix: prefix.to_owned(), epoch };
                runtime.spawn(worker.work(history.clone(), stop.clone()))
            })
            .collect();
        Recorder { prefix: prefix.to_owned(), history, stop, clients }
    }

    /// Stops the clients and judges what they saw; how many requests were answered.
    ///
    /// # Panics
    /// If no order of the requests explains the answers.
    pub fn finish(self, runtime: &Runtime) -> usize {
        self.judge(runtime).unwrap()
    }

    /// The same, for those who have more to say than that it is wrong.
    ///
    /// # Errors
    /// What is wrong with the history.
    pub fn judge(self, runtime: &Runtime) -> Result<usize, String> {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            runtime.block_on(client).unwrap();
        }
        let mut history = std::mem::take(&mut *self.history.lock().unwrap());
        history.sort_by_key(|operation| operation.called);
        match check_registers(&history, self.prefix.as_bytes(), LIMIT) {
            Ok(0) => Ok(history.iter().filter(|o| o.answer().is_some()).count()),
            Ok(keys) => Err(format!("{keys} keys have a history that is too long to judge")),
            Err(wrong) => Err(format!("the history is not linearizable: {wrong:?}")),
        }
    }
}

/// One client.
struct Worker {
    number: u64,
    client: Client,
    prefix: String,
    epoch: std::time::Instant,
}

impl Worker {
    fn now(&self) -> Instant {
        Instant(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap())
    }

    async fn work(self, history: Arc<Mutex<Vec<Operation>>>, stop: Arc<AtomicBool>) {
        let mut rng = quorate_base::Rng::new(self.number + 1);
        let mut sequence = 0u64;
        while !stop.load(Ordering::SeqCst) {
            sequence += 1;
            let key = Bytes::from(format!("{}{}", self.prefix, rng.next_u64() % KEYS));
            let operation = if rng.next_u64().is_multiple_of(2) {
                self.write(key, Bytes::from(format!("{}/{sequence}", self.number))).await
            } else {
                self.read(key).await
            };
            history.lock().unwrap().push(operation);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn write(&self, key: Bytes, value: Bytes) -> Operation {
        let called = self.now();
        let put = PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
        let reply = self.client.put(put).await.map(|response| Reply {
            revision: response.header.unwrap_or_default().revision.unsigned_abs(),
            outcome: Outcome::Done,
        });
        let request = Request::Op(Op::Put { key, value, lease: 0 });
        Operation { called, request, end: ended(reply, self.now()) }
    }

    async fn read(&self, key: Bytes) -> Operation {
        let called = self.now();
        let range = RangeRequest { key: key.clone(), ..Default::default() };
        let reply = self.client.range(range).await.map(|response| Reply {
            revision: response.header.unwrap_or_default().revision.unsigned_abs(),
            outcome: Outcome::Found(response.kvs.into_iter().map(found).collect()),
        });
        let request = Request::Op(Op::Range(Span::one(key)));
        Operation { called, request, end: ended(reply, self.now()) }
    }
}

fn found(kv: quorate_wire::mvccpb::KeyValue) -> Kv {
    Kv {
        key: kv.key,
        value: kv.value,
        create: kv.create_revision.unsigned_abs(),
        modified: kv.mod_revision.unsigned_abs(),
        version: kv.version.unsigned_abs(),
        lease: kv.lease,
    }
}

fn ended(reply: Result<Reply, Error>, at: Instant) -> End {
    match reply {
        Ok(reply) => End::Answered { at, reply },
        Err(Error::Unavailable { .. } | Error::Refused(_) | Error::Endpoint { .. }) => End::NotDone,
        Err(Error::Unknown { .. }) => End::Unknown,
    }
}
