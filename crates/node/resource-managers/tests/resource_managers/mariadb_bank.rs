//! The bank at MariaDB.

use crate::bank::{Bank, CLUSTER, new_name, soon};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use quorate_databases::missing;
use quorate_resource_managers::{
    BranchName, DatabaseConfig, MariaDb, Parameter, ResourceManager, SqlWork, Statement, Work,
};
use std::sync::{Arc, OnceLock};
use tokio::sync::Mutex;

type Server = quorate_databases::MariaDb;

static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();

/// A database with accounts.
pub struct MariaDbBank {
    own: Option<Server>,
    port: u16,
    database: String,
    admin: Mutex<Conn>,
}

/// The configuration of a manager for a database at this port.
pub fn config(port: u16, database: &str) -> DatabaseConfig {
    let mut config = DatabaseConfig::new(database, "127.0.0.1", "root", database);
    // Nobody hands anything in.
    config.hand_in_ms = 0;
    config.port = Some(port);
    config.branch_connections = 4;
    config.finish_connections = 4;
    config
}

/// A session of the administrator.
pub async fn admin(port: u16, database: &str) -> Conn {
    let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port);
    let options = options.user(Some("root")).db_name(Some(database)).prefer_socket(false);
    Conn::new(options).await.unwrap()
}

/// Starts a server, or says that it is missing.
pub fn server(test: &str, arguments: &[&str]) -> Option<Server> {
    Server::start(arguments).map_err(|why| missing(test, &why)).ok()
}

impl MariaDbBank {
    async fn at(own: Option<Server>, port: u16) -> MariaDbBank {
        let database = new_name();
        let create = format!("CREATE DATABASE {database}");
        admin(port, "mysql").await.query_drop(create).await.unwrap();
        let mut admin = admin(port, &database).await;
        let accounts = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL) \
                        ENGINE = InnoDB; INSERT INTO account VALUES (1, 100), (2, 100), (3, 100)";
        admin.query_drop(accounts).await.unwrap();
        let bank = MariaDbBank { own, port, database, admin: Mutex::new(admin) };
        for _ in 0..2 {
            bank.manager().set_up(soon()).await.unwrap();
        }
        bank.manager().check(soon()).await.unwrap();
        bank
    }
}

impl Bank for MariaDbBank {
    async fn open(test: &str) -> Option<MariaDbBank> {
        match SHARED.get_or_init(|| Server::start(&[])) {
            Ok(server) => Some(MariaDbBank::at(None, server.port()).await),
            Err(why) => {
                missing(test, why);
                None
            }
        }
    }

    async fn open_alone(test: &str) -> Option<MariaDbBank> {
        let server = server(test, &[])?;
        let port = server.port();
        Some(MariaDbBank::at(Some(server), port).await)
    }

    fn name(&self) -> &str {
        &self.database
    }

    fn manager_at(&self, port: u16) -> Arc<dyn ResourceManager> {
        Arc::new(MariaDb::new(CLUSTER, config(port, &self.database)).unwrap())
    }

    fn port(&self) -> u16 {
        self.port
    }

    async fn kill_and_restart(&mut self) {
        let server = self.own.as_mut().unwrap();
        server.kill();
        server.start_again();
        *self.admin.get_mut() = admin(self.port, &self.database).await;
    }

    async fn balance(&self, account: i64) -> i64 {
        let sql = format!("SELECT balance FROM account WHERE id = {account}");
        self.admin.lock().await.query_first(sql).await.unwrap().unwrap()
    }

    async fn try_run(&self, sql: &str) -> bool {
        self.admin.lock().await.query_drop(sql).await.is_ok()
    }

    async fn prepared(&self) -> usize {
        let rows: Vec<(u64, u64, u64, Vec<u8>)> =
            self.admin.lock().await.query("XA RECOVER").await.unwrap();
        // XA's branches are the server's; those of this bank have its name in theirs.
        let ours = format!("{}:", self.database).into_bytes();
        let here =
            |data: &[u8], gtrid: u64| data[usize::try_from(gtrid).unwrap()..].starts_with(&ours);
        rows.iter().filter(|(_, gtrid, _, data)| here(data, *gtrid)).count()
    }

    fn by_hand(&self, commit: bool, branch: &BranchName) -> String {
        let word = if commit { "COMMIT" } else { "ROLLBACK" };
        format!("XA {word} {}", branch.xid())
    }

    async fn prepare_by_hand(&self, branch: &BranchName, account: i64, last: &str) {
        let xid = branch.xid();
        let sql = format!(
            "XA START {xid}; UPDATE account SET balance = balance + 1 WHERE id = {account}; \
             {last}; XA END {xid}; XA PREPARE {xid}"
        );
        let mut session = admin(self.port, &self.database).await;
        session.query_drop(sql).await.unwrap();
        // Until the session has ended, nobody else can finish the branch.
        let id = session.id();
        session.disconnect().await.unwrap();
        let alive = format!("SELECT count(*) FROM information_schema.processlist WHERE id = {id}");
        let mut admin = self.admin.lock().await;
        while admin.query_first::<u64, _>(&alive).await.unwrap() != Some(0) {}
    }

    fn add(&self, account: i64, amount: i64) -> Work {
        let statement = Statement {
            sql: "UPDATE account SET balance = balance + ? WHERE id = ?".to_owned(),
            parameters: vec![Parameter::Integer(amount), Parameter::Integer(account)],
            affects: Some(1),
        };
        Work::Sql(SqlWork { statements: vec![statement], ..SqlWork::default() })
    }

    fn statements(&self, statements: &[&str]) -> Work {
        let statement = |sql: &&str| Statement { sql: sql.to_string(), ..Statement::default() };
        let statements = statements.iter().map(statement).collect();
        Work::Sql(SqlWork { statements, ..SqlWork::default() })
    }
}
