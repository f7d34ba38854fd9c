//! Transactions over one connection, all on one stream: a message costs much less than a call.
//!
//! A request that is large enough to be in the way of others, or comes while very many are under
//! way, has a call of its own, and so has everything at a member that knows no such stream.
//! Invariant: a stream that has broken says nothing of what was under way on it, which may have
//! been done; the next transaction makes a new one.

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
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

/// Requests that may wait to be sent.
const MOST_WAITING: usize = 256;
/// A member reads no more of a stream while so many of it are under way.
const MOST_UNDER_WAY: usize = 256;
/// A member that knows no streams is asked by calls for so long, and then for one again.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);
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
    /// Of those who went away nothing but the number is kept: the member still has it under way.
    by_number: BTreeMap<u64, Option<oneshot::Sender<Said>>>,
    last: u64,
    /// Why the stream is over, and since when.
    over: Option<(Status, Instant)>,
}

/// How a transaction may go.
enum Way {
    Stream(Stream, u64, oneshot::Receiver<Said>),
    Call,
}

/// Whether there is room on a stream.
enum Room {
    Seat(u64, oneshot::Receiver<Said>),
    /// Not now, or the member knows no streams.
    None,
    /// It is over.
    Over,
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
    pub async fn run(&self, request: &RunTransactionRequest, within: Option<Duration>) -> Said {
        if request.encoded_len() > LARGE {
            return self.call(request, within).await;
        }
        match self.way() {
            Way::Call => self.call(request, within).await,
            Way::Stream(stream, number, answer) => {
                let said = stream.run(number, answer, request.clone(), within).await;
                match said {
                    Err(_) if stream.is_unknown() => self.call(request, within).await,
                    said => said,
                }
            }
        }
    }

    /// The same by a call of its own, for whoever wants to compare.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub async fn call(&self, request: &RunTransactionRequest, within: Option<Duration>) -> Said {
        let mut client = TransactionsClient::new(self.link.clone())
            .max_decoding_message_size(LARGEST_ANSWER_BYTES);
        let mut request = Request::new(request.clone());
        if let Some(within) = within {
            request.set_timeout(within);
        }
        client.run(request).await.map(tonic::Response::into_inner)
    }

    /// By the stream there is, or a new one in the place of one that has broken.
    fn way(&self) -> Way {
        let mut stream = locked(&self.stream);
        if let Some(open) = &*stream {
            match open.board() {
                Room::Seat(number, answer) => return Way::Stream(open.clone(), number, answer),
                Room::None => return Way::Call,
                Room::Over => {}
            }
        }
        let open = stream.insert(Stream::open(self.link.clone()));
        match open.board() {
            Room::Seat(number, answer) => Way::Stream(open.clone(), number, answer),
            Room::None | Room::Over => Way::Call,
        }
    }
}

impl Stream {
    fn open(link: Link) -> Stream {
        let (requests, to_send) = mpsc::channel(MOST_WAITING);
        let waiting = Arc::<Mutex<Waiting>>::default();
        tokio::spawn(hear(link, to_send, End(waiting.clone(), None)));
        Stream { requests, waiting }
    }

    /// Whether the member has said that it knows no such stream.
    fn is_unknown(&self) -> bool {
        let over = &locked(&self.waiting).over;
        over.as_ref().is_some_and(|(status, _)| status.code() == Code::Unimplemented)
    }

    fn board(&self) -> Room {
        let mut waiting = locked(&self.waiting);
        match &waiting.over {
            Some((why, since)) if why.code() == Code::Unimplemented && !is_long_ago(*since) => {
                return Room::None;
            }
            Some(_) => return Room::Over,
            None if waiting.by_number.len() >= MOST_UNDER_WAY => return Room::None,
            None => {}
        }
        let (reply, answer) = oneshot::channel();
        waiting.last += 1;
        let number = waiting.last;
        waiting.by_number.insert(number, Some(reply));
        Room::Seat(number, answer)
    }

    async fn run(
        &self,
        number: u64,
        mut answer: oneshot::Receiver<Said>,
        transaction: RunTransactionRequest,
        within: Option<Duration>,
    ) -> Said {
        let mut seat = Seat { waiting: &self.waiting, number, sent: false };
        let in_ms = |within: Duration| u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
        let within_ms = within.map_or(0, in_ms);
        let request = RunManyRequest { number, transaction: Some(transaction), within_ms };
        let gone = || Err(Status::unavailable("the stream of transactions is gone"));
        tokio::select! {
            // Where nobody takes it, the end of the stream tells why.
            _ = self.requests.send(request) => seat.sent = true,
            said = &mut answer => return said.unwrap_or_else(|_| gone()),
        }
        answer.await.unwrap_or_else(|_| gone())
    }
}

/// One that waits. Whoever goes away leaves its number until that is answered.
struct Seat<'a> {
    waiting: &'a Mutex<Waiting>,
    number: u64,
    sent: bool,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut waiting = locked(self.waiting);
        match self.sent {
            true => drop(waiting.by_number.get_mut(&self.number).map(Option::take)),
            false => drop(waiting.by_number.remove(&self.number)),
        }
    }
}

/// A member may have become another one since.
fn is_long_ago(since: Instant) -> bool {
    since.elapsed() >= UNKNOWN_FOR
}

/// Ends a stream when it is dropped, and tells those who wait why: whatever became of the task.
struct End(Arc<Mutex<Waiting>>, Option<Status>);

impl Drop for End {
    fn drop(&mut self) {
        let gone = || Status::unavailable("the stream of transactions is gone");
        let why = self.1.take().unwrap_or_else(gone);
        let mut waiting = locked(&self.0);
        waiting.over = Some((why.clone(), Instant::now()));
        for reply in std::mem::take(&mut waiting.by_number).into_values().flatten() {
            // Whoever asked may be gone.
            let _ = reply.send(Err(why.clone()));
        }
    }
}

/// Hands out the answers of a stream until it ends.
async fn hear(link: Link, to_send: mpsc::Receiver<RunManyRequest>, mut end: End) {
    let heard = async {
        let mut client =
            TransactionsClient::new(link).max_decoding_message_size(LARGEST_ANSWER_BYTES);
        let mut answers = client.run_many(ReceiverStream::new(to_send)).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            hand_out(&end.0, answer);
        }
        Ok::<(), Status>(())
    };
    end.1 = Some(match heard.await {
        Ok(()) => Status::unavailable("the member has ended the stream of transactions"),
        Err(status) if status.code() == Code::Unimplemented => status,
        // The connection's, of which it is known what that means.
        Err(status) if std::error::Error::source(&status).is_some() => status,
        // It is about the stream: of no transaction it says that it was refused.
        Err(status) => {
            let words = describe(&status);
            Status::unavailable(format!("the stream of transactions broke: {words}"))
        }
    });
}

fn hand_out(waiting: &Mutex<Waiting>, answer: RunManyResponse) {
    let said = match answer.outcome {
        Some(Outcome::Answer(answer)) => Ok(answer),
        Some(Outcome::Refusal(refusal)) => {
            Err(Status::new(Code::from_i32(refusal.code), refusal.message))
        }
        None => Err(Status::unavailable("the member's answer says nothing")),
    };
    if let Some(Some(reply)) = locked(waiting).by_number.remove(&answer.number) {
        let _ = reply.send(said);
    }
}

// A panic while a lock was held leaves what is in it as usable as before.
fn locked<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
