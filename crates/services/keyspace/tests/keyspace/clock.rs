//! The leader's lease clock: never early, soon enough, and handed on safely.

use crate::harness::{BALLOT, Replica};
use quorate_base::time::Duration;
use quorate_base::{Ballot, Instant, NodeId};
use quorate_keyspace::canary::Canary;
use quorate_keyspace::{
    Command, LeaseAnswer, Lessor, LessorConfig, Question, codec, minimum_ttl_seconds,
};
use quorate_service::Service;

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

pub fn tick(lessor: &mut Lessor, millis: u64) -> Vec<Command> {
    let mut commands = Vec::new();
    lessor.tick(at(millis), BALLOT, &mut commands);
    commands
}

fn expire(id: i64) -> Command {
    Command::LeaseExpire { id, ballot: BALLOT }
}

pub fn leading(canary: Canary) -> Lessor {
    let mut lessor = Lessor::new(LessorConfig::default(), canary);
    lessor.promote(at(1_000), [(1, 10, 0), (2, 20, 5)].into_iter());
    lessor
}

#[test]
fn a_new_leader_starts_afresh_or_from_the_checkpoint() {
    let mut lessor = leading(Canary::NONE);
    assert_eq!(lessor.next_timeout(), Some(at(6_000)));
    assert_eq!(lessor.time_to_live(at(3_500), 1), Some((10, 7)));
    assert_eq!(lessor.time_to_live(at(3_500), 3), None);
    assert_eq!(tick(&mut lessor, 5_999), []);
    assert_eq!(tick(&mut lessor, 6_000), [expire(2)]);
    assert_eq!(lessor.next_timeout(), Some(at(9_000)), "asked again after three seconds");
    assert_eq!(tick(&mut lessor, 9_000), [expire(2)]);
    lessor.revoked(2);
    assert_eq!(tick(&mut lessor, 11_000), [expire(1)]);
    lessor.demote();
    assert_eq!((tick(&mut lessor, 99_000), lessor.next_timeout()), (vec![], None));
    assert_eq!(lessor.keep_alive(at(99_000), 1), None);
}

#[test]
fn keeping_alive_starts_afresh_but_not_what_has_run_out() {
    let mut lessor = leading(Canary::NONE);
    assert_eq!(lessor.keep_alive(at(10_000), 1), Some(10));
    assert_eq!(lessor.time_to_live(at(10_000), 1), Some((10, 10)));
    assert_eq!(tick(&mut lessor, 19_999), [expire(2)]);
    assert_eq!(lessor.keep_alive(at(20_000), 1), None, "a moment too late");
    assert_eq!(tick(&mut lessor, 20_000), [expire(1)]);
}

#[test]
fn a_granted_lease_starts_at_the_next_tick() {
    let mut lessor = leading(Canary::NONE);
    tick(&mut lessor, 2_000);
    lessor.granted(9, 4);
    let due = lessor.next_timeout().unwrap();
    assert!(due <= at(2_200), "{due:?}");
    tick(&mut lessor, 2_200);
    assert_eq!(tick(&mut lessor, 6_199), [expire(2)]);
    assert_eq!(tick(&mut lessor, 6_200), [expire(9)]);
}

#[test]
fn endings_are_rate_limited() {
    let mut lessor = Lessor::new(LessorConfig::default(), Canary::NONE);
    lessor.promote(at(0), (1..=5_000).map(|id| (id, 1, 0)));
    let mut ended = 0;
    let mut now = 1_000;
    let (mut first_second, mut guard) = (0, 0);
    while ended < 5_000 {
        let n = tick(&mut lessor, now).len();
        ended += n;
        if now <= 2_000 {
            first_second += n;
        }
        guard += 1;
        assert!(guard < 10_000, "it goes on");
        let next = lessor.next_timeout().unwrap();
        now = (next.0 / 1_000_000).max(now + 1);
    }
    assert!((1_000..=1_600).contains(&first_second), "{first_second}");
    assert!((4_000..=6_500).contains(&now), "{now}");
}

#[test]
fn checkpoints_are_withdrawn_before_more_is_promised() {
    let interval = Some(Duration::from_secs(5));
    let config = LessorConfig { checkpoint_interval: interval, ..LessorConfig::default() };
    let mut lessor = Lessor::new(config, Canary::NONE);
    lessor.promote(at(0), [(1, 60, 0), (2, 4, 0)].into_iter());
    let checkpoint = |number, seconds| Command::LeaseCheckpoint {
        ballot: BALLOT,
        number,
        remaining: vec![(1, seconds)],
    };
    assert_eq!(tick(&mut lessor, 5_500), [expire(2), checkpoint(1, 55)], "rounded up");
    lessor.revoked(2);
    lessor.checkpointed(1, &[(1, 55)]);
    // Whoever led next would give it 55 seconds, so no more can be promised yet.
    assert_eq!(lessor.keep_alive(at(6_000), 1), Some(55));
    assert!(lessor.next_timeout().unwrap() <= at(6_200));
    assert_eq!(tick(&mut lessor, 6_200), [checkpoint(2, 0)]);
    assert_eq!(lessor.keep_alive(at(7_000), 1), Some(55), "not yet applied");
    lessor.checkpointed(2, &[(1, 0)]);
    assert_eq!(lessor.keep_alive(at(8_000), 1), Some(60));
}

#[test]
fn a_lease_ends_through_the_whole_keyspace() {
    let mut replica = Replica::new(Canary::NONE);
    let ask = |replica: &mut Replica, millis, question: Question| {
        let answer = replica.keyspace.query(at(millis), question.encode()).unwrap();
        LeaseAnswer::decode(answer).unwrap()
    };
    replica.keyspace.lead(at(0));
    replica.run(Command::LeaseGrant { id: 5, ttl_seconds: 3 });
    let put = quorate_keyspace::command::Put { key: "k".into(), lease: 5, ..Default::default() };
    replica.run(Command::Put(put));
    let ttl = Question::TimeToLive { id: 5, keys: true };
    let keys = vec!["k".into()];
    assert_eq!(
        ask(&mut replica, 100, ttl),
        LeaseAnswer::Lives { granted_seconds: 3, remaining_seconds: 3, keys }
    );
    let alive = Question::KeepAlive { id: 5 };
    assert_eq!(ask(&mut replica, 2_000, alive), LeaseAnswer::KeptAlive { ttl_seconds: 3 });
    let tick = |replica: &mut Replica, millis| {
        let mut commands = Vec::new();
        replica.keyspace.tick(at(millis), &mut commands);
        commands.into_iter().map(|bytes| codec::decode(bytes).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(tick(&mut replica, 4_999), []);
    let due = tick(&mut replica, 5_000);
    assert_eq!(due, [expire(5)], "by the ballot of the last entry");
    assert_eq!(ask(&mut replica, 5_000, alive), LeaseAnswer::NotFound);
    replica.run(due[0].clone());
    assert_eq!(replica.keyspace.reader().sizes().keys, 0);
    assert_eq!(ask(&mut replica, 5_001, ttl), LeaseAnswer::NotFound);
    assert_eq!(replica.keyspace.next_timeout(), None);
    assert!(replica.keyspace.query(at(0), "nonsense".into()).is_err());
}

#[test]
fn the_shortest_time_to_live_is_etcds() {
    let ms = Duration::from_millis;
    assert_eq!(minimum_ttl_seconds(ms(1_000), ms(100)), 2, "1.5 s, in whole seconds");
    assert_eq!(minimum_ttl_seconds(ms(200), ms(20)), 1);
    assert_eq!(minimum_ttl_seconds(ms(5_000), ms(500)), 8);
}

#[test]
fn a_clock_of_another_ballot_ends_nothing() {
    let mut replica = Replica::new(Canary::NONE);
    replica.run(Command::LeaseGrant { id: 5, ttl_seconds: 3 });
    let stale = Ballot::new(BALLOT.round + 1, NodeId(9));
    replica.run(Command::LeaseExpire { id: 5, ballot: stale });
    assert_eq!(replica.keyspace.reader().leases(), [5]);
}
