//! How the records of transactions are kept: said once, when the first transaction makes them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who decides on them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coordinator {
    /// Most of the members.
    #[default]
    Replicated,
    /// One member alone: without it what is undecided stays so.
    Unreplicated,
}

impl Coordinator {
    /// How people write it.
    pub fn name(self) -> &'static str {
        match self {
            Coordinator::Replicated => "replicated",
            Coordinator::Unreplicated => "unreplicated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_names_are_the_same_everywhere() {
        for known in Coordinator::value_variants() {
            let flag = known.to_possible_value().unwrap();
            assert_eq!(flag.get_name(), known.name());
            assert_eq!(serde_json::to_value(known).unwrap(), known.name());
        }
    }
}
