//! The Maintenance service: for operators.

use crate::backend::Backend;
use crate::convert;
use crate::errors::{Refusal, unread};
use crate::node::{Node, wrong_outcome};
use crate::options::{SERVER_VERSION, STORAGE_VERSION};
use crate::sha256::Sha256;
use quorate_base::NodeId;
use quorate_keyspace::command::{Alarm, Command};
use quorate_keyspace::reply::Outcome;
use quorate_service::SnapshotSource;
use quorate_wire::etcdserverpb as pb;
use quorate_wire::etcdserverpb::alarm_request::AlarmAction;
use quorate_wire::etcdserverpb::maintenance_server::Maintenance;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Serves operators.
pub(crate) struct MaintenanceService<B>(pub Node<B>);

/// Begins a streamed snapshot. The format is ours: etcd's is that of its storage engine.
const SNAPSHOT_MAGIC: &[u8] = b"quorate snapshot 1\n";
const SNAPSHOT_PART_BYTES: usize = 64 * 1024;
const SNAPSHOT_PARTS_AHEAD: usize = 2;
/// Tools take a file for complete when a digest follows a multiple of this.
const SNAPSHOT_ALIGNMENT: usize = 512;

pub(crate) fn alarm_type(alarm: Alarm) -> pb::AlarmType {
    match alarm {
        Alarm::NoSpace => pb::AlarmType::Nospace,
        Alarm::Corrupt => pb::AlarmType::Corrupt,
    }
}

fn alarm_members(raised: impl IntoIterator<Item = (NodeId, Alarm)>) -> Vec<pb::AlarmMember> {
    let member = |(member, alarm): (NodeId, Alarm)| pb::AlarmMember {
        member_id: member.0,
        alarm: alarm_type(alarm) as i32,
    };
    raised.into_iter().map(member).collect()
}

/// A fingerprint in the 32 bits that the wire has for it.
fn folded(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

impl<B: Backend> MaintenanceService<B> {
    /// Parts, each after its length as four bytes, then a length of zero, zeros up to the
    /// alignment, and the SHA-256 of all before it.
    async fn send_snapshot(
        self,
        mut snapshot: Box<dyn SnapshotSource>,
        sink: mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
    ) {
        let mut out = SnapshotOut { sink, digest: Sha256::new(), sent: 0 };
        let mut expected = self.0.backend.reader().sizes().logical_bytes;
        let mut header = Some(self.0.header_now());
        let mut blob = SNAPSHOT_MAGIC.to_vec();
        loop {
            let part = match snapshot.next_chunk(SNAPSHOT_PART_BYTES) {
                Ok(part) => part,
                Err(error) => {
                    // Nobody is left to tell if that fails.
                    let _ = out.sink.send(Err(Status::internal(error.to_string()))).await;
                    return;
                }
            };
            blob.extend_from_slice(&(part.bytes.len() as u32).to_be_bytes());
            blob.extend_from_slice(&part.bytes);
            if part.last {
                break;
            }
            expected = expected.saturating_sub(blob.len() as u64).max(1);
            let blob = std::mem::take(&mut blob);
            if !out.send(header.take(), blob, expected).await {
                return;
            }
        }
        blob.extend_from_slice(&0u32.to_be_bytes());
        let length = out.sent + blob.len();
        blob.resize(blob.len() + length.next_multiple_of(SNAPSHOT_ALIGNMENT) - length, 0);
        if out.send(header.take(), blob, 32).await {
            let digest = std::mem::replace(&mut out.digest, Sha256::new()).finish();
            out.send(None, digest.to_vec(), 0).await;
        }
    }
}

struct SnapshotOut {
    sink: mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
    digest: Sha256,
    sent: usize,
}

impl SnapshotOut {
    async fn send(
        &mut self,
        header: Option<pb::ResponseHeader>,
        blob: Vec<u8>,
        remaining_bytes: u64,
    ) -> bool {
        self.digest.update(&blob);
        self.sent += blob.len();
        let version = STORAGE_VERSION.to_owned();
        let response = pb::SnapshotResponse { header, remaining_bytes, blob: blob.into(), version };
        self.sink.send(Ok(response)).await.is_ok()
    }
}

#[tonic::async_trait]
impl<B: Backend> Maintenance for MaintenanceService<B> {
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let request = request.into_inner();
        let alarm = match request.alarm() {
            pb::AlarmType::Nospace => Some(Alarm::NoSpace),
            pb::AlarmType::Corrupt => Some(Alarm::Corrupt),
            pb::AlarmType::None => None,
        };
        let raise = request.action() == AlarmAction::Activate;
        let member = NodeId(request.member_id);
        let alarm = match (request.action(), alarm) {
            (AlarmAction::Activate | AlarmAction::Deactivate, Some(alarm)) => alarm,
            _ => {
                self.0.backend.read_barrier(call.timeout).await?;
                let raised = self.0.backend.reader().alarms();
                let wanted = |(of, kind): &(NodeId, Alarm)| {
                    (member.is_none() || *of == member) && alarm.is_none_or(|alarm| alarm == *kind)
                };
                let alarms = alarm_members(raised.into_iter().filter(wanted));
                let header = Some(self.0.header_now());
                return Ok(Response::new(pb::AlarmResponse { header, alarms }));
            }
        };
        let was_raised = self.0.backend.reader().alarms().contains(&(member, alarm));
        match self.0.propose(Command::Alarm { raise, member, alarm }, &call).await? {
            (header, Outcome::Alarms(_)) => {
                let changed = (raise || was_raised).then_some((member, alarm));
                let alarms = alarm_members(changed);
                Ok(Response::new(pb::AlarmResponse { header: Some(header), alarms }))
            }
            _ => Err(wrong_outcome()),
        }
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, true)?;
        let (consensus, storage) = (self.0.backend.consensus(), self.0.backend.storage());
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        if consensus.leader.is_none() {
            errors.push(Refusal::NoLeader.text().to_owned());
        }
        for (member, alarm) in self.0.backend.reader().alarms() {
            let name = alarm_type(alarm).as_str_name();
            errors.push(format!("memberID:{} alarm:{name} ", member.0));
        }
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.0.header_now()),
            version: SERVER_VERSION.to_owned(),
            db_size: size(storage.size),
            leader: consensus.leader.0,
            raft_index: consensus.commit,
            raft_term: consensus.term,
            raft_applied_index: consensus.applied,
            errors,
            db_size_in_use: size(self.0.backend.reader().sizes().logical_bytes),
            is_learner: consensus.is_learner,
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: size(storage.quota),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        self.0.backend.defragment().await?;
        Ok(Response::new(pb::DefragmentResponse { header: Some(self.0.header_now()) }))
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let found = self.0.backend.reader().hash().map_err(unread)?;
        let header = Some(self.0.header(found.revision));
        Ok(Response::new(pb::HashResponse { header, hash: folded(found.hash) }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        let revision = convert::revision(request.into_inner().revision);
        let found = self.0.backend.reader().hash_kv(revision).map_err(unread)?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.0.header(found.revision)),
            hash: folded(found.hash),
            compact_revision: convert::wire(found.compacted),
            hash_revision: convert::wire(if revision == 0 { found.revision } else { revision }),
        }))
    }

    type SnapshotStream = ReceiverStream<Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, true)?;
        let snapshot = self.0.backend.snapshot().await?;
        let (sink, stream) = mpsc::channel(SNAPSHOT_PARTS_AHEAD);
        let service = MaintenanceService(self.0.clone());
        tokio::spawn(service.send_snapshot(snapshot, sink));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let call = self.0.call(&request)?;
        self.0.admit(&call, false)?;
        if self.0.backend.consensus().leader != self.0.identity.member {
            return Err(Refusal::NotLeader.into());
        }
        let to = NodeId(request.into_inner().target_id);
        let voter = |member: &quorate_keyspace::command::Member| member.id == to && !member.learner;
        if !self.0.backend.reader().members().iter().any(voter) {
            return Err(Refusal::BadLeaderTransferee.into());
        }
        self.0.backend.transfer_leadership(to, call.timeout).await?;
        Ok(Response::new(pb::MoveLeaderResponse { header: Some(self.0.header_now()) }))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(Status::unimplemented("there is no older version to go back to"))
    }
}
