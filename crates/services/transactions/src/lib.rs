//! The coordinator of distributed transactions, as a pure state machine over a replicated record.
//!
//! A transaction has one [`Record`], kept in a replicated keyspace and changed by compare-and-swap
//! alone. A [`Coordinator`] drives it: it is told what happened ([`Input`]), and says what is to be
//! done ([`Effect`]). Who votes and what follows from the votes is decided by
//! `protocols/atomic-commit`; here are the record, the attempts, and the end of a transaction.
//! `docs/transactions.md` has the whole of it.
//!
//! Invariants:
//!
//! - Nothing is decided before the record is there, and no commit leaves before the record says so
//!   or, where the votes decide, every participant has said yes for ever. A record that says how
//!   its transaction ends never says otherwise.
//! - Any node may take a transaction over at any moment: it raises the record's epoch, which takes
//!   the word from whoever had it. Clocks and suspicions decide when, never what.
//! - Whoever takes over a transaction that is undecided ends it: the tombstone comes first. Where
//!   the votes decide they are closed and learned first: all Yes is a commit.
//! - A transaction that a bundle carries takes effect if and only if the bundle does, and once it
//!   is carried nobody begins another of its id before the bundle is aborted.
//! - A record is finished only when every participant has proven that it applied the decision.

mod alarm;
pub mod branches;
mod bundles;
pub mod canary;
mod codec;
mod coordinator;
mod id;
mod record;
pub mod records;
mod steps;
mod stray;
mod suspicion;
mod votes;
mod write;

pub use alarm::Alarm;
pub use canary::Canary;
pub use coordinator::{
    CANCELLED, Coordinator, Effect, End, Found, Input, Moment, Settings, Start, StoreRequest,
    Stored, Vote,
};
pub use id::{
    MAX_ID_BYTES, Refused, bundle_id, check_id, check_known_id, content_hash, is_bundle_id,
};
pub use record::{
    BranchRecord, BranchState, Carried, Kind, MAX_BRANCHES, MAX_CARRIED, Owner, Record, Stage,
    Verdict, Voted,
};
pub use stray::{MAX_STRAYS, Stray};
pub use suspicion::{Sight, Suspicion, SuspicionSettings};
pub use write::{Change, Condition, Key, Write};
