//! Transactions of one client on one stream: a message each way for each, instead of a call.
//!
//! Invariants: whatever is read is answered once, as a call would be, unless its client has gone
//! away. No more is read while so many are under way, so that who does not read its answers is not
//! read either. A member that stops reads no more, and answers what it has read.

use crate::deadline;
use crate::transactions::{LONGEST_RUN, Service};
use quorate_resource_managers::Deadline;
use quorate_wire::quorate as pb;
use quorate_wire::quorate::run_many_response::Outcome;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::{Code, Status, Streaming};

/// Transactions of one stream that are under way at a time.
const MOST: usize = 256;

type Answer = Result<pb::RunManyResponse, Status>;

/// Runs what comes. The answers end when the client has no more to ask, or the member stops.
pub(crate) fn serve(
    service: Service,
    asked: Streaming<pb::RunManyRequest>,
    stopping: watch::Receiver<bool>,
) -> mpsc::Receiver<Answer> {
    let (answers, told) = mpsc::channel(MOST);
    tokio::spawn(read(service, asked, answers, stopping));
    told
}

async fn read(
    service: Service,
    mut asked: Streaming<pb::RunManyRequest>,
    answers: mpsc::Sender<Answer>,
    mut stopping: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let next = tokio::select! {
            biased;
            // Whoever could say so may be gone as well.
            _ = stopping.wait_for(|stop| *stop) => return,
            () = answers.closed() => return,
            next = asked.message() => next,
        };
        match next {
            Ok(Some(one)) => {
                let (service, answers) = (service.clone(), answers.clone());
                tokio::spawn(async move {
                    let _watch = Watch(one.number, answers.clone());
                    tokio::select! {
                        answer = answer(&service, one) => drop(answers.send(Ok(answer)).await),
                        () = answers.closed() => {}
                    }
                    drop(permit);
                });
            }
            Ok(None) => return,
            Err(status) => {
                drop(permit);
                // The others have their answers first: behind this there are none.
                let _ = room.acquire_many(MOST as u32).await;
                let _ = answers.send(Err(status)).await;
                return;
            }
        }
    }
}

/// Should it panic, its client is told so: a call would break.
struct Watch(u64, mpsc::Sender<Answer>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let message = "quorate: a bug ended the transaction's request".to_owned();
            let refusal = pb::Refusal { code: Code::Internal.into(), message };
            let outcome = Some(Outcome::Refusal(refusal));
            // Whoever asked may be gone.
            let _ = self.1.try_send(Ok(pb::RunManyResponse { number: self.0, outcome }));
        }
    }
}

async fn answer(service: &Service, one: pb::RunManyRequest) -> pb::RunManyResponse {
    let by = match one.within_ms {
        0 => LONGEST_RUN,
        ms => deadline::answered_within(Duration::from_millis(ms), LONGEST_RUN),
    };
    let request = one.transaction.unwrap_or_default();
    let outcome = match service.run_one(request, false, Deadline::within(by)).await {
        Ok(answer) => Outcome::Answer(answer),
        Err(status) => {
            let (code, message) = (status.code().into(), status.message().to_owned());
            Outcome::Refusal(pb::Refusal { code, message })
        }
    };
    pb::RunManyResponse { number: one.number, outcome: Some(outcome) }
}
