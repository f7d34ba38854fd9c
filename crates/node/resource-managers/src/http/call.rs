//! One request of the contract, and what its answer means.

use super::body::{self, Beginning};
use super::config::{Base, HttpConfig};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::name::BranchName;
use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::sync::Arc;
use std::time::Duration;

pub(super) type Client = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

const OUTCOME: &str = "quorate-outcome";
const CALLING: &str = "calling it";
/// The most of a refusal's text that is kept, in characters.
const REASON_LIMIT: usize = 500;

pub(super) fn client(connections: usize) -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_secs(3)));
    hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(connections)
        .build(connector)
}

/// What to ask.
pub(super) struct Request<'a> {
    pub(super) branch: &'a BranchName,
    pub(super) phase: &'static str,
    pub(super) path: String,
    pub(super) body: Bytes,
}

impl<'a> Request<'a> {
    /// Everything but a try: it is about a branch that the participant knows, or not.
    pub(super) fn phase(branch: &'a BranchName, phase: &'static str) -> Request<'a> {
        Request { branch, phase, path: format!("/quorate/{phase}"), body: Bytes::new() }
    }
}

/// What the participant says in its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    Reserved,
    Nothing,
    Refused,
    Confirmed,
    Cancelled,
    Absent,
    List,
}

const WORDS: [(&str, Said); 7] = [
    ("reserved", Said::Reserved),
    ("nothing", Said::Nothing),
    ("refused", Said::Refused),
    ("confirmed", Said::Confirmed),
    ("cancelled", Said::Cancelled),
    ("absent", Said::Absent),
    ("list", Said::List),
];

/// An answer that keeps the contract.
pub(super) struct Answered {
    pub(super) said: Said,
    body: Beginning,
    status: StatusCode,
}

impl Answered {
    /// Why it refuses, if that is what it says: the beginning of its text.
    pub(super) fn reason(&self) -> String {
        reason(&self.body)
    }

    /// Its text, as far as it was read, without a line that was not read to its end.
    pub(super) fn lines(self, manager: &Arc<str>, doing: &'static str) -> Result<String, Error> {
        let lines = self.body.whole_lines().ok_or_else(|| Error::Refused {
            manager: manager.clone(),
            doing,
            code: self.status.as_u16().to_string(),
            said: format!("its answer has a line of more than {} bytes", body::LIMIT),
        })?;
        Ok(lines.text())
    }

    /// The error of an answer that is none to what was asked.
    pub(super) fn senseless(&self, manager: &Arc<str>, doing: &'static str, said: Said) -> Error {
        Error::Refused {
            manager: manager.clone(),
            doing,
            code: self.status.as_u16().to_string(),
            said: format!("it says \"{said:?}\", which is no answer to that"),
        }
    }
}

pub(super) async fn call(
    manager: &Arc<str>,
    client: &Client,
    base: &Base,
    config: &HttpConfig,
    request: &Request<'_>,
    deadline: Deadline,
) -> Result<Answered, Error> {
    let built = build(base, request, deadline)?;
    let answer = async {
        let unreachable = |error: &dyn std::error::Error| Error::Unreachable {
            manager: manager.clone(),
            doing: CALLING,
            said: with_causes(error),
        };
        let response = client.request(built).await.map_err(|error| unreachable(&error))?;
        let (head, body) = response.into_parts();
        let body = body::read(body).await.map_err(|error| unreachable(&error))?;
        Ok::<_, Error>((head, body))
    };
    let answer = deadline.bound(answer).await;
    let late = || Error::TooLate { manager: manager.clone(), doing: CALLING };
    let (head, body) = answer.ok_or_else(late)??;
    judge(manager, config, head.status, &head.headers, body)
}

fn build(
    base: &Base,
    request: &Request<'_>,
    deadline: Deadline,
) -> Result<::http::Request<Full<Bytes>>, Error> {
    let branch = request.branch;
    let mut built = ::http::Request::new(Full::new(request.body.clone()));
    *built.method_mut() = Method::POST;
    *built.uri_mut() = base.with(&request.path)?;
    let headers = built.headers_mut();
    headers.extend(base.headers.iter().cloned());
    let key = format!("{branch}:{}", request.phase);
    let left = deadline.left_ms().to_string();
    for (name, value) in [
        ("quorate-transaction", branch.transaction().as_str()),
        ("quorate-branch", branch.qualifier()),
        ("quorate-phase", request.phase),
        ("quorate-deadline-ms", &left),
        ("idempotency-key", &key),
    ] {
        // Names have no character that a header may not have.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    if !request.body.is_empty() {
        headers.insert(::http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(built)
}

/// What an answer says; an error, where it does not say it as the contract demands.
fn judge(
    manager: &Arc<str>,
    config: &HttpConfig,
    status: StatusCode,
    headers: &HeaderMap,
    body: Beginning,
) -> Result<Answered, Error> {
    let manager = manager.clone();
    let short = || reason(&body);
    if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
        let user = format!("with {} headers", config.headers.len());
        return Err(Error::Credentials { manager, user, said: format!("{status} {}", short()) });
    }
    let word = headers.get(OUTCOME).and_then(|value| value.to_str().ok());
    let said = word.and_then(|word| WORDS.iter().find(|(w, _)| *w == word)).map(|(_, said)| *said);
    match said {
        Some(said) if status.is_success() || status == StatusCode::CONFLICT => {
            Ok(Answered { said, body, status })
        }
        _ => Err(Error::Refused {
            manager,
            doing: CALLING,
            code: status.as_u16().to_string(),
            said: match word {
                Some(word) if said.is_none() => format!("Quorate-Outcome is {word:?}"),
                None if status.is_success() => {
                    "it does not say what it did in the header Quorate-Outcome: is it a \
                     participant?"
                        .to_owned()
                }
                _ => short(),
            },
        }),
    }
}

fn reason(body: &Beginning) -> String {
    body.text().chars().take(REASON_LIMIT).collect()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}
