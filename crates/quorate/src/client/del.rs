//! `quorate del`.

use super::Connection;
use super::range::Keys;
use crate::exit::Failure;
use crate::output::{Output, key_value, print_json, say, table, text};
use clap::Args;
use quorate_wire::etcdserverpb::DeleteRangeRequest;
use serde_json::{Value, json};

/// What to delete.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    keys: Keys,
    /// Also print what was deleted
    #[arg(long)]
    prev_kv: bool,
}

pub(crate) async fn run(connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    let (key, range_end) = arguments.keys.bounds();
    let prev_kv = arguments.prev_kv;
    let request = DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv };
    let response = connection.client()?.delete_range(request).await?;
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if connection.output == Output::Json {
        let previous: Vec<Value> = response.prev_kvs.iter().map(key_value).collect();
        return print_json(
            &json!({ "revision": revision, "deleted": response.deleted, "prev_kvs": previous }),
        );
    }
    if !response.prev_kvs.is_empty() {
        let mut rows = table(&["key", "value", "revision"]);
        for kv in &response.prev_kvs {
            rows.add_row([text(&kv.key), text(&kv.value), kv.mod_revision.to_string()]);
        }
        say!("{rows}");
    }
    say!("{} deleted, revision {revision}", response.deleted);
    Ok(())
}
