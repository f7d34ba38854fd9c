//! What the exit codes mean.

use quorate_client::Error;
use std::fmt;
use std::process::ExitCode;

/// The codes, as the manual and `--help` tell them.
pub const CODES: &str = "\
Exit codes:
  0  done
  1  failed: the server refused, a node failed, a simulated run violated something
  2  the command line or the configuration is wrong
  3  no endpoint answered in time, or the cluster has no quorum
  4  this machine does not let it: a port is taken, a data directory is locked or not ours
  5  a transaction is decided, but a branch of it ended otherwise: see `quorate txn alarms`";

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// It was tried, and refused or went wrong.
    Failed(String),
    /// The command line or the configuration is wrong.
    Usage(String),
    /// Nobody answered.
    Unavailable(String),
    /// The machine does not let it.
    Machine(String),
    /// A branch of the transaction ended against the decision.
    Alarm(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Unavailable(_) => 3,
            Failure::Machine(_) => 4,
            Failure::Alarm(_) => 5,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(why)
            | Failure::Usage(why)
            | Failure::Unavailable(why)
            | Failure::Machine(why)
            | Failure::Alarm(why) => f.write_str(why),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Endpoint { .. } => Failure::Usage(error.to_string()),
            Error::Refused(_) => Failure::Failed(error.to_string()),
            Error::Unavailable { .. } | Error::Unknown { .. } => {
                Failure::Unavailable(error.to_string())
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Machine(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::Failed(format!("JSON: {error}"))
    }
}
