//! The bank at PostgreSQL.

use crate::bank::{Bank, CLUSTER, new_name, soon};
use quorate_databases::{PASSWORD, missing};
use quorate_resource_managers::{
    BranchName, DatabaseConfig, Parameter, Postgres, ResourceManager, SqlWork, Statement, Work,
};
use std::sync::{Arc, OnceLock};
use tokio_postgres::{Client, NoTls};

type Server = quorate_databases::Postgres;

static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();

/// A database with accounts.
pub struct PostgresBank {
    own: Option<Server>,
    port: u16,
    database: String,
    admin: Client,
}

/// The configuration of a manager for a database at this port.
pub fn config(port: u16, database: &str) -> DatabaseConfig {
    let mut config = DatabaseConfig::new(database, "127.0.0.1", "postgres", database);
    // Nobody hands anything in.
    config.hand_in_ms = 0;
    config.port = Some(port);
    config.password = Some(PASSWORD.into());
    config.branch_connections = 4;
    config.finish_connections = 4;
    config
}

/// A session of the administrator.
pub async fn admin(port: u16, database: &str) -> Client {
    let mut settings = tokio_postgres::Config::new();
    settings.host("127.0.0.1").port(port).user("postgres").password(PASSWORD).dbname(database);
    let (client, connection) = settings.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Starts a server, or says that it is missing.
pub fn server(test: &str, settings: &[&str]) -> Option<Server> {
    Server::start(settings).map_err(|why| missing(test, &why)).ok()
}

impl PostgresBank {
    async fn at(own: Option<Server>, port: u16) -> PostgresBank {
        let database = new_name();
        let create = format!("CREATE DATABASE {database}");
        admin(port, "postgres").await.batch_execute(&create).await.unwrap();
        let admin = admin(port, &database).await;
        let accounts = "CREATE TABLE account (id bigint PRIMARY KEY, balance numeric NOT NULL); \
                        INSERT INTO account VALUES (1, 100), (2, 100), (3, 100)";
        admin.batch_execute(accounts).await.unwrap();
        let bank = PostgresBank { own, port, database, admin };
        for _ in 0..2 {
            bank.manager().set_up(soon()).await.unwrap();
        }
        bank.manager().check(soon()).await.unwrap();
        bank
    }
}

impl Bank for PostgresBank {
    async fn open(test: &str) -> Option<PostgresBank> {
        match SHARED.get_or_init(|| Server::start(&[])) {
            Ok(server) => Some(PostgresBank::at(None, server.port()).await),
            Err(why) => {
                missing(test, why);
                None
            }
        }
    }

    async fn open_alone(test: &str) -> Option<PostgresBank> {
        let server = server(test, &[])?;
        let port = server.port();
        Some(PostgresBank::at(Some(server), port).await)
    }

    fn name(&self) -> &str {
        &self.database
    }

    fn manager_at(&self, port: u16) -> Arc<dyn ResourceManager> {
        Arc::new(Postgres::new(CLUSTER, config(port, &self.database)).unwrap())
    }

    fn port(&self) -> u16 {
        self.port
    }

    async fn kill_and_restart(&mut self) {
        let server = self.own.as_mut().unwrap();
        server.kill();
        server.start_again();
        self.admin = admin(self.port, &self.database).await;
    }

    async fn balance(&self, account: i64) -> i64 {
        let sql = "SELECT balance::bigint FROM account WHERE id = $1";
        self.admin.query_one(sql, &[&account]).await.unwrap().get(0)
    }

    async fn try_run(&self, sql: &str) -> bool {
        self.admin.batch_execute(sql).await.is_ok()
    }

    async fn prepared(&self) -> usize {
        let sql = "SELECT 1 FROM pg_prepared_xacts WHERE database = current_database()";
        self.admin.query(sql, &[]).await.unwrap().len()
    }

    fn by_hand(&self, commit: bool, branch: &BranchName) -> String {
        let word = if commit { "COMMIT" } else { "ROLLBACK" };
        format!("{word} PREPARED '{}'", branch.postgres_gid())
    }

    async fn prepare_by_hand(&self, branch: &BranchName, account: i64, last: &str) {
        let gid = branch.postgres_gid();
        let sql = format!(
            "BEGIN; UPDATE account SET balance = balance + 1 WHERE id = {account}; \
             {last}; PREPARE TRANSACTION '{gid}'"
        );
        self.admin.batch_execute(&sql).await.unwrap();
    }

    fn add(&self, account: i64, amount: i64) -> Work {
        let statement = Statement {
            sql: "UPDATE account SET balance = balance + $1 WHERE id = $2".to_owned(),
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
