//! A hotel that keeps the contract for HTTP participants (`docs/resource-managers.md`), as a
//! service would: with a barrier.
//!
//! The barrier has a stage for each branch. A try and a cancel race for its first entry: a try that
//! finds "cancelled" is late and is refused; a cancel that finds nothing leaves "cancelled" behind.
//! It can be made deaf, so that requests wait unheard, and mute, so that what is done is not told.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// What the barrier says of a branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// A room is kept for it.
    Reserved,
    /// The room is sold.
    Confirmed,
    /// The room was given back, or never kept.
    Cancelled,
}

impl Stage {
    fn word(self) -> &'static str {
        match self {
            Stage::Reserved => "reserved",
            Stage::Confirmed => "confirmed",
            Stage::Cancelled => "cancelled",
        }
    }
}

/// What the hotel knows; in a real one both are tables of one database.
#[derive(Default)]
pub struct Hotel {
    /// Rooms that nobody has.
    pub free: u32,
    /// Rooms that are sold.
    pub sold: u32,
    /// The phase whose requests wait, unheard.
    pub deaf: Option<&'static str>,
    /// The phase that is done, and answered only later.
    pub mute: Option<&'static str>,
    /// The stage of each branch, by transaction and branch.
    pub barrier: BTreeMap<(String, String), Stage>,
    /// The idempotency keys and actions of all requests.
    pub seen: Vec<String>,
}

impl Hotel {
    /// One transaction of its database: what the barrier says, and the effect at most once.
    fn step(&mut self, key: (String, String), phase: &str, action: &str) -> (StatusCode, &str) {
        let stage = self.barrier.get(&key).copied();
        let next = match (phase, stage) {
            ("try", None) if action == "/full" || self.free == 0 => {
                return (StatusCode::CONFLICT, "refused");
            }
            ("try", None) if action == "/look" => return (StatusCode::OK, "nothing"),
            ("try", None) => {
                self.free -= 1;
                Stage::Reserved
            }
            ("confirm", Some(Stage::Reserved)) => {
                self.sold += 1;
                Stage::Confirmed
            }
            ("cancel", Some(Stage::Reserved)) => {
                self.free += 1;
                Stage::Cancelled
            }
            ("cancel", None) => Stage::Cancelled,
            ("forget", _) => {
                self.barrier.remove(&key);
                return (StatusCode::OK, "absent");
            }
            (_, Some(stage)) => stage,
            (_, None) => return (StatusCode::OK, "absent"),
        };
        self.barrier.insert(key, next);
        (StatusCode::OK, next.word())
    }
}

/// A running hotel.
pub struct HotelServer {
    /// What it knows.
    pub hotel: Arc<Mutex<Hotel>>,
    /// Where it is, on loopback.
    pub port: u16,
    task: JoinHandle<()>,
}

impl Drop for HotelServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HotelServer {
    /// Opens a hotel with so many free rooms. It serves on the present runtime.
    pub async fn open(free: u32) -> HotelServer {
        let hotel = Arc::new(Mutex::new(Hotel { free, ..Hotel::default() }));
        let router = Router::new().fallback(answer).with_state(hotel.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        HotelServer { hotel, port, task }
    }
}

/// Waits while the hotel is so: it keeps everything open meanwhile.
async fn wait_while(hotel: &Mutex<Hotel>, is: impl Fn(&Hotel) -> bool) {
    while is(&hotel.lock()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn answer(
    State(hotel): State<Arc<Mutex<Hotel>>>,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    match uri.path() {
        "/hell" => return (StatusCode::INTERNAL_SERVER_ERROR, "on fire").into_response(),
        "/plain" => return "fine".into_response(),
        _ => {}
    }
    if headers.get("authorization").is_some_and(|value| value != "Bearer right") {
        return (StatusCode::FORBIDDEN, "who are you?").into_response();
    }
    let phase = header("quorate-phase");
    hotel.lock().seen.push(format!("{} {}", header("idempotency-key"), body));
    wait_while(&hotel, |hotel| hotel.deaf == Some(&phase)).await;
    assert!(header("quorate-deadline-ms").parse::<u64>().unwrap() > 0);
    if phase == "reserved" {
        let hotel = hotel.lock();
        let reserved = hotel.barrier.iter().filter(|(_, stage)| **stage == Stage::Reserved);
        let lines: String = reserved.map(|((t, b), _)| format!("{t} {b}\n")).collect();
        return ([("quorate-outcome", "list")], lines).into_response();
    }
    let key = (header("quorate-transaction"), header("quorate-branch"));
    let (status, word) = {
        let mut hotel = hotel.lock();
        let (status, word) = hotel.step(key, &phase, uri.path());
        (status, word.to_owned())
    };
    wait_while(&hotel, |hotel| hotel.mute == Some(&phase)).await;
    let text = if word == "refused" { "no room is free" } else { "" };
    (status, [("quorate-outcome", word)], text).into_response()
}
