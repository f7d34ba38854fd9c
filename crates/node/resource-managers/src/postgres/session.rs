//! One session with the server, and the statements that are prepared in it.

use super::answers;
use crate::config::DatabaseConfig;
use crate::deadline::Deadline;
use crate::error::Error;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, Statement};

/// The most statements that a session keeps prepared.
const STATEMENTS_KEPT: usize = 64;

/// What makes a session harmless outside of a branch: see the module above.
const OPTIONS: &str = "-c default_transaction_read_only=on";

/// Takes back what a branch can have left in its session, but for the prepared statements: settings
/// (`SELECT set_config(…)`), the role, locks, what it listens to. As DISCARD ALL, which would also
/// forget the statements. Our own [`OPTIONS`] are what settings are taken back to.
const RESET: &str = "CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD SEQUENCES; DISCARD TEMP";

pub(super) struct Session {
    pub(super) client: Client,
    connection: JoinHandle<()>,
    statements: BTreeMap<String, Statement>,
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Ends a branch's transaction by this order, and takes back what it has left in the session,
    /// in the same round trip: the order's answer, and whether the session is as if it were new.
    pub(super) async fn end(&self, order: &str) -> (Result<(), tokio_postgres::Error>, bool) {
        let order = self.client.batch_execute(order);
        let reset = self.client.batch_execute(RESET);
        let (ended, reset) = futures_util::future::join(order, reset).await;
        (ended, reset.is_ok())
    }

    /// The prepared form of a statement, made now if it is new.
    pub(super) async fn statement(
        &mut self,
        sql: &str,
    ) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        if self.statements.len() >= STATEMENTS_KEPT {
            self.statements.clear();
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Closes the socket even where nothing moves on it any more.
        self.connection.abort();
    }
}

pub(super) async fn connect(
    name: &Arc<str>,
    config: &DatabaseConfig,
    deadline: Deadline,
) -> Result<Session, Error> {
    let doing = "connecting";
    let mut settings = tokio_postgres::Config::new();
    settings.host(&config.host).port(config.port.unwrap_or(5432)).user(&config.user);
    settings.dbname(&config.database).application_name("quorate").options(OPTIONS);
    if let Some(password) = config.password()? {
        settings.password(password);
    }
    let connecting = settings.connect(NoTls);
    match deadline.at_most(config.connect_timeout()).bound(connecting).await {
        None => Err(Error::TooLate { manager: name.clone(), doing }),
        Some(Err(error)) => Err(answers::error(name, &config.user, doing, &error)),
        Some(Ok((client, connection))) => {
            let connection = tokio::spawn(async move {
                // Whoever waits for an answer gets the error.
                let _ = connection.await;
            });
            Ok(Session { client, connection, statements: BTreeMap::new() })
        }
    }
}
