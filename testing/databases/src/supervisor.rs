//! Holds one server process, and takes it along when the test ends.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The unprivileged user of every Unix; by number, since its group's name differs.
const NOBODY: u32 = 65534;

/// Obeys `start`, `kill`, `pause` with processes, and `resume`, one a line; at the end of its input
/// kills, cleans up and ends. What is paused goes on first: who stands still does not notice that
/// it has been left alone.
const SCRIPT: &str = r#"
log=$1; folder=$2; shift 2; child=; paused=
while read -r word processes; do
    case $word in
    pause) kill -STOP $processes 2>/dev/null; paused=$processes; echo paused ;;
    resume) kill -CONT $paused 2>/dev/null; paused=; echo resumed ;;
    start) "$@" >>"$log" 2>&1 </dev/null & child=$!; echo "$child" ;;
    kill) kill -9 "$child" 2>/dev/null; wait "$child" 2>/dev/null; child=; echo dead ;;
    esac
done
[ -z "$paused" ] || kill -CONT $paused 2>/dev/null
[ -z "$child" ] || kill -9 "$child" 2>/dev/null
wait
rm -rf "$folder"
"#;

/// The supervisor of one server.
pub(crate) struct Supervisor {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    log: PathBuf,
    /// The server's process, as it was started last.
    server: String,
    paused: bool,
}

impl Supervisor {
    /// A supervisor for this command, which does not run yet. The folder is removed at the end.
    pub(crate) fn new(folder: &Path, program: &Path, arguments: &[String]) -> Supervisor {
        let log = folder.join("server.log");
        let mut command = unprivileged(Path::new("/bin/sh"), folder);
        command.args(["-c", SCRIPT, "supervisor"]).arg(&log).arg(folder);
        command.arg(program).args(arguments);
        // A group of its own: the terminal's interrupt ends the test, and that ends the server.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("there is a shell");
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Supervisor { process, orders, answers, log, server: String::new(), paused: false }
    }

    fn order(&mut self, word: &str) -> String {
        writeln!(self.orders.as_mut().unwrap(), "{word}").expect("the supervisor lives");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the supervisor answers");
        answer.trim().to_owned()
    }

    /// Starts the server until `ready`, again if it does not stay: one that was just killed may
    /// leave something behind that takes a moment to go.
    pub(crate) fn start(&mut self, ready: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(180);
        let mut pid = self.order("start");
        while !ready() {
            assert!(Instant::now() < deadline, "the server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
            if has_ended(&pid) {
                std::thread::sleep(Duration::from_millis(80));
                pid = self.order("start");
            }
        }
        self.server = pid;
    }

    /// Lets the server stand still, with all its processes, until [`Supervisor::go_on`].
    pub(crate) fn pause(&mut self) {
        self.go_on();
        self.paused = true;
        // The server first, since only one that stands still begins no more of them; whatever it
        // began before it stood still is there at the next look.
        let mut still = vec![self.server.clone()];
        loop {
            assert_eq!(self.order(&format!("pause {}", still.join(" "))), "paused");
            let deadline = Instant::now() + Duration::from_secs(10);
            while !still.iter().all(|it| matches!(state(it), None | Some('T' | 'Z'))) {
                assert!(Instant::now() < deadline, "what was stopped goes on: {still:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
            let family = family(&self.server);
            if family.iter().all(|it| still.contains(it)) {
                return;
            }
            still = family;
        }
    }

    /// Ends that.
    pub(crate) fn go_on(&mut self) {
        if std::mem::take(&mut self.paused) {
            assert_eq!(self.order("resume"), "resumed");
        }
    }

    /// Kills the server: nothing is flushed.
    pub(crate) fn kill(&mut self) {
        self.go_on();
        assert_eq!(self.order("kill"), "dead");
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It ends by itself; there is nobody to tell if it does not.
        let _ = self.process.wait();
    }
}

/// Whether this process is gone. One that nobody has waited for yet is still listed, as a zombie:
/// the supervisor waits only when it is told to kill.
fn has_ended(pid: &str) -> bool {
    matches!(state(pid), None | Some('Z'))
}

/// What the kernel says a process does, if it is there: `T` stands still, `Z` has ended.
fn state(pid: &str) -> Option<char> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).ok()?;
    // The state follows the name, which stands in brackets and may hold any.
    stat.rsplit(") ").next()?.chars().next()
}

/// A process and its children.
fn family(server: &str) -> Vec<String> {
    let mut all = vec![server.to_owned()];
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Behind the name, in brackets: the state and the parent.
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        if parent == Some(server) {
            all.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    all
}

/// A command that does not run as root: as `nobody`, if we are root.
pub(crate) fn unprivileged(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir(folder).env("HOME", folder).env("LC_ALL", "C");
    command
}

/// Gives a new folder to whoever runs the server.
pub(crate) fn hand_over(folder: &Path) {
    if is_root() {
        std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    }
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("loopback").port()
}

/// Runs a program to its end.
///
/// # Panics
/// With what it said, if it failed.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program was found");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&said));
}

/// A new folder for a server, as a copy of `template` if there is one.
pub(crate) fn new_folder(kind: &str, template: Option<&Path>) -> PathBuf {
    let folder = tempfile::Builder::new().prefix(&format!("quorate-{kind}-")).tempdir().unwrap();
    let folder = folder.keep(); // The supervisor removes it.
    hand_over(&folder);
    if let Some(template) = template {
        let from = template.join("data");
        run(unprivileged(Path::new("/bin/cp"), &folder).arg("-a").arg(from).arg(&folder));
    }
    folder
}

/// The folder of a template, which is removed when the process ends.
pub(crate) struct Template {
    folder: PathBuf,
    _supervisor: Supervisor,
}

impl Template {
    /// Made once per process by `make`, which fills `data` in the folder.
    pub(crate) fn new(kind: &str, make: impl FnOnce(&Path)) -> Template {
        let folder = new_folder(kind, None);
        // Supervises nothing, but removes the folder however this process ends.
        let supervisor = Supervisor::new(&folder, Path::new("/bin/true"), &[]);
        make(&folder);
        Template { folder, _supervisor: supervisor }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::{Supervisor, has_ended, new_folder};
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn a_paused_server_does_nothing_with_all_its_processes_until_it_goes_on() {
        let folder = new_folder("paused", None);
        let file = folder.join("lines");
        // They end with their parent, which alone is killed.
        let tick = "while kill -0 $$ 2>/dev/null; do echo x >>lines; sleep 0.01; done";
        let ticks = format!("for n in 1 2; do ({tick}) & done; wait");
        let arguments = ["-c".to_owned(), ticks];
        let mut server = Supervisor::new(&folder, Path::new("/bin/sh"), &arguments);
        let length = || std::fs::metadata(&file).map_or(0, |it| it.len());
        server.start(|| length() > 0);
        server.pause();
        // What was on its way is written.
        std::thread::sleep(Duration::from_millis(50));
        let before = length();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(length(), before, "it goes on");
        server.go_on();
        let until = Instant::now() + Duration::from_secs(10);
        while length() == before {
            assert!(Instant::now() < until, "it stands still");
            std::thread::sleep(Duration::from_millis(5));
        }
        // One that is paused can be killed, and ended.
        server.pause();
        server.kill();
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_has_ended_all_the_same() {
        let mut long = Command::new("sleep").arg("60").spawn().unwrap();
        let mut short = Command::new("true").spawn().unwrap();
        while !has_ended(&short.id().to_string()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!has_ended(&long.id().to_string()));
        short.wait().unwrap();
        long.kill().unwrap();
        long.wait().unwrap();
        assert!(has_ended(&long.id().to_string()));
    }
}
