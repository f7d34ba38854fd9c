//! `quorate members`.

use super::Connection;
use crate::exit::Failure;
use crate::output::{Output, print_json, say, table};
use clap::Args;
use quorate_wire::etcdserverpb::MemberListRequest;
use serde_json::{Value, json};

/// Nothing to choose.
#[derive(Args, Debug)]
pub struct Arguments {}

pub(crate) async fn run(connection: Connection, _: Arguments) -> Result<(), Failure> {
    let request = MemberListRequest { linearizable: true };
    let listed = connection.client()?.member_list(request).await?;
    if connection.output == Output::Json {
        let members: Vec<Value> = listed
            .members
            .iter()
            .map(|member| {
                json!({
                    "id": member.id,
                    "name": member.name,
                    "peer_urls": member.peer_ur_ls,
                    "client_urls": member.client_ur_ls,
                    "is_learner": member.is_learner,
                })
            })
            .collect();
        return print_json(&Value::Array(members));
    }
    let mut rows = table(&["member", "name", "peer addresses", "client addresses", "kind"]);
    for member in &listed.members {
        let name = if member.name.is_empty() { "(not started)" } else { member.name.as_str() };
        rows.add_row([
            format!("{:x}", member.id),
            name.to_owned(),
            member.peer_ur_ls.join("\n"),
            member.client_ur_ls.join("\n"),
            if member.is_learner { "learner" } else { "voter" }.to_owned(),
        ]);
    }
    say!("{rows}");
    Ok(())
}
