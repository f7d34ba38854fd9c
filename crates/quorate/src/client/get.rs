//! `quorate get`.

use super::Connection;
use super::range::Keys;
use crate::exit::Failure;
use crate::output::{Output, key_value, print, print_json, say, table, text};
use clap::Args;
use quorate_wire::etcdserverpb::RangeRequest;
use serde_json::{Value, json};

/// What to read.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    keys: Keys,
    /// At most so many keys; 0 is all
    #[arg(long, default_value_t = 0)]
    limit: i64,
    /// As of this revision; 0 is now
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Let the asked node answer from its own state, which may be behind
    #[arg(long)]
    serializable: bool,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are
    #[arg(long)]
    count_only: bool,
    /// Only the values, as they are
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    value_only: bool,
}

pub(crate) async fn run(connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    let (key, range_end) = arguments.keys.bounds();
    let request = RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        limit: arguments.limit,
        revision: arguments.rev,
        serializable: arguments.serializable,
        keys_only: arguments.keys_only,
        count_only: arguments.count_only,
        ..Default::default()
    };
    let response = connection.client()?.range(request).await?;
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if connection.output == Output::Json {
        let kvs: Vec<Value> = response.kvs.iter().map(key_value).collect();
        let more = response.more;
        return print_json(
            &json!({ "revision": revision, "kvs": kvs, "count": response.count, "more": more }),
        );
    }
    if arguments.count_only {
        say!("{}", response.count);
        return Ok(());
    }
    if arguments.value_only {
        let mut all = Vec::new();
        for kv in &response.kvs {
            all.extend_from_slice(&kv.value);
            all.push(b'\n');
        }
        print(&all);
        return Ok(());
    }
    let mut rows = table(&["key", "value", "revision", "version", "lease"]);
    for kv in &response.kvs {
        let lease = if kv.lease == 0 { String::new() } else { format!("{:x}", kv.lease) };
        let revision = kv.mod_revision.to_string();
        rows.add_row([text(&kv.key), text(&kv.value), revision, kv.version.to_string(), lease]);
    }
    if !response.kvs.is_empty() {
        say!("{rows}");
    }
    match response.count {
        1 => say!("1 key at revision {revision}"),
        n if response.more => say!("{} of {n} keys at revision {revision}", response.kvs.len()),
        n => say!("{n} keys at revision {revision}"),
    }
    Ok(())
}
