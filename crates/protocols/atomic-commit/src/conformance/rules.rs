//! The six rules (`docs/two-phase-commit.md`), held to every message that leaves, every order that
//! is given and every end that is reported: each run of every protocol is judged by them.
//!
//! What is durable is what the judge sees of a site. So a site that is right by luck, because its
//! record got there in time or nobody looked, is convicted nevertheless.

use crate::{
    Address, Body, Decision, Key, Message, Order, Outcome, Proof, Protocol, Reason, Record, Terms,
    Vote,
};
use alloc::format;
use alloc::string::String;
use quorate_base::Ballot;

/// Whoever sees all sites at once.
pub trait Witness {
    /// What is run, which attempt, and by whom.
    fn setting(&self) -> (Protocol, Key, Terms);
    /// All that a site has on record, in the order in which it became durable.
    fn durable(&self, site: Address) -> &[Record];
    /// Whether a participant has written down that it is prepared, durably or not yet.
    fn is_prepared(&self, site: Address) -> bool;
    /// Whether a site has heard this decision from another, or was left to decide so.
    fn was_told(&self, site: Address, outcome: Outcome) -> bool;
    /// Whether a participant has said that it only read.
    fn only_read(&self, site: Address) -> bool;
}

/// What a breach is called.
fn breach(rule: u8, site: Address, what: &str) -> Option<String> {
    Some(format!("rule {rule}: {site} {what}"))
}

fn has_decided(records: &[Record], wanted: Outcome) -> bool {
    let of = |record: &Record| match record {
        Record::Decided { decision, .. } => decision.outcome() == wanted,
        _ => false,
    };
    records.iter().any(of)
}

/// A message of this site leaves: which rule that breaks.
pub fn message_leaves(world: &impl Witness, from: Address, message: &Message) -> Option<String> {
    let (protocol, key, terms) = world.setting();
    let records = world.durable(from);
    let named = message.key == key && message.terms == terms;
    if !named || message.from != from || !terms.has(message.to) {
        return breach(6, from, "does not say what its message is about");
    }
    match &message.body {
        Body::Vote(vote) => vote_leaves(protocol, from, vote, records),
        Body::AcceptVotes { ballot: Ballot::ZERO, votes } => {
            let each = votes.iter().map(|(_, vote)| vote_leaves(protocol, from, vote, records));
            each.flatten().next()
        }
        Body::Decide(Decision::Commit) if !commit_is_durable(world, from) => {
            breach(2, from, "tells a commit that is not durable")
        }
        Body::Decide(Decision::Abort { reason: Reason::NoRecord, .. })
            if from == Address::Coordinator
                && terms.branches > 1
                && !has_decided(records, Outcome::Abort) =>
        {
            breach(4, from, "has no record of having no record")
        }
        Body::Acknowledge(Proof::Applied) => {
            let ends = |it: &Record| matches!(it, Record::Decided { .. } | Record::ReadOnly);
            let proven = records.iter().any(ends) || world.only_read(from);
            if proven { None } else { breach(5, from, "proves what it may forget") }
        }
        _ => None,
    }
}

/// Rule 1; and under Paxos Commit every vote is durable, for there it is given once for ever.
fn vote_leaves(
    protocol: Protocol,
    from: Address,
    vote: &Vote,
    records: &[Record],
) -> Option<String> {
    let for_ever = protocol == Protocol::PaxosCommit;
    let durable = match vote {
        Vote::Yes => records.contains(&Record::Prepared),
        Vote::ReadOnly => !for_ever || records.contains(&Record::ReadOnly),
        Vote::No(_) => !for_ever || has_decided(records, Outcome::Abort),
    };
    if durable { None } else { breach(1, from, "votes before the vote is durable") }
}

/// Rule 2: the sender's record, or, under Paxos Commit, votes that a quorum of acceptors has.
fn commit_is_durable(world: &impl Witness, from: Address) -> bool {
    let (protocol, _, terms) = world.setting();
    if protocol != Protocol::PaxosCommit {
        return has_decided(world.durable(from), Outcome::Commit);
    }
    let chosen = |branch: usize| {
        let votes = |site: Address| {
            world.durable(site).iter().filter_map(move |record| match record {
                Record::Votes { accepted, .. } => accepted.get(branch)?.as_ref(),
                _ => None,
            })
        };
        let allowed = terms.acceptors().flat_map(votes).filter(|(_, vote)| vote.allows_commit());
        let holds = |site: Address, ballot: Ballot| votes(site).any(|(b, _)| *b == ballot);
        let by = |ballot: Ballot| terms.acceptors().filter(|site| holds(*site, ballot)).count();
        allowed.map(|(ballot, _)| *ballot).any(|ballot| by(ballot) >= terms.acceptor_quorum())
    };
    (0..usize::from(terms.branches)).all(chosen)
}

/// Rule 3: a participant is about to give its resource this order. Is it prepared, then somebody
/// else has decided, or a majority with it. The protocol of 1981 has no rule for that, which is
/// what it is here to show.
pub fn order_is_given(world: &impl Witness, site: Address, order: Order) -> Option<String> {
    let (protocol, _, terms) = world.setting();
    let outcome = match order {
        Order::Commit => Outcome::Commit,
        Order::Rollback => Outcome::Abort,
        Order::Prepare | Order::CommitAlone | Order::Forget => return None,
    };
    if protocol == Protocol::NaiveThreePhase
        || !world.is_prepared(site)
        || world.was_told(site, outcome)
    {
        return None;
    }
    let accepted = |site: Address| {
        world.durable(site).iter().filter_map(|record| match record {
            Record::Ballots { accepted: Some((ballot, found)), .. } => Some((*ballot, *found)),
            _ => None,
        })
    };
    let by = |what: (Ballot, Outcome)| {
        terms.electorate().filter(|site| accepted(*site).any(|found| found == what)).count()
    };
    // Its own acceptance need not be among them, nor durable yet.
    let mut candidates = terms.electorate().flat_map(accepted).filter(|(_, it)| *it == outcome);
    if candidates.any(|what| by(what) >= terms.majority()) {
        return None;
    }
    breach(3, site, "is prepared, and decides alone")
}

/// Rule 5: this site says that nobody needs the decision any more.
pub fn completes(world: &impl Witness, site: Address, outcome: Outcome) -> Option<String> {
    let (_, _, terms) = world.setting();
    let lacks = |participant: &Address| {
        !world.only_read(*participant) && !has_decided(world.durable(*participant), outcome)
    };
    let lacking = terms.participants().find(lacks).filter(|_| outcome == Outcome::Commit);
    lacking.and_then(|_| breach(5, site, "forgets a commit that a participant has not applied"))
}

/// Rule 6: a message of an earlier attempt has come, and something has changed or was done.
pub fn heeds_an_earlier_attempt(site: Address) -> Option<String> {
    breach(6, site, "heeds an earlier attempt")
}
