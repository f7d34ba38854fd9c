//! Transfers: two keys written at once, in one keyspace by a transaction of etcd's, in two by a
//! distributed one.

use super::Arguments;
use quorate_wire::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcdserverpb::request_op::Request as Op;
use quorate_wire::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use quorate_wire::quorate::branch::Work;
use quorate_wire::quorate::transactions_client::TransactionsClient;
use quorate_wire::quorate::{Branch, KeyspaceWork, RunTransactionRequest, TransactionState};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// A client of them.
pub struct Transfers {
    kv: KvClient<Channel>,
    transactions: TransactionsClient<Channel>,
    keyspaces: Vec<String>,
    /// How they agree; empty, as the server likes.
    protocol: String,
    /// What its transactions' ids begin with: nobody else's do.
    name: String,
    count: u64,
}

impl Transfers {
    pub fn new(channel: Channel, arguments: &Arguments, name: String) -> Transfers {
        let (keyspaces, protocol) = (arguments.across.clone(), arguments.commit.clone());
        let (kv, transactions) = (KvClient::new(channel.clone()), TransactionsClient::new(channel));
        Transfers { kv, transactions, keyspaces, protocol, name, count: 0 }
    }

    /// Writes both keys.
    pub async fn once(&mut self, keys: [Vec<u8>; 2], value: Vec<u8>) -> Result<(), Status> {
        let value = bytes::Bytes::from(value);
        let put = |key: Vec<u8>| {
            let put = PutRequest { key: key.into(), value: value.clone(), ..Default::default() };
            RequestOp { request: Some(Op::RequestPut(put)) }
        };
        let [first, second] = keys;
        match &self.keyspaces[..] {
            [from, to] => {
                let half = |keyspace: &str, key| {
                    let txn = TxnRequest { success: vec![put(key)], ..Default::default() };
                    let keyspace = keyspace.to_owned();
                    let work =
                        KeyspaceWork { keyspace: keyspace.clone(), txn: Some(txn), or_else: false };
                    Branch { name: keyspace, work: Some(Work::Keyspace(work)) }
                };
                self.count += 1;
                let request = RunTransactionRequest {
                    id: format!("{}-{}", self.name, self.count),
                    protocol: self.protocol.clone(),
                    branches: vec![half(from, first), half(to, second)],
                    ..Default::default()
                };
                let ran = self.transactions.run(request).await?.into_inner();
                match ran.transaction.unwrap_or_default() {
                    it if it.state() == TransactionState::RolledBack => {
                        Err(Status::aborted(it.reason))
                    }
                    it if it.state() == TransactionState::RollingBack => {
                        Err(Status::aborted(it.reason))
                    }
                    _ => Ok(()),
                }
            }
            one => {
                let success = match first == second {
                    true => vec![put(first)],
                    false => vec![put(first), put(second)],
                };
                let mut request = Request::new(TxnRequest { success, ..Default::default() });
                if let Some(name) = one.first().and_then(|name| name.parse().ok()) {
                    request.metadata_mut().insert("quorate-keyspace", name);
                }
                self.kv.txn(request).await.map(drop)
            }
        }
    }
}
