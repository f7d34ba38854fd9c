//! What is told of a transaction.

use quorate_keyspace::reply::TxnOutcome;
use quorate_transactions::{Record, Stage};

/// A transaction as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Its id.
    pub id: String,
    /// Its record.
    pub record: Record,
    /// What its keyspace branches read and did, in order of the branches: for whoever runs it at
    /// this node, and for nobody later.
    pub answers: Vec<Option<TxnOutcome>>,
}

impl Report {
    pub(crate) fn of(id: &str, record: Record) -> Report {
        Report { id: id.to_owned(), record, answers: Vec::new() }
    }

    /// Whether it is over at every participant.
    pub fn is_finished(&self) -> bool {
        matches!(self.record.stage, Stage::Finished(_))
    }
}
