//! A bank at one database: what the cases for every database need of it.

use quorate_base::ClusterId;
use quorate_resource_managers::{
    BranchName, Deadline, Outcome, ResourceManager, State, TransactionName, Vote, Work,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The cluster of the tests.
pub const CLUSTER: ClusterId = ClusterId(0xbead);

/// Accounts 1 to 3 with 100 each, in a database of its own.
pub trait Bank: Send + Sync + Sized + 'static {
    /// A new bank; nothing, if the server is not installed.
    async fn open(test: &str) -> Option<Self>;
    /// A bank on a server of its own, which may be killed.
    async fn open_alone(test: &str) -> Option<Self>;
    /// Its name, in the names of branches too.
    fn name(&self) -> &str;
    /// A branch of a transaction with this id.
    fn branch(&self, txid: &str) -> BranchName {
        let transaction = TransactionName::new(CLUSTER, 1, txid).unwrap();
        BranchName::new(transaction, self.name(), "b1").unwrap()
    }
    /// Its manager.
    fn manager(&self) -> Arc<dyn ResourceManager> {
        self.manager_at(self.port())
    }
    /// A manager that connects to this port of loopback.
    fn manager_at(&self, port: u16) -> Arc<dyn ResourceManager>;
    /// The server's port.
    fn port(&self) -> u16;
    /// Kills the server and starts it again.
    async fn kill_and_restart(&mut self);
    /// An account's balance, as anybody sees it.
    async fn balance(&self, account: i64) -> i64;
    /// Runs statements as the database's administrator.
    async fn run(&self, sql: &str) {
        assert!(self.try_run(sql).await, "{sql}");
    }
    /// The same; whether it worked.
    async fn try_run(&self, sql: &str) -> bool;
    /// How many transactions are prepared in it, whoever's.
    async fn prepared(&self) -> usize;
    /// What an administrator would type to end a prepared branch.
    fn by_hand(&self, commit: bool, branch: &BranchName) -> String;
    /// Prepares a branch as an application does: it adds 1 to an account, and has this statement
    /// last.
    async fn prepare_by_hand(&self, branch: &BranchName, account: i64, last: &str);
    /// Work that adds to an account, which must be there.
    fn add(&self, account: i64, amount: i64) -> Work;
    /// Work of these statements, without parameters.
    fn statements(&self, statements: &[&str]) -> Work;
}

/// A new name for a database.
pub fn new_name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    format!("bank{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Enough time for everything.
pub fn soon() -> Deadline {
    Deadline::within(Duration::from_secs(20))
}

/// Demands a proof.
pub fn applied(outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
}

/// Prepares, and demands a yes.
pub async fn prepare(manager: &dyn ResourceManager, branch: &BranchName, work: &Work) {
    assert_eq!(manager.prepare(branch, work, soon()).await, Vote::Yes);
}

/// The refusal of a branch, as text.
pub async fn refusal(manager: &dyn ResourceManager, txid: &str, work: &Work) -> String {
    let transaction = TransactionName::new(CLUSTER, 1, txid).unwrap();
    let branch = BranchName::new(transaction, manager.name(), "b1").unwrap();
    match manager.prepare(&branch, work, soon()).await {
        Vote::No(refusal) => refusal.to_string(),
        vote => panic!("{vote:?}"),
    }
}

/// What the participant knows of a branch.
pub async fn state(manager: &dyn ResourceManager, branch: &BranchName) -> State {
    manager.inspect(branch, soon()).await.unwrap()
}
