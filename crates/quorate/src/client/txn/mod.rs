//! `quorate txn`.

mod alarms;
mod file;
mod name;
mod print;

use super::Connection;
use crate::exit::Failure;
use crate::output::{Output, print_json, say};
use clap::{Args, Subcommand};
use quorate_base::Rng;
use quorate_client::Error;
use quorate_wire::quorate::{
    CancelTransactionRequest, ListTransactionsRequest, RunTransactionRequest,
    RunTransactionResponse, ShowTransactionRequest, Transaction, TransactionState,
};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

/// What a member may take longer than a transaction's patience, and a little more, so that we hear
/// what it knows by then.
const GRACE: Duration = Duration::from_secs(7);

/// What to do.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Run the transaction of a file: every branch commits, or none does
    Run {
        /// The file, in TOML; `-` is standard input
        file: PathBuf,
        /// Its id, instead of the file's; run again under the same one it is not done twice
        #[arg(long)]
        id: Option<String>,
        /// Answer when it is decided, without waiting for it to be carried out everywhere
        #[arg(long)]
        no_wait: bool,
    },
    /// List those that are not over, and the latest of those that are
    List {
        /// At most so many of each
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Roll one back that is not decided yet
    Cancel {
        /// Its id
        id: String,
    },
    /// Tell how to prepare a branch yourself, and what to hand in
    Name(name::Arguments),
    /// List the branches that somebody ended against the decision
    Alarms,
    /// End the alarms about a transaction: you have seen to them
    Acknowledge {
        /// Its id
        id: String,
        /// One branch of it [default: all]
        #[arg(long)]
        branch: Option<String>,
    },
    /// Show one: every branch, the decision, and what it waits for
    Show {
        /// Its id
        id: String,
    },
}

pub(crate) async fn run(connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    match arguments.action {
        Action::Run { file, id, no_wait } => {
            let mut request = file::read(&file)?;
            if let Some(id) = id {
                request.id = id;
            }
            if request.id.is_empty() {
                request.id = fresh_id();
                // Known before anything is done, so that it can be asked for whatever happens.
                eprintln!("transaction {}", request.id);
            }
            request.applied = !no_wait;
            transact(connection, request).await
        }
        Action::List { limit } => {
            let request = ListTransactionsRequest { limit };
            let listed = connection.client()?.transaction_list(request).await?.transactions;
            match connection.output {
                Output::Json => print_json(&listed.iter().map(print::json).collect()),
                Output::Table => {
                    say!("{}", print::list(&listed));
                    Ok(())
                }
            }
        }
        Action::Cancel { id } => {
            let request = CancelTransactionRequest { id };
            let mut config = connection.config()?;
            // Another member would take it over, and wait for the same.
            config.attempt_timeout = config.timeout;
            let told = quorate_client::Client::new(config).transaction_cancel(request).await?;
            cancelled(&connection, &told.transaction.unwrap_or_default())
        }
        Action::Name(arguments) => name::run(&connection, arguments).await,
        Action::Alarms => alarms::list(&connection).await,
        Action::Acknowledge { id, branch } => alarms::acknowledge(&connection, id, branch).await,
        Action::Show { id } => {
            let request = ShowTransactionRequest { id };
            let shown = connection.client()?.transaction_show(request).await?;
            let shown = shown.transaction.unwrap_or_default();
            match connection.output {
                Output::Json => print_json(&print::json(&shown)),
                Output::Table => {
                    print::one(&shown);
                    Ok(())
                }
            }
        }
    }
}

async fn transact(
    mut connection: Connection,
    request: RunTransactionRequest,
) -> Result<(), Failure> {
    // A transaction's own patience is longer than a read's.
    let patience = Duration::from_millis(request.patience_ms);
    connection.timeout = connection.timeout.max(patience + GRACE);
    let mut config = connection.config()?;
    // Another member is asked only when this one is gone: it would merely wait for the same.
    config.attempt_timeout = config.timeout;
    let id = request.id.clone();
    let ran = quorate_client::Client::new(config).transaction_run(request).await;
    let response = ran.map_err(|error| match error {
        Error::Unavailable { .. } | Error::Unknown { .. } => Failure::Unavailable(format!(
            "{error}\nThe transaction may be under way. Ask for it by `quorate txn show {id}`, or \
             run it again under the id {id}: it is not done twice"
        )),
        other => other.into(),
    })?;
    told(&connection, &response)
}

fn told(connection: &Connection, response: &RunTransactionResponse) -> Result<(), Failure> {
    let it = response.transaction.clone().unwrap_or_default();
    if connection.output == Output::Json {
        print_json(&print::ran(&it, &response.answers))?;
    }
    let outcome = match it.state() {
        TransactionState::RolledBack | TransactionState::RollingBack => {
            let guilty = match it.guilty_branch.as_str() {
                "" => String::new(),
                name => format!(" by branch {name}"),
            };
            Err(format!("transaction {} is rolled back{guilty}: {}", it.id, it.reason))
        }
        _ => Ok(()),
    };
    if outcome.is_ok() && connection.output == Output::Table {
        print::outcome(&it, &response.answers);
    }
    match (outcome, alarms(&it)) {
        (Ok(()), None) => Ok(()),
        (Err(why), None) => Err(Failure::Failed(why)),
        (Ok(()), Some(alarms)) => Err(Failure::Alarm(alarms)),
        (Err(why), Some(alarms)) => Err(Failure::Alarm(format!("{why}\n{alarms}"))),
    }
}

/// What is told of branches that somebody ended against the decision.
fn alarms(it: &Transaction) -> Option<String> {
    let against = it.branches.iter().filter(|branch| branch.state == "heuristic");
    let told: Vec<String> = against
        .map(|it| format!("branch {} ({} {}): {}", it.name, it.kind, it.participant, it.detail))
        .collect();
    (!told.is_empty()).then(|| {
        format!(
            "ALARM: of transaction {}, which is {}, somebody ended a branch otherwise: {}. \
             docs/in-doubt.md says what to do",
            it.id,
            print::state(it),
            told.join("; ")
        )
    })
}

/// How a transaction is decided that was to be cancelled.
fn cancelled(connection: &Connection, it: &Transaction) -> Result<(), Failure> {
    if connection.output == Output::Json {
        print_json(&print::json(it))?;
    }
    match it.state() {
        TransactionState::RolledBack | TransactionState::RollingBack => {
            if connection.output == Output::Table {
                say!("OK, transaction {} is rolled back: {}", it.id, it.reason);
            }
            alarms(it).map_or(Ok(()), |alarms| Err(Failure::Alarm(alarms)))
        }
        _ => {
            let why = "it was decided before, to commit";
            let text = format!("transaction {} is not cancelled: {why}", it.id);
            Err(match alarms(it) {
                Some(alarms) => Failure::Alarm(format!("{text}; {alarms}")),
                None => Failure::Failed(text),
            })
        }
    }
}

/// An id that nobody else has.
#[allow(clippy::disallowed_methods)] // For people: what is random is enough.
fn fresh_id() -> String {
    let seed = RandomState::new().build_hasher().finish();
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = time.map_or(0, |time| time.as_nanos());
    let mut rng = Rng::new(seed ^ u64::from(std::process::id()).rotate_left(32));
    format!("t-{:x}-{:016x}", nanos / 1_000_000, rng.next_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_wire::quorate::BranchStatus;

    #[test]
    fn a_branch_that_ended_against_the_decision_is_told_by_a_code_of_its_own() {
        let connection = Connection {
            endpoints: Vec::new(),
            keyspace: None,
            timeout: Duration::from_secs(1),
            output: Output::Table,
        };
        let code = |state: TransactionState, branch: &str| {
            let branch = BranchStatus {
                name: "debit".to_owned(),
                kind: "postgres".to_owned(),
                participant: "bank".to_owned(),
                state: branch.to_owned(),
                detail: "decided to commit, but it is not there".to_owned(),
                ..BranchStatus::default()
            };
            let mut it = Transaction { id: "order-1".to_owned(), ..Transaction::default() };
            it.set_state(state);
            it.branches = vec![branch];
            told(
                &connection,
                &RunTransactionResponse { transaction: Some(it), ..Default::default() },
            )
        };
        assert!(code(TransactionState::Committed, "committed").is_ok());
        // People have seen to it.
        assert!(code(TransactionState::Committed, "acknowledged").is_ok());
        for state in [TransactionState::Committing, TransactionState::RollingBack] {
            let Err(Failure::Alarm(why)) = code(state, "heuristic") else { panic!("{state:?}") };
            assert!(why.contains("branch debit (postgres bank): decided to commit"), "{why}");
        }
        let refused = code(TransactionState::RolledBack, "refused");
        assert!(matches!(refused, Err(Failure::Failed(_))), "{refused:?}");
    }
}
