//! Whether a server is fit for transactions, and the setup of the fence.

use super::session::text;
use super::{MariaDb, answers};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::fence;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

const CHECKING: &str = "checking its settings";

const QUESTION: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
     ('version', 'innodb_flush_log_at_trx_commit', 'wsrep_on', 'read_only'); \
     SELECT 'fence', engine FROM information_schema.tables \
     WHERE table_schema = database() AND table_name = 'quorate_fence'";

/// Each right to the fence, by a statement that needs it and touches no row: without one of them a
/// branch could be prepared and committed, and its commit not be proven.
const RIGHTS: [(&str, &str); 3] = [
    ("SELECT", "SELECT kind FROM quorate_fence WHERE 1 = 0"),
    (
        "INSERT",
        "INSERT INTO quorate_fence (gid, branch, kind) \
         SELECT '', '', 'commit' FROM DUAL WHERE 1 = 0",
    ),
    ("DELETE", "DELETE FROM quorate_fence WHERE 1 = 0"),
];

/// The first version whose prepared branches survive the end of their session.
const OLDEST: (u32, u32) = (10, 5);

impl MariaDb {
    /// The same, but only if the server may have changed since it was found fit.
    pub(super) async fn check_once(&self, deadline: Deadline) -> Result<(), Error> {
        match self.fit.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.check_now(deadline).await,
        }
    }

    pub(super) async fn check_now(&self, deadline: Deadline) -> Result<(), Error> {
        let rows = self.ask(QUESTION, CHECKING, deadline).await?;
        let values: BTreeMap<String, String> =
            rows.iter().filter_map(|row| Some((text(row, 0)?, text(row, 1)?))).collect();
        self.judge(&values)?;
        self.check_rights(deadline).await?;
        self.fit.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn check_rights(&self, deadline: Deadline) -> Result<(), Error> {
        let mut missing = Vec::new();
        for (right, statement) in RIGHTS {
            match self.ask(statement, CHECKING, deadline).await {
                Ok(_) => {}
                Err(Error::Refused { code, .. }) if answers::is_denied(&code) => {
                    missing.push(right);
                }
                Err(error) => return Err(error),
            }
        }
        match missing.is_empty() {
            true => Ok(()),
            false => {
                let (user, missing) = (&self.config.user, missing.join(", "));
                let said = format!("user {user:?} may not {missing} there: grant it");
                Err(Error::NotSetUp { manager: self.name.clone(), said })
            }
        }
    }

    fn judge(&self, values: &BTreeMap<String, String>) -> Result<(), Error> {
        let value = |name: &str| values.get(name).map_or("", String::as_str);
        let unfit = |setting: &str, wanted: &str| {
            Err(Error::Setting {
                manager: self.name.clone(),
                setting: setting.to_owned(),
                found: value(setting).to_owned(),
                wanted: wanted.to_owned(),
            })
        };
        let version = value("version");
        let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let number = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if !version.contains("MariaDB") || number < OLDEST {
            return unfit(
                "version",
                "only MariaDB from 10.5 on keeps a prepared branch when its session ends",
            );
        }
        if value("wsrep_on") == "ON" {
            return unfit("wsrep_on", "Galera does not support XA: use a server outside of it");
        }
        if value("read_only") == "ON" {
            return unfit("read_only", "a replica takes no writes: use the primary");
        }
        let flush = "innodb_flush_log_at_trx_commit";
        if value(flush) != "1" && !self.config.allow_unsafe_durability {
            return unfit(
                flush,
                "a power cut could make it forget a vote. Set it to 1, or allow it with \
                 allow-unsafe-durability",
            );
        }
        let no_fence =
            |said: &str| Err(Error::NotSetUp { manager: self.name.clone(), said: said.to_owned() });
        match value("fence") {
            "InnoDB" => Ok(()),
            "" => no_fence("there is none in the database"),
            engine => no_fence(&format!("its engine is {engine}, which has no transactions")),
        }
    }

    pub(super) async fn create_fence(&self, deadline: Deadline) -> Result<(), Error> {
        self.ask(fence::MARIADB_SETUP, "creating the table quorate_fence", deadline).await?;
        Ok(())
    }
}
