//! The same transfers without anything that recovery needs: no fence, no proof, no names, no limits
//! of time; a client has one session with each database, which is never pooled.

use futures_util::future::join;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio_postgres::{Client, NoTls};

/// One client's two sessions.
pub struct Bare {
    pg: Client,
    my: Conn,
    take: tokio_postgres::Statement,
    give: mysql_async::Statement,
}

impl Bare {
    /// Connects to databases `bank` at these ports of loopback.
    pub async fn connect(pg: u16, my: u16) -> Bare {
        let mut settings = tokio_postgres::Config::new();
        settings.host("127.0.0.1").port(pg).user("postgres").dbname("bank");
        settings.password(quorate_databases::PASSWORD);
        let (client, connection) = settings.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(my);
        let options = options.user(Some("root")).db_name(Some("bank")).prefer_socket(false);
        let mut my = Conn::new(options).await.unwrap();
        let sql = "UPDATE account SET balance = balance";
        let take = client.prepare(&format!("{sql} - $1 WHERE id = $2")).await.unwrap();
        let give = my.prep(format!("{sql} + ? WHERE id = ?")).await.unwrap();
        Bare { pg: client, my, take, give }
    }

    /// One transfer.
    pub async fn transfer(&mut self, gid: &str, from: i64, to: i64) {
        let (pg, my) = (&self.pg, &mut self.my);
        let (take, give) = (&self.take, &self.give);
        let take = async {
            pg.batch_execute("BEGIN").await?;
            pg.execute(take, &[&1i64, &from]).await?;
            pg.batch_execute(&format!("PREPARE TRANSACTION '{gid}'")).await
        };
        let give = async {
            my.query_drop(format!("XA START '{gid}'")).await?;
            my.exec_drop(give, (1, to)).await?;
            my.query_drop(format!("XA END '{gid}'")).await?;
            my.query_drop(format!("XA PREPARE '{gid}'")).await
        };
        let (taken, given) = join(take, give).await;
        taken.unwrap();
        given.unwrap();
        let commit = format!("COMMIT PREPARED '{gid}'");
        let (pg, my) =
            join(self.pg.batch_execute(&commit), self.my.query_drop(format!("XA COMMIT '{gid}'")))
                .await;
        pg.unwrap();
        my.unwrap();
    }
}
