//! What a correct cluster looks like from outside, and from inside: pure functions over recorded
//! histories and over what replicas did.
//!
//! Invariant: a checker knows nothing of how the cluster works. Its models are written
//! separately from the code they judge, so that one mistake cannot hide in both. A checker that
//! reports a [`Violation`] has found one; one that cannot decide says so.

pub mod appends;
mod commits;
mod elections;
mod history;
mod leases;
mod linearizability;
mod registers;
mod revisions;
mod store;
mod unanswered;
mod violation;
mod watches;

pub use commits::{AppliedLogs, StateHashes};
pub use elections::Elections;
pub use history::{Compare, End, Op, Operation, Outcome, Refusal, Reply, Request, Span, Target};
pub use leases::{LeaseBook, LeaseTerms};
pub use linearizability::{Call, Limit, Model, Verdict, check};
pub use registers::check_registers;
pub use revisions::{Expiry, Truth, check_revisions};
pub use store::{Change, Kv, Store};
pub use violation::Violation;
pub use watches::WatchLog;
