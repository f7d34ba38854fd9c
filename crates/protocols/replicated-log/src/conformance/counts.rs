//! What messages and writes a cluster under test has made, by kind: for the cost models.

use crate::Body;
use quorate_base::Index;

/// What was counted since the last time it was reset.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Append messages.
    pub appends: u64,
    /// Answers to them.
    pub append_replies: u64,
    /// Messages that only tell the commit index.
    pub commit_notices: u64,
    /// Heartbeats that want an answer, and those answers.
    pub heartbeats: u64,
    /// Votes and pre-votes, and their answers; of these:
    pub votes: u64,
    /// Pre-votes and their answers.
    pub pre_votes: u64,
    /// Questions about another's log: Paxos' phase 1a, Raft's pulls.
    pub questions: u64,
    /// Answers to them.
    pub answers: u64,
    /// Phase 1a that only asks to wait.
    pub waits: u64,
    /// Read index requests and their answers.
    pub read_indexes: u64,
    /// Writes.
    pub writes: u64,
}

impl Counts {
    /// A message leaves.
    pub(super) fn note(&mut self, body: &Body) {
        match body {
            Body::Append(_) | Body::Accept(_) => self.appends += 1,
            Body::AppendReply(_) | Body::Accepted(_) => self.append_replies += 1,
            Body::Heartbeat { probe: 0, .. } => self.commit_notices += 1,
            Body::Heartbeat { .. } | Body::HeartbeatReply { .. } => self.heartbeats += 1,
            Body::ReadIndex { .. } | Body::ReadIndexReply { .. } => self.read_indexes += 1,
            _ => self.votes += 1,
        }
        match body {
            Body::PreVote { .. } | Body::PreVoteReply { .. } => self.pre_votes += 1,
            Body::Prepare { from: Index::MAX, .. } => self.waits += 1,
            Body::Prepare { .. } | Body::Pull { .. } => self.questions += 1,
            Body::Promise(_) | Body::Pulled { .. } => self.answers += 1,
            _ => {}
        }
    }
}
