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
const PREFIX: &str = "register/";
/// Search steps per key; a history of a minute needs a small part of it.
const LIMIT: Limit = Limit(5_000_000);

/// Clients at work.
pub struct Recorder {
    history: Arc<Mutex<Vec<Operation>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Starts `clients` clients of these endpoints.
    pub fn start(runtime: &Runtime, endpoints: &str, clients: u64) -> Recorder {
        let history = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let epoch = std::time::Instant::now();
        let clients = (0..clients)
            .map(|number| {
                let mut config = Config::of(endpoints.split(',')).unwrap();
                config.timeout = Duration::from_secs(2);
                config.attempt_timeout = Duration::from_millis(500);
                let client = Client::new(config);
                runtime.spawn(work(number, client, epoch, history.clone(), stop.clone()))
            })
            .collect();
        Recorder { history, stop, clients }
    }

    /// Stops the clients and judges what they saw; how many requests were answered.
    ///
    /// # Panics
    /// If no order of the requests explains the answers.
    pub fn finish(self, runtime: &Runtime) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            runtime.block_on(client).unwrap();
        }
        let mut history = std::mem::take(&mut *self.history.lock().unwrap());
        history.sort_by_key(|operation| operation.called);
        let undecided = check_registers(&history, PREFIX.as_bytes(), LIMIT);
        assert_eq!(undecided, Ok(0), "the history is not linearizable, or too long to tell");
        history.iter().filter(|operation| operation.answer().is_some()).count()
    }
}

async fn work(
    number: u64,
    client: Client,
    epoch: std::time::Instant,
    history: Arc<Mutex<Vec<Operation>>>,
    stop: Arc<AtomicBool>,
) {
    let mut rng = quorate_base::Rng::new(number + 1);
    let now = || Instant(u64::try_from(epoch.elapsed().as_nanos()).unwrap());
    let mut sequence = 0u64;
    while !stop.load(Ordering::SeqCst) {
        sequence += 1;
        let key = Bytes::from(format!("{PREFIX}{}", rng.next_u64() % KEYS));
        let called = now();
        let (request, end) = if rng.next_u64().is_multiple_of(2) {
            let value = Bytes::from(format!("{number}/{sequence}"));
            let put = PutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
            let answer = client.put(put).await;
            let reply = answer.map(|response| Reply {
                revision: response.header.unwrap_or_default().revision.unsigned_abs(),
                outcome: Outcome::Done,
            });
            (Request::Op(Op::Put { key, value, lease: 0 }), ended(reply, now()))
        } else {
            let range = RangeRequest { key: key.clone(), ..Default::default() };
            let reply = client.range(range).await.map(|response| Reply {
                revision: response.header.unwrap_or_default().revision.unsigned_abs(),
                outcome: Outcome::Found(response.kvs.into_iter().map(found).collect()),
            });
            (Request::Op(Op::Range(Span::one(key))), ended(reply, now()))
        };
        history.lock().unwrap().push(Operation { called, request, end });
        tokio::time::sleep(Duration::from_millis(5)).await;
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
