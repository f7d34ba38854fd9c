//! A MariaDB server of one's own.

use crate::programs;
use crate::supervisor::{Supervisor, Template, free_port, new_folder, run, unprivileged};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub(crate) const PROGRAMS: [&str; 2] = ["mariadb-install-db", "mariadbd"];
pub(crate) const PACKAGE: &str = "mariadb-server-core";

static TEMPLATE: OnceLock<Template> = OnceLock::new();

/// A running server. Its superuser is `root`, without a password.
pub struct MariaDb {
    supervisor: Supervisor,
    port: u16,
}

impl MariaDb {
    /// Starts a new, empty server with these arguments beside our own.
    ///
    /// # Errors
    /// What is not installed.
    pub fn start(arguments: &[&str]) -> Result<MariaDb, String> {
        let [install, mariadbd] = programs::find_all(PROGRAMS, PACKAGE)?;
        let template =
            TEMPLATE.get_or_init(|| Template::new("mariadb", |folder| make(&install, folder)));
        let folder = new_folder("mariadb", Some(template.folder()));
        let port = free_port();
        let path = |name: &str| folder.join(name).display().to_string();
        let mut all = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", path("data")),
            format!("--socket={}", path("socket")),
            format!("--pid-file={}", path("pid")),
            format!("--port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--skip-name-resolve".to_owned(),
            "--innodb-buffer-pool-size=32M".to_owned(),
        ];
        all.extend(arguments.iter().map(ToString::to_string));
        let supervisor = Supervisor::new(&folder, &mariadbd, &all);
        let mut server = MariaDb { supervisor, port };
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

    /// Starts it after [`MariaDb::kill`].
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

fn make(install: &Path, folder: &Path) {
    let data: PathBuf = folder.join("data");
    let mut command = unprivileged(install, folder);
    command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
    command.args(["--skip-test-db", "--innodb-log-file-size=16M"]);
    command.arg(format!("--datadir={}", data.display()));
    run(&mut command);
}

/// Whether it greets: the fifth byte of its first packet is the protocol's version.
fn serves(port: u16) -> bool {
    use std::io::Read;
    let mut greeting = [0; 5];
    TcpStream::connect(("127.0.0.1", port))
        .and_then(|mut stream| stream.read_exact(&mut greeting))
        .is_ok_and(|()| greeting[4] == 10)
}
