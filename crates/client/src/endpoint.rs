//! Where a member is reached.

use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// A host and a port, written `host:port` or `http://host:port`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// The port where none is given: etcd's client port.
    pub const DEFAULT_PORT: u16 = 2379;

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{self}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Endpoint { endpoint: text.to_owned(), why: why.to_owned() };
        let trimmed = text.trim();
        let rest = match trimmed.split_once("://") {
            None => trimmed,
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(bad("TLS is not supported yet: use http://")),
            Some((scheme, _)) => return Err(bad(&format!("unknown scheme `{scheme}`"))),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
            return Err(bad("expected host:port"));
        }
        // The colons of an address of IPv6 are inside brackets.
        let after_brackets = authority.rfind(']').map_or(0, |i| i + 1);
        let (host, port) = match authority[after_brackets..].rfind(':') {
            None => (authority, Self::DEFAULT_PORT),
            Some(colon) => {
                let port = &authority[after_brackets + colon + 1..];
                let port = port.parse().map_err(|_| bad("the port is not a number below 65536"))?;
                (&authority[..after_brackets + colon], port)
            }
        };
        let bare = host.strip_prefix('[').map_or(Some(host), |h| h.strip_suffix(']'));
        match bare {
            Some(inner) if !inner.is_empty() && (inner == host) != inner.contains(':') => {
                Ok(Endpoint { host: host.to_owned(), port })
            }
            _ => Err(bad("expected host:port")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_understood() {
        let read = |text: &str| text.parse::<Endpoint>().map(|e| e.to_string());
        for text in ["127.0.0.1:2379", "http://127.0.0.1:2379", "http://127.0.0.1:2379/"] {
            assert_eq!(read(text).unwrap(), "127.0.0.1:2379");
        }
        assert_eq!(read("node-1").unwrap(), "node-1:2379");
        assert_eq!(read("[::1]:99").unwrap(), "[::1]:99");
        assert_eq!(read("http://[::1]").unwrap(), "[::1]:2379");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "http://", "a:b", "a:70000", "https://a:1", "unix:///x", "::1", "a b:1"] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(matches!(error, Error::Endpoint { .. }), "{text}: {error}");
        }
    }
}
