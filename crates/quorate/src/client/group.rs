//! `quorate group`: how the groups stand, and which protocol they run under.
//!
//! A member knows only the groups that it has a replica of, so every member is asked; of a group
//! the row of whoever is furthest is shown.

use super::Connection;
use crate::exit::Failure;
use crate::output::{Output, print_json, say, table};
use clap::{Args, Subcommand};
use quorate_client::{Client, Config, Error};
use quorate_wire::quorate::{Group, ListGroupsRequest, SwitchGroupRequest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What to do.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List the groups: their keyspaces, protocols, leaders and members
    List,
    /// Let a group go on under another protocol, while it serves
    Switch(Switch),
}

#[derive(Args, Debug)]
struct Switch {
    /// The group, by its number; otherwise `--keyspace` names it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    group: Option<u64>,
    /// The protocol: `raft` or `paxos`
    #[arg(long, value_name = "PROTOCOL")]
    to: String,
    /// Only the end of this epoch: then the command may be repeated
    #[arg(long, value_name = "NUMBER")]
    epoch: Option<u32>,
}

pub(crate) async fn run(mut connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    // It says which group is meant, not where the calls go.
    let name = connection.keyspace.take();
    let client = connection.client()?;
    // Where it fails, what was given has to do.
    let _ = client.discover().await;
    let mut config = connection.config()?;
    config.endpoints = client.endpoints();
    let known = gather(&config).await?;
    match arguments.action {
        Action::List => print(&connection, &known),
        Action::Switch(wanted) => {
            let switched =
                switch(&config, &client, meant(&known, wanted.group, name)?, wanted).await?;
            if connection.output == Output::Json {
                return print_json(&as_json(&switched));
            }
            let Group { id, keyspace, protocol, epoch, .. } = switched;
            say!("OK, group {id} (keyspace {keyspace}) is under {protocol}, in epoch {epoch}");
            Ok(())
        }
    }
}

/// Asks every member for its groups.
async fn gather(config: &Config) -> Result<Vec<Group>, Failure> {
    let mut asked = JoinSet::new();
    for endpoint in &config.endpoints {
        let mut one = config.clone();
        one.endpoints = vec![endpoint.clone()];
        // A member that is down must not use up the time of the others.
        one.timeout = one.timeout.min(Duration::from_secs(2));
        asked.spawn(async move { Client::new(one).group_list(ListGroupsRequest {}).await });
    }
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    let (mut answered, mut error) = (false, None);
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(listed)) => {
                answered = true;
                listed.groups.into_iter().for_each(|group| keep_furthest(&mut groups, group));
            }
            Ok(Err(why)) => error = Some(Failure::from(why)),
            Err(why) => error = Some(Failure::Failed(why.to_string())),
        }
    }
    match error {
        Some(error) if !answered => Err(error),
        _ => Ok(groups.into_values().collect()),
    }
}

fn keep_furthest(groups: &mut BTreeMap<u64, Group>, found: Group) {
    let rank = |g: &Group| (g.here, g.epoch, g.leader != 0, g.commit_index);
    let known = groups.entry(found.id).or_insert_with(|| found.clone());
    if rank(&found) > rank(known) {
        *known = found;
    }
}

/// Asks one member after the other for the switch until one has an answer.
async fn switch(
    config: &Config,
    client: &Client,
    group: &Group,
    Switch { to, epoch, .. }: Switch,
) -> Result<Group, Failure> {
    let (id, keyspace) = (group.id, &group.keyspace);
    if epoch.is_none() && group.here && group.protocol == to {
        let epoch = group.epoch;
        let why =
            format!("group {id} (keyspace {keyspace}) is under {to} already, in epoch {epoch}");
        return Err(Failure::Failed(why));
    }
    if !group.here {
        let why = format!("no member that answered has a replica of group {id} ({keyspace})");
        return Err(Failure::Unavailable(why));
    }
    let epoch = epoch.unwrap_or(group.epoch);
    let deadline = Instant::now() + config.timeout;
    loop {
        // The member answers before this end gives up.
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u32::try_from((left * 4 / 5).as_millis()).unwrap_or(u32::MAX).max(1);
        let request = SwitchGroupRequest {
            group: id,
            keyspace: keyspace.clone(),
            protocol: to.clone(),
            epoch: Some(epoch),
            timeout_ms,
        };
        let error = match client.group_switch(request).await {
            Ok(done) => return Ok(done.group.unwrap_or_default()),
            Err(error) => error,
        };
        match error {
            // A member that died, or that has no replica of it: another one may do.
            Error::Unknown { .. } | Error::Unavailable { .. }
                if deadline.saturating_duration_since(Instant::now()) > config.timeout / 4 =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Error::Unknown { last } | Error::Unavailable { last } => {
                let why = format!(
                    "group {id} is not known to have been switched: {last}. Asking again with \
                     --epoch {epoch} does nothing twice"
                );
                return Err(Failure::Unavailable(why));
            }
            other => return Err(other.into()),
        }
    }
}

/// The group of this number, of this name, or of both.
fn meant(known: &[Group], number: Option<u64>, name: Option<String>) -> Result<&Group, Failure> {
    if number.is_none() && name.is_none() {
        let why = "which group? Say --group and its number, or --keyspace and its name";
        return Err(Failure::Usage(why.to_owned()));
    }
    let is_meant = |group: &&Group| {
        number.is_none_or(|number| group.id == number)
            && name.as_ref().is_none_or(|name| group.keyspace == *name)
    };
    known.iter().find(is_meant).ok_or_else(|| {
        let number = number.map(|number| format!(" {number}")).unwrap_or_default();
        let name = name.map(|name| format!(" of a keyspace {name}")).unwrap_or_default();
        Failure::Failed(format!("there is no group{number}{name}: `quorate group list` shows them"))
    })
}

fn as_json(group: &Group) -> Value {
    let mut all = json!({
        "group": group.id,
        "keyspace": group.keyspace,
        "voters": group.voters,
        "learners": group.learners,
    });
    if group.here {
        all["protocol"] = json!(group.protocol);
        all["epoch"] = json!(group.epoch);
        all["leader"] = json!(group.leader);
        all["term"] = json!(group.term);
        all["commit_index"] = json!(group.commit_index);
        all["applied_index"] = json!(group.applied_index);
    }
    all
}

fn print(connection: &Connection, all: &[Group]) -> Result<(), Failure> {
    if connection.output == Output::Json {
        return print_json(&Value::Array(all.iter().map(as_json).collect()));
    }
    let header = ["group", "keyspace", "protocol", "epoch", "leader", "members", "committed"];
    let mut rows = table(&header);
    for group in all {
        let voters = group.voters.iter().map(|id| format!("{id:x}"));
        let learners = group.learners.iter().map(|id| format!("{id:x} (learner)"));
        let members: Vec<String> = voters.chain(learners).collect();
        let or_dash = |text: String| if group.here { text } else { "-".to_owned() };
        let leader = match group.leader {
            0 => "(none known)".to_owned(),
            leader => format!("{leader:x}"),
        };
        rows.add_row([
            group.id.to_string(),
            group.keyspace.clone(),
            or_dash(group.protocol.clone()),
            or_dash(group.epoch.to_string()),
            or_dash(leader),
            members.join("\n"),
            or_dash(group.commit_index.to_string()),
        ]);
    }
    say!("{rows}");
    Ok(())
}
