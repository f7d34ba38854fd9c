//! `quorate txn name`: how to prepare a branch oneself.

use super::super::Connection;
use crate::exit::Failure;
use crate::output::{Output, print_json, say};
use clap::Args;
use quorate_wire::quorate::NameBranchRequest;
use serde_json::json;
use std::time::Duration;

/// Which branch.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The id of the transaction that it is for
    id: String,
    /// Its name in that
    #[arg(long)]
    branch: String,
    #[command(flatten)]
    participant: Participant,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Participant {
    /// At this PostgreSQL database, as the nodes' file of participants calls it
    #[arg(long, value_name = "NAME")]
    postgres: Option<String>,
    /// At this MariaDB database
    #[arg(long, value_name = "NAME")]
    mariadb: Option<String>,
    /// At this HTTP service
    #[arg(long, value_name = "NAME")]
    http: Option<String>,
}

pub(super) async fn run(connection: &Connection, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { id, branch, participant } = arguments;
    let named = [
        ("postgres", participant.postgres),
        ("mariadb", participant.mariadb),
        ("http", participant.http),
    ];
    // There is exactly one, the command line has seen to that.
    let mut named = named.into_iter().filter_map(|(kind, name)| name.map(|name| (kind, name)));
    let (kind, participant) = named.next().unwrap_or_default();
    let end = if kind == "http" { "" } else { ";" };
    let kind = kind.to_owned();
    let request = NameBranchRequest { transaction: id, branch, kind, participant };
    let it = connection.client()?.transaction_name(request).await?;
    if connection.output == Output::Json {
        return print_json(&json!({
            "prepared": it.prepared,
            "before": it.before,
            "after": it.after,
            "hand_in_ms": it.hand_in_ms,
        }));
    }
    for statement in &it.before {
        say!("{statement}{end}");
    }
    if !it.after.is_empty() {
        say!("-- your own statements");
    }
    for statement in &it.after {
        say!("{statement};");
    }
    let hand_in = humantime::format_duration(Duration::from_millis(it.hand_in_ms));
    say!("-- then, within {hand_in}, a branch with: prepared = {:?}", it.prepared);
    Ok(())
}
