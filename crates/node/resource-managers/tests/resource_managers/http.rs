//! HTTP participants: try, confirm and cancel, against a real server.

use crate::bank::{CLUSTER, applied, prepare, refusal, soon, state};
use crate::recovery_cases::Decisions;
use quorate_databases::{Cut, HotelServer, Proxy, Stage};
use quorate_resource_managers::{
    BranchName, Deadline, Decision, Error, Heuristic, HttpConfig, HttpParticipant, HttpWork,
    Outcome, Recovery, RecoverySettings, Refusal, ResourceManager, SCAN_LIMIT, State,
    TransactionName, Vote, Work,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

fn participant(port: u16) -> HttpParticipant {
    participant_with(port, 0)
}

/// One whose branches may be handed in for so long.
fn participant_with(port: u16, hand_in_ms: u64) -> HttpParticipant {
    let config = HttpConfig::new("hotel", &format!("http://127.0.0.1:{port}"));
    HttpParticipant::new(CLUSTER, HttpConfig { hand_in_ms, ..config }).unwrap()
}

fn branch(txid: &str) -> BranchName {
    BranchName::new(TransactionName::new(CLUSTER, 1, txid).unwrap(), "hotel", "room").unwrap()
}

fn work(action: &str) -> Work {
    let body = toml::toml! { nights = 2 };
    Work::Http(HttpWork { action: action.to_owned(), body: Some(body) })
}

fn rooms(server: &HotelServer) -> (u32, u32) {
    let hotel = server.hotel.lock();
    (hotel.free, hotel.sold)
}

#[tokio::test]
async fn try_confirm_and_cancel_happen_once_however_often_they_are_asked_for() {
    let server = HotelServer::open(5).await;
    let manager = participant(server.port);
    let (sold, given_back) = (branch("t1"), branch("t2"));
    for _ in 0..2 {
        prepare(&manager, &sold, &work("/rooms")).await;
        prepare(&manager, &given_back, &work("/rooms")).await;
        assert_eq!((rooms(&server), state(&manager, &sold).await), ((3, 0), State::Prepared));
    }
    for _ in 0..2 {
        applied(&manager.commit(&sold, soon()).await);
        assert_eq!(manager.rollback(&given_back, soon()).await, Outcome::NotThere);
        assert_eq!(rooms(&server), (4, 1));
    }
    let vote = manager.prepare(&sold, &work("/rooms"), soon()).await;
    assert_eq!(vote, Vote::No(Refusal::Over { applied: true }));
    assert!(matches!(state(&manager, &sold).await, State::Applied(_)));
    assert_eq!(state(&manager, &given_back).await, State::RolledBack);
    let seen = server.hotel.lock().seen.clone();
    let tries: Vec<_> =
        seen.iter().filter(|s| s.starts_with("q1:bead:1:t1") && s.contains(":try ")).collect();
    assert_eq!(tries.len(), 3);
    assert!(tries.iter().all(|s| *s == "q1:bead:1:t1:hotel:room:try {\"nights\":2}"), "{tries:?}");
    manager.forget(&[sold.clone(), given_back], soon()).await.unwrap();
    assert_eq!(state(&manager, &sold).await, State::Absent);
}

#[tokio::test]
async fn an_empty_cancel_succeeds_and_bars_a_late_try() {
    let server = HotelServer::open(5).await;
    let manager = participant(server.port);
    assert_eq!(manager.rollback(&branch("t1"), soon()).await, Outcome::NotThere);
    let late = manager.prepare(&branch("t1"), &work("/rooms"), soon()).await;
    assert_eq!(late, Vote::No(Refusal::Over { applied: false }));
    assert_eq!(rooms(&server), (5, 0));
    // Nor is there anything to confirm.
    let outcome = manager.commit(&branch("t1"), soon()).await;
    assert_eq!(outcome, Outcome::Heuristic(Heuristic::RolledBack));
}

#[tokio::test]
async fn the_participant_may_refuse_or_have_nothing_to_do() {
    let server = HotelServer::open(1).await;
    let manager = participant(server.port);
    assert_eq!(refusal(&manager, "t1", &work("/full")).await, "no room is free");
    let look = manager.prepare(&branch("t2"), &work("/look"), soon()).await;
    assert_eq!(look, Vote::ReadOnly);
    assert_eq!(rooms(&server), (1, 0));
    let wrong = manager.prepare(&branch("t3"), &work("rooms"), soon()).await;
    let Vote::No(Refusal::Branch(Error::Caller(why))) = wrong else { panic!("{wrong:?}") };
    assert!(why.contains("begins with `/`"), "{why}");
}

#[tokio::test]
async fn requests_and_answers_may_be_lost() {
    let server = HotelServer::open(50).await;
    let proxy = Proxy::start(server.port);
    let direct = participant(server.port);
    let cuts: [fn(&'static str) -> Cut; 2] = [Cut::RequestWith, Cut::AnswerTo];
    let (mut free, mut sold) = (50, 0);
    for (n, cut) in cuts.into_iter().enumerate() {
        let manager = participant(proxy.port());
        manager.check(soon()).await.unwrap();
        let (a, b) = (branch(&format!("a{n}")), branch(&format!("b{n}")));
        proxy.cut(cut("quorate-phase: try"));
        let vote = manager.prepare(&a, &work("/rooms"), soon()).await;
        // The client repeats what it knows not to have been processed; else the vote is open.
        assert!(proxy.has_cut() && matches!(vote, Vote::Unknown(_) | Vote::Yes), "{vote:?}");
        prepare(&manager, &a, &work("/rooms")).await;
        proxy.cut(cut("quorate-phase: confirm"));
        let outcome = manager.commit(&a, soon()).await;
        assert!(proxy.has_cut(), "{outcome:?}");
        assert!(!matches!(outcome, Outcome::Heuristic(_)), "{outcome:?}");
        applied(&manager.commit(&a, soon()).await);
        prepare(&manager, &b, &work("/rooms")).await;
        proxy.cut(cut("quorate-phase: cancel"));
        let outcome = manager.rollback(&b, soon()).await;
        assert!(proxy.has_cut(), "{outcome:?}");
        assert_eq!(direct.rollback(&b, soon()).await, Outcome::NotThere);
        (free, sold) = (free - 1, sold + 1);
        assert_eq!(rooms(&server), (free, sold));
    }
}

#[tokio::test]
async fn a_silent_participant_is_waited_for_until_the_deadline() {
    let server = HotelServer::open(5).await;
    let proxy = Proxy::start(server.port);
    let manager = participant(proxy.port());
    manager.check(soon()).await.unwrap();
    proxy.cut(Cut::SilenceAt("quorate-phase: try"));
    let deadline = Deadline::within(Duration::from_millis(200));
    let vote = manager.prepare(&branch("t1"), &work("/rooms"), deadline).await;
    let Vote::Unknown(doubt) = vote else { panic!("{vote:?}") };
    assert!(doubt.to_string().contains("no answer before the deadline"), "{doubt}");
    assert!(deadline.left().is_zero());
    assert_eq!(manager.rollback(&branch("t1"), soon()).await, Outcome::NotThere);
}

/// A status alone is no proof of anything.
#[tokio::test]
async fn what_does_not_keep_the_contract_is_not_believed() {
    let server = HotelServer::open(5).await;
    let manager = participant(server.port);
    for action in ["/plain", "/hell"] {
        let vote = manager.prepare(&branch("t1"), &work(action), soon()).await;
        assert!(matches!(vote, Vote::Unknown(_)), "{vote:?}");
    }
    let plain = axum::Router::new().fallback(async || "Welcome!");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move { axum::serve(listener, plain).await.unwrap() });
    let stranger = participant(port);
    let error = stranger.check(soon()).await.unwrap_err().to_string();
    assert!(error.contains("is it a participant?"), "{error}");
    let why = refusal(&stranger, "t2", &work("/rooms")).await;
    assert!(why.contains("is it a participant?"), "nothing was tried: {why}");
    for outcome in [
        stranger.commit(&branch("t2"), soon()).await,
        stranger.rollback(&branch("t2"), soon()).await,
    ] {
        assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    }
    task.abort();
}

#[tokio::test]
async fn whoever_is_to_blame_is_named() {
    let server = HotelServer::open(5).await;
    let check = async |authorization: &str| {
        let url = format!("http://127.0.0.1:{}", server.port);
        let mut config = HttpConfig::new("hotel", &url);
        config.headers.insert("authorization".to_owned(), authorization.into());
        HttpParticipant::new(CLUSTER, config)?.check(soon()).await
    };
    check("Bearer right").await.unwrap();
    let error = check("Bearer wrong").await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error:?}");
    assert!(!error.to_string().contains("Bearer"), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = participant(nobody.port()).check(soon()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn recovery_finishes_what_is_reserved_and_sees_what_was_decided_by_hand() {
    let server = HotelServer::open(9).await;
    let manager: Arc<dyn ResourceManager> = Arc::new(participant(server.port));
    for txid in ["commit", "abort", "open", "by-hand"] {
        prepare(&*manager, &branch(txid), &work("/rooms")).await;
    }
    assert_eq!(manager.adopt(&branch("open"), soon()).await, Vote::Yes);
    let adopted = manager.adopt(&branch("never"), soon()).await;
    assert!(matches!(adopted, Vote::No(Refusal::NotAdoptable(_))), "{adopted:?}");
    let by_hand = branch("by-hand");
    let key = (by_hand.transaction().to_string(), by_hand.qualifier().to_owned());
    server.hotel.lock().barrier.insert(key, Stage::Cancelled);
    let decisions = Arc::new(Decisions::default());
    decisions.decide("commit", Decision::Commit);
    decisions.decide("open", Decision::Undecided);
    let recovery = Recovery::new(vec![manager.clone()], decisions, RecoverySettings::default());
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.found, scanned.committed, scanned.rolled_back), (3, 1, 1));
    assert_eq!(scanned.undecided, 1);
    let outcome = recovery.settle(&*manager, &by_hand, true, soon()).await;
    assert_eq!(outcome, Outcome::Heuristic(Heuristic::RolledBack));
    assert_eq!(recovery.alarms().len(), 1);
}

#[tokio::test]
async fn what_may_yet_be_handed_in_is_left_alone_for_its_time() {
    let server = HotelServer::open(9).await;
    let manager: Arc<dyn ResourceManager> = Arc::new(participant_with(server.port, 300));
    for txid in ["own", "decided"] {
        prepare(&*manager, &branch(txid), &work("/rooms")).await;
    }
    let decisions = Arc::new(Decisions::default());
    decisions.decide("decided", Decision::Abort);
    let recovery = Recovery::new(vec![manager.clone()], decisions, RecoverySettings::default());
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.rolled_back, scanned.undecided), (1, 1));
    let again = scanned.again.unwrap();
    assert!(again > Duration::from_millis(200) && again <= Duration::from_millis(300), "{again:?}");
    assert_eq!(manager.adopt(&branch("own"), soon()).await, Vote::Yes);
    tokio::time::sleep(Duration::from_millis(310)).await;
    let scanned = recovery.scan(&*manager).await.unwrap();
    assert_eq!((scanned.again, scanned.rolled_back), (None, 1));
    let late = manager.adopt(&branch("own"), soon()).await;
    assert_eq!(late, Vote::No(Refusal::Over { applied: false }));
    assert_eq!(rooms(&server), (9, 0));
}

/// Counts what is warned of.
struct Warnings(Arc<AtomicUsize>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_service_that_lists_nothing_is_warned_of_once() {
    let warned = Arc::new(AtomicUsize::new(0));
    let _heard = tracing::subscriber::set_default(Warnings(warned.clone()));
    // Whatever it does, it does not know the path.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listless = participant(listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move { axum::serve(listener, axum::Router::new()).await });
    assert_eq!(listless.scan(soon()).await.unwrap(), []);
    assert_eq!(warned.load(Relaxed), 1);
    assert_eq!(listless.scan(soon()).await.unwrap(), []);
    assert_eq!(warned.load(Relaxed), 1, "it is known");
    let hotel = HotelServer::open(1).await;
    assert_eq!(participant(hotel.port).scan(soon()).await.unwrap(), []);
    assert_eq!(warned.load(Relaxed), 1, "an empty list is a list");
    task.abort();
}

/// A service that answers like this, for as long as the test takes: its port.
async fn serve(router: axum::Router) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

/// One that takes its time to forget, and counts.
async fn slow_to_forget(pause: Duration) -> (u16, Arc<AtomicUsize>) {
    let forgotten = Arc::new(AtomicUsize::new(0));
    let counter = forgotten.clone();
    let forget = move || async move {
        tokio::time::sleep(pause).await;
        counter.fetch_add(1, Relaxed);
        [("quorate-outcome", "absent")]
    };
    (serve(axum::Router::new().fallback(forget)).await, forgotten)
}

#[tokio::test]
async fn many_branches_are_forgotten_beside_each_other() {
    let (port, forgotten) = slow_to_forget(Duration::from_millis(200)).await;
    let branches: Vec<_> = (0..64).map(|n| branch(&format!("t{n}"))).collect();
    // One behind the other they would take 12.8 s.
    let within = Deadline::within(Duration::from_secs(6));
    assert_eq!(participant(port).forget(&branches, within).await, Ok(64));
    assert_eq!(forgotten.load(Relaxed), 64);
}

/// However little time there is, who asks again for the rest gets through.
#[tokio::test]
async fn what_was_forgotten_in_time_is_not_asked_for_again() {
    let (port, forgotten) = slow_to_forget(Duration::from_millis(40)).await;
    let config = HttpConfig::new("hotel", &format!("http://127.0.0.1:{port}"));
    let manager = HttpParticipant::new(CLUSTER, HttpConfig { requests: 1, ..config }).unwrap();
    let branches: Vec<_> = (0..20).map(|n| branch(&format!("t{n}"))).collect();
    let (mut rest, mut rounds) = (&branches[..], 0);
    while !rest.is_empty() {
        let within = Deadline::within(Duration::from_millis(300));
        match manager.forget(rest, within).await {
            Ok(some) => rest = &rest[some..],
            // On a machine that is too busy.
            Err(error) => assert!(matches!(error, Error::TooLate { .. }), "{error:?}"),
        }
        rounds += 1;
        assert!(rounds < 100, "it does not get on: {} are left", rest.len());
    }
    assert!(rounds > 1 && forgotten.load(Relaxed) >= 20, "{rounds} rounds");
}

#[tokio::test]
async fn of_a_long_list_as_much_is_read_as_fits() {
    let scan = async |list: String| {
        let list = axum::Router::new().fallback(async || ([("quorate-outcome", "list")], list));
        participant(serve(list).await).scan(soon()).await
    };
    let line = |txid: &str| format!("q1:bead:1:{txid} hotel:room\n");
    let many = scan((0..20_000).map(|n| line(&format!("t{n}"))).collect()).await.unwrap();
    assert_eq!((many.len(), &many[0].branch), (SCAN_LIMIT, &branch("t0")));
    // The limit comes within a name, and half a name may be another branch's.
    let others = format!("{}{}\n", line("t1"), "x".repeat((256 << 10) - 46));
    let cut = scan(others + &line("t2")).await.unwrap();
    assert_eq!(cut.iter().map(|it| &it.branch).collect::<Vec<_>>(), [&branch("t1")]);
    let error = scan("x".repeat(300 << 10)).await.unwrap_err().to_string();
    assert!(error.contains("a line of more than 262144 bytes"), "{error}");
}
