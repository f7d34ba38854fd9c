//! Two-phase commit with presumed abort (Gray 1978; Mohan, Lindsay and Obermarck 1986).
//!
//! The coordinator asks every participant to prepare, and commits if every vote lets it. It forces
//! one record, the decision to commit; an abort it merely says, and does not wait for anybody: who
//! asks later is told abort, because there is no record. A read-only participant is out after its
//! vote. The only participant of a transaction decides itself.
//!
//! Invariant: a commit record that was once told is kept until every participant that voted Yes
//! has proven that it applied it; the answer "there is no record, so it is aborted" is itself on
//! record (a tombstone) before it is given.
//!
//! It blocks: participants that said Yes wait for the coordinator, or for a peer that heard of the
//! decision. A peer without a record says nothing, for it may have forgotten.

mod coordinator;
mod participant;

pub use coordinator::Coordinator;
pub use participant::Participant;
