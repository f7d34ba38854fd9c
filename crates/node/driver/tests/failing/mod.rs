//! The host of a service that cannot apply an entry.

use bytes::Bytes;
use quorate_base::codec::DecodeError;
use quorate_base::{Ballot, Instant, Position};
use quorate_driver::{Done, ServiceHost, Work};
use quorate_replicated_log::{Base, Entries, Entry, Payload};
use quorate_service::{Applied, Persist, Service, ServiceError, SnapshotSink, SnapshotSource};

/// Its disk fails at every entry.
#[derive(Default)]
struct Failing {
    base: Base,
    asked: u64,
}

impl Service for Failing {
    type Reply = ();
    type Publication = ();

    fn check(_: &Bytes) -> Result<(), DecodeError> {
        Ok(())
    }

    fn base(&self) -> Base {
        self.base.clone()
    }

    fn apply(&mut self, _: &Entries, _: &mut Applied<(), ()>) -> Result<(), ServiceError> {
        self.asked += 1;
        Err(ServiceError::Disk("it broke".into()))
    }

    fn persist(&mut self) -> Persist {
        Box::new(|| Ok(0))
    }

    fn lead(&mut self, _: Instant) {}

    fn follow(&mut self) {}

    fn tick(&mut self, _: Instant, _: &mut Vec<Bytes>) {}

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn query(&mut self, _: Instant, _: Bytes) -> Result<Bytes, ServiceError> {
        Err(ServiceError::Caller("it has no answers".into()))
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, ServiceError> {
        Err(ServiceError::Caller("it has no state".into()))
    }

    fn receive(&mut self, _: Base) -> Result<Box<dyn SnapshotSink>, ServiceError> {
        Err(ServiceError::Caller("it takes no state".into()))
    }

    fn install(&mut self, _: Box<dyn SnapshotSink>) -> Result<(), ServiceError> {
        Err(ServiceError::Caller("it takes no state".into()))
    }
}

/// What waited behind it finds a state that has not come so far: it is not applied, and no reason
/// to end otherwise than in order.
#[test]
fn nothing_is_applied_behind_what_could_not_be() {
    let mut host = ServiceHost::new(Failing::default());
    let mut done = Vec::new();
    for index in 1..=3 {
        let ballot = Ballot::ZERO;
        let entries = Entries::new(vec![Entry { index, ballot, payload: Payload::Noop }]);
        host.run(Instant::ZERO, Work::Apply(entries), &mut done);
    }
    assert_eq!(host.service().base().position, Position::ZERO);
    assert_eq!(host.service().asked, 1);
    let failed = done.iter().filter(|done| matches!(done, Done::Failed { .. }));
    assert_eq!(failed.count(), 1);
}
