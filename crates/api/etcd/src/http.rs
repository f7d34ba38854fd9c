//! What the client port answers to plain HTTP: version, health and metrics.
//!
//! The place of the JSON gateway (`POST /v3/...`) is here too; until then it is 404.

use crate::backend::Backend;
use crate::health::{Check, overall};
use crate::metrics;
use crate::node::Node;
use crate::options::{CLUSTER_VERSION, SERVER_VERSION, STORAGE_VERSION};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::Full;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Answers one request.
pub(crate) async fn answer<B: Backend>(
    node: &Node<B>,
    method: &Method,
    uri: &Uri,
) -> Response<Full<Bytes>> {
    let query = Query::of(uri);
    let path = uri.path();
    if method != Method::GET && method != Method::HEAD && known(path) {
        let mut response =
            respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n".to_owned());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/version" => respond(StatusCode::OK, JSON, versions()),
        "/metrics" => respond(StatusCode::OK, METRICS, metrics::text(node)),
        "/health" => health(node, &query).await,
        "/livez" => checks(node, &Check::LIVE, &query).await,
        "/readyz" => checks(node, &Check::READY, &query).await,
        _ => match sub_check(path) {
            Some(check) => checks(node, &[check], &query).await,
            None => respond(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".to_owned()),
        },
    }
}

fn known(path: &str) -> bool {
    matches!(path, "/version" | "/metrics" | "/health" | "/livez" | "/readyz")
        || sub_check(path).is_some()
}

/// `/livez/name` and `/readyz/name` ask one question alone.
fn sub_check(path: &str) -> Option<Check> {
    let (list, name) = match path.strip_prefix("/livez/") {
        Some(name) => (&Check::LIVE[..], name),
        None => (&Check::READY[..], path.strip_prefix("/readyz/")?),
    };
    list.iter().copied().find(|check| check.name() == name)
}

fn versions() -> String {
    format!(
        "{{\"etcdserver\":\"{SERVER_VERSION}\",\"etcdcluster\":\"{CLUSTER_VERSION}\",\
         \"storage\":\"{STORAGE_VERSION}\"}}"
    )
}

async fn health<B: Backend>(node: &Node<B>, query: &Query) -> Response<Full<Bytes>> {
    let outcome = overall(node, query.has("serializable", "true"), &query.all("exclude")).await;
    node.metrics.health(outcome.is_ok());
    let (status, healthy) = match outcome {
        Ok(()) => (StatusCode::OK, "true"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    // The reasons are our own texts, without quotes or control characters.
    let reason = outcome.err().unwrap_or_default().replace(['"', '\\'], "'");
    respond(status, JSON, format!("{{\"health\":\"{healthy}\",\"reason\":\"{reason}\"}}"))
}

async fn checks<B: Backend>(
    node: &Node<B>,
    list: &[Check],
    query: &Query,
) -> Response<Full<Bytes>> {
    let excluded = query.all("exclude");
    let (mut text, mut healthy) = (String::new(), true);
    for check in list {
        let name = check.name();
        if excluded.iter().any(|excluded| excluded == name) {
            continue;
        }
        match check.run(node).await {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                healthy = false;
                text.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    node.metrics.health(healthy);
    if !healthy {
        return respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, text);
    }
    let text = if query.names("verbose") { text + "ok\n" } else { "ok\n".to_owned() };
    respond(StatusCode::OK, TEXT, text)
}

fn respond(status: StatusCode, kind: HeaderValue, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// The query of an address. The words looked for have no characters that would be encoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &Uri) -> Query {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.to_owned())
        };
        Query(pairs.map(split).collect())
    }

    fn names(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.0.iter().any(|(n, v)| n == name && v == value)
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect()
    }
}
