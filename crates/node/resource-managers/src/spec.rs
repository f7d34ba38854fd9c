//! Participants in a configuration, and branches in a transaction's file.
//!
//! A branch names its participant by the participant's kind: `postgres = "bank"`, `mariadb = …`,
//! `http = …`, and `keyspace = …` for those of Quorate itself, which are not read here. Everything
//! else of the table is the branch's work. Invariant: a key that nobody reads is an error.

use crate::config::DatabaseConfig;
use crate::error::Error;
use crate::http::{HttpConfig, HttpParticipant};
use crate::manager::ResourceManager;
use crate::mariadb::MariaDb;
use crate::name::{BRANCH_LIMIT, check_branch, check_participant};
use crate::postgres::Postgres;
use crate::work::{HttpWork, SqlWork, Work};
use quorate_base::ClusterId;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a participant is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A PostgreSQL database.
    Postgres,
    /// A MariaDB database.
    MariaDb,
    /// An HTTP service.
    Http,
}

const KINDS: [(&str, Kind); 3] =
    [("postgres", Kind::Postgres), ("mariadb", Kind::MariaDb), ("http", Kind::Http)];
/// The kind that is not read here.
const KEYSPACE: &str = "keyspace";
/// The key that hands in a branch that the application has prepared.
const PREPARED: &str = "prepared";

/// One branch of a transaction's file.
#[derive(Clone, PartialEq, Debug)]
pub struct BranchSpec {
    /// Its name within the transaction.
    pub name: String,
    /// What its participant is said to be.
    pub kind: Kind,
    /// What the configuration calls its participant.
    pub participant: String,
    /// What it does there.
    pub work: Work,
}

impl BranchSpec {
    /// Reads a `[[branch]]`. Nothing, if it is a keyspace's.
    ///
    /// # Errors
    /// The caller's: no name, no participant or more than one, an unknown key, impossible work.
    pub fn from_toml(branch: &toml::Table) -> Result<Option<BranchSpec>, Error> {
        let mut rest = branch.clone();
        let name = match rest.remove("name") {
            Some(toml::Value::String(name)) => name,
            _ => {
                let what = format!("a branch has no name: a text of up to {BRANCH_LIMIT} bytes");
                return Err(Error::Caller(what));
            }
        };
        check_branch(&name)?;
        let wrong = |what: String| Error::Caller(format!("branch {name}: {what}"));
        let mut named = KINDS.iter().filter(|(key, _)| branch.contains_key(*key));
        let kind = match (named.next(), named.next(), branch.contains_key(KEYSPACE)) {
            (None, None, true) => return Ok(None),
            (Some(kind), None, false) => kind,
            _ => {
                let what = "it names exactly one of keyspace, postgres, mariadb and http";
                return Err(wrong(what.to_owned()));
            }
        };
        let participant = match rest.remove(kind.0) {
            Some(toml::Value::String(participant)) => participant,
            _ => return Err(wrong(format!("{} is not the name of a participant", kind.0))),
        };
        check_participant(&participant)?;
        let misread = |error: toml::de::Error| wrong(error.message().to_owned());
        let work = match (rest.remove(PREPARED), kind.1) {
            (Some(toml::Value::String(id)), _) if rest.is_empty() => Work::Prepared(id),
            (Some(_), _) => {
                let what = format!("{PREPARED} is the id of a branch, and stands by itself");
                return Err(wrong(what));
            }
            (None, Kind::Http) => Work::Http(rest.try_into::<HttpWork>().map_err(misread)?),
            (None, _) => Work::Sql(rest.try_into::<SqlWork>().map_err(misread)?),
        };
        work.validate().map_err(|error| wrong(error.to_string()))?;
        Ok(Some(BranchSpec { name, kind: kind.1, participant, work }))
    }
}

/// The managers of all participants, by name, and what each is.
pub type Participants = BTreeMap<String, (Kind, Arc<dyn ResourceManager>)>;

/// The participants of a configuration: `[[postgres]]`, `[[mariadb]]` and `[[http]]`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantsConfig {
    /// PostgreSQL databases.
    #[serde(default)]
    pub postgres: Vec<DatabaseConfig>,
    /// MariaDB databases.
    #[serde(default)]
    pub mariadb: Vec<DatabaseConfig>,
    /// HTTP services.
    #[serde(default)]
    pub http: Vec<HttpConfig>,
}

impl ParticipantsConfig {
    /// The managers of all participants, by name. None of them connects before it is used.
    ///
    /// # Errors
    /// The configuration's: an impossible participant, or two of one name.
    pub fn open(self, cluster: ClusterId) -> Result<Participants, Error> {
        let mut all: Vec<(Kind, Arc<dyn ResourceManager>)> = Vec::new();
        for config in self.postgres {
            all.push((Kind::Postgres, Arc::new(Postgres::new(cluster, config)?)));
        }
        for config in self.mariadb {
            all.push((Kind::MariaDb, Arc::new(MariaDb::new(cluster, config)?)));
        }
        for config in self.http {
            all.push((Kind::Http, Arc::new(HttpParticipant::new(cluster, config)?)));
        }
        let mut by_name = BTreeMap::new();
        for (kind, manager) in all {
            let name = manager.name().to_owned();
            if by_name.insert(name.clone(), (kind, manager)).is_some() {
                return Err(Error::Caller(format!("two participants are called {name}")));
            }
        }
        Ok(by_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<BranchSpec>, String> {
        BranchSpec::from_toml(&text.parse().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_of_branch_is_read() {
        let sql = "name = 'debit'\npostgres = 'bank'\n[[statements]]\nsql = 'SELECT 1'";
        let debit = read(sql).unwrap().unwrap();
        assert_eq!((debit.name.as_str(), debit.participant.as_str()), ("debit", "bank"));
        assert!(debit.kind == Kind::Postgres && matches!(debit.work, Work::Sql(_)));
        let maria = read(&sql.replace("postgres", "mariadb")).unwrap().unwrap();
        assert_eq!(maria.kind, Kind::MariaDb);
        let room = read("name = 'room'\nhttp = 'hotel'\naction = '/rooms'\nbody = { n = 1 }");
        assert!(matches!(room.unwrap().unwrap().work, Work::Http(_)));
        let own = read("name = 'own'\nmariadb = 'shop'\nprepared = 'q1:7:1:t:shop:own'");
        assert_eq!(own.unwrap().unwrap().work, Work::Prepared("q1:7:1:t:shop:own".to_owned()));
        assert_eq!(read("name = 'stock'\nkeyspace = 'stock'\nthen = []"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("postgres = 'bank'", "has no name"),
            ("name = 'a b'", "character ' '"),
            ("name = 'x'", "branch x: it names exactly one of"),
            ("name = 'x'\npostgres = 'a'\nmariadb = 'b'", "exactly one"),
            ("name = 'x'\nkeyspace = 'k'\nhttp = 'h'", "exactly one"),
            ("name = 'x'\nhttp = 1", "http is not the name"),
            ("name = 'x'\nhttp = 'h'\naction = '/a'\nmethod = 'PUT'", "branch x: unknown field"),
            ("name = 'x'\npostgres = 'a'\nprepared = 'mine'", "is no id of a branch"),
            ("name = 'x'\npostgres = 'a'\nprepared = 'q1:7:1:t:a:x'\nstatements = []", "by itself"),
            ("name = 'x'\npostgres = 'a'\nstatements = []", "branch x: a branch has 0 statements"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn participants_have_names_of_their_own() {
        let text = "[[postgres]]\nname = 'a'\nhost = 'h'\nuser = 'u'\ndatabase = 'd'\n\
                    [[http]]\nname = 'b'\nurl = 'http://h'\n";
        let config: ParticipantsConfig = toml::from_str(text).unwrap();
        let open = config.open(ClusterId(1)).unwrap();
        assert_eq!(open.keys().collect::<Vec<_>>(), ["a", "b"]);
        let twice: ParticipantsConfig = toml::from_str(&text.replace("'b'", "'a'")).unwrap();
        let error = twice.open(ClusterId(1)).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "two participants are called a");
    }
}
