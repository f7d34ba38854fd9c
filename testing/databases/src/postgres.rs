//! A PostgreSQL server of one's own.

use crate::supervisor::{Supervisor, Template, free_port, new_folder, run, unprivileged};
use crate::{PASSWORD, programs};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) const PROGRAMS: [&str; 2] = ["initdb", "postgres"];
pub(crate) const PACKAGE: &str = "postgresql-15 or later";

static TEMPLATE: OnceLock<Template> = OnceLock::new();

/// A running server. Its superuser is `postgres`, with the password [`PASSWORD`].
pub struct Postgres {
    supervisor: Supervisor,
    port: u16,
}

impl Postgres {
    /// Starts a new, empty server with these settings (`name=value`) beside our own.
    ///
    /// # Errors
    /// What is not installed.
    pub fn start(settings: &[&str]) -> Result<Postgres, String> {
        let [initdb, postgres] = programs::find_all(PROGRAMS, PACKAGE)?;
        let template =
            TEMPLATE.get_or_init(|| Template::new("postgres", |folder| make(&initdb, folder)));
        let folder = new_folder("postgres", Some(template.folder()));
        let port = free_port();
        let data = folder.join("data");
        let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
        let sockets = format!("unix_socket_directories={}", folder.display());
        let port_is = format!("port={port}");
        let ours = [
            "listen_addresses=127.0.0.1",
            "max_prepared_transactions=64",
            "max_connections=100",
            "shared_buffers=16MB",
            &sockets,
            &port_is,
        ];
        for setting in ours.iter().chain(settings) {
            arguments.extend(["-c".to_owned(), (*setting).to_owned()]);
        }
        let supervisor = Supervisor::new(&folder, &postgres, &arguments);
        let mut server = Postgres { supervisor, port };
        server.start_again();
        Ok(server)
    }

    /// Its address on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it: nothing is flushed.
    pub fn kill(&mut self) {
        self.supervisor.kill();
    }

    /// Starts it after [`Postgres::kill`].
    pub fn start_again(&mut self) {
        let port = self.port;
        self.supervisor.start(|| serves(port));
    }

    /// Lets it stand still, with its connections open.
    pub fn pause(&mut self) {
        self.supervisor.pause();
    }

    /// Ends that.
    pub fn go_on(&mut self) {
        self.supervisor.go_on();
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.supervisor.log()
    }
}

fn make(initdb: &Path, folder: &Path) {
    let password: PathBuf = folder.join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let mut command = unprivileged(initdb, folder);
    command.args(["--no-sync", "--no-instructions", "--encoding=UTF8", "--username=postgres"]);
    command.args(["--auth-local=trust", "--auth-host=scram-sha-256"]);
    command.arg(format!("--pwfile={}", password.display())).arg("-D").arg(folder.join("data"));
    run(&mut command);
}

/// Whether it answers a start-up message with a demand for a password: while it starts, it
/// answers with an error.
fn serves(port: u16) -> bool {
    use std::io::{Read, Write};
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    let mut kind = [0];
    TcpStream::connect(("127.0.0.1", port))
        .and_then(|mut stream| {
            stream.write_all(&[&length[..], body].concat())?;
            stream.read_exact(&mut kind)
        })
        .is_ok_and(|()| kind == *b"R")
}
