//! `quorate watch`.

use super::Connection;
use super::range::Keys;
use crate::exit::Failure;
use crate::output::{Output, is_closed, key_value, print_json, say, text};
use clap::Args;
use quorate_wire::etcdserverpb::WatchCreateRequest;
use quorate_wire::mvccpb::Event;
use quorate_wire::mvccpb::event::EventType;
use serde_json::json;

/// What to watch.
#[derive(Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    keys: Keys,
    /// Begin with this revision; 0 is from now on
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// Also print what was there before
    #[arg(long)]
    prev_kv: bool,
    /// End after so many changes
    #[arg(long)]
    events: Option<u64>,
}

pub(crate) async fn run(connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    let (key, range_end) = arguments.keys.bounds();
    let request = WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        start_revision: arguments.rev,
        prev_kv: arguments.prev_kv,
        ..Default::default()
    };
    let mut watcher = connection.client()?.watch(request).await?;
    let mut left = arguments.events.unwrap_or(u64::MAX);
    while left > 0 {
        let response = tokio::select! {
            response = watcher.next() => response?,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        for event in &response.events {
            print(event, connection.output)?;
            left -= 1;
            if left == 0 || is_closed() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn print(event: &Event, output: Output) -> Result<(), Failure> {
    let Some(kv) = &event.kv else { return Ok(()) };
    let kind = if event.r#type() == EventType::Delete { "DELETE" } else { "PUT" };
    if output == Output::Json {
        let previous = event.prev_kv.as_ref().map(key_value);
        return print_json(&json!({ "type": kind, "kv": key_value(kv), "prev_kv": previous }));
    }
    let mut line = format!("{:>8}  {kind:<6}  {}", kv.mod_revision, text(&kv.key));
    if kind == "PUT" {
        line += &format!(" = {}", text(&kv.value));
    }
    if let Some(previous) = &event.prev_kv {
        line += &format!("  (before: {})", text(&previous.value));
    }
    say!("{line}");
    Ok(())
}
