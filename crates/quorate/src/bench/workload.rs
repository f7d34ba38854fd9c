//! What one client does, once.

use super::transfers::{Transfers, Ways};
use super::{Arguments, Workload};
use crate::exit::Failure;
use quorate_base::Rng;
use quorate_wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_wire::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcdserverpb::lease_client::LeaseClient;
use quorate_wire::etcdserverpb::request_op::Request;
use quorate_wire::etcdserverpb::response_op::Response;
use quorate_wire::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use std::sync::Arc;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

/// Long enough for a run, short enough not to leave a heap of leases behind.
const LEASE_TTL_SECONDS: i64 = 120;
/// Keys written with one transaction before a range is measured: etcd's own limit.
const PREPARED_AT_ONCE: u64 = 128;

/// Where all keys of a benchmark are.
pub const PREFIX: &str = "/bench/";

/// The key of this number.
pub fn key(number: u64) -> Vec<u8> {
    format!("{PREFIX}{number:012}").into_bytes()
}

/// A client with its generator and, for compare-and-swap, what it last knew of its key.
pub struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    transfers: Transfers,
    arguments: Arc<Arguments>,
    rng: Rng,
    number: u32,
    known_revision: i64,
    epoch: Instant,
}

impl Client {
    /// The client of this number; the same number draws the same keys.
    pub fn new(number: u32, ways: Arc<Ways>, arguments: Arc<Arguments>, epoch: Instant) -> Client {
        let channel = ways.any(number as usize);
        Client {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel),
            transfers: {
                let nanos = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
                let name = format!("b{:x}-{number}", nanos >> 10);
                Transfers::new(ways, number as usize, &arguments, name)
            },
            arguments,
            rng: Rng::new(u64::from(number) + 1),
            number,
            known_revision: 0,
            epoch,
        }
    }

    /// Whether its latencies are the ones asked for.
    pub fn is_measured(&self) -> bool {
        self.arguments.workload != Workload::Watch
    }

    fn random_number(&mut self) -> u64 {
        self.rng.next_u64() % self.arguments.keys
    }

    fn random_key(&mut self) -> Vec<u8> {
        key(self.random_number())
    }

    /// A value that begins with the present, for watchers to tell how old it is.
    fn value(&mut self) -> Vec<u8> {
        let size = self.arguments.value_size as usize;
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut value = now.to_le_bytes().to_vec();
        // Random, so that nobody wins by compressing.
        while value.len() < size {
            value.extend_from_slice(&self.rng.next_u64().to_le_bytes());
        }
        value.truncate(size);
        value
    }

    /// Does the workload's operation once.
    pub async fn once(&mut self) -> Result<(), Status> {
        match self.arguments.workload {
            Workload::Put | Workload::Watch => {
                let (key, value) = (self.random_key(), self.value());
                self.kv.put(put(key, value)).await.map(drop)
            }
            Workload::Transfer => {
                let accounts = [self.random_number(), self.random_number()];
                let value = self.value();
                self.transfers.once(accounts, value).await
            }
            Workload::Range => {
                let serializable = self.arguments.serializable;
                let request = RangeRequest {
                    key: self.random_key().into(),
                    serializable,
                    ..Default::default()
                };
                let found = self.kv.range(request).await?.into_inner().kvs.len();
                match found {
                    1 => Ok(()),
                    _ => Err(Status::data_loss("a prepared key is missing")),
                }
            }
            Workload::Txn => self.compare_and_swap().await,
            Workload::Lease => {
                let request = LeaseGrantRequest { ttl: LEASE_TTL_SECONDS, id: 0 };
                self.lease.lease_grant(request).await.map(drop)
            }
        }
    }

    /// Writes its own key if it is as this client left it; else learns how it is.
    async fn compare_and_swap(&mut self) -> Result<(), Status> {
        let key = format!("{PREFIX}swap/{:06}", self.number).into_bytes();
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone().into(),
            target_union: Some(TargetUnion::ModRevision(self.known_revision)),
            ..Default::default()
        };
        let value = self.value();
        let read = RangeRequest { key: key.clone().into(), ..Default::default() };
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(Request::RequestPut(put(key, value))) }],
            failure: vec![RequestOp { request: Some(Request::RequestRange(read)) }],
        };
        let response = self.kv.txn(request).await?.into_inner();
        if response.succeeded {
            self.known_revision = response.header.map_or(0, |header| header.revision);
            return Ok(());
        }
        let read = response.responses.into_iter().next().and_then(|r| r.response);
        self.known_revision = match read {
            Some(Response::ResponseRange(range)) => {
                range.kvs.first().map_or(0, |kv| kv.mod_revision)
            }
            _ => 0,
        };
        Ok(())
    }
}

fn put(key: Vec<u8>, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// Writes the keys that will be read.
pub async fn prepare(arguments: &Arguments, channel: &Channel) -> Result<(), Failure> {
    if arguments.workload != Workload::Range {
        return Ok(());
    }
    let mut kv = KvClient::new(channel.clone());
    let mut rng = Rng::new(0);
    let mut next = 0;
    while next < arguments.keys {
        let end = (next + PREPARED_AT_ONCE).min(arguments.keys);
        let puts = (next..end).map(|number| {
            let value = (0..arguments.value_size).map(|_| rng.next_u64() as u8).collect();
            RequestOp { request: Some(Request::RequestPut(put(key(number), value))) }
        });
        let request = TxnRequest { success: puts.collect(), ..Default::default() };
        kv.txn(request).await.map_err(|status| {
            Failure::Failed(format!("the keys to be read cannot be written: {}", status.message()))
        })?;
        next = end;
    }
    Ok(())
}
