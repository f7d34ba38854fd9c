//! A branch of a transaction as etcd's own messages say it: the same checks, the same limits.

use crate::errors::Refusal;
use crate::{convert, validate};
use quorate_keyspace::command::Txn;
use quorate_keyspace::reply::TxnOutcome;
use quorate_wire::etcdserverpb as pb;

/// Checks and reads compares and operations, at most `max_ops` of them.
///
/// # Errors
/// [`Refusal`], as for a plain transaction.
pub fn read_txn(request: pb::TxnRequest, max_ops: usize) -> Result<Txn, Refusal> {
    validate::txn(&request, max_ops)?;
    convert::txn(request)
}

/// What they did, at this revision.
pub fn txn_response(revision: u64, outcome: TxnOutcome) -> pb::TxnResponse {
    let revision = convert::wire(revision);
    convert::txn_response(pb::ResponseHeader { revision, ..Default::default() }, outcome)
}
