//! What a client is told once.

use crate::endpoint::Endpoint;
use crate::error::Error;
use std::time::Duration;

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to begin. At least one.
    pub endpoints: Vec<Endpoint>,
    /// A call ends, one way or the other, after this.
    pub timeout: Duration,
    /// An endpoint that has not accepted a connection after this counts as gone.
    pub connect_timeout: Duration,
    /// An endpoint that has not answered a call which may be repeated after this is left for
    /// another. Calls that may not be repeated wait for the whole timeout.
    pub attempt_timeout: Duration,
    /// The keyspace to use; nothing is the default one.
    pub keyspace: Option<String>,
}

impl Config {
    /// The usual settings with these endpoints.
    ///
    /// # Errors
    /// [`Error::Endpoint`], if one is malformed or none is given.
    pub fn of<'a>(endpoints: impl IntoIterator<Item = &'a str>) -> Result<Config, Error> {
        let endpoints: Vec<Endpoint> =
            endpoints.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            let why = "at least one is needed".to_owned();
            return Err(Error::Endpoint { endpoint: String::new(), why });
        }
        Ok(Config {
            endpoints,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(2),
            keyspace: None,
        })
    }
}
