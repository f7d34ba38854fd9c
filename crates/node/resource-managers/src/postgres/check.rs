//! Whether a server is fit for transactions, and the setup of the fence.

use super::{Postgres, Session};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::fence;
use std::sync::atomic::Ordering;

const CHECKING: &str = "checking its settings";

/// Settings, the fence, which of the rights to it are missing (without one of them a branch could
/// be prepared and committed, and its commit not be proven), and whether anything is checked at the
/// end of a transaction only.
const QUESTION: &str = "SELECT current_setting('max_prepared_transactions'), \
     current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery()::text, \
     coalesce(to_regclass('quorate_fence')::text, ''), current_database(), \
     coalesce((SELECT string_agg(right_to, ', ') \
     FROM unnest(ARRAY['SELECT', 'INSERT', 'DELETE']) AS right_to \
     WHERE NOT has_table_privilege(to_regclass('quorate_fence'), right_to)), ''), \
     (EXISTS (SELECT FROM pg_constraint WHERE condeferred) \
     OR EXISTS (SELECT FROM pg_trigger WHERE tginitdeferred))::text";

impl Postgres {
    /// The same, but only if the server may have changed since it was found fit.
    pub(super) async fn check_once(&self, deadline: Deadline) -> Result<(), Error> {
        match self.fit.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.check_now(deadline).await,
        }
    }

    pub(super) async fn check_now(&self, deadline: Deadline) -> Result<(), Error> {
        let session = self.finisher(deadline).await?;
        let Some(answer) = deadline.bound(ask(&session)).await else {
            return Err(self.too_late(CHECKING));
        };
        let values = answer.map_err(|error| self.failed(CHECKING, &error))?;
        self.finishers.give_back(session);
        self.judge(&values)?;
        self.fit.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn judge(&self, values: &[String; 8]) -> Result<(), Error> {
        let [prepared, fsync, pages, standby, fence, database, missing, defers] = values;
        self.defers.store(defers == "true", Ordering::Relaxed);
        let unfit = |setting: &str, found: &str, wanted: &str| {
            Err(Error::Setting {
                manager: self.name.clone(),
                setting: setting.to_owned(),
                found: found.to_owned(),
                wanted: wanted.to_owned(),
            })
        };
        if prepared == "0" {
            return unfit(
                "max_prepared_transactions",
                prepared,
                "no branch can be prepared. Set it in postgresql.conf to the most branches that \
                 may be open at a time (as many as max_connections is common), and restart the \
                 server",
            );
        }
        if standby == "true" {
            return unfit(
                "pg_is_in_recovery",
                standby,
                "a standby takes no writes: use the primary",
            );
        }
        for (setting, value) in [("fsync", fsync), ("full_page_writes", pages)] {
            if value != "on" && !self.config.allow_unsafe_durability {
                let wanted = "a power cut could make it forget a vote. Set it to on, or allow it \
                              with allow-unsafe-durability";
                return unfit(setting, value, wanted);
            }
        }
        if fence.is_empty() {
            let said = format!("there is none in database {database:?}");
            return Err(Error::NotSetUp { manager: self.name.clone(), said });
        }
        if !missing.is_empty() {
            let user = &self.config.user;
            let said = format!("user {user:?} may not {missing} there: grant it");
            return Err(Error::NotSetUp { manager: self.name.clone(), said });
        }
        Ok(())
    }

    pub(super) async fn create_fence(&self, deadline: Deadline) -> Result<(), Error> {
        let doing = "creating the table quorate_fence";
        let session = self.finisher(deadline).await?;
        let sql = format!("BEGIN READ WRITE; {}; COMMIT", fence::POSTGRES_SETUP);
        let created = deadline.bound(session.client.batch_execute(&sql)).await;
        created.ok_or_else(|| self.too_late(doing))?.map_err(|error| self.failed(doing, &error))?;
        self.finishers.give_back(session);
        Ok(())
    }
}

async fn ask(session: &Session) -> Result<[String; 8], tokio_postgres::Error> {
    let row = session.client.query_one(QUESTION, &[]).await?;
    let mut values = [const { String::new() }; 8];
    for (i, value) in values.iter_mut().enumerate() {
        *value = row.try_get(i)?;
    }
    Ok(values)
}
