//! A resource that votes as it is told to. What it prepares is durable together with the site's
//! prepared record, as if both were one entry of a replicated log.

use crate::{Answer, Order, Outcome, Reason, Record, Vote};
use alloc::string::String;

/// One participant's resource.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Resource {
    vote: Vote,
    prepared: bool,
    finished: Option<Outcome>,
}

impl Resource {
    /// A resource that will vote so.
    pub fn new(vote: Vote) -> Self {
        Resource { vote, prepared: false, finished: None }
    }

    /// How its branch ended.
    pub fn finished(&self) -> Option<Outcome> {
        self.finished
    }

    /// How it votes.
    pub fn vote(&self) -> &Vote {
        &self.vote
    }

    /// The site starts again with these records. Unprepared work is gone, and if it is done again
    /// the vote may be another.
    pub fn crash(&mut self, records: &[Record], vote: Vote) {
        self.prepared = records.contains(&Record::Prepared);
        let ended = records.iter().any(|record| matches!(record, Record::Decided { .. }));
        if !self.prepared && !ended && self.finished != Some(Outcome::Commit) {
            self.finished = None;
            self.vote = vote;
        }
    }

    /// Carries an order out.
    pub fn carry_out(&mut self, order: Order) -> Option<Answer> {
        match (order, self.finished) {
            (Order::Forget, _) => None,
            (Order::Prepare | Order::CommitAlone, Some(Outcome::Abort)) => {
                let why = Reason::Refused(String::from("rolled back before"));
                Some(Answer::Prepared(Vote::No(why)))
            }
            (Order::Prepare, Some(Outcome::Commit)) => None,
            (Order::Prepare, None) => {
                self.prepared = self.vote == Vote::Yes;
                Some(Answer::Prepared(self.vote.clone()))
            }
            (Order::CommitAlone, _) => match &self.vote {
                Vote::No(_) => Some(Answer::Prepared(self.vote.clone())),
                _ => {
                    self.finished = Some(Outcome::Commit);
                    Some(Answer::Committed)
                }
            },
            (Order::Commit, Some(Outcome::Commit)) => Some(Answer::Committed),
            (Order::Commit, None) if self.prepared => {
                self.finished = Some(Outcome::Commit);
                Some(Answer::Committed)
            }
            // No proof that it ever committed.
            (Order::Commit, _) => Some(Answer::Heuristic(Outcome::Abort)),
            (Order::Rollback, Some(Outcome::Commit)) => Some(Answer::Heuristic(Outcome::Commit)),
            (Order::Rollback, _) => {
                self.finished = Some(Outcome::Abort);
                Some(Answer::RolledBack)
            }
        }
    }
}
