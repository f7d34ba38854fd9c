//! The participants of transactions that the node is configured with: databases, HTTP services.

use super::settings::Settings;
use crate::exit::Failure;
use quorate_base::ClusterId;
use quorate_resource_managers::{Participants, ParticipantsConfig};

/// The participants that the node is configured with. None of them is asked anything yet.
pub(super) fn open(settings: &Settings, cluster: ClusterId) -> Result<Participants, Failure> {
    let config = match &settings.participants {
        None => ParticipantsConfig::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::Usage(format!("--participants: cannot read {}: {error}", path.display()))
            })?;
            toml::from_str(&text).map_err(|error| {
                Failure::Usage(format!("--participants: {}: {error}", path.display()))
            })?
        }
    };
    config.open(cluster).map_err(|error| Failure::Usage(format!("--participants: {error}")))
}
