//! `cargo run -p quorate-databases`: both servers for a developer, until Enter or an interrupt.
//!
//! An argument `name=value` is a setting of PostgreSQL's, one that begins with `--` an argument of
//! MariaDB's.

use quorate_databases::{MariaDb, PASSWORD, Postgres};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (of_mariadb, of_postgres): (Vec<&str>, Vec<&str>) =
        arguments.iter().map(String::as_str).partition(|argument| argument.starts_with("--"));
    let postgres = Postgres::start(&of_postgres);
    match &postgres {
        Ok(server) => println!(
            "PostgreSQL: host=127.0.0.1 port={} user=postgres password={PASSWORD} dbname=postgres",
            server.port()
        ),
        Err(why) => eprintln!("PostgreSQL: {why}"),
    }
    let mariadb = MariaDb::start(&of_mariadb);
    match &mariadb {
        Ok(server) => println!("MariaDB: mysql://root@127.0.0.1:{}/", server.port()),
        Err(why) => eprintln!("MariaDB: {why}"),
    }
    println!("Enter ends them, and removes their data.");
    // An end of input is as good as Enter.
    let _ = std::io::stdin().read_line(&mut String::new());
}
