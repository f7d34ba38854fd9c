//! Effects, messages and states in words, for transcripts.

use crate::{
    AppendOutcome, Body, Entries, Entry, Event, Membership, Message, Payload, Protocol, Refusal,
    Role, Status, StepDown, Write,
};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;
use quorate_base::{Index, Position};

pub fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
    }
}

pub fn members(m: &Membership) -> String {
    let list = |nodes: &[quorate_base::NodeId]| {
        nodes.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
    };
    let mut text = format!("voters {}", list(&m.voters));
    if m.is_joint() {
        let _ = write!(text, ", outgoing {}", list(&m.outgoing));
    }
    if !m.learners.is_empty() {
        let _ = write!(text, ", learners {}", list(&m.learners));
    }
    text
}

pub fn position(p: Position) -> String {
    if p == Position::ZERO { "the start".to_owned() } else { format!("{p:?}") }
}

pub fn entry(e: &Entry) -> String {
    // Under Paxos a value that was proposed again names an earlier ballot than its own.
    let named = e.payload.named_ballot().filter(|named| *named != e.ballot);
    let named = named.map_or(String::new(), |named| format!(" ({named})"));
    let payload = match &e.payload {
        Payload::Noop => "empty".to_owned(),
        Payload::Lead(_) => format!("leads{named}"),
        Payload::Seal { next, .. } => format!("seals for {next}{named}"),
        Payload::Command(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Members { membership, .. } => format!("[{}]", members(membership)),
    };
    format!("{:?} {payload}", e.position())
}

pub fn entries(run: &Entries) -> String {
    run.iter().map(entry).collect::<Vec<_>>().join(", ")
}

fn verdict(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

/// A message between replicas of a protocol. `attempt` gives read attempts, which are numbered by
/// chance, a stable name.
pub fn message(m: &Message, protocol: Protocol, attempt: &mut dyn FnMut(u64) -> String) -> String {
    let ballot = m.ballot;
    match &m.body {
        // Under Paxos it is nobody's concern where a candidate's log ends.
        Body::PreVote { .. } if protocol == Protocol::Paxos => format!("pre-vote {ballot}"),
        Body::PreVote { last } => format!("pre-vote {ballot}, log to {}", position(*last)),
        Body::PreVoteReply { granted } => format!("pre-vote {}, {ballot}", verdict(*granted)),
        Body::Vote { last, transfer } => {
            format!("vote {ballot}, log to {}{}", position(*last), why(*transfer))
        }
        Body::VoteReply { .. } if protocol == Protocol::Paxos => format!("no promise, {ballot}"),
        Body::VoteReply { granted } => format!("vote {}, {ballot}", verdict(*granted)),
        Body::Append(a) => {
            let run = if a.entries.is_empty() { "nothing".into() } else { entries(&a.entries) };
            let (s, after) = (a.session, position(a.previous));
            let (commit, probe) = (a.commit, a.probe);
            format!("append {ballot} s{s}, after {after}: {run}; commit {commit}, probe {probe}")
        }
        Body::AppendReply(r) => {
            let (s, probe) = (r.session, r.probe);
            match r.outcome {
                AppendOutcome::Accepted { matched } => {
                    format!("accepted {ballot} s{s}, up to {matched}, probe {probe}")
                }
                AppendOutcome::Rejected { previous, hint } => {
                    let hint = position(hint);
                    format!("rejected {ballot} s{s}, at {previous}, try {hint}, probe {probe}")
                }
            }
        }
        Body::Heartbeat { session, commit, probe: 0 } => {
            format!("notice {ballot} s{session}, commit {commit}")
        }
        Body::Heartbeat { session, commit, probe } => {
            format!("heartbeat {ballot} s{session}, commit {commit}, probe {probe}")
        }
        Body::HeartbeatReply { probe: 0, .. } => format!("outdated, {ballot}"),
        Body::HeartbeatReply { session, probe } => {
            format!("alive {ballot} s{session}, probe {probe}")
        }
        Body::ReadIndex { id } => format!("read index? {}", attempt(*id)),
        Body::ReadIndexReply { id, index } => {
            let index = index.map_or("none".to_owned(), |i| i.to_string());
            format!("read index {index}, {}", attempt(*id))
        }
        Body::TimeoutNow => format!("stand now {ballot}"),
        Body::Pull { .. } | Body::Pulled { .. } | Body::Mend { .. } | Body::Mended { .. } => {
            format!("{} {ballot}, {}", verb(&m.body), repair(&m.body))
        }
        Body::Prepare { .. } | Body::Promise(_) | Body::Accept(_) | Body::Accepted(_) => {
            format!("{} {ballot}{}", verb(&m.body), phase(&m.body))
        }
    }
}

fn why(transfer: bool) -> &'static str {
    if transfer { ", asked to stand" } else { "" }
}

fn verb(body: &Body) -> &'static str {
    match body {
        Body::Pull { .. } => "pull",
        Body::Pulled { .. } => "pulled",
        Body::Mend { .. } => "mend",
        Body::Mended { .. } => "mended",
        Body::Prepare { .. } => "prepare",
        Body::Promise(_) => "promise",
        Body::Accept(_) => "accept",
        Body::Accepted(_) => "accepted",
        _ => "",
    }
}

/// Raft: how a candidate's log gets what it lacks.
fn repair(body: &Body) -> String {
    match body {
        Body::Pull { last, .. } => format!("log to {}", position(*last)),
        Body::Mend { first, ballots } => {
            let wanted = ballots.iter().zip(*first..).map(|(b, i)| position(Position::new(i, *b)));
            wanted.collect::<Vec<_>>().join(", ")
        }
        Body::Mended { first, entries: found, denied } => {
            let runs = found.iter().map(entries).collect::<Vec<_>>().join(", ");
            format!("from {first}: {runs}{}", if *denied { "; denies the first" } else { "" })
        }
        Body::Pulled { previous, entries: pulled, last, .. } => format!(
            "after {}: {}; log to {}",
            position(*previous),
            entries(pulled),
            position(*last)
        ),
        _ => String::new(),
    }
}

/// Paxos: what is said in both phases.
fn phase(body: &Body) -> String {
    let list = |runs: &[Entries]| {
        let runs = runs.iter().filter(|run| !run.is_empty()).map(entries);
        Some(runs.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
    };
    let nothing = || "nothing".to_owned();
    match body {
        Body::Prepare { from: Index::MAX, transfer } => format!(", wait{}", why(*transfer)),
        Body::Prepare { from, transfer } => format!(", from {from}{}", why(*transfer)),
        Body::Promise(p) => {
            let found = list(&p.entries).unwrap_or_else(nothing);
            let mut text = format!(", from {}: {found}; chosen to {}", p.from, p.commit);
            for range in &p.damaged {
                let _ = write!(text, "; cannot read {} to {}", range.start(), range.end());
            }
            if let Some(next) = p.next {
                let _ = write!(text, "; more from {next}");
            }
            if p.base >= p.from {
                let _ = write!(text, "; begins after {}", p.base);
            }
            text
        }
        Body::Accept(a) => {
            let run = list(core::slice::from_ref(&a.entries)).unwrap_or_else(nothing);
            format!(" s{}: {run}; chosen to {}, probe {}", a.session, a.commit, a.probe)
        }
        Body::Accepted(a) => {
            let (first, last) = a.beyond;
            let beyond = match first <= last {
                true => format!(", and {first} to {last}"),
                false => String::new(),
            };
            format!(" s{}, up to {}{beyond}, probe {}", a.session, a.upto, a.probe)
        }
        _ => String::new(),
    }
}

pub fn write(w: &Write) -> String {
    let mut parts = Vec::new();
    if let Some(base) = &w.reset {
        let m = members(&base.membership);
        parts.push(format!("begin after {}, {m}", position(base.position)));
    }
    if let Some(base) = &w.compact {
        parts.push(format!("forget up to {}", position(base.position)));
    }
    if let Some(from) = w.truncate_from {
        parts.push(format!("cut from {from}"));
    }
    if !w.entries.is_empty() {
        parts.push(entries(&w.entries));
    }
    parts.extend(w.slots.iter().map(entries));
    if let Some(state) = w.hard_state {
        parts.push(format!("promised {}, commit {}", state.promised, state.commit));
    }
    format!("writes #{}: {}", w.id.0, parts.join("; "))
}

pub fn event(event: &Event) -> String {
    match event {
        Event::Proposed { id, first, ballot } => {
            format!("proposal {} has index {first}, {ballot}", id.0)
        }
        Event::Refused { id, reason } => {
            let reason = match reason {
                Refusal::NotLeader { leader } if leader.is_none() => "nobody leads".to_owned(),
                Refusal::NotLeader { leader } => format!("{leader} leads"),
                Refusal::Full => "full".to_owned(),
                Refusal::ChangeInProgress => "a change is in progress".to_owned(),
                Refusal::BadChange => "the change makes no sense".to_owned(),
                Refusal::Outdated => "the members have changed since".to_owned(),
                Refusal::NotReady => "the learner lacks too much of the log".to_owned(),
                Refusal::Sealed => "the epoch is ending".to_owned(),
                Refusal::Transferring => "handing over".to_owned(),
            };
            format!("proposal {} refused: {reason}", id.0)
        }
        Event::ReadFailed { id } => format!("read {} failed", id.0),
        Event::RoleChanged { role: r, ballot, leader } if leader.is_none() => {
            format!("is {} in {ballot}, nobody leads", role(*r))
        }
        Event::RoleChanged { role: r, ballot, leader } => {
            format!("is {} in {ballot}, {leader} leads", role(*r))
        }
        Event::ReadyToLead => "is ready to lead".to_owned(),
        Event::Unreadable { first, last } => format!("cannot go on without {first} to {last}"),
        Event::SteppedDown { reason } => {
            let reason = match reason {
                StepDown::NoQuorum => "no quorum",
                StepDown::DiskStalled => "its disk is stalled",
                StepDown::NoProgress => "no progress",
                StepDown::Removed => "removed",
            };
            format!("steps down: {reason}")
        }
    }
}

/// What a replica knows of itself, in words.
pub fn status(s: &Status) -> String {
    let mut text = format!(
        "{} {}, log {} to {}, durable {}, commit {}; {}",
        role(s.role),
        s.ballot,
        position(s.base),
        position(s.last),
        s.durable,
        s.commit,
        members(&s.membership)
    );
    for peer in &s.peers {
        let _ = write!(text, "\n  {}: matched {}, next {}", peer.node, peer.matched, peer.next);
        if peer.snapshot {
            text.push_str(", waits for a snapshot");
        }
    }
    text
}
