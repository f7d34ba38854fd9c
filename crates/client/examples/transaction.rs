//! Writes to two keyspaces, both or neither, from Rust; `docs/api.md` explains the calls.
//!
//! `transaction ENDPOINTS ID FIRST SECOND`: the members, separated by commas, an id, which whoever
//! got no answer gives again, and the two keyspaces.

use quorate_client::wire::etcdserverpb::request_op::Request;
use quorate_client::wire::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use quorate_client::wire::quorate::branch::Work;
use quorate_client::wire::quorate::{
    Branch, KeyspaceWork, RunTransactionRequest, TransactionState,
};
use quorate_client::{Client, Config};
use std::time::Duration;

/// How long the transaction may stay undecided.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a member may take longer to answer: it may have handed the transaction on to another.
const GRACE: Duration = Duration::from_secs(7);

/// A branch that puts one key.
fn put(keyspace: &str, key: &'static str, value: &'static str) -> Branch {
    let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
    let put = RequestOp { request: Some(Request::RequestPut(put)) };
    let txn = TxnRequest { success: vec![put], ..Default::default() };
    let work = KeyspaceWork { keyspace: keyspace.to_owned(), txn: Some(txn), or_else: false };
    Branch { name: keyspace.to_owned(), work: Some(Work::Keyspace(work)) }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, id, first, second] = &arguments[..] else {
        return Err("usage: transaction ENDPOINTS ID FIRST SECOND".into());
    };
    let mut config = Config::of(endpoints.split(','))?;
    config.timeout = PATIENCE + GRACE;
    // Another member would merely wait for the same: it is asked when this one is gone.
    config.attempt_timeout = config.timeout;
    let request = RunTransactionRequest {
        id: id.clone(),
        patience_ms: u64::try_from(PATIENCE.as_millis())?,
        branches: vec![put(first, "order", "new"), put(second, "apples", "4")],
        applied: true,
        ..Default::default()
    };
    let ran = Client::new(config).transaction_run(request).await?;
    let it = ran.transaction.unwrap_or_default();
    // A transaction that was rolled back is an answer as well, and no error of the call.
    match it.state() {
        TransactionState::Committing | TransactionState::Committed => println!("committed"),
        _ => println!("rolled back by branch {:?}: {}", it.guilty_branch, it.reason),
    }
    Ok(())
}
