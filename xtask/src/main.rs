//! Project chores: `cargo xtask <chore>`.

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <chore>

  tidy     check what no compiler checks: layers, purity, sizes, dead files, documents
  proto    regenerate the checked-in gRPC code; with --check, say whether it is up to date";

fn main() -> ExitCode {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let outcome = match chore.as_str() {
        "tidy" => xtask::tidy::run(&xtask::root()),
        "proto" => xtask::proto::run(std::env::args().any(|a| a == "--check")),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprintln!("there is no chore `{other}`\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
