//! Connections that are kept, and how many there may be.
//!
//! A plain pool that **never resets** a connection: resetting one on which an XA branch is prepared
//! loses the branch (`docs/resource-managers.md`). A connection comes back only if whoever used it
//! knows that it is in its initial state; in every other case it is closed.

use crate::deadline::Deadline;
use crate::error::Error;
use parking_lot::Mutex;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most connections that a configuration may ask for: far more than any database bears, and few
/// enough to be counted.
const MOST: usize = 10_000;

/// Whether a pool may have so many connections.
///
/// # Errors
/// The configuration's: `key` of participant `name`.
pub(crate) fn check_connections(name: &str, key: &str, connections: usize) -> Result<(), Error> {
    match connections {
        1..=MOST => Ok(()),
        other => {
            Err(Error::Caller(format!("{name}: {key} is {other}; it must be from 1 to {MOST}")))
        }
    }
}

pub(crate) struct Pool<C> {
    manager: Arc<str>,
    idle: Mutex<Vec<(C, Instant)>>,
    permits: Arc<Semaphore>,
    connections: usize,
    idle_limit: Duration,
}

impl<C> Pool<C> {
    /// A pool of at most so many connections, none kept idle for longer than `idle_limit`.
    pub(crate) fn new(manager: Arc<str>, connections: usize, idle_limit: Duration) -> Pool<C> {
        let permits = Arc::new(Semaphore::new(connections));
        Pool { manager, idle: Mutex::default(), permits, connections, idle_limit }
    }

    /// The right to one connection, which may have to be waited for.
    pub(crate) async fn permit(&self, deadline: Deadline) -> Result<OwnedSemaphorePermit, Error> {
        match deadline.bound(self.permits.clone().acquire_owned()).await {
            Some(Ok(permit)) => Ok(permit),
            _ => Err(Error::Busy { manager: self.manager.clone(), connections: self.connections }),
        }
    }

    /// The connection that was used last, if one is kept that is still good.
    pub(crate) fn take(&self) -> Option<C> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, since)| since.elapsed() < self.idle_limit);
        idle.pop().map(|(connection, _)| connection)
    }

    /// Keeps a connection that is in its initial state.
    pub(crate) fn give_back(&self, lease: Lease<C>) {
        let Lease { connection, permit, .. } = lease;
        self.idle.lock().push((connection, Instant::now()));
        drop(permit);
    }

    /// Closes all idle connections: their server is gone.
    pub(crate) fn clear(&self) {
        self.idle.lock().clear();
    }
}

/// A connection in use; dropping it closes it.
pub(crate) struct Lease<C> {
    connection: C,
    permit: OwnedSemaphorePermit,
    /// Whether it was in use before, so that it may have died meanwhile.
    pub(crate) used: bool,
}

impl<C> Lease<C> {
    pub(crate) fn new(connection: C, permit: OwnedSemaphorePermit, used: bool) -> Lease<C> {
        Lease { connection, permit, used }
    }
}

impl<C> Deref for Lease<C> {
    type Target = C;
    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C> DerefMut for Lease<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_of_connections_that_makes_sense_passes() {
        let check = |connections| check_connections("bank", "finish-connections", connections);
        for fine in [1, MOST] {
            check(fine).unwrap();
            let _: Pool<u8> = Pool::new("bank".into(), fine, Duration::ZERO);
        }
        for wrong in [0, MOST + 1, usize::MAX] {
            let error = check(wrong).unwrap_err().to_string();
            let expected =
                format!("bank: finish-connections is {wrong}; it must be from 1 to 10000");
            assert_eq!(error, expected);
        }
    }

    #[tokio::test]
    async fn a_full_pool_refuses_at_the_deadline_and_names_itself() {
        let pool: Pool<u8> = Pool::new("bank".into(), 1, Duration::from_secs(9));
        let soon = || Deadline::within(Duration::from_millis(20));
        let permit = pool.permit(soon()).await.unwrap();
        let error = pool.permit(soon()).await.unwrap_err();
        assert_eq!(error, Error::Busy { manager: "bank".into(), connections: 1 });
        pool.give_back(Lease::new(7, permit, false));
        assert!(pool.permit(soon()).await.is_ok());
        assert_eq!((pool.take(), pool.take()), (Some(7), None));
    }

    #[tokio::test]
    async fn a_connection_that_was_idle_for_too_long_is_closed() {
        let pool: Pool<u8> = Pool::new("bank".into(), 1, Duration::from_millis(1));
        let permit = pool.permit(Deadline::within(Duration::from_secs(1))).await.unwrap();
        pool.give_back(Lease::new(7, permit, false));
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(pool.take(), None);
    }
}
