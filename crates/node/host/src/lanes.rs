//! Answers on their way to the runtimes that wait for them.
//!
//! Waking a task of another thread's runtime costs a system call. So the driver thread hands a
//! runtime all its answers of one round at once, and a task there, its lane, wakes who waits: that
//! costs one system call a round, and what the woken tasks write to one connection leaves together.

use crate::waiting::Outcome;
use tokio::sync::{mpsc, oneshot};

/// An answer and whom it is for.
type Delivery<R> = (oneshot::Sender<Outcome<R>>, Outcome<R>);

/// The way to one runtime. Bounded by the driver's limit of requests under way.
pub(crate) struct Lane<R>(mpsc::UnboundedSender<Vec<Delivery<R>>>);

impl<R> Clone for Lane<R> {
    fn clone(&self) -> Self {
        Lane(self.0.clone())
    }
}

impl<R: Send + 'static> Lane<R> {
    /// Opens a lane to the runtime this is called on.
    pub fn open() -> Self {
        let (lane, mut batches) = mpsc::unbounded_channel::<Vec<Delivery<R>>>();
        tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                deliver(batch);
            }
        });
        Lane(lane)
    }

    /// Whether its runtime is gone.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Whoever asked may have gone: nobody to tell.
fn deliver<R>(batch: Vec<Delivery<R>>) {
    for (to, outcome) in batch {
        let _ = to.send(outcome);
    }
}

/// The answers of one round, sorted by lane.
pub(crate) struct Round<R>(Vec<(Lane<R>, Vec<Delivery<R>>)>);

impl<R: Send + 'static> Round<R> {
    /// None yet.
    pub fn new() -> Self {
        Round(Vec::new())
    }

    /// One more.
    pub fn add(&mut self, lane: Lane<R>, to: oneshot::Sender<Outcome<R>>, outcome: Outcome<R>) {
        // A lane for every thread that serves clients: a handful.
        match self.0.iter_mut().find(|(known, _)| known.0.same_channel(&lane.0)) {
            Some((_, batch)) => batch.push((to, outcome)),
            None => self.0.push((lane, vec![(to, outcome)])),
        }
    }

    /// Hands all of them over.
    pub fn finish(&mut self) {
        for (lane, batch) in self.0.drain(..) {
            if let Err(back) = lane.0.send(batch) {
                deliver(back.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_driver::Answer;
    use tokio::runtime::Builder;

    #[test]
    fn answers_arrive_with_and_without_their_lane() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let lane = runtime.block_on(async { Lane::<u32>::open() });
        let mut round = Round::new();
        let (to, first) = oneshot::channel();
        round.add(lane.clone(), to, Ok(Answer::Applied(1)));
        let (to, second) = oneshot::channel();
        round.add(lane.clone(), to, Ok(Answer::Applied(2)));
        assert_eq!(round.0.len(), 1, "one hand-over for both");
        round.finish();
        let both = runtime.block_on(async { (first.await.unwrap(), second.await.unwrap()) });
        assert_eq!(both, (Ok(Answer::Applied(1)), Ok(Answer::Applied(2))));
        drop(runtime);
        assert!(lane.is_closed());
        let (to, mut late) = oneshot::channel();
        round.add(lane, to, Ok(Answer::Applied(3)));
        round.finish();
        assert_eq!(late.try_recv(), Ok(Ok(Answer::Applied(3))));
    }
}
