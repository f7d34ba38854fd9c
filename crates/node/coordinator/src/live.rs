//! The transactions that this node drives at the moment, and who waits for them.

use parking_lot::Mutex;
use quorate_keyspace::branch::Done;
use quorate_transactions::{Input, Owner, Record};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use tokio::sync::{Notify, watch};

/// How far one is, for whoever waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Progress {
    /// Undecided.
    Running,
    /// The decision is on record.
    Decided,
    /// It is carried out at every participant.
    Applied,
    /// This node drives it no more: the record tells the rest.
    Left,
}

/// What a branch answered.
#[derive(Clone, Default)]
struct Answers {
    done: Vec<Done>,
    /// Its revisions are those of the commit; before it they are guesses.
    committed: bool,
}

/// One transaction that this node drives.
pub(crate) struct Live {
    pub id: String,
    pub content: u128,
    /// Whose name its branches in keyspaces bear.
    pub asker: Owner,
    pub record: Mutex<Record>,
    /// What its keyspace branches answered, each of its transactions.
    answers: Mutex<Vec<Answers>>,
    /// What is waited for, by branch, in words: the latest of each.
    troubles: Mutex<BTreeMap<u16, String>>,
    progress: watch::Sender<Progress>,
    /// Alarms that people have seen to, by branch, and word of it.
    acknowledged: Mutex<Vec<u16>>,
    /// Whether its client does not want it any more.
    cancelled: AtomicBool,
    word: Notify,
    /// The epoch in which votes are wanted; zero: in none.
    asks: AtomicU32,
    /// Whether nobody waits for it to be carried out.
    patient: AtomicBool,
    /// The branch, and its statement from 1, for which it was refused.
    guilty: Mutex<Option<(u16, usize)>>,
}

impl Live {
    pub fn new(id: &str, record: Record) -> Arc<Live> {
        let answers = vec![Answers::default(); record.branches.len()];
        Arc::new(Live {
            id: id.to_owned(),
            content: record.content,
            asker: record.asker,
            record: Mutex::new(record),
            answers: Mutex::new(answers),
            troubles: Mutex::default(),
            progress: watch::channel(Progress::Running).0,
            acknowledged: Mutex::default(),
            cancelled: AtomicBool::new(false),
            word: Notify::new(),
            asks: AtomicU32::new(0),
            patient: AtomicBool::new(false),
            guilty: Mutex::default(),
        })
    }

    /// Whether a vote of this epoch is still wanted.
    pub fn wants(&self, epoch: u32) -> bool {
        self.asks.load(Relaxed) == epoch
    }

    pub fn set_asks(&self, epoch: Option<u32>) {
        self.asks.store(epoch.unwrap_or(0), Relaxed);
    }

    /// Nobody waits for it to be carried out.
    pub fn be_patient(&self) {
        self.patient.store(true, Relaxed);
    }

    pub fn is_patient(&self) -> bool {
        self.patient.load(Relaxed)
    }

    /// This statement of a branch was refused.
    pub fn blame(&self, branch: u16, statement: usize) {
        self.guilty.lock().get_or_insert((branch, statement));
    }

    /// For which it was refused first, if for one.
    pub fn guilty(&self) -> Option<(u16, usize)> {
        *self.guilty.lock()
    }

    /// A branch says what it does, or, once it is committed, what it did.
    pub fn answered(&self, branch: u16, done: Vec<Done>, committed: bool) {
        if let Some(slot) = self.answers.lock().get_mut(usize::from(branch)) {
            *slot = Answers { done, committed };
        }
    }

    /// What its branches answered to the transaction at this place, and whether its revision is
    /// that of the commit.
    pub fn answers(&self, place: usize) -> Vec<Option<(Done, bool)>> {
        let all = self.answers.lock();
        let one = |it: &Answers| it.done.get(place).map(|done| (done.clone(), it.committed));
        all.iter().map(one).collect()
    }

    /// A participant does not answer, or not as hoped.
    pub fn trouble(&self, branch: u16, what: &str) {
        self.troubles.lock().insert(branch, what.to_owned());
    }

    pub fn take_troubles(&self) -> BTreeMap<u16, String> {
        std::mem::take(&mut self.troubles.lock())
    }

    /// People have seen to these branches, which were ended against the decision.
    pub fn acknowledge(&self, branches: &[u16]) {
        self.acknowledged.lock().extend(branches);
        self.word.notify_one();
    }

    /// Its client does not want it any more.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        self.word.notify_one();
    }

    /// Waits for either; what that is to the coordinator.
    pub async fn word(&self) -> Vec<Input> {
        self.word.notified().await;
        let branches = std::mem::take(&mut *self.acknowledged.lock());
        let mut all: Vec<Input> =
            branches.into_iter().map(|branch| Input::Acknowledge { branch }).collect();
        if self.cancelled.swap(false, Relaxed) {
            all.push(Input::Cancel);
        }
        all
    }

    /// It never goes back.
    pub fn advance(&self, to: Progress) {
        self.progress.send_if_modified(|progress| {
            let further = to > *progress;
            *progress = to.max(*progress);
            further
        });
    }

    /// Waits until it is at least so far.
    pub async fn reached(&self, wanted: Progress) -> Progress {
        let mut watch = self.progress.subscribe();
        // The sender lives as long as this value.
        watch.wait_for(|progress| *progress >= wanted).await.map_or(Progress::Left, |p| *p)
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct AllLive(Mutex<BTreeMap<String, Arc<Live>>>);

impl AllLive {
    pub fn get(&self, id: &str) -> Option<Arc<Live>> {
        self.0.lock().get(id).cloned()
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Adds one, or tells which is there already.
    pub fn add(&self, live: &Arc<Live>) -> Result<(), Arc<Live>> {
        let mut all = self.0.lock();
        if let Some(known) = all.get(&live.id) {
            return Err(known.clone());
        }
        all.insert(live.id.clone(), live.clone());
        Ok(())
    }

    pub fn remove(&self, live: &Arc<Live>) {
        let mut all = self.0.lock();
        if all.get(&live.id).is_some_and(|known| Arc::ptr_eq(known, live)) {
            all.remove(&live.id);
        }
        live.advance(Progress::Left);
    }
}
