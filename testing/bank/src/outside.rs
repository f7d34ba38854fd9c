//! The accounts in databases: servers of the run's own.

use crate::places::BALANCE;
use mysql_async::prelude::Queryable;
use quorate_databases::{MariaDb, PASSWORD, Postgres};
use std::path::Path;

const TABLE: &str = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL, \
                     version bigint NOT NULL)";
/// Rows in one statement.
const ROWS: u64 = 2_000;

/// Both databases.
pub struct Outside {
    /// One.
    pub postgres: Postgres,
    /// The other.
    pub mariadb: MariaDb,
}

/// What a database has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// All the money.
    pub money: i64,
    /// How often an account was changed.
    pub changes: i64,
    /// Branches that are prepared.
    pub prepared: i64,
}

impl Outside {
    /// New servers with an account for each circle.
    ///
    /// # Errors
    /// What is not installed.
    pub async fn open(circles: u64) -> Result<Outside, String> {
        let settings = ["max_connections=200", "max_prepared_transactions=200"];
        let postgres = Postgres::start(&settings)?;
        let mariadb = MariaDb::start(&["--max-connections=200"])?;
        let it = Outside { postgres, mariadb };
        it.in_postgres("postgres").await.batch_execute("CREATE DATABASE bank").await.unwrap();
        let bank = it.in_postgres("bank").await;
        bank.batch_execute(TABLE).await.unwrap();
        let mut shop = it.in_mariadb("mysql").await;
        shop.query_drop("CREATE DATABASE shop").await.unwrap();
        shop.query_drop("USE shop").await.unwrap();
        shop.query_drop(format!("{TABLE} ENGINE = InnoDB")).await.unwrap();
        let mut first = 0;
        while first < circles {
            let rows = first..circles.min(first + ROWS);
            first = rows.end;
            let rows: Vec<String> = rows.map(|id| format!("({id}, {BALANCE}, 0)")).collect();
            let insert = format!("INSERT INTO account VALUES {}", rows.join(", "));
            bank.batch_execute(&insert).await.unwrap();
            shop.query_drop(insert).await.unwrap();
        }
        Ok(it)
    }

    async fn in_postgres(&self, database: &str) -> tokio_postgres::Client {
        let mut settings = tokio_postgres::Config::new();
        settings.host("127.0.0.1").port(self.postgres.port()).user("postgres");
        settings.password(PASSWORD).dbname(database);
        let (client, connection) = settings.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn in_mariadb(&self, database: &str) -> mysql_async::Conn {
        let options = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1");
        let options = options.tcp_port(self.mariadb.port()).user(Some("root"));
        let options = options.db_name(Some(database)).prefer_socket(false);
        mysql_async::Conn::new(options).await.unwrap()
    }

    /// What PostgreSQL has, and what MariaDB has.
    pub async fn found(&self) -> [Found; 2] {
        let bank = self.in_postgres("bank").await;
        let sums = "SELECT sum(balance)::bigint, sum(version)::bigint FROM account";
        let row = bank.query_one(sums, &[]).await.unwrap();
        let list = "SELECT count(*) FROM pg_prepared_xacts";
        let prepared = bank.query_one(list, &[]).await.unwrap().get(0);
        let here = Found { money: row.get(0), changes: row.get(1), prepared };
        let mut shop = self.in_mariadb("shop").await;
        let sums = "SELECT CAST(sum(balance) AS SIGNED), CAST(sum(version) AS SIGNED) FROM account";
        let (money, changes) = shop.query_first(sums).await.unwrap().unwrap();
        let list: Vec<mysql_async::Row> = shop.query("XA RECOVER").await.unwrap();
        let prepared = i64::try_from(list.len()).unwrap_or(i64::MAX);
        [here, Found { money, changes, prepared }]
    }

    /// Writes the file of participants for a node that reaches them at these ports.
    pub fn write_participants(path: &Path, [postgres, mariadb]: [u16; 2]) {
        let text = format!(
            "[[postgres]]\nname = 'bank'\nhost = '127.0.0.1'\nport = {postgres}\n\
             user = 'postgres'\npassword = '{PASSWORD}'\ndatabase = 'bank'\n\
             [[mariadb]]\nname = 'shop'\nhost = '127.0.0.1'\nport = {mariadb}\nuser = 'root'\n\
             database = 'shop'\n"
        );
        std::fs::write(path, text).unwrap();
    }
}
