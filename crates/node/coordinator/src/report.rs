//! What is told of a transaction.

use quorate_keyspace::branch::Done;
use quorate_transactions::records::Known;
use quorate_transactions::{Record, Stage};

/// A transaction as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Its id.
    pub id: String,
    /// Its record, or that of the bundle that carries it.
    pub record: Record,
    /// The bundle that carries it, if one does.
    pub bundle: Option<String>,
    /// Why it may be further by now; empty, if the record was read as of everything acknowledged
    /// before.
    pub unconfirmed: String,
    /// What its keyspace branches read and did, in order of the branches: for whoever runs it at
    /// this node, and for nobody later.
    pub answers: Vec<Option<Done>>,
}

impl Report {
    pub(crate) fn of(id: &str, record: Record) -> Report {
        let (bundle, unconfirmed, answers) = (None, String::new(), Vec::new());
        Report { id: id.to_owned(), record, bundle, unconfirmed, answers }
    }

    /// What is known of a client's transaction.
    pub(crate) fn known(id: &str, known: Known) -> Report {
        let bundle = known.carried.then_some(known.id);
        Report { bundle, ..Report::of(id, known.record) }
    }

    /// Whether it is over at every participant.
    pub fn is_finished(&self) -> bool {
        matches!(self.record.stage, Stage::Finished(_))
    }
}
