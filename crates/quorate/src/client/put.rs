//! `quorate put`.

use super::Connection;
use crate::exit::Failure;
use crate::output::{Output, key_value, print_json, say, text};
use clap::Args;
use quorate_wire::etcdserverpb::PutRequest;
use serde_json::json;
use std::io::Read;

/// What to write.
#[derive(Args, Debug)]
pub struct Arguments {
    /// The key
    key: String,
    /// The value; `-` reads it from standard input
    value: String,
    /// Attach the key to this lease (hexadecimal)
    #[arg(long, default_value = "0", value_parser = hexadecimal)]
    lease: i64,
    /// Also print what was there before
    #[arg(long)]
    prev_kv: bool,
}

fn hexadecimal(text: &str) -> Result<i64, String> {
    i64::from_str_radix(text, 16).map_err(|_| "not a hexadecimal number".to_owned())
}

pub(crate) async fn run(connection: Connection, arguments: Arguments) -> Result<(), Failure> {
    let value = match arguments.value.as_str() {
        "-" => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value)?;
            value
        }
        value => value.as_bytes().to_vec(),
    };
    let request = PutRequest {
        key: arguments.key.into_bytes().into(),
        value: value.into(),
        lease: arguments.lease,
        prev_kv: arguments.prev_kv,
        ..Default::default()
    };
    let response = connection.client()?.put(request).await?;
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if connection.output == Output::Json {
        let previous = response.prev_kv.as_ref().map(key_value);
        return print_json(&json!({ "revision": revision, "prev_kv": previous }));
    }
    say!("OK, revision {revision}");
    if let Some(previous) = response.prev_kv {
        say!("before: {} (revision {})", text(&previous.value), previous.mod_revision);
    }
    Ok(())
}
