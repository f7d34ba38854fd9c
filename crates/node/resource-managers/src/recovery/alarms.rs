//! What somebody else decided about our branches. Only an operator ends an alarm.

use crate::name::BranchName;
use crate::outcome::Heuristic;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::SystemTime;
use tracing::error;

/// How many alarms are kept. Further ones are told once each time they are met; whoever keeps the
/// decisions meets them again.
const LIMIT: usize = 10_000;

/// A branch that did not end as decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The branch; its name tells the participant.
    pub branch: BranchName,
    /// What was found.
    pub heuristic: Heuristic,
    /// When it was first found.
    pub since: SystemTime,
    /// Whether the branch was proven to have ended as decided since then, as it may when a database
    /// finds a branch again that it had mislaid.
    pub ended_as_decided: bool,
}

#[derive(Default)]
pub(super) struct Alarms(Mutex<BTreeMap<BranchName, Alarm>>);

impl Alarms {
    #[allow(clippy::disallowed_methods)] // When it was found: for people.
    pub(super) fn raise(&self, branch: &BranchName, heuristic: Heuristic) {
        let mut alarms = self.0.lock();
        if let Some(alarm) = alarms.get_mut(branch) {
            (alarm.heuristic, alarm.ended_as_decided) = (heuristic, false);
            return;
        }
        error!("ALARM: {branch}: {heuristic}. docs/in-doubt.md says what to do");
        if alarms.len() < LIMIT {
            let alarm = Alarm {
                branch: branch.clone(),
                heuristic,
                since: SystemTime::now(),
                ended_as_decided: false,
            };
            alarms.insert(branch.clone(), alarm);
        }
    }

    pub(super) fn ended_as_decided(&self, branch: &BranchName) {
        if let Some(alarm) = self.0.lock().get_mut(branch) {
            alarm.ended_as_decided = true;
        }
    }

    pub(super) fn all(&self) -> Vec<Alarm> {
        self.0.lock().values().cloned().collect()
    }

    pub(super) fn acknowledge(&self, branch: &BranchName) -> bool {
        self.0.lock().remove(branch).is_some()
    }
}
