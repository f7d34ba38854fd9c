//! Requests sent one behind the other without waiting, answered in the same order.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// One request and its answer: how many rows.
pub(super) type Request<'a> =
    Pin<Box<dyn Future<Output = Result<u64, tokio_postgres::Error>> + Send + 'a>>;

/// Sends all requests in their order, and waits for all answers.
///
/// The driver sends a request when its future is first polled. That nothing is polled before its
/// predecessor is the order of the statements, so it is not left to a library's implementation.
pub(super) async fn run(requests: Vec<Request<'_>>) -> Vec<Result<u64, tokio_postgres::Error>> {
    let mut requests = requests;
    let mut answers: Vec<Option<_>> = requests.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (request, answer) in requests.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                match request.as_mut().poll(context) {
                    Poll::Ready(result) => *answer = Some(result),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    answers.into_iter().flatten().collect()
}
