//! Operations that run one after the other, each once the one before has completed.

use quorate_disk::{Completion, Disk, DiskError, Operation, OperationId};
use std::collections::VecDeque;

/// A sequence of operations under way.
#[derive(Debug)]
pub(crate) struct Script {
    left: VecDeque<Operation>,
    waiting: Option<OperationId>,
}

/// What a completion meant for a script.
pub(crate) enum Progress {
    /// It belongs to something else.
    NotMine(Completion),
    /// The next operation was submitted.
    Going,
    /// That was the last one.
    Done,
    /// An operation failed; the rest is abandoned.
    Failed(DiskError),
}

impl Script {
    /// Submits the first of `operations`, of which there is at least one.
    pub fn start(operations: Vec<Operation>, disk: &mut impl Disk) -> Script {
        let mut left = VecDeque::from(operations);
        let first = left.pop_front();
        let waiting = first.map(|operation| disk.submit(operation));
        assert!(waiting.is_some(), "a script does something");
        Script { left, waiting }
    }

    /// Whether nothing comes after what is under way.
    pub fn is_last(&self) -> bool {
        self.left.is_empty()
    }

    /// Takes a completion.
    pub fn on(&mut self, completion: Completion, disk: &mut impl Disk) -> Progress {
        if self.waiting != Some(completion.id) {
            return Progress::NotMine(completion);
        }
        self.waiting = None;
        if let Err(error) = completion.result {
            return Progress::Failed(error);
        }
        match self.left.pop_front() {
            None => Progress::Done,
            Some(operation) => {
                self.waiting = Some(disk.submit(operation));
                Progress::Going
            }
        }
    }
}
