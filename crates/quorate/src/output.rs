//! Answers for people (tables) and for programs (JSON).

use crate::exit::Failure;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use quorate_wire::mvccpb::KeyValue;
use serde_json::{Value, json};
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Default, ValueEnum, Debug)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs; keys and values are base64, for they need not be text.
    Json,
}

/// A table without frills, so that it can also be cut by columns.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(header.iter().copied());
    table
}

/// Whether whoever read standard output has closed it.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Prints to standard output, as everything of ours is printed. A closed pipe (`quorate man |
/// head`) is a reader who has seen enough: what else there is to say is not said, and how the
/// command ends is not changed by it. Elsewhere (a full disk) nobody would learn what the command
/// has done.
pub fn print(text: &[u8]) {
    if CLOSED.load(Relaxed) {
        return;
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => CLOSED.store(true, Relaxed),
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            std::process::exit(4);
        }
    }
}

/// Whether nobody reads standard output any more: a command without an end of its own ends then.
pub fn is_closed() -> bool {
    CLOSED.load(Relaxed)
}

/// Prints a line: see [`print`].
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::print(format!("{}\n", format_args!($($text)*)).as_bytes())
    };
}
pub(crate) use say;

/// Prints one JSON document on a line.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    say!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// Bytes for people: text as it is, everything else escaped.
pub fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.into(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Bytes for programs.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A key for programs, with etcd's field names.
pub fn key_value(kv: &KeyValue) -> Value {
    json!({
        "key": base64(&kv.key),
        "value": base64(&kv.value),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": kv.lease,
    })
}

/// Bytes with a unit, as 1.5 MiB.
pub fn size(bytes: i64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if size < 1024.0 || unit == "GiB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") };
        }
        size /= 1024.0;
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_where_they_are_text() {
        assert_eq!(text("grüezi".as_bytes()), "grüezi");
        assert_eq!(text(b"\xff\0"), "\\xff\\x00");
        assert_eq!(text(b"a\x1b[31m"), "a\\x1b[31m", "nobody repaints the terminal");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!([size(0), size(1023), size(1536)], ["0 B", "1023 B", "1.5 KiB"]);
        assert_eq!(size(3 << 40), "3072.0 GiB");
    }
}
