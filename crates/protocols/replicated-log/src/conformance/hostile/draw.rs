//! What a peer may say, and what a driver may ask, drawn from a number.

use crate::{
    Accept, Accepted, Append, AppendOutcome, AppendReply, Body, Change, Entries, Entry, Epoch,
    Input, Membership, Payload, Promise, ProposalId, Protocol, ReadId,
};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::ops::RangeInclusive;
use quorate_base::{Ballot, Index, NodeId, Position, Rng};

/// Something that happens to the replica.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Hear(u64, Ballot, Body),
    Wait(u64),
    /// Writes end, and what was committed is applied.
    Settle,
    Ask(Input),
    /// It starts anew, and perhaps cannot read one of its entries.
    Restart(Option<usize>),
}

/// What a peer needs to know to be listened to.
#[derive(Clone, Copy)]
pub(super) struct Talk {
    pub protocol: Protocol,
    /// The replica's own.
    pub ballot: Ballot,
}

pub(super) fn step(rng: &mut Rng, talk: Talk) -> Step {
    match rng.below(13) {
        0..7 => {
            let from = rng.below(5);
            let ballot = ballot_from(rng, talk, from);
            Step::Hear(from, ballot, body(rng, talk))
        }
        7 | 8 => Step::Wait(rng.below(200)),
        9 | 10 => Step::Settle,
        11 if rng.below(3) == 0 => {
            let damaged = (rng.below(3) == 0).then_some(rng.below(8) as usize);
            Step::Restart(damaged)
        }
        _ => Step::Ask(ask(rng)),
    }
}

/// Mostly small numbers, which fit what is there; some at the edge.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(11) {
        0..8 => rng.below(8),
        8 => u64::MAX,
        9 => u64::MAX - 1,
        _ => rng.next_u64(),
    }
}

/// A slot that a value may be in. Not far beyond all others: what lies between a candidate would
/// have to fill (`docs/paxos.md` says so).
fn slot(rng: &mut Rng) -> Index {
    if rng.below(10) == 0 { rng.below(40) } else { rng.below(8) }
}

fn flag(rng: &mut Rng) -> bool {
    rng.below(2) == 0
}

fn ballot(rng: &mut Rng) -> Ballot {
    let round = if rng.below(10) == 0 { number(rng) } else { rng.below(6) };
    Ballot::new(round, NodeId(rng.below(5)))
}

/// Any, the replica's own, or one that is the speaker's.
fn ballot_from(rng: &mut Rng, talk: Talk, from: u64) -> Ballot {
    match rng.below(4) {
        0 => ballot(rng),
        1 => talk.ballot,
        2 => Ballot::new(talk.ballot.round.saturating_add(rng.below(2)), NodeId(from)),
        _ => Ballot::new(ballot(rng).round, NodeId(from)),
    }
}

fn position(rng: &mut Rng) -> Position {
    Position::new(number(rng), ballot(rng))
}

fn membership(rng: &mut Rng) -> Membership {
    let mut nodes = || {
        let count = rng.below(4);
        let mut nodes: Vec<NodeId> = (0..count).map(|_| NodeId(rng.between(1, 5))).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    };
    Membership { voters: nodes(), outgoing: nodes(), learners: nodes() }
}

fn payload(rng: &mut Rng) -> Payload {
    match rng.below(8) {
        0 | 1 => Payload::Noop,
        2 => Payload::members(membership(rng), Bytes::new()),
        3 => Payload::Lead(ballot(rng)),
        4 if rng.below(4) == 0 => Payload::Seal { next: Protocol::Raft, ballot: ballot(rng) },
        _ => Payload::Command(Bytes::from(vec![b'a' + rng.below(26) as u8])),
    }
}

/// Consecutive, as `Entries` demands and the wire format cannot break; after `previous` or not.
/// Under one ballot or under many.
fn entries(rng: &mut Rng, after: Index, under: Option<Ballot>) -> Entries {
    let first = match (rng.below(5), under) {
        (0, None) => number(rng).min(u64::MAX - 8),
        (0, Some(_)) => slot(rng),
        _ => after.saturating_add(1).min(u64::MAX - 8),
    };
    let one = under.filter(|_| rng.below(4) > 0);
    let count = rng.below(4);
    let mut entry = |index| {
        let ballot = one.unwrap_or_else(|| ballot(rng));
        Entry { index, ballot, payload: payload(rng) }
    };
    (first..first + count).map(&mut entry).collect()
}

/// Runs of entries, in order or not.
fn runs(rng: &mut Rng, after: Index, under: Option<Ballot>) -> Vec<Entries> {
    let count = rng.below(3);
    let mut end = after;
    let mut run = || {
        let run = entries(rng, end, under);
        end = run.last_index().unwrap_or(end).saturating_add(rng.below(2));
        run
    };
    (0..count).map(|_| run()).collect()
}

fn range(rng: &mut Rng) -> RangeInclusive<Index> {
    number(rng)..=number(rng)
}

fn optional(rng: &mut Rng) -> Option<u64> {
    flag(rng).then(|| number(rng))
}

fn body(rng: &mut Rng, talk: Talk) -> Body {
    match (rng.below(20), talk.protocol) {
        (0..8, _) => common(rng),
        (19, Protocol::Raft) | (8..19, Protocol::Paxos) => of_paxos(rng, talk),
        (8..20, _) => of_raft(rng),
        _ => Body::TimeoutNow,
    }
}

fn common(rng: &mut Rng) -> Body {
    match rng.below(11) {
        0 => Body::PreVote { last: position(rng) },
        1 | 2 => Body::PreVoteReply { granted: rng.below(3) > 0 },
        3 => Body::VoteReply { granted: flag(rng) },
        4 | 5 => {
            Body::Heartbeat { session: rng.below(4), commit: number(rng), probe: rng.below(4) }
        }
        6 => Body::HeartbeatReply { session: rng.below(4), probe: number(rng) },
        7 => Body::ReadIndex { id: number(rng) },
        8 => Body::ReadIndexReply { id: number(rng), index: optional(rng) },
        _ => Body::TimeoutNow,
    }
}

fn of_raft(rng: &mut Rng) -> Body {
    match rng.below(16) {
        0..5 => {
            let previous = position(rng);
            let entries = entries(rng, previous.index, None);
            let (session, commit, probe) = (rng.below(4), number(rng), rng.below(4));
            Body::Append(Append { session, previous, entries, commit, probe })
        }
        5 => Body::Vote { last: position(rng), transfer: flag(rng) },
        6 | 7 => Body::VoteReply { granted: rng.below(4) > 0 },
        8..11 => {
            let outcome = match flag(rng) {
                true => AppendOutcome::Accepted { matched: number(rng) },
                false => AppendOutcome::Rejected { previous: number(rng), hint: position(rng) },
            };
            let (session, probe) = (rng.below(4), number(rng));
            Body::AppendReply(AppendReply { session, probe, outcome })
        }
        11 => Body::Pull { id: number(rng), last: position(rng) },
        12 | 13 => {
            let (id, previous) = (rng.below(4), position(rng));
            let entries = entries(rng, previous.index, None);
            let end = entries.last().map_or(previous, Entry::position);
            let last = if flag(rng) { end } else { position(rng) };
            Body::Pulled { id, previous, entries, last }
        }
        14 => {
            let count = rng.below(4);
            let ballots = (0..count).map(|_| ballot(rng)).collect();
            Body::Mend { first: number(rng), ballots }
        }
        _ => {
            let first = number(rng);
            let entries = runs(rng, first.saturating_sub(1), None);
            Body::Mended { first, entries, denied: flag(rng) }
        }
    }
}

fn of_paxos(rng: &mut Rng, talk: Talk) -> Body {
    match rng.below(16) {
        0..5 => {
            let after = slot(rng);
            let entries = entries(rng, after, Some(talk.ballot));
            let (session, commit, probe) = (rng.below(4), number(rng), rng.below(4));
            Body::Accept(Accept { session, entries, commit, probe })
        }
        5..8 => Body::Prepare { from: number(rng), transfer: flag(rng) },
        8..12 => {
            let from = if flag(rng) { 1 } else { slot(rng) };
            let (count, before) = (rng.below(2), Ballot::new(rng.below(4), NodeId(2)));
            Body::Promise(Promise {
                from,
                commit: if flag(rng) { 0 } else { number(rng) },
                entries: runs(rng, from.saturating_sub(1), Some(before)),
                damaged: (0..count).map(|_| range(rng)).collect(),
                next: (rng.below(4) == 0).then(|| slot(rng)),
                base: if flag(rng) { 0 } else { number(rng) },
            })
        }
        _ => {
            let beyond = if flag(rng) { (1, 0) } else { (number(rng), number(rng)) };
            let (session, probe, upto) = (rng.below(4), number(rng), number(rng));
            Body::Accepted(Accepted { session, probe, upto, beyond })
        }
    }
}

fn ask(rng: &mut Rng) -> Input {
    let node = NodeId(rng.below(6));
    match rng.below(12) {
        0 | 1 => {
            let commands = vec![Bytes::from_static(b"y"); rng.between(1, 2) as usize];
            Input::Propose { id: ProposalId(0), commands }
        }
        2 => Input::Read { id: ReadId(rng.next_u64()) },
        3 => Input::Applied { index: number(rng) },
        4 => Input::Compact { index: number(rng) },
        5 => {
            let changes = [
                Change::AddLearner(node),
                Change::AddVoter(node),
                Change::Promote(node),
                Change::Remove(node),
                Change::Keep,
            ];
            let change = rng.pick(&changes).cloned().unwrap_or(Change::Keep);
            let (judged, context) = (number(rng), Bytes::new());
            Input::Change { id: ProposalId(0), change, judged, context }
        }
        6 => Input::Transfer { to: node },
        7 => Input::PeerLost { node },
        8 => Input::SnapshotSent { to: node, index: optional(rng) },
        9 => Input::Damaged { range: range(rng) },
        10 => Input::Campaign,
        _ => {
            let next = if flag(rng) { Protocol::Raft } else { Protocol::Paxos };
            Input::Seal { id: ProposalId(0), next, judged: Epoch(0) }
        }
    }
}
