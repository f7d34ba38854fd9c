//! One node as a process.

use crate::binary;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A node: where it is, and its process if it runs.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its client address, `host:port`.
    pub client: String,
    /// Its peer address, `host:port`.
    pub peer: String,
    /// Where it listens for its peers, if they reach it through a gate.
    pub behind: Option<String>,
    /// Its data.
    pub data_dir: PathBuf,
    /// Another server to run in its place, which has the same flags: etcd.
    pub instead: Option<PathBuf>,
    log_file: PathBuf,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Node {
    /// A node that does not run yet, with its files in `folder`.
    pub fn new(folder: &Path, name: &str, port: u16) -> Node {
        Node {
            name: name.to_owned(),
            client: format!("127.0.0.1:{port}"),
            peer: format!("127.0.0.1:{}", port + 1),
            behind: None,
            data_dir: folder.join(name),
            instead: None,
            log_file: folder.join(format!("{name}.log")),
            arguments: Vec::new(),
            process: None,
        }
    }

    /// Starts its process with these arguments beside its own addresses.
    pub fn start(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.start_again();
    }

    /// Starts its process as it was started last.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log_file).unwrap();
        let (client, peer) = (format!("http://{}", self.client), format!("http://{}", self.peer));
        let listen = format!("http://{}", self.behind.as_ref().unwrap_or(&self.peer));
        let mut command = Command::new(self.instead.as_ref().unwrap_or_else(|| binary()));
        if self.instead.is_none() {
            command.args(["start", "--stop-with-stdin"]);
        }
        let child = command
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen-client-urls", &client, "--listen-peer-urls", &listen])
            .args(["--advertise-client-urls", &client, "--initial-advertise-peer-urls", &peer])
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
    }

    /// Whether its process runs (or is stopped by a signal).
    pub fn runs(&mut self) -> bool {
        match &mut self.process {
            None => false,
            Some(child) => child.try_wait().unwrap().is_none(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(15))
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        let child = self.process.as_mut().unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.process = None;
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end within {limit:?}", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log_file).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(25)..];
            eprintln!("--- the end of the log of {}:\n{}", self.name, tail.join("\n"));
        }
    }
}
