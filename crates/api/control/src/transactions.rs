//! Running, listing and showing transactions.

use crate::deadline;
use crate::many;
use crate::relay::{Doubt, Handed, Relay, is_relayed};
use crate::work::branch;
use prost::Message;
use quorate_coordinator::{
    MAX_BYTES, Report, Request as Wanted, RunError, Transactions as Node, usual_protocol,
};
use quorate_etcd::branch::txn_response;
use quorate_resource_managers::{Deadline, Kind};
use quorate_transactions::{
    Alarm, BranchRecord, BranchState, MAX_BRANCHES, Stage, Verdict, Voted, check_id,
    check_known_id, content_hash,
};
use quorate_wire::quorate as pb;
use quorate_wire::quorate::TransactionState as State;
use quorate_wire::quorate::transactions_server::{Transactions, TransactionsServer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long a transaction may stay undecided, where its client does not say.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client waits for a transaction at the most: the coordinator has a limit of its own.
pub(crate) const LONGEST_RUN: Duration = Duration::from_secs(3_600);
/// How long it waits for everything else, where it does not say.
const LIMIT: Duration = Duration::from_secs(15);
/// How many are listed, where nobody says.
const LISTED: u32 = 100;
/// How many are listed at the most.
const MOST_LISTED: u32 = 10_000;

/// Bytes of a message that is read at all. What is larger than a transaction may be is read, so
/// that we can say so in our own words: the library has none of advice.
const MOST_READ: usize = 4 * MAX_BYTES;

/// The service for this node.
pub(crate) fn service(
    node: Node,
    relay: Relay,
    max_txn_ops: usize,
    stopping: watch::Receiver<bool>,
) -> TransactionsServer<Service> {
    let relay = Arc::new(relay);
    TransactionsServer::new(Service { node, relay, max_txn_ops, stopping })
        .max_decoding_message_size(MOST_READ)
}

#[derive(Clone)]
pub(crate) struct Service {
    node: Node,
    relay: Arc<Relay>,
    max_txn_ops: usize,
    /// Whether the member stops.
    stopping: watch::Receiver<bool>,
}

impl Service {
    /// Runs a transaction, or has it run where it should be, unless it was handed on to here.
    pub async fn run_one(
        &self,
        request: pb::RunTransactionRequest,
        relayed: bool,
        by: Deadline,
    ) -> Result<pb::RunTransactionResponse, Status> {
        let applied = request.applied;
        let asked = (!relayed).then(|| request.clone());
        let wanted = wanted(request, self.max_txn_ops)?;
        let mut doubt = Doubt::default();
        if let Some(asked) = asked {
            let rides = self.node.may_ride(&wanted);
            match self.relay.ask(&asked, (&wanted, rides), by).await {
                Handed::Answered(answer) => return (*answer).map(Response::into_inner),
                Handed::Here(begun) => doubt = begun,
            }
        }
        let id = wanted.id.clone();
        let ran = self.node.run(wanted, applied, by).await;
        let report = ran.map_err(|error| doubt.told(&id, status(&error)))?;
        let transaction = Some(wire(&report));
        let (answers, driven_at) = (answers(report), String::new());
        Ok(pb::RunTransactionResponse { transaction, answers, driven_at })
    }
}

fn status(error: &RunError) -> Status {
    let text = format!("quorate: {error}");
    match error {
        RunError::Invalid(_) => Status::invalid_argument(text),
        RunError::Unknown(_) => Status::not_found(text),
        RunError::OtherContent(_) => Status::already_exists(text),
        RunError::Unfit(_) => Status::failed_precondition(text),
        RunError::Unavailable(_) => Status::unavailable(text),
        RunError::InDoubt(_) => Status::deadline_exceeded(text),
        RunError::Internal(_) => Status::internal(text),
    }
}

fn invalid(why: impl Into<String>) -> Status {
    status(&RunError::Invalid(why.into()))
}

/// Reads a request. Its hash is that of its branches as they are encoded here, whoever sent them.
fn wanted(request: pb::RunTransactionRequest, max_ops: usize) -> Result<Wanted, Status> {
    check_id(&request.id).map_err(|why| invalid(why.to_string()))?;
    let (n, bytes) = (request.branches.len(), request.encoded_len());
    if n > MAX_BRANCHES {
        return Err(invalid(format!("{n} branches: a transaction has up to {MAX_BRANCHES}")));
    }
    if bytes > MAX_BYTES {
        return Err(invalid(format!(
            "{bytes} bytes: a transaction has up to {MAX_BYTES}; make several of it, or keep what \
             is large elsewhere and put its name here"
        )));
    }
    let patience = match request.patience_ms {
        0 => PATIENCE,
        ms => Duration::from_millis(ms),
    };
    let protocol = request.protocol;
    let hashed = pb::RunTransactionRequest { branches: request.branches, ..Default::default() };
    let content = content_hash(&hashed.encode_to_vec());
    let branches = hashed.branches.into_iter().map(|it| branch(it, max_ops));
    let branches: Vec<_> = branches.collect::<Result<_, _>>().map_err(invalid)?;
    let protocol = match protocol.as_str() {
        "" => usual_protocol(&branches),
        // Of those that have a name, the coordinator refuses what is not run between nodes.
        name => name.parse().map_err(|_| {
            invalid(format!("there is no protocol {name:?}: say two-phase or paxos-commit"))
        })?,
    };
    let (id, alone) = (request.id, request.alone);
    Ok(Wanted { id, content, bytes, patience, protocol, alone, branches })
}

fn branch_status(branch: &BranchRecord) -> pb::BranchStatus {
    let (state, detail, revision) = match &branch.state {
        BranchState::Asked => ("asked", "", 0),
        BranchState::Prepared => ("prepared", "", 0),
        BranchState::ReadOnly => ("read-only", "", 0),
        BranchState::Refused(why) => ("refused", why.as_str(), 0),
        BranchState::Committed(revision) => ("committed", "", *revision),
        BranchState::RolledBack => ("rolled-back", "", 0),
        BranchState::Heuristic(what) => ("heuristic", what.as_str(), 0),
        BranchState::Acknowledged(what) => ("acknowledged", what.as_str(), 0),
    };
    pb::BranchStatus {
        name: branch.name.clone(),
        kind: branch.kind.name().to_owned(),
        participant: branch.participant.clone(),
        state: state.to_owned(),
        detail: detail.to_owned(),
        revision: i64::try_from(revision).unwrap_or(i64::MAX),
        waits_for: branch.trouble.clone(),
        vote: branch.vote.map_or("", Voted::name).to_owned(),
        voted_ms: branch.voted_ms,
        ended_ms: branch.ended_ms,
    }
}

fn alarm(alarm: Alarm) -> pb::Alarm {
    pb::Alarm {
        transaction: alarm.transaction,
        branch: alarm.branch,
        kind: alarm.kind.name().to_owned(),
        participant: alarm.participant,
        what: alarm.what,
        since_ms: alarm.since_ms,
    }
}

fn wire(report: &Report) -> pb::Transaction {
    let record = &report.record;
    let state = match &record.stage {
        Stage::Open => State::Open,
        Stage::Decided(Verdict::Commit) => State::Committing,
        Stage::Finished(Verdict::Commit) => State::Committed,
        Stage::Decided(Verdict::Abort { .. }) => State::RollingBack,
        Stage::Finished(Verdict::Abort { .. }) => State::RolledBack,
    };
    let (reason, guilty) = match record.stage.verdict() {
        Some(Verdict::Abort { branch, reason }) => (reason.clone(), *branch),
        _ => (String::new(), None),
    };
    let guilty = guilty.and_then(|index| record.branches.get(usize::from(index)));
    pb::Transaction {
        id: report.id.clone(),
        state: state.into(),
        reason,
        guilty_branch: guilty.map(|branch| branch.name.clone()).unwrap_or_default(),
        protocol: record.protocol.to_string(),
        coordinator: record.owner.node.0,
        epoch: record.epoch,
        began_ms: record.began_ms,
        changed_ms: record.changed_ms,
        branches: record.branches.iter().map(branch_status).collect(),
        bundle: report.bundle.clone().unwrap_or_default(),
        unconfirmed: report.unconfirmed.clone(),
    }
}

/// What its branches answered: of one that commits alone. Where it does not, a branch may have
/// answered before another one said no, and nothing of that was ever true.
fn answers(report: Report) -> Vec<pb::BranchAnswer> {
    if !report.record.stage.verdict().is_some_and(Verdict::commits) {
        return Vec::new();
    }
    let revisions = report.record.branches.iter().map(|branch| match branch.state {
        BranchState::Committed(revision) => revision,
        _ => 0,
    });
    let answers = report.answers.into_iter().zip(revisions);
    let answers = answers.map(|(answer, revision)| pb::BranchAnswer {
        txn: answer.map(|answer| txn_response(revision, answer.outcome)),
    });
    answers.collect()
}

#[tonic::async_trait]
impl Transactions for Service {
    async fn run(
        &self,
        request: Request<pb::RunTransactionRequest>,
    ) -> Result<Response<pb::RunTransactionResponse>, Status> {
        let relayed = is_relayed(&request);
        let by = deadline::of(&request, LONGEST_RUN);
        self.run_one(request.into_inner(), relayed, by).await.map(Response::new)
    }

    type RunManyStream = ReceiverStream<Result<pb::RunManyResponse, Status>>;

    async fn run_many(
        &self,
        request: Request<Streaming<pb::RunManyRequest>>,
    ) -> Result<Response<Self::RunManyStream>, Status> {
        let answers = many::serve(self.clone(), request.into_inner(), self.stopping.clone());
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn list(
        &self,
        request: Request<pb::ListTransactionsRequest>,
    ) -> Result<Response<pb::ListTransactionsResponse>, Status> {
        let by = deadline::of(&request, LIMIT);
        let limit = match request.into_inner().limit {
            0 => LISTED,
            limit => limit.min(MOST_LISTED),
        };
        let all = self.node.list(limit.into(), by).await.map_err(|error| status(&error))?;
        let transactions = all.iter().map(wire).collect();
        Ok(Response::new(pb::ListTransactionsResponse { transactions }))
    }

    async fn show(
        &self,
        request: Request<pb::ShowTransactionRequest>,
    ) -> Result<Response<pb::ShowTransactionResponse>, Status> {
        let by = deadline::of(&request, LIMIT);
        let id = request.into_inner().id;
        check_known_id(&id).map_err(|why| invalid(why.to_string()))?;
        match self.node.show(&id, by).await.map_err(|error| status(&error))? {
            Some(report) => {
                let transaction = Some(wire(&report));
                Ok(Response::new(pb::ShowTransactionResponse { transaction }))
            }
            None => Err(status(&RunError::Unknown(format!(
                "there is no transaction {id:?}, or it ended so long ago that it is forgotten"
            )))),
        }
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelTransactionRequest>,
    ) -> Result<Response<pb::CancelTransactionResponse>, Status> {
        let by = deadline::of(&request, LIMIT);
        let id = request.into_inner().id;
        check_known_id(&id).map_err(|why| invalid(why.to_string()))?;
        let report = self.node.cancel(&id, by).await.map_err(|error| status(&error))?;
        let transaction = Some(wire(&report));
        Ok(Response::new(pb::CancelTransactionResponse { transaction }))
    }

    async fn name(
        &self,
        request: Request<pb::NameBranchRequest>,
    ) -> Result<Response<pb::NameBranchResponse>, Status> {
        let by = deadline::of(&request, LIMIT);
        let it = request.into_inner();
        let kind = match it.kind.as_str() {
            "postgres" => Kind::Postgres,
            "mariadb" => Kind::MariaDb,
            "http" => Kind::Http,
            other => {
                let why = "it is postgres, mariadb or http";
                return Err(invalid(format!("there is no kind of participant {other:?}: {why}")));
            }
        };
        let named = self.node.name(&it.transaction, &it.branch, kind, &it.participant, by).await;
        let (own, hand_in) = named.map_err(|error| status(&error))?;
        Ok(Response::new(pb::NameBranchResponse {
            prepared: own.id,
            before: own.before,
            after: own.after,
            hand_in_ms: u64::try_from(hand_in.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    async fn alarms(
        &self,
        request: Request<pb::ListAlarmsRequest>,
    ) -> Result<Response<pb::ListAlarmsResponse>, Status> {
        let found = self
            .node
            .alarms(deadline::of(&request, LIMIT))
            .await
            .map_err(|error| status(&error))?;
        let alarms = found.all.into_iter().map(alarm).collect();
        Ok(Response::new(pb::ListAlarmsResponse { alarms, more: found.more }))
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeAlarmsRequest>,
    ) -> Result<Response<pb::AcknowledgeAlarmsResponse>, Status> {
        let by = deadline::of(&request, LIMIT);
        let it = request.into_inner();
        check_known_id(&it.transaction).map_err(|why| invalid(why.to_string()))?;
        let branch = (!it.branch.is_empty()).then_some(it.branch.as_str());
        let ended = self.node.acknowledge(&it.transaction, branch, by).await;
        let alarms = ended.map_err(|error| status(&error))?.into_iter().map(alarm).collect();
        Ok(Response::new(pb::AcknowledgeAlarmsResponse { alarms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::GroupId;
    use quorate_keyspace::branch::Done;
    use quorate_keyspace::reply::TxnOutcome;
    use quorate_transactions::{Owner, Record};

    /// A transaction of one branch, which has answered, and stands like this.
    fn answered(stage: Stage) -> Report {
        let mut record = Record::void(Owner::default(), 0, "");
        record.branches = vec![BranchRecord::keyspace("take", "stock", GroupId(7))];
        record.branches[0].state = BranchState::Committed(3);
        record.stage = stage;
        let outcome = TxnOutcome { succeeded: true, responses: Vec::new() };
        let answers = vec![Some(Done { revision: 3, outcome })];
        let (id, unconfirmed) = ("t".to_owned(), String::new());
        Report { id, record, bundle: None, answers, unconfirmed }
    }

    #[test]
    fn what_is_rolled_back_has_no_answers() {
        for stage in [Stage::Decided, Stage::Finished] {
            let committed = answers(answered(stage(Verdict::Commit)));
            let txn = committed[0].txn.as_ref().unwrap();
            assert_eq!((txn.succeeded, txn.header.unwrap().revision), (true, 3));
            let refused = Verdict::Abort { branch: Some(0), reason: "no apples".to_owned() };
            assert_eq!(answers(answered(stage(refused))), []);
        }
        assert_eq!(answers(answered(Stage::Open)), []);
    }
}
