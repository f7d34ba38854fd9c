//! Multi-Paxos behind the replicated-log interface (*Paxos Made Simple*, section 3).
//!
//! A leader is elected by *connectivity*, never by the length of its log: whoever reaches a quorum
//! in both directions may promise itself a new ballot. One phase 1 over all slots from its first
//! unchosen one then tells it what a quorum accepted; it proposes that again under its ballot,
//! fills gaps with nothing, and goes on with phase 2 alone. Slots are chosen in any order and
//! handed out in order.
//!
//! A follower takes a slot for chosen if the leader says it is and it holds the slot under that
//! leader's ballot: one ballot has one value in a slot. What the leader sends of earlier ballots
//! is chosen already, and says so.

mod acceptor;
mod campaign;
mod election;
mod leader;
mod leads;
mod members;
mod messages;
mod reads;
mod recovery;
mod replica;
mod replication;
mod slots;

pub use replica::MultiPaxos;
