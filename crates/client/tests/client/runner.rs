//! Transactions on streams: who is answered, and what becomes of them when a stream breaks.

use crate::{client, nobody};
use quorate_client::{Client, Error, Named, Runner, connect};
use quorate_wire::quorate::run_many_response::Outcome;
use quorate_wire::quorate::transactions_server::{Transactions, TransactionsServer};
use quorate_wire::quorate::{
    AcknowledgeAlarmsRequest, AcknowledgeAlarmsResponse, Branch, CancelTransactionRequest,
    CancelTransactionResponse, ListAlarmsRequest, ListAlarmsResponse, ListTransactionsRequest,
    ListTransactionsResponse, NameBranchRequest, NameBranchResponse, Refusal, RunManyRequest,
    RunManyResponse, RunTransactionRequest, RunTransactionResponse, ShowTransactionRequest,
    ShowTransactionResponse, Transaction,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::interceptor::InterceptedService;
use tonic::{Code, Request, Response, Status, Streaming};

/// What a scripted member does with a stream.
#[derive(Clone, Copy)]
enum Script {
    /// Answers when so many have come, the last first.
    AnswerBackwards(usize),
    Refuse,
    /// Ends it as soon as something was asked.
    End,
    /// The first; the next ones it answers.
    EndFirst,
    /// Says that something is wrong with it, as for a message that is too large.
    Fail,
    Hang,
    /// Knows none.
    Old,
}

/// How often a member was asked.
#[derive(Clone, Default)]
struct Asked {
    calls: Arc<AtomicU32>,
    streams: Arc<AtomicU32>,
    /// Transactions that came on streams.
    heard: Arc<AtomicU32>,
}

impl Asked {
    /// By calls, and for streams.
    fn so_often(&self) -> (u32, u32) {
        (self.calls.load(SeqCst), self.streams.load(SeqCst))
    }
}

struct Member {
    script: Script,
    asked: Asked,
}

fn ran(id: String) -> RunTransactionResponse {
    let transaction = Some(Transaction { id, ..Transaction::default() });
    RunTransactionResponse { transaction, ..RunTransactionResponse::default() }
}

/// Plays a stream to its end; nothing is answered that the script does not say.
async fn play(
    script: Script,
    heard: Arc<AtomicU32>,
    mut asked: Streaming<RunManyRequest>,
    to: mpsc::Sender<Result<RunManyResponse, Status>>,
) {
    let mut waiting = Vec::new();
    while let Ok(Some(one)) = asked.message().await {
        let number = one.number;
        heard.fetch_add(1, SeqCst);
        match script {
            Script::AnswerBackwards(n) => {
                waiting.push(one);
                if waiting.len() < n {
                    continue;
                }
                for one in waiting.drain(..).rev() {
                    let answer = ran(one.transaction.unwrap().id);
                    let outcome = Some(Outcome::Answer(answer));
                    to.send(Ok(RunManyResponse { number: one.number, outcome })).await.unwrap();
                }
            }
            Script::Refuse => {
                let (code, message) = (Code::NotFound.into(), "quorate: not here".to_owned());
                let outcome = Some(Outcome::Refusal(Refusal { code, message }));
                to.send(Ok(RunManyResponse { number, outcome })).await.unwrap();
            }
            Script::End => return,
            Script::EndFirst => unreachable!("it is played as one of the others"),
            Script::Fail => {
                to.send(Err(Status::out_of_range("too large"))).await.unwrap();
                return;
            }
            Script::Hang | Script::Old => {}
        }
    }
}

#[tonic::async_trait]
impl Transactions for Member {
    type RunManyStream = ReceiverStream<Result<RunManyResponse, Status>>;

    async fn run(
        &self,
        request: Request<RunTransactionRequest>,
    ) -> Result<Response<RunTransactionResponse>, Status> {
        self.asked.calls.fetch_add(1, SeqCst);
        Ok(Response::new(ran(request.into_inner().id)))
    }

    async fn run_many(
        &self,
        request: Request<Streaming<RunManyRequest>>,
    ) -> Result<Response<Self::RunManyStream>, Status> {
        let before = self.asked.streams.fetch_add(1, SeqCst);
        let script = match self.script {
            Script::EndFirst if before == 0 => Script::End,
            Script::EndFirst => Script::AnswerBackwards(1),
            other => other,
        };
        if matches!(self.script, Script::Old) {
            return Err(Status::unimplemented(""));
        }
        let (to, answers) = mpsc::channel(64);
        tokio::spawn(play(script, self.asked.heard.clone(), request.into_inner(), to));
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn list(
        &self,
        _: Request<ListTransactionsRequest>,
    ) -> Result<Response<ListTransactionsResponse>, Status> {
        Err(Status::internal("not in this script"))
    }
    async fn show(
        &self,
        _: Request<ShowTransactionRequest>,
    ) -> Result<Response<ShowTransactionResponse>, Status> {
        Err(Status::internal("not in this script"))
    }
    async fn cancel(
        &self,
        _: Request<CancelTransactionRequest>,
    ) -> Result<Response<CancelTransactionResponse>, Status> {
        Err(Status::internal("not in this script"))
    }
    async fn name(
        &self,
        _: Request<NameBranchRequest>,
    ) -> Result<Response<NameBranchResponse>, Status> {
        Err(Status::internal("not in this script"))
    }
    async fn alarms(
        &self,
        _: Request<ListAlarmsRequest>,
    ) -> Result<Response<ListAlarmsResponse>, Status> {
        Err(Status::internal("not in this script"))
    }
    async fn acknowledge(
        &self,
        _: Request<AcknowledgeAlarmsRequest>,
    ) -> Result<Response<AcknowledgeAlarmsResponse>, Status> {
        Err(Status::internal("not in this script"))
    }
}

/// Starts a member; its address, and how often it was asked.
async fn member(script: Script) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap().to_string(), Asked::default());
    let member = Member { script, asked: asked.clone() };
    let server = tonic::transport::Server::builder().add_service(TransactionsServer::new(member));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, asked)
}

fn transaction(id: &str) -> RunTransactionRequest {
    RunTransactionRequest { id: id.to_owned(), ..RunTransactionRequest::default() }
}

/// The id that the answer has.
async fn run(client: &Client, id: &str) -> Result<String, Error> {
    let answer = client.transaction_run(transaction(id)).await?;
    Ok(answer.transaction.unwrap().id)
}

/// One that waits for each member as long as for all.
fn patient(endpoints: &[&str]) -> Client {
    let mut config = client(endpoints).config().clone();
    (config.timeout, config.attempt_timeout) = (Duration::from_secs(60), Duration::from_secs(60));
    Client::new(config)
}

async fn runner(address: &str) -> Runner {
    let channel = connect(&address.parse().unwrap(), Duration::from_secs(10)).await.unwrap();
    Runner::new(InterceptedService::new(channel, Named::default()))
}

#[tokio::test]
async fn many_go_on_one_stream_and_each_has_its_own_answer() {
    let (address, asked) = member(Script::AnswerBackwards(3)).await;
    let client = patient(&[&address]);
    for round in 0..3 {
        let ids: Vec<String> = (0..3).map(|n| format!("{round}-{n}")).collect();
        let (a, b, c) =
            tokio::join!(run(&client, &ids[0]), run(&client, &ids[1]), run(&client, &ids[2]));
        assert_eq!([a, b, c].map(Result::unwrap)[..], ids[..]);
    }
    assert_eq!(asked.so_often(), (0, 1));
}

#[tokio::test]
async fn one_refusal_is_of_one_transaction_and_told_as_it_is() {
    let (address, asked) = member(Script::Refuse).await;
    let client = client(&[&address]);
    for _ in 0..2 {
        let error = run(&client, "t").await.unwrap_err();
        let Error::Refused(status) = &error else { panic!("{error}") };
        assert_eq!((status.code(), status.message()), (Code::NotFound, "quorate: not here"));
    }
    assert_eq!(asked.so_often(), (0, 1), "the stream goes on");
}

#[tokio::test]
async fn what_was_under_way_on_a_stream_that_ends_is_asked_for_elsewhere() {
    for script in [Script::End, Script::Fail, Script::Hang] {
        let (bad, asked) = member(script).await;
        let (good, _) = member(Script::AnswerBackwards(1)).await;
        // Who hangs is left by the clock, the others because they say so.
        let client = match script {
            Script::Hang => client(&[&bad, &good]),
            _ => patient(&[&bad, &good]),
        };
        for n in 0..6 {
            let id = n.to_string();
            assert_eq!(run(&client, &id).await.unwrap(), id);
        }
        assert!(asked.so_often().1 > 0);
    }
}

#[tokio::test]
async fn what_nobody_answers_may_have_been_done() {
    for script in [Script::End, Script::Fail, Script::Hang] {
        let (bad, asked) = member(script).await;
        let mut config = client(&[&bad]).config().clone();
        config.timeout = Duration::from_millis(600);
        let error = run(&Client::new(config), "t").await.unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error}");
        assert!(asked.so_often().1 > 1, "a stream is made anew");
    }
    let error = run(&client(&[&nobody().await]), "t").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_member_without_streams_is_asked_by_calls() {
    let (address, asked) = member(Script::Old).await;
    let client = client(&[&address]);
    for n in 0..3 {
        let id = n.to_string();
        assert_eq!(run(&client, &id).await.unwrap(), id);
    }
    assert_eq!(asked.so_often(), (3, 1), "it is told once");
}

#[tokio::test]
async fn what_would_be_in_the_way_has_a_call_of_its_own() {
    let (address, asked) = member(Script::Hang).await;
    let client = patient(&[&address]);
    let branches = vec![Branch { name: "b".repeat(64 << 10), ..Branch::default() }];
    client
        .transaction_run(RunTransactionRequest { branches, ..transaction("large") })
        .await
        .unwrap();
    assert_eq!(asked.so_often().0, 1);
    // As many as a member has under way of one stream: more would wait for those.
    for n in 0..256 {
        let client = client.clone();
        tokio::spawn(async move { run(&client, &n.to_string()).await });
    }
    let all = async {
        while asked.heard.load(SeqCst) < 256 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("all have come");
    assert_eq!(run(&client, "one more").await.unwrap(), "one more");
    assert_eq!(asked.so_often(), (2, 1));
}

#[tokio::test]
async fn a_runner_makes_a_new_stream_in_the_place_of_one_that_has_ended() {
    let (address, asked) = member(Script::EndFirst).await;
    let runner = runner(&address).await;
    let status = runner.run(&transaction("a"), None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(runner.run(&transaction("b"), None).await.is_ok());
    assert_eq!(asked.so_often(), (0, 2));
}

#[tokio::test]
async fn who_has_gone_away_counts_until_the_member_has_answered() {
    let (address, asked) = member(Script::Hang).await;
    let runner = runner(&address).await;
    for n in 0..256 {
        let asks = transaction(&n.to_string());
        let left = runner.run(&asks, None);
        let _ = tokio::time::timeout(Duration::from_millis(1), left).await.unwrap_err();
    }
    runner.run(&transaction("by a call"), None).await.unwrap();
    assert_eq!(asked.so_often(), (1, 1));
}

#[test]
fn a_stream_whose_runtime_is_gone_keeps_nobody_waiting() {
    let start = || tokio::runtime::Runtime::new().unwrap();
    let (servers, first, second) = (start(), start(), start());
    let (address, asked) = servers.block_on(member(Script::Hang));
    let runner = first.block_on(runner(&address));
    let under_way = runner.clone();
    first.spawn(async move { under_way.run(&transaction("a"), None).await });
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while asked.heard.load(SeqCst) == 0 {
        assert!(std::time::Instant::now() < end, "it has come");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(first);
    // Its connection was that runtime's as well.
    let limit = Duration::from_secs(60);
    let said = second
        .block_on(async { tokio::time::timeout(limit, runner.run(&transaction("b"), None)).await });
    assert!(said.expect("it is told").is_err());
}
