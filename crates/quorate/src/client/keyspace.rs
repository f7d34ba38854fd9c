//! `quorate keyspace`.

use super::Connection;
use crate::exit::Failure;
use crate::output::{Output, print_json, say, table};
use clap::{Args, Subcommand};
use quorate_wire::quorate::{
    CreateKeyspaceRequest, DescribeKeyspaceRequest, DropKeyspaceRequest, Keyspace,
    ListKeyspacesRequest,
};
use serde_json::{Value, json};

/// What to do.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a keyspace, a store of its own with its own revisions
    Create {
        /// Its name
        name: String,
        /// How many members keep it: an odd number [default: 3, or 1 in a smaller cluster]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        replicas: Option<u32>,
        /// How its log is replicated: `raft` or `paxos`
        #[arg(long, default_value = "raft")]
        protocol: String,
    },
    /// List the keyspaces
    List,
    /// Describe a keyspace
    Describe {
        /// Its name
        name: String,
    },
    /// Drop a keyspace with everything in it, for ever
    Drop {
        /// Its name
        name: String,
        /// Yes, all of it
        #[arg(long)]
        yes: bool,
        /// Only if this is its id
        #[arg(long)]
        id: Option<u64>,
        /// Although transactions are open there: what was prepared there is lost
        #[arg(long)]
        force: bool,
    },
}

pub(crate) async fn run(connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    let client = connection.client()?;
    let describe = async |name: String| {
        let found = client.keyspace_describe(DescribeKeyspaceRequest { name }).await?;
        found.keyspace.ok_or_else(|| Failure::Failed("the answer has no keyspace".to_owned()))
    };
    match arguments.action {
        Action::Create { name, replicas, protocol } => {
            let replicas = replicas.unwrap_or(0);
            let request = CreateKeyspaceRequest { name, replicas, protocol };
            let made = client.keyspace_create(request).await?.keyspace.unwrap_or_default();
            match connection.output {
                Output::Json => print_json(&json_of(&made)),
                Output::Table => {
                    say!("OK, keyspace {} (id {})", made.name, made.id);
                    Ok(())
                }
            }
        }
        Action::List => {
            let listed = client.keyspace_list(ListKeyspacesRequest {}).await?;
            print(&connection, &listed.keyspaces)
        }
        Action::Describe { name } => match connection.output {
            Output::Json => print_json(&json_of(&describe(name).await?)),
            Output::Table => print(&connection, &[describe(name).await?]),
        },
        Action::Drop { name, yes, id, force } => {
            let known = describe(name.clone()).await?;
            if !yes && id.is_none() {
                return Err(Failure::Usage(format!(
                    "the keyspace {name} (id {}) holds {} keys, which will be lost: say --yes, or \
                     --id {}",
                    known.id, known.keys, known.id
                )));
            }
            let id = id.unwrap_or(known.id);
            client.keyspace_drop(DropKeyspaceRequest { name: name.clone(), id, force }).await?;
            match connection.output {
                Output::Json => print_json(&json!({ "name": name, "id": id, "dropped": true })),
                Output::Table => {
                    say!("OK, keyspace {name} (id {id}) is dropped");
                    Ok(())
                }
            }
        }
    }
}

fn json_of(known: &Keyspace) -> Value {
    json!({
        "name": known.name,
        "id": known.id,
        "protocol": known.protocol,
        "replicas_wanted": known.replicas_wanted,
        "replicas": known.replicas,
        "serving": known.serving,
        "leader": known.leader,
        "revision": known.revision,
        "keys": known.keys,
    })
}

fn print(connection: &Connection, all: &[Keyspace]) -> Result<(), Failure> {
    if connection.output == Output::Json {
        return print_json(&Value::Array(all.iter().map(json_of).collect()));
    }
    let header = ["keyspace", "id", "protocol", "replicas", "leader", "revision", "keys"];
    let mut rows = table(&header);
    for known in all {
        let replicas: Vec<String> = known.replicas.iter().map(|id| format!("{id:x}")).collect();
        let leader = match (known.serving, known.leader) {
            (false, _) => "(not serving yet)".to_owned(),
            (true, 0) => "(not known here)".to_owned(),
            (true, leader) => format!("{leader:x}"),
        };
        rows.add_row([
            known.name.clone(),
            known.id.to_string(),
            known.protocol.clone(),
            replicas.join("\n"),
            leader,
            known.revision.to_string(),
            known.keys.to_string(),
        ]);
    }
    say!("{rows}");
    Ok(())
}
