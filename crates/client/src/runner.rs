//! Transactions over one connection, all on one stream: a message costs much less than a call.
//!
//! What is large enough to be in the way of others, or comes while very many are under way, has a
//! call of its own, and so has everything at a member that knows no such stream. Invariant: a
//! stream that has broken says nothing of what was under way on it, which may have been done; the
//! next transaction makes a new one.

use crate::client::describe;
use crate::link::Link;
use prost::Message;
use quorate_wire::quorate::run_many_response::Outcome;
use quorate_wire::quorate::transactions_client::TransactionsClient;
use quorate_wire::quorate::{
    RunManyRequest, RunManyResponse, RunTransactionRequest, RunTransactionResponse,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

/// Requests that may wait to be sent.
const MOST_WAITING: usize = 256;
/// A member reads no more of a stream while so many of it are under way.
const MOST_UNDER_WAY: usize = 256;
/// Requests of more bytes have a call of their own.
const LARGE: usize = 64 << 10;
/// What branches read may be much.
const LARGEST_ANSWER_BYTES: usize = i32::MAX as usize;

type Said = Result<RunTransactionResponse, Status>;

/// Runs transactions by one connection. Clones share its stream.
#[derive(Clone, Debug)]
pub struct Runner {
    link: Link,
    stream: Arc<Mutex<Option<Stream>>>,
}

/// The way to a stream that is open, or was.
#[derive(Clone, Debug)]
struct Stream {
    requests: mpsc::Sender<RunManyRequest>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Who waits for an answer of one stream.
#[derive(Default, Debug)]
struct Waiting {
    by_number: BTreeMap<u64, oneshot::Sender<Said>>,
    last: u64,
    /// Why the stream is over.
    over: Option<Status>,
}

/// One that waits. Whoever goes away is not kept.
struct Seat<'a> {
    waiting: &'a Mutex<Waiting>,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        locked(self.waiting).by_number.remove(&self.number);
    }
}

impl Runner {
    /// Over this connection. Nothing is sent before something is to be run.
    pub fn new(link: Link) -> Runner {
        Runner { link, stream: Arc::default() }
    }

    /// Runs a transaction, as the call `Run` does. The member is told that it is waited for so
    /// long, or for ever; whether it is, is up to the caller.
    ///
    /// # Errors
    /// What the member says, or that there is no answer.
    pub async fn run(&self, request: RunTransactionRequest, within: Option<Duration>) -> Said {
        let stream = self.stream();
        if request.encoded_len() > LARGE || stream.is_full() {
            return self.call(request, within).await;
        }
        match stream.run(request.clone(), within).await {
            Err(_) if stream.is_unknown() => self.call(request, within).await,
            said => said,
        }
    }

    async fn call(&self, request: RunTransactionRequest, within: Option<Duration>) -> Said {
        let mut client = TransactionsClient::new(self.link.clone())
            .max_decoding_message_size(LARGEST_ANSWER_BYTES);
        let mut request = Request::new(request);
        if let Some(within) = within {
            request.set_timeout(within);
        }
        client.run(request).await.map(tonic::Response::into_inner)
    }

    /// The stream there is, or a new one in the place of one that has broken.
    fn stream(&self) -> Stream {
        let mut stream = locked(&self.stream);
        match &*stream {
            Some(open) if open.is_usable() => open.clone(),
            _ => stream.insert(Stream::open(self.link.clone())).clone(),
        }
    }
}

impl Stream {
    fn open(link: Link) -> Stream {
        let (requests, to_send) = mpsc::channel(MOST_WAITING);
        let waiting = Arc::<Mutex<Waiting>>::default();
        tokio::spawn(hear(link, to_send, waiting.clone()));
        Stream { requests, waiting }
    }

    /// Whether the member has said that it knows no such stream.
    fn is_unknown(&self) -> bool {
        let over = &locked(&self.waiting).over;
        over.as_ref().is_some_and(|status| status.code() == Code::Unimplemented)
    }

    /// One that the member does not know is kept: it is not asked for again.
    fn is_usable(&self) -> bool {
        let over = &locked(&self.waiting).over;
        over.as_ref().is_none_or(|status| status.code() == Code::Unimplemented)
    }

    fn is_full(&self) -> bool {
        locked(&self.waiting).by_number.len() >= MOST_UNDER_WAY
    }

    async fn run(&self, transaction: RunTransactionRequest, within: Option<Duration>) -> Said {
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut waiting = locked(&self.waiting);
            if let Some(why) = &waiting.over {
                return Err(why.clone());
            }
            waiting.last += 1;
            let number = waiting.last;
            waiting.by_number.insert(number, reply);
            number
        };
        let _seat = Seat { waiting: &self.waiting, number };
        let in_ms = |within: Duration| u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
        let within_ms = within.map_or(0, in_ms);
        let request = RunManyRequest { number, transaction: Some(transaction), within_ms };
        // Where nobody takes it, whoever hears the stream's end tells why.
        let _ = self.requests.send(request).await;
        answer.await.unwrap_or_else(|_| Err(Status::unavailable("the stream is gone")))
    }
}

/// Hands out the answers of a stream until it ends; then tells those who wait for more.
async fn hear(link: Link, to_send: mpsc::Receiver<RunManyRequest>, waiting: Arc<Mutex<Waiting>>) {
    let heard = async {
        let mut client =
            TransactionsClient::new(link).max_decoding_message_size(LARGEST_ANSWER_BYTES);
        let mut answers = client.run_many(ReceiverStream::new(to_send)).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            hand_out(&waiting, answer);
        }
        Ok::<(), Status>(())
    };
    let why = match heard.await {
        Ok(()) => Status::unavailable("the member has ended the stream of transactions"),
        Err(status) if status.code() == Code::Unimplemented => status,
        // The connection's, of which it is known what that means.
        Err(status) if std::error::Error::source(&status).is_some() => status,
        // It is about the stream: of no transaction it says that it was refused.
        Err(status) => {
            let words = describe(&status);
            Status::unavailable(format!("the stream of transactions broke: {words}"))
        }
    };
    let mut waiting = locked(&waiting);
    waiting.over = Some(why.clone());
    for (_, reply) in std::mem::take(&mut waiting.by_number) {
        // Whoever asked may be gone.
        let _ = reply.send(Err(why.clone()));
    }
}

fn hand_out(waiting: &Mutex<Waiting>, answer: RunManyResponse) {
    let said = match answer.outcome {
        Some(Outcome::Answer(answer)) => Ok(answer),
        Some(Outcome::Refusal(refusal)) => {
            Err(Status::new(Code::from_i32(refusal.code), refusal.message))
        }
        None => Err(Status::unavailable("the member's answer says nothing")),
    };
    if let Some(reply) = locked(waiting).by_number.remove(&answer.number) {
        let _ = reply.send(said);
    }
}

// A panic while a lock was held leaves what is in it as usable as before.
fn locked<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
