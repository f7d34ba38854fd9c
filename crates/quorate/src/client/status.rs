//! `quorate status`: every endpoint is asked for itself, so that a dead one is a row and no error.

use super::Connection;
use crate::exit::Failure;
use crate::output::{Output, print_json, say, size, table};
use clap::Args;
use quorate_client::{Client, Endpoint};
use quorate_wire::etcdserverpb::{StatusRequest, StatusResponse};
use serde_json::{Value, json};

/// Which endpoints.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Ask the cluster for its members and show all of them
    #[arg(long)]
    cluster: bool,
}

pub(crate) async fn run(connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    let mut config = connection.config()?;
    if arguments.cluster {
        config.endpoints = Client::new(config.clone()).discover().await?;
    }
    let mut answers = Vec::new();
    for endpoint in config.endpoints.clone() {
        let mut one = config.clone();
        one.endpoints = vec![endpoint.clone()];
        let answer = Client::new(one).status(StatusRequest {}).await;
        answers.push((endpoint, answer.map_err(Failure::from)));
    }
    match connection.output {
        Output::Json => {
            let rows: Vec<Value> = answers.iter().map(|(e, answer)| as_json(e, answer)).collect();
            print_json(&Value::Array(rows))?;
        }
        Output::Table => print_table(&answers),
    }
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return Err(Failure::Unavailable("no endpoint answered".to_owned()));
    }
    Ok(())
}

type Asked = Result<StatusResponse, Failure>;

/// What the node takes itself for.
pub fn role(status: &StatusResponse) -> &'static str {
    let me = status.header.as_ref().map_or(0, |header| header.member_id);
    match (status.is_learner, status.leader) {
        (true, _) => "learner",
        (_, 0) => "no leader",
        (_, leader) if leader == me => "leader",
        _ => "follower",
    }
}

fn as_json(endpoint: &Endpoint, answer: &Asked) -> Value {
    match answer {
        Err(error) => json!({ "endpoint": endpoint.to_string(), "error": error.to_string() }),
        Ok(status) => json!({
            "endpoint": endpoint.to_string(),
            "member_id": status.header.as_ref().map(|h| h.member_id),
            "cluster_id": status.header.as_ref().map(|h| h.cluster_id),
            "revision": status.header.as_ref().map(|h| h.revision),
            "role": role(status),
            "leader": status.leader,
            "version": status.version,
            "db_size": status.db_size,
            "raft_term": status.raft_term,
            "raft_index": status.raft_index,
            "raft_applied_index": status.raft_applied_index,
            "errors": status.errors,
        }),
    }
}

fn print_table(answers: &[(Endpoint, Asked)]) {
    let header = ["endpoint", "member", "role", "term", "applied", "revision", "size", "remarks"];
    let mut rows = table(&header);
    for (endpoint, answer) in answers {
        match answer {
            Err(error) => {
                let blank = || "-".to_owned();
                let mut row = vec![endpoint.to_string()];
                row.extend(std::iter::repeat_with(blank).take(header.len() - 2));
                row.push(error.to_string());
                rows.add_row(row);
            }
            Ok(status) => {
                let header = status.header.unwrap_or_default();
                rows.add_row([
                    endpoint.to_string(),
                    format!("{:x}", header.member_id),
                    role(status).to_owned(),
                    status.raft_term.to_string(),
                    status.raft_applied_index.to_string(),
                    header.revision.to_string(),
                    size(status.db_size),
                    status.errors.join("; "),
                ]);
            }
        }
    }
    say!("{rows}");
}
