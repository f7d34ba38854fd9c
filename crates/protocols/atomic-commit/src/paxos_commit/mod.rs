//! Paxos Commit (Gray and Lamport, *Consensus on Transaction Commit*, 2006).
//!
//! Every participant's vote is chosen by a synod of its own, over the same 2F + 1 acceptors. The
//! participant itself proposes under the ballot zero, which needs no phase 1 because nobody else
//! uses it. The transaction commits if every synod chooses a vote that lets it. A leader who takes
//! over asks the acceptors under a higher ballot, for all branches at once, and proposes No where
//! none of a quorum has accepted a vote. There is no moment at which one site's death blocks.
//!
//! Costs are kept low as in sections 4.2 and 5 of the paper: participants send their votes to F + 1
//! acceptors and to the others only if that did not suffice; an acceptor waits until it has the
//! votes of all branches, writes them down once, and sends one message to the leader.
//!
//! Invariants: the acceptor's, of the [synod](quorate_paxos::synod); a participant votes one way
//! under the ballot zero, restarts or not, so that every vote, a No as well, is durable before it
//! is told.
//!
//! A refusal takes a short cut: it goes to the coordinator directly, and the instance stays free,
//! which no leader will ever fill with anything but No.

mod acceptor;
mod coordinator;
mod leader;
mod participant;

pub use acceptor::Acceptor;
pub use coordinator::Coordinator;
pub use participant::Participant;
