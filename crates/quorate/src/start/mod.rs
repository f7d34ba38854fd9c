//! `quorate start`: one node, from its settings to its end.

mod compaction;
mod coordinator;
mod identity;
mod options;
mod participants;
mod room;
mod run;
mod runtimes;
mod settings;
mod urls;

pub use coordinator::Coordinator;
pub use options::Arguments;

use crate::exit::Failure;
use settings::Settings;

/// Runs a node until it is told to stop, or cannot go on.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let options = arguments.resolved().map_err(Failure::Usage)?;
    if arguments.print_config {
        let text = toml::to_string(&options).map_err(|e| Failure::Usage(e.to_string()))?;
        crate::output::print(text.as_bytes());
        return Ok(());
    }
    let settings = Settings::of(&options).map_err(Failure::Usage)?;
    run::run(&settings, arguments.stop_with_stdin)
}
