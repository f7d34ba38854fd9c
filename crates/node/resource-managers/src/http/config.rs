//! Where an HTTP participant is, and what may be used of it.

use crate::config::{Secret, hand_in_ms};
use crate::error::Error;
use crate::name::check_participant;
use crate::pool::check_connections;
use ::http::uri::{Authority, Scheme};
use ::http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;
use std::collections::BTreeMap;

/// One HTTP participant, as the configuration names it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpConfig {
    /// What transactions call it. It is part of the names of its branches: keep it while any of
    /// them is in doubt.
    pub name: String,
    /// Its URL, to which the paths of the contract are appended.
    pub url: String,
    /// Headers of every request, as for authorization.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The most requests under way to try; as many more may be under way to finish.
    #[serde(default = "requests")]
    pub requests: usize,
    /// The longest that one request may take.
    #[serde(default = "request_limit_ms")]
    pub request_limit_ms: u64,
    /// For how long a reservation that no transaction is known of is left alone: its application
    /// may yet hand it in.
    #[serde(default = "hand_in_ms")]
    pub hand_in_ms: u64,
}

fn requests() -> usize {
    32
}

fn request_limit_ms() -> u64 {
    5000
}

/// The participant's URL, in parts.
#[derive(Debug)]
pub(super) struct Base {
    authority: Authority,
    path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

impl HttpConfig {
    /// Access with the defaults in everything else.
    pub fn new(name: &str, url: &str) -> HttpConfig {
        HttpConfig {
            name: name.to_owned(),
            url: url.to_owned(),
            headers: BTreeMap::new(),
            requests: requests(),
            request_limit_ms: request_limit_ms(),
            hand_in_ms: hand_in_ms(),
        }
    }

    pub(super) fn validate(&self) -> Result<Base, Error> {
        check_participant(&self.name)?;
        let wrong = |what: String| Error::Caller(format!("{}: {what}", self.name));
        let uri: Uri =
            self.url.parse().map_err(|error| wrong(format!("{:?}: {error}", self.url)))?;
        let parts = uri.into_parts();
        if parts.scheme == Some(Scheme::HTTPS) {
            let what = "https is not supported yet; put a proxy that speaks TLS beside the node";
            return Err(wrong(what.to_owned()));
        }
        let (Some(authority), true) = (parts.authority, parts.scheme == Some(Scheme::HTTP)) else {
            return Err(wrong(format!("{:?} does not begin with http://HOST", self.url)));
        };
        check_connections(&self.name, "requests", self.requests)?;
        let path = parts.path_and_query.map_or(String::new(), |p| p.path().to_owned());
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let bad = |_| wrong(format!("{name:?} is no header, or its value is not"));
            let name: HeaderName = name.parse().map_err(|_| bad(()))?;
            let mut value = HeaderValue::from_str(value.reveal()).map_err(|_| bad(()))?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        Ok(Base { authority, path: path.trim_end_matches('/').to_owned(), headers })
    }
}

impl Base {
    /// The URL of a path below.
    pub(super) fn with(&self, path: &str) -> Result<Uri, Error> {
        let whole = format!("http://{}{}{path}", self.authority, self.path);
        whole.parse().map_err(|error| Error::Caller(format!("{whole:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_put_together_and_others_are_refused() {
        let with = |url: &str| HttpConfig::new("hotel", url).validate().map(|b| b.with("/rooms"));
        for url in ["http://h:1", "http://h:1/"] {
            assert_eq!(with(url).unwrap().unwrap(), "http://h:1/rooms");
        }
        assert_eq!(with("http://h:1/api/").unwrap().unwrap(), "http://h:1/api/rooms");
        for (url, why) in [("https://h", "TLS"), ("h:1", "http://HOST"), ("/x", "http://HOST")] {
            let error = with(url).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let mut config = HttpConfig::new("hotel", "http://h");
        config.headers.insert("bad header".to_owned(), "x".into());
        assert!(config.validate().unwrap_err().to_string().contains("bad header"));
        for requests in [0, 10_001, usize::MAX] {
            let config = HttpConfig { requests, ..HttpConfig::new("hotel", "http://h") };
            let error = config.validate().unwrap_err().to_string();
            assert_eq!(error, format!("hotel: requests is {requests}; it must be from 1 to 10000"));
        }
    }
}
