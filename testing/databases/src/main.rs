//! `cargo run -p quorate-databases`: both servers for a developer, until Enter or an interrupt.

use quorate_databases::{MariaDb, PASSWORD, Postgres};

fn main() {
    let postgres = Postgres::start(&[]);
    match &postgres {
        Ok(server) => println!(
            "PostgreSQL: host=127.0.0.1 port={} user=postgres password={PASSWORD} dbname=postgres",
            server.port()
        ),
        Err(why) => eprintln!("PostgreSQL: {why}"),
    }
    let mariadb = MariaDb::start(&[]);
    match &mariadb {
        Ok(server) => println!("MariaDB: mysql://root@127.0.0.1:{}/", server.port()),
        Err(why) => eprintln!("MariaDB: {why}"),
    }
    println!("Enter ends them, and removes their data.");
    // An end of input is as good as Enter.
    let _ = std::io::stdin().read_line(&mut String::new());
}
