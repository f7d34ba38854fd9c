//! Participants of transactions outside of Quorate: PostgreSQL by `PREPARE TRANSACTION`, MariaDB by
//! XA, HTTP services by try, confirm and cancel.
//!
//! Every participant has the same interface, [`ResourceManager`]: prepare, commit, rollback, scan,
//! forget. [`Recovery`] finishes what a coordinator left behind. `docs/resource-managers.md` has
//! the rules, the traps of each database, and the contract of HTTP participants.
//!
//! Invariants: a yes is given only for a branch that is durably prepared; a commit is reported only
//! with a proof, the fence row that was seen committed; whatever is ambiguous is *unknown*, and may
//! be asked again; what somebody else decided is an alarm. Transactions that are not ours are never
//! touched. Every call has a deadline, every pool and every text a limit.

mod config;
mod deadline;
mod error;
pub mod fence;
mod http;
mod manager;
mod mariadb;
mod name;
mod outcome;
mod own;
mod pool;
mod postgres;
mod recovery;
mod share;
mod spec;
mod sql;
mod work;

pub use config::{DatabaseConfig, Secret};
pub use deadline::Deadline;
pub use error::Error;
pub use http::{HttpConfig, HttpParticipant};
pub use manager::{Answer, ResourceManager, SCAN_LIMIT};
pub use mariadb::MariaDb;
pub use name::{
    BQUAL_LIMIT, BRANCH_LIMIT, BranchName, EPOCH_LIMIT, GTRID_LIMIT, PARTICIPANT_LIMIT,
    POSTGRES_GID_LIMIT, TXID_LIMIT, TransactionName, XA_FORMAT_ID,
};
pub use outcome::{Doubt, Heuristic, InDoubt, Outcome, Proof, Refusal, State, Vote};
pub use own::OwnBranch;
pub use postgres::Postgres;
pub use recovery::{Alarm, Counts, Decision, Oracle, Recovery, RecoverySettings, Scanned};
pub use share::{MERGED_STATEMENTS, SHARED_STATEMENTS};
pub use spec::{BranchSpec, Kind, Participants, ParticipantsConfig};
pub use work::{
    ACTION_LIMIT, HttpWork, Isolation, PARAMETERS_LIMIT, Parameter, SQL_LIMIT, STATEMENTS_LIMIT,
    SqlWork, Statement, WORK_LIMIT, Work,
};
