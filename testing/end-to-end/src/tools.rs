//! Programs that are not ours, and what they said.

use std::process::{Command, Output, Stdio};

/// Where a tool that a test needs is.
pub enum Tool {
    /// Here.
    At(String),
    /// Nowhere: the test passes it over, and has said so.
    Missing,
}

/// Whether a missing tool is a failure: in CI, where `.ci/run` has installed all of them.
pub fn required() -> bool {
    std::env::var_os("QUORATE_E2E_REQUIRE").is_some_and(|value| value == "1")
}

/// Finds a tool by a variable, or else by its usual name; says loudly when it is missing.
///
/// # Panics
/// If it is missing and [`required`].
pub fn tool(test: &str, variable: &str, usual: &str, probe: &[&str]) -> Tool {
    let path = std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
    let works = !path.is_empty()
        && Command::new(&path)
            .args(probe)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
    if works {
        return Tool::At(path);
    }
    missing(test, &format!("`{usual}` (or {variable}) does not work"));
    Tool::Missing
}

/// Says that a test is passed over, which nobody should overlook.
///
/// # Panics
/// If it is [`required`].
pub fn missing(test: &str, why: &str) {
    assert!(!required(), "{test}: {why}, and QUORATE_E2E_REQUIRE=1 demands it");
    // Not through print!, which the test harness would keep to itself.
    let text = format!("\n*** NOT TESTED: {test}: {why}. `.ci/run` installs it.\n");
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
}

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code, if it ended by itself.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Its output.
    ///
    /// # Panics
    /// If it failed.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "failed: {}\n{}", self.out, self.err);
        self.out
    }

    /// What it complained of.
    ///
    /// # Panics
    /// If it did not fail.
    pub fn failed(self) -> String {
        assert_ne!(self.code, Some(0), "did not fail: {}", self.out);
        self.err + &self.out
    }

    /// Its output as JSON.
    pub fn json(self) -> serde_json::Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program to its end, with this standard input.
pub fn run(command: &mut Command, input: &str) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    {
        let mut stdin = child.stdin.take().unwrap();
        // A program that does not read its input may have ended already.
        let _ = std::io::Write::write_all(&mut stdin, input.as_bytes());
    }
    child.wait_with_output().unwrap().into()
}

/// Runs etcdctl with the third API.
pub fn etcdctl(endpoints: &str, arguments: &[&str]) -> Ran {
    run(&mut etcdctl_command(endpoints, arguments), "")
}

/// The same, not yet run.
pub fn etcdctl_command(endpoints: &str, arguments: &[&str]) -> Command {
    let path = std::env::var("QUORATE_E2E_ETCDCTL").unwrap_or_else(|_| "etcdctl".to_owned());
    let mut command = Command::new(path);
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoints}")).args(arguments);
    command
}
