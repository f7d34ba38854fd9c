//! Project chores: `cargo xtask <chore>`.

use std::process::ExitCode;

type Outcome = Result<(), anyhow::Error>;

const USAGE: &str = "\
usage: cargo xtask <chore>

  tidy     check what no compiler checks: layers, purity, sizes, dead files, dependencies, documents
  proto    regenerate the checked-in gRPC code; with --check, say whether it is up to date";

fn main() -> ExitCode {
    let chore = std::env::args().nth(1).unwrap_or_default();
    let outcome = match chore.as_str() {
        "tidy" => xtask::tidy::run(&xtask::root()),
        "proto" => proto(),
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

#[cfg(feature = "proto")]
fn proto() -> Outcome {
    xtask::proto::run(std::env::args().any(|a| a == "--check"))
}

/// Has itself built with what that needs, and run.
#[cfg(not(feature = "proto"))]
fn proto() -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = ["run", "--locked", "--quiet", "--package", "xtask", "--"];
    let chore = std::env::args_os().skip(1);
    let status = std::process::Command::new(cargo).args(run).args(chore).status()?;
    anyhow::ensure!(status.success(), "the chore failed");
    Ok(())
}
