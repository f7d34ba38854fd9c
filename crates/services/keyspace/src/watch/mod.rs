//! Watchers: who is told what, in which order, without ever blocking and in bounded memory.
//!
//! The hub is pure: it is told of every [`EventBatch`](crate::EventBatch) and keeps one queue of
//! [`Message`]s for each *stream* of watchers. A watcher is *synced* when it is owed nothing: it
//! gets new events as they are published. Otherwise it is *behind*, and is served from the store's
//! history.
//!
//! How to drive it (one lock around it will do; history is read without the lock):
//!
//! ```text
//! every EventBatch, in order          hub.publish(&batch)
//! after a snapshot was installed      hub.observe(reader.revision())
//! while let Some(from) = hub.wants_history():
//!     reader.history(from, bytes)     Ok(history)    -> hub.feed(&history)
//!                                     Err(Compacted) -> hub.compacted(reader.compacted_revision())
//! after any of these                  for stream in hub.take_woken(): wake its task
//! a stream's task                     while let Some(message) = hub.take(stream): send it
//! ```
//!
//! Invariants: a watcher gets every event of its keys and kinds from its start on, once, in order
//! of revision, and no revision is split over messages. A stream queues no more than its budget,
//! and one message: when it is slow its watchers fall behind, alone. [`Message::Progress`] says
//! no more than was queued before it.

mod hub;
mod index;

pub use hub::WatchHub;

use quorate_mvcc::{Event, KeyRange, Revision};
use std::sync::Arc;

/// Names a stream of watchers: one client's connection. The caller's to choose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// Names a watcher within its stream.
pub type WatchId = i64;

/// What a watcher wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Which keys.
    pub range: KeyRange,
    /// From this revision on; zero: from now on.
    pub start_revision: Revision,
    /// No puts.
    pub no_put: bool,
    /// No deletes.
    pub no_delete: bool,
    /// Messages say so: the keys as they were before are wanted, too.
    pub prev_kv: bool,
    /// Progress is wanted now and then even if nothing happens.
    pub progress_notify: bool,
    /// Messages say so: they may be split.
    pub fragment: bool,
}

/// What a stream is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// The watcher exists from now on.
    Created {
        /// Which.
        id: WatchId,
        /// The latest revision.
        revision: Revision,
    },
    /// Something happened.
    Events {
        /// Whom it is for.
        id: WatchId,
        /// The watcher has now been told everything up to here.
        revision: Revision,
        /// What happened.
        events: Arc<[Event]>,
        /// As in [`Watch`].
        prev_kv: bool,
        /// As in [`Watch`].
        fragment: bool,
    },
    /// Nothing else happened up to this revision.
    Progress {
        /// To one watcher, or to all of the stream.
        id: Option<WatchId>,
        /// The revision.
        revision: Revision,
    },
    /// The watcher exists no more.
    Canceled {
        /// Which.
        id: WatchId,
        /// It wanted history that was compacted up to this revision; otherwise it was asked for.
        compacted: Option<Revision>,
    },
}

/// Why a watcher was not made. The caller's doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchError {
    /// The stream was never opened, or closed since.
    UnknownStream,
    /// The stream has a watcher of that id.
    DuplicateId,
}
