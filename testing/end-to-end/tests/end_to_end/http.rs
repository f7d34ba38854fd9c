//! Transactions across a keyspace and an HTTP service that tries, confirms and cancels: a real
//! server, `kill -9` of the coordinating member before and after the decision.

use crate::{begin, quorate};
use quorate_client::Error;
use quorate_databases::{HotelServer, Stage};
use quorate_end_to_end::{Cluster, eventually};
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use quorate_wire::quorate::branch::Work;
use quorate_wire::quorate::{
    Branch, CancelTransactionRequest, HttpWork, KeyspaceWork, RunTransactionRequest,
    RunTransactionResponse,
};
use std::io::{Read, Write};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const ROOMS: u32 = 9;

const ORDER: &str = r#"
    id = "order-1"
    patience = "2s"
    [[branch]]
    name = "order"
    keyspace = "default"
    if = [{ key = "order/1", exists = false }]
    then = [{ put = "order/1", value = "2 nights" }]
    [[branch]]
    name = "room"
    http = "hotel"
    action = "/rooms"
    body = { nights = 2 }
"#;

/// A run that is under way.
pub type Asked = tokio::task::JoinHandle<Result<RunTransactionResponse, Error>>;

/// A hotel, and a cluster that knows it.
pub struct World {
    pub hotel: HotelServer,
    pub cluster: Cluster,
    /// Nodes read the file of participants in it whenever they start.
    _folder: tempfile::TempDir,
}

impl World {
    pub fn open(runtime: &tokio::runtime::Runtime) -> World {
        World::open_with(runtime, "", &[])
    }

    /// The same, with these settings of the hotel and arguments of each node.
    pub fn open_with(
        runtime: &tokio::runtime::Runtime,
        settings: &str,
        arguments: &[&str],
    ) -> World {
        let hotel = runtime.block_on(HotelServer::open(ROOMS));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("participants.toml");
        let url = format!("http://127.0.0.1:{}", hotel.port);
        let text = format!("[[http]]\nname = 'hotel'\nurl = '{url}'\n{settings}");
        std::fs::write(&file, text).unwrap();
        let all = [&["--participants", file.to_str().unwrap()], arguments].concat();
        let cluster = Cluster::start_with(3, &all);
        eventually("the directory of keyspaces is there", PATIENCE, || {
            quorate(&cluster, &["keyspace", "describe", "system"], "").code == Some(0)
        });
        World { hotel, cluster, _folder: folder }
    }

    pub fn run(&self, text: &str) -> quorate_end_to_end::Ran {
        quorate(&self.cluster, &["txn", "run", "-"], text)
    }

    /// Free rooms and sold ones.
    pub fn rooms(&self) -> (u32, u32) {
        let hotel = self.hotel.hotel.lock();
        (hotel.free, hotel.sold)
    }

    /// What the barrier says of the room of a transaction.
    pub fn stage(&self, id: &str) -> Option<Stage> {
        let hotel = self.hotel.hotel.lock();
        let ended = format!(":{id}");
        let mut all = hotel.barrier.iter();
        all.find(|((transaction, _), _)| transaction.ends_with(&ended)).map(|(_, stage)| *stage)
    }

    /// Somebody changes what the barrier says, behind everybody's back.
    pub fn set_stage(&self, id: &str, to: Stage) {
        let mut hotel = self.hotel.hotel.lock();
        let ended = format!(":{id}");
        let mut all = hotel.barrier.iter_mut();
        *all.find(|((transaction, _), _)| transaction.ends_with(&ended)).unwrap().1 = to;
    }

    /// How often a phase of a transaction was asked for.
    pub fn asked(&self, id: &str, phase: &str) -> usize {
        let text = format!(":{id}:hotel:room:{phase} ");
        self.hotel.hotel.lock().seen.iter().filter(|seen| seen.contains(&text)).count()
    }

    pub fn shown(&self, id: &str) -> serde_json::Value {
        quorate(&self.cluster, &["txn", "show", id, "-o", "json"], "").json()
    }

    /// Lets one member begin this transaction.
    pub fn begin(&self, node: usize, id: &str) -> Asked {
        let client = self.cluster.client_of([node], Duration::from_secs(8));
        let request = request(id);
        self.cluster.runtime.spawn(async move { client.transaction_run(request).await })
    }

    /// The same; waits until it has come so far, and kills the member.
    fn kill_when(&mut self, node: usize, id: &str, so_far: impl Fn(&World) -> bool) {
        let asked = self.begin(node, id);
        eventually("the transaction has come so far", PATIENCE, || so_far(self));
        self.cluster.nodes[node].kill();
        // Its client may have been told the decision by then, or be told that there was no answer.
        drop(asked);
    }

    fn mend(&mut self, node: usize) {
        self.cluster.nodes[node].start_again();
        self.cluster.settled();
    }

    /// A confirmation that somebody repeats: what the hotel says.
    fn confirm_again(&self, id: &str) -> String {
        let (transaction, branch) = {
            let hotel = self.hotel.hotel.lock();
            let ended = format!(":{id}");
            hotel.barrier.keys().find(|(name, _)| name.ends_with(&ended)).unwrap().clone()
        };
        let of = format!("Quorate-Transaction: {transaction}\r\nQuorate-Branch: {branch}\r\n");
        self.say("/quorate/confirm", "confirm", &of)
    }

    /// What the hotel says to somebody who asks it, with the headers that name the branch.
    pub fn say(&self, path: &str, phase: &str, of: &str) -> String {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: hotel\r\nConnection: close\r\nContent-Length: 0\r\n\
             {of}Quorate-Phase: {phase}\r\nQuorate-Deadline-Ms: 1000\r\n\
             Idempotency-Key: somebody\r\n\r\n"
        );
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.hotel.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

fn request(id: &str) -> RunTransactionRequest {
    let put = PutRequest {
        key: format!("kept/{id}").into_bytes().into(),
        value: "yes".into(),
        ..Default::default()
    };
    let put = RequestOp { request: Some(Op::RequestPut(put)) };
    let txn = Some(TxnRequest { success: vec![put], ..Default::default() });
    let order =
        Work::Keyspace(KeyspaceWork { keyspace: "default".to_owned(), txn, or_else: false });
    let (participant, action) = ("hotel".to_owned(), "/rooms".to_owned());
    let room = Work::Http(HttpWork {
        participant,
        action,
        body: r#"{"nights":1}"#.to_owned(),
        prepared: String::new(),
    });
    let branch = |name: &str, work| Branch { name: name.to_owned(), work: Some(work) };
    RunTransactionRequest {
        id: id.to_owned(),
        patience_ms: 20_000,
        branches: vec![branch("order", order), branch("room", room)],
        ..RunTransactionRequest::default()
    }
}

/// Whether the keyspace has what a transaction writes.
fn kept(cluster: &Cluster, id: &str) -> bool {
    quorate(cluster, &["get", &format!("kept/{id}")], "").ok().contains("yes")
}

fn from_the_command_line(world: &World) {
    let ran = world.run(ORDER).ok();
    assert!(ran.starts_with("OK, transaction order-1 is committed\n"), "{ran}");
    assert!(ran.contains("room: hotel committed\n"), "{ran}");
    assert_eq!(world.rooms(), (ROOMS - 1, 1));
    let seen = world.hotel.hotel.lock().seen.clone();
    let tried = |seen: &String| seen.ends_with(":order-1:hotel:room:try {\"nights\":2}");
    assert!(seen.iter().any(tried), "{seen:?}");
    // Neither a repeated run nor a repeated confirmation sells a second room.
    assert!(world.run(ORDER).ok().contains("order-1 is committed"));
    let again = world.confirm_again("order-1");
    assert!(again.contains("quorate-outcome: confirmed"), "{again}");
    assert_eq!(world.rooms(), (ROOMS - 1, 1));

    // The service refuses: its reason is told, and the keyspace has nothing of it.
    let full = ORDER.replace("order-1", "order-2").replace("order/1", "order/2");
    let full = world.run(&full.replace("/rooms", "/full"));
    let why = "order-2 is rolled back by branch room: no room is free";
    assert!(full.code == Some(1) && full.err.contains(why), "{full:?}");
    assert!(!quorate(&world.cluster, &["get", "order/2"], "").ok().contains("nights"));
    // The keyspace refuses: the room is given back.
    let taken = world.run(&ORDER.replace("order-1", "order-3"));
    assert!(taken.err.contains("order-3 is rolled back by branch order"), "{taken:?}");
    eventually("the room is given back", PATIENCE, || {
        world.stage("order-3") == Some(Stage::Cancelled) && world.rooms() == (ROOMS - 1, 1)
    });
    // A service that answers without keeping the contract has not voted.
    let fire = ORDER.replace("order-1", "order-4").replace("order/1", "order/4");
    let fire = world.run(&fire.replace("/rooms", "/hell"));
    let why = "order-4 is rolled back by branch room: it did not vote before the deadline";
    assert!(fire.err.contains(why), "{fire:?}");
}

/// Cancelled by the member that drives it, and by another, which takes it over.
fn cancelled(world: &World) {
    for (node, id) in [(0, "unwanted"), (1, "unwanted-too")] {
        world.hotel.hotel.lock().mute = Some("try");
        let asked = world.begin(0, id);
        eventually("a room is kept", PATIENCE, || world.stage(id) == Some(Stage::Reserved));
        let client = world.cluster.client_of([node], Duration::from_secs(8));
        let request = CancelTransactionRequest { id: id.to_owned() };
        let told = world.cluster.runtime.block_on(client.transaction_cancel(request)).unwrap();
        assert_eq!(told.transaction.unwrap().reason, "it was cancelled");
        world.hotel.hotel.lock().mute = None;
        eventually("the room is given back", PATIENCE, || {
            world.stage(id) == Some(Stage::Cancelled)
        });
        let ran = world.cluster.runtime.block_on(asked).unwrap().unwrap();
        assert_eq!(ran.transaction.unwrap().reason, "it was cancelled");
        assert!(!kept(&world.cluster, id));
    }
    let again = quorate(&world.cluster, &["txn", "cancel", "unwanted"], "").ok();
    assert_eq!(again, "OK, transaction unwanted is rolled back: it was cancelled\n");
    let late = quorate(&world.cluster, &["txn", "cancel", "order-1"], "");
    assert!(late.code == Some(1) && late.err.contains("it was decided before"), "{late:?}");
    let unknown = quorate(&world.cluster, &["txn", "cancel", "never"], "");
    assert!(unknown.err.contains("there is no transaction \"never\""), "{unknown:?}");
}

/// A keyspace is not dropped while a transaction is open there, unless that is said.
fn not_dropped(world: &World) {
    let q = |words: &[&str]| quorate(&world.cluster, words, "");
    q(&["keyspace", "create", "orders"]).ok();
    for (id, force) in [("open-there", false), ("given-up", true)] {
        let text = ORDER.replace("order-1", id).replace("order/1", id).replace("2s", "20s");
        let text = text.replace("default", "orders");
        world.hotel.hotel.lock().mute = Some("try");
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| world.run(&text));
            eventually("a room is kept", PATIENCE, || world.stage(id) == Some(Stage::Reserved));
            let refused = q(&["keyspace", "drop", "orders", "--yes"]);
            let why = format!("transactions are open there ({id})");
            assert!(refused.code == Some(1) && refused.err.contains(&why), "{refused:?}");
            if force {
                q(&["keyspace", "drop", "orders", "--yes", "--force"]).ok();
            }
            q(&["txn", "cancel", id]).ok();
            world.hotel.hotel.lock().mute = None;
            let ran = asked.join().unwrap();
            assert!(ran.code == Some(1), "{ran:?}");
        });
        eventually("the room is given back", PATIENCE, || {
            world.stage(id) == Some(Stage::Cancelled)
        });
    }
    assert!(q(&["keyspace", "describe", "orders"]).err.contains("no keyspace of that name"));
}

#[test]
fn an_http_service_ends_like_the_keyspace_whoever_dies() {
    let _turn = begin();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut world = World::open(&runtime);
    from_the_command_line(&world);
    cancelled(&world);
    not_dropped(&world);
    let reserved = |id: &'static str| move |it: &World| it.stage(id) == Some(Stage::Reserved);

    // The room is kept, and nobody was told: nothing can have been decided, so it is given back.
    world.hotel.hotel.lock().mute = Some("try");
    world.kill_when(2, "early", reserved("early"));
    let took = eventually("the room is given back", PATIENCE, || {
        world.stage("early") == Some(Stage::Cancelled)
    });
    println!("a lost coordinator's reservation was cancelled after {took:?}");
    world.hotel.hotel.lock().mute = None;
    let shown = world.shown("early");
    assert!(
        shown["reason"].as_str().unwrap().contains("was lost before it had decided"),
        "{shown}"
    );
    assert!(!kept(&world.cluster, "early"));
    assert_eq!(world.rooms(), (ROOMS - 1, 1));
    world.mend(2);

    // It is decided, and the service has not heard of it: another member confirms.
    world.hotel.hotel.lock().deaf = Some("confirm");
    world.kill_when(1, "decided", |it| it.asked("decided", "confirm") > 0);
    assert_eq!(world.stage("decided"), Some(Stage::Reserved));
    world.hotel.hotel.lock().deaf = None;
    let took = eventually("the room is sold", PATIENCE, || {
        world.stage("decided") == Some(Stage::Confirmed)
    });
    println!("a decided reservation was confirmed by another member after {took:?}");
    eventually("it is over", PATIENCE, || world.shown("decided")["state"] == "committed");
    assert!(kept(&world.cluster, "decided"));
    assert_eq!(world.rooms(), (ROOMS - 2, 2));
    world.mend(1);

    // The service has confirmed, and nobody heard of it: another member confirms once more.
    world.hotel.hotel.lock().mute = Some("confirm");
    world.kill_when(0, "unheard", |it| it.stage("unheard") == Some(Stage::Confirmed));
    world.hotel.hotel.lock().mute = None;
    eventually("it is over", PATIENCE, || world.shown("unheard")["state"] == "committed");
    assert!(world.asked("unheard", "confirm") > 1, "nobody asked again");
    assert!(kept(&world.cluster, "unheard"));
    assert_eq!(world.rooms(), (ROOMS - 3, 3));
    world.mend(0);
    let alarms = world.cluster.nodes.iter().any(|node| node.log().contains("ALARM"));
    assert!(!alarms, "nobody ended a reservation otherwise");
}
