//! Distributed transactions on a running node: the threads, clocks and participants around the
//! pure coordinator of `services/transactions`.
//!
//! | part | what it does |
//! | --- | --- |
//! | `service` | the node's transactions, and what clients ask about them: list, show |
//! | `run` | what becomes of a request to run one |
//! | `bundles` | requests that come at the same time, carried by one transaction |
//! | `drive` | one transaction: gives the coordinator what happens, and does what it says |
//! | `keyspace`, `manager` | the participants |
//! | `outbox` | what is asked of keyspaces, as much at once as there is |
//! | `store`, `writer` | the records, in the keyspace `transactions` |
//! | `open_in` | what is under way in a keyspace that is to be dropped |
//! | `open` | the records of transactions that are not over, in memory |
//! | `takeover` | ends what a lost or stuck coordinator left behind |
//! | `orphans` | ends branches that came late, and those that nobody knows |
//! | `cancel` | what a client does not want any more |
//! | `own` | branches that applications prepare themselves |
//! | `alarms` | what people have to see to |
//! | `tidy`, `traces` | forgets what ended long ago, here and at participants outside |
//! | `counts` | what `/metrics` tells |
//!
//! Invariants: the record decides, whoever holds it, or votes that nobody can take back; nothing
//! here is needed to be remembered when the node dies. Whatever is asked of a participant is asked
//! again until there is an answer.

mod alarms;
#[cfg(test)]
mod alone;
mod bundles;
mod cancel;
mod counts;
mod drive;
mod error;
#[cfg(test)]
mod fake;
mod keyspace;
mod live;
mod manager;
mod open;
mod open_in;
mod oracle;
mod orphans;
mod outbox;
mod own;
mod report;
mod request;
mod run;
mod service;
mod store;
mod takeover;
mod tidy;
mod traces;
mod writer;

pub use alarms::Alarms;
pub use counts::Counts;
pub use error::RunError;
pub use report::Report;
pub use request::{Branch, BranchWork, MAX_BYTES, Request, usual_protocol};
pub use service::{Settings, Transactions};
