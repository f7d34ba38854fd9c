//! How a participant is reached, and what may be used of it.

use crate::error::Error;
use crate::name::check_participant;
use crate::pool::check_connections;
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One database, as the configuration names it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DatabaseConfig {
    /// What transactions call it. It is part of the names of its branches: keep it while any of
    /// them is in doubt.
    pub name: String,
    /// Its host; with a leading `/`, the folder (PostgreSQL) or path (MariaDB) of its socket.
    pub host: String,
    /// Its port; the database's usual one, if not given.
    #[serde(default)]
    pub port: Option<u16>,
    /// As whom to come.
    pub user: String,
    /// The password.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file with the password, instead of it; one line break at its end does not count.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Which of the server's databases.
    pub database: String,
    /// The most connections for branches that are being prepared.
    #[serde(default = "branch_connections")]
    pub branch_connections: usize,
    /// The most connections for everything else: to commit, roll back and recover. Apart from the
    /// others, so that branches that wait for locks cannot stop those that would release them.
    #[serde(default = "finish_connections")]
    pub finish_connections: usize,
    /// The longest that connecting may take.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// For how long a prepared branch that no transaction is known of is left alone: its
    /// application may yet hand it in.
    #[serde(default = "hand_in_ms")]
    pub hand_in_ms: u64,
    /// Whether to work with a server whose settings let it lose a vote in a power cut.
    #[serde(default)]
    pub allow_unsafe_durability: bool,
    /// Whether transactions of several clients may be carried out there as one.
    #[serde(default = "bundles")]
    pub bundles: bool,
}

fn bundles() -> bool {
    true
}

fn branch_connections() -> usize {
    32
}

fn finish_connections() -> usize {
    16
}

fn connect_timeout_ms() -> u64 {
    3000
}

pub(crate) fn hand_in_ms() -> u64 {
    60_000
}

impl DatabaseConfig {
    /// Access with the defaults in everything else.
    pub fn new(name: &str, host: &str, user: &str, database: &str) -> DatabaseConfig {
        DatabaseConfig {
            name: name.to_owned(),
            host: host.to_owned(),
            port: None,
            user: user.to_owned(),
            password: None,
            password_file: None,
            database: database.to_owned(),
            branch_connections: branch_connections(),
            finish_connections: finish_connections(),
            connect_timeout_ms: connect_timeout_ms(),
            hand_in_ms: hand_in_ms(),
            allow_unsafe_durability: false,
            bundles: bundles(),
        }
    }

    /// Checks what can be checked without the database.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        check_participant(&self.name)?;
        let wrong = |what: &str| Err(Error::Caller(format!("{}: {what}", self.name)));
        if self.password.is_some() && self.password_file.is_some() {
            return wrong("give a password or a password-file, not both");
        }
        check_connections(&self.name, "branch-connections", self.branch_connections)?;
        check_connections(&self.name, "finish-connections", self.finish_connections)
    }

    /// The password, read anew each time: it may be changed while we run.
    pub(crate) fn password(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.password_file else {
            return Ok(self.password.as_ref().map(|secret| secret.reveal().to_owned()));
        };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text.strip_suffix('\n').unwrap_or(&text).to_owned())),
            Err(error) => Err(Error::Caller(format!(
                "{}: cannot read the password file {}: {error}",
                self.name,
                path.display()
            ))),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
}

/// A password, or another secret: it is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_read_from_toml_and_its_password_is_not_printed() {
        let text = "name = 'bank'\nhost = '10.0.0.1'\nuser = 'q'\ndatabase = 'b'\npassword = 's3'";
        let config: DatabaseConfig = toml::from_str(text).unwrap();
        config.validate().unwrap();
        assert_eq!(config.password().unwrap().as_deref(), Some("s3"));
        assert!(!format!("{config:?}").contains("s3"));
        assert!(toml::from_str::<DatabaseConfig>(&format!("{text}\npasswort = 'x'")).is_err());
        let both: DatabaseConfig =
            toml::from_str(&format!("{text}\npassword-file = '/x'")).unwrap();
        assert!(both.validate().unwrap_err().to_string().contains("not both"));
        for key in ["branch-connections", "finish-connections"] {
            for number in ["0", "10001", "9223372036854775807"] {
                let text = format!("{text}\n{key} = {number}");
                let config: DatabaseConfig = toml::from_str(&text).unwrap();
                let error = config.validate().unwrap_err().to_string();
                assert_eq!(error, format!("bank: {key} is {number}; it must be from 1 to 10000"));
            }
        }
    }
}
