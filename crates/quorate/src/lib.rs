//! The binary: wiring and the command line, nothing else. A library only so that the tests of
//! real processes can build the very same program.
//!
//! Invariant: nothing is decided here that a node's state depends on; every subcommand turns its
//! arguments into a call of the crate that does the work, and its outcome into text and a code.

// Everything is printed by `output`, which knows what a closed pipe means.
#![deny(clippy::print_stdout)]

use clap::Parser;
use std::process::ExitCode;

mod bench;
mod cli;
mod client;
mod exit;
mod lab;
mod output;
mod sim;
mod start;
mod up;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let outcome = match cli::Cli::try_parse() {
        Ok(cli) => cli.run(),
        // clap prints help to standard output and mistakes to standard error, with code 0 or 2.
        Err(error) => error.exit(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code()
        }
    }
}
