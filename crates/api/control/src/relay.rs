//! Hands a transaction on to the member that should drive it:
//!
//! - where this member has no replica of one of its keyspaces, to one that has a replica of each;
//! - where it may be carried with others, to the leader of the oldest of its keyspaces, or of
//!   the records if it has none, so that what all members are asked for meets at one.
//!
//! Invariants: what was handed on is not handed on again. An id stands for one transaction wherever
//! it is run, so that what the other does not answer is run here, if it can be. Where a member may
//! have begun it, nobody's later refusal is told as if nothing was done: it is in doubt.

use parking_lot::Mutex;
use quorate_base::NodeId;
use quorate_coordinator::{BranchWork, Request as Wanted};
use quorate_host::{KeyspaceHandle, KeyspaceRefusal, NodeHandle, TRANSACTIONS};
use quorate_resource_managers::Deadline;
use quorate_wire::quorate::transactions_client::TransactionsClient;
use quorate_wire::quorate::{RunTransactionRequest, RunTransactionResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Request, Response, Status};

/// The metadata entry of what was handed on.
const RELAYED: &str = "quorate-relayed";
/// For how long nothing is handed on, where it need not be, to a member that did not answer.
const REST: Duration = Duration::from_secs(1);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// What a member may take longer than the transaction may stay undecided.
const GRACE: Duration = Duration::from_secs(6);

/// What the member that was asked said.
type Answer = Result<Response<RunTransactionResponse>, Status>;

/// Where a transaction should be driven.
enum Course {
    Here,
    /// By the leader of this keyspace, or here.
    Leader(NodeId, KeyspaceHandle),
    /// By one of these.
    Elsewhere(Vec<NodeId>),
}

/// The way to another member.
struct Way {
    url: String,
    client: TransactionsClient<Channel>,
    rests_until: Option<Instant>,
}

/// See the module.
pub(crate) struct Relay {
    node: NodeHandle,
    ways: Mutex<BTreeMap<NodeId, Way>>,
}

/// Whether a request comes from a member that has handed it on.
pub(crate) fn is_relayed<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(RELAYED)
}

/// Whether this says nothing of the transaction, so that somebody else may be asked. A connection's
/// own troubles come as codes of many kinds.
fn says_nothing(status: &Status) -> bool {
    use Code::{AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound};
    !matches!(
        status.code(),
        AlreadyExists | DeadlineExceeded | FailedPrecondition | InvalidArgument | NotFound
    )
}

/// Whether a refusal is about the member, which has begun nothing.
fn is_its_own(status: &Status) -> bool {
    matches!(status.code(), Code::NotFound | Code::FailedPrecondition)
}

/// Whether a member that answered this, which says nothing of the transaction, may have begun it
/// all the same. Not, if it was not reached, or says itself that it could not.
fn may_have_begun(status: &Status) -> bool {
    let Some(source) = std::error::Error::source(status) else {
        return !matches!(status.code(), Code::Unavailable | Code::Unimplemented);
    };
    let mut source = Some(source);
    while let Some(cause) = source {
        if cause.is::<ConnectError>() {
            return false;
        }
        source = cause.source();
    }
    true
}

/// Whether a refusal holds wherever the transaction is run: it was never begun under this id.
fn holds_everywhere(status: &Status) -> bool {
    matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument | Code::DeadlineExceeded)
}

/// What is told of a transaction that another member may have begun, and that was refused since.
fn in_doubt(id: &str, refused: &Status) -> Status {
    let why = refused.message();
    let why = why.strip_prefix("quorate: ").unwrap_or(why);
    Status::deadline_exceeded(format!(
        "quorate: the transaction {id:?} is in doubt, for a member that it was handed on to may \
         have begun it: ask for it by `quorate txn show {id}`, or run it again under the same id \
         ({why})"
    ))
}

/// What came of handing it on.
pub(crate) enum Handed {
    /// Somebody answered.
    Answered(Box<Answer>),
    /// It is to be run here.
    Here(Doubt),
}

/// Whether a member that it was handed on to may have begun it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Doubt(bool);

impl Doubt {
    fn heard(&mut self, status: &Status) {
        self.0 |= may_have_begun(status);
    }

    /// What is told of the transaction of this id that was refused like this in the end.
    pub fn told(self, id: &str, refused: Status) -> Status {
        match self.0 && !holds_everywhere(&refused) {
            true => in_doubt(id, &refused),
            false => refused,
        }
    }
}

impl Relay {
    pub fn new(node: NodeHandle) -> Relay {
        Relay { node, ways: Mutex::default() }
    }

    /// What another member says, or that it is to be run here.
    pub async fn ask(
        &self,
        request: &RunTransactionRequest,
        (wanted, rides): (&Wanted, bool),
        by: Deadline,
    ) -> Handed {
        let by = by.min(Deadline::within(wanted.patience + GRACE));
        let mut doubt = Doubt::default();
        match self.course(wanted, rides) {
            Course::Here => Handed::Here(doubt),
            Course::Leader(leader, keyspace) => {
                if self.rests(leader) {
                    return Handed::Here(doubt);
                }
                let answer = tokio::select! {
                    answer = self.call(leader, request, by.left()) => answer,
                    // Whoever it was may hang.
                    _ = keyspace.leader_changed(leader) => return Handed::Here(Doubt(true)),
                };
                match answer {
                    // It has begun nothing, for what is not so here, perhaps: a participant that it
                    // does not know, or cannot use.
                    Err(status) if is_its_own(&status) => {
                        self.let_rest(leader);
                        Handed::Here(doubt)
                    }
                    Err(status) if says_nothing(&status) => {
                        doubt.heard(&status);
                        Handed::Here(doubt)
                    }
                    answer => {
                        let told = answer.map(|mut response| {
                            response.get_mut().driven_at = self.url(leader);
                            response
                        });
                        Handed::Answered(Box::new(told))
                    }
                }
            }
            Course::Elsewhere(members) => {
                let mut last = Status::unavailable(
                    "quorate: no member has a replica of each of the transaction's keyspaces",
                );
                for member in members {
                    if by.left().is_zero() {
                        break;
                    }
                    match self.call(member, request, by.left()).await {
                        Err(status) if says_nothing(&status) => {
                            doubt.heard(&status);
                            last = status;
                        }
                        answer => {
                            let told = |refused| doubt.told(&wanted.id, refused);
                            return Handed::Answered(Box::new(answer.map_err(told)));
                        }
                    }
                }
                Handed::Answered(Box::new(Err(doubt.told(&wanted.id, last))))
            }
        }
    }

    fn course(&self, wanted: &Wanted, rides: bool) -> Course {
        let (mut common, mut oldest) = (None::<BTreeSet<NodeId>>, None::<KeyspaceHandle>);
        let mut elsewhere = false;
        let keyspaces = wanted.branches.iter();
        let keyspaces =
            keyspaces.filter(|branch| matches!(branch.work, BranchWork::Keyspace { .. }));
        for branch in keyspaces {
            let replicas: BTreeSet<NodeId> = match self.node.keyspace(&branch.participant) {
                Ok(keyspace) => {
                    let voters = keyspace.membership().voters.into_iter().collect();
                    // The same one, whichever is named first.
                    if oldest.as_ref().is_none_or(|oldest| oldest.id() > keyspace.id()) {
                        oldest = Some(keyspace);
                    }
                    voters
                }
                Err(KeyspaceRefusal::Elsewhere(nodes)) => {
                    elsewhere = true;
                    nodes.into_iter().collect()
                }
                // The coordinator says what is wrong.
                Err(KeyspaceRefusal::Unknown | KeyspaceRefusal::NotYet) => return Course::Here,
            };
            common = Some(match common {
                Some(known) => known.intersection(&replicas).copied().collect(),
                None => replicas,
            });
        }
        if elsewhere {
            let common = common.unwrap_or_default();
            let peers = self.node.peers();
            let connected =
                |node: &NodeId| peers.iter().any(|(peer, how)| peer == node && how.connected);
            let mut members: Vec<NodeId> = common.into_iter().collect();
            members.sort_by_key(|member| !connected(member));
            return Course::Elsewhere(members);
        }
        // Without a keyspace it is the records that it meets others at.
        let meets = oldest.or_else(|| self.node.keyspace(TRANSACTIONS).ok());
        match meets {
            Some(keyspace) if rides => {
                let leader = keyspace.consensus().leader;
                let able = common.is_none_or(|members| members.contains(&leader));
                match able && leader != self.node.node() && !leader.is_none() {
                    true => Course::Leader(leader, keyspace),
                    false => Course::Here,
                }
            }
            _ => Course::Here,
        }
    }

    fn rests(&self, member: NodeId) -> bool {
        let ways = self.ways.lock();
        let until = ways.get(&member).and_then(|way| way.rests_until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Where a member was reached last.
    fn url(&self, member: NodeId) -> String {
        self.ways.lock().get(&member).map(|way| way.url.clone()).unwrap_or_default()
    }

    async fn call(
        &self,
        member: NodeId,
        request: &RunTransactionRequest,
        limit: Duration,
    ) -> Answer {
        let mut client = self.client(member)?;
        let mut request = Request::new(request.clone());
        request.metadata_mut().insert(RELAYED, MetadataValue::from_static("1"));
        request.set_timeout(limit);
        let answer = client.run(request).await;
        if answer.as_ref().is_err_and(says_nothing) {
            self.let_rest(member);
        }
        answer
    }

    fn let_rest(&self, member: NodeId) {
        if let Some(way) = self.ways.lock().get_mut(&member) {
            way.rests_until = Some(Instant::now() + REST);
        }
    }

    /// Connects when it is first used. Where the member is now is looked up after a failure only.
    fn client(&self, member: NodeId) -> Result<TransactionsClient<Channel>, Status> {
        let known = self.ways.lock();
        if let Some(way) = known.get(&member).filter(|way| way.rests_until.is_none()) {
            return Ok(way.client.clone());
        }
        drop(known);
        let members = self.node.reader().members();
        let known = members.into_iter().find(|known| known.id == member);
        let url = known.and_then(|known| known.client_urls.into_iter().next());
        let unreachable = |why: String| Status::unavailable(format!("quorate: {member}: {why}"));
        let url = url.ok_or_else(|| unreachable("it has told no client address yet".to_owned()))?;
        let mut ways = self.ways.lock();
        if let Some(way) = ways.get_mut(&member).filter(|way| way.url == url) {
            way.rests_until = None;
            return Ok(way.client.clone());
        }
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| unreachable(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let client = TransactionsClient::new(endpoint.connect_lazy());
        // What branches read may be much, and what is handed on was checked here.
        let client = client.max_decoding_message_size(usize::MAX);
        ways.insert(member, Way { url, client: client.clone(), rests_until: None });
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// What comes of handing something on to whoever listens there.
    async fn asked(address: std::net::SocketAddr) -> Status {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let mut client = TransactionsClient::new(endpoint.connect_lazy());
        client.run(RunTransactionRequest::default()).await.unwrap_err()
    }

    #[tokio::test]
    async fn only_who_was_not_reached_or_says_so_has_certainly_not_begun_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It dies over the request.
        let dies = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 64]).await.unwrap();
        });
        let broken = asked(address).await;
        dies.await.unwrap();
        assert!(says_nothing(&broken) && may_have_begun(&broken), "{broken:?}");
        // Nobody is there any more.
        let away = asked(address).await;
        assert!(says_nothing(&away) && !may_have_begun(&away), "{away:?}");
        assert!(!may_have_begun(&Status::unavailable("quorate: 4096 are under way already")));
        assert!(may_have_begun(&Status::internal("quorate: the node failed: its disk")));
    }

    #[test]
    fn what_may_have_begun_is_in_doubt_whoever_refuses_it_later() {
        let away = || Status::unavailable("quorate: m2: it has told no client address yet");
        assert_eq!(Doubt(false).told("t", away()).code(), Code::Unavailable);
        let told = Doubt(true).told("order-1", away());
        assert_eq!(told.code(), Code::DeadlineExceeded);
        let words = ["quorate: ", "\"order-1\" is in doubt", "same id", "(m2: it has told"];
        assert!(words.iter().all(|word| told.message().contains(word)), "{told:?}");
        assert_eq!(told.message().matches("quorate: ").count(), 1, "{told:?}");
        let gone = Status::not_found("quorate: there is no keyspace \"stock\"");
        assert_eq!(Doubt(true).told("t", gone).code(), Code::DeadlineExceeded);
        let taken = Status::already_exists("quorate: there was another transaction of the id");
        assert_eq!(Doubt(true).told("t", taken).code(), Code::AlreadyExists);
    }
}
