//! One session with the server.
//!
//! Made without the driver's own pool, which resets what it gets back (COM_RESET_CONNECTION): on a
//! session with a prepared branch the server then forgets the branch, answers a later XA COMMIT
//! with "ok", changes nothing, and keeps the locks until it is restarted.

use super::{SESSION_LIMIT, answers};
use crate::config::DatabaseConfig;
use crate::deadline::Deadline;
use crate::error::Error;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row};
use std::sync::Arc;
use std::time::Duration;

/// The most statements that a session keeps prepared.
const STATEMENTS_KEPT: usize = 64;
/// The longest row that is read, in bytes.
const PACKET_LIMIT: usize = 16 << 20;

pub(super) async fn connect(
    name: &Arc<str>,
    config: &DatabaseConfig,
    deadline: Deadline,
) -> Result<Conn, Error> {
    let doing = "connecting";
    // Given, so that the driver does not ask the server for them.
    let seconds = usize::try_from(SESSION_LIMIT.as_secs()).unwrap_or(usize::MAX);
    let mut options = OptsBuilder::default()
        .user(Some(&config.user))
        .pass(config.password()?)
        .db_name(Some(&config.database))
        .prefer_socket(false)
        .stmt_cache_size(STATEMENTS_KEPT)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .max_allowed_packet(Some(PACKET_LIMIT))
        .wait_timeout(Some(seconds))
        // Rows that a statement found count as affected, changed or not: as in PostgreSQL.
        .client_found_rows(true)
        .init(vec![format!(
            "SET SESSION wait_timeout = {seconds}, autocommit = 1, completion_type = 0"
        )]);
    options = match config.host.starts_with('/') {
        true => options.socket(Some(&config.host)),
        false => options.ip_or_hostname(&config.host).tcp_port(config.port.unwrap_or(3306)),
    };
    match deadline.at_most(config.connect_timeout()).bound(Conn::new(options)).await {
        None => Err(Error::TooLate { manager: name.clone(), doing }),
        Some(Err(error)) => Err(answers::error(name, &config.user, doing, &error)),
        Some(Ok(session)) => Ok(session),
    }
}

/// Runs statements, parted by semicolons, and returns the rows of all of them. The server stops at
/// the first that fails.
pub(super) async fn run(session: &mut Conn, sql: &str) -> Result<Vec<Row>, mysql_async::Error> {
    let mut result = session.query_iter(sql).await?;
    let mut rows = Vec::new();
    while !result.is_empty() {
        rows.extend(result.collect::<Row>().await?);
    }
    result.drop_result().await?;
    Ok(rows)
}

/// The first column of the last row, as text.
pub(super) fn last_text(rows: &[Row]) -> Option<String> {
    rows.last().and_then(|row| text(row, 0))
}

/// A column of a row, as text.
pub(super) fn text(row: &Row, column: usize) -> Option<String> {
    row.get_opt::<String, _>(column).and_then(Result::ok)
}
