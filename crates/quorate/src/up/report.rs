//! What the person in front of `up` sees.

use super::plan::Seat;
use crate::client::status::role;
use crate::output::{say, table};
use quorate_client::{Client, Config};
use quorate_wire::etcdserverpb::StatusRequest;
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// A node's role, as it says itself; nothing if it does not answer.
pub async fn ask_role(client_address: &str) -> Option<&'static str> {
    let mut config = Config::of([client_address]).ok()?;
    config.timeout = ANSWER_WITHIN;
    let status = Client::new(config).status(StatusRequest {}).await.ok()?;
    Some(role(&status))
}

/// The roles of all nodes that run, in order; `None` for those that do not answer.
pub async fn roles(nodes: impl Iterator<Item = (&Seat, bool)>) -> Vec<Option<&'static str>> {
    let mut roles = Vec::new();
    for (seat, runs) in nodes {
        roles.push(match runs {
            true => ask_role(&seat.client).await,
            false => None,
        });
    }
    roles
}

/// Prints the cluster.
pub fn print<'a>(nodes: impl Iterator<Item = (&'a Seat, Option<u32>, Option<&'static str>)>) {
    let mut rows = table(&["node", "pid", "client address", "peer address", "role"]);
    for (seat, pid, role) in nodes {
        let (pid, role) = match pid {
            Some(pid) => (pid.to_string(), role.unwrap_or("no answer")),
            None => ("-".to_owned(), "dead"),
        };
        rows.add_row([&seat.name, &pid, &seat.client, &seat.peer, role]);
    }
    say!("{rows}");
}
