//! One call: pick an endpoint, connect, send, and on failure decide whether and whom to ask next.

use crate::balancer::Balancer;
use crate::config::Config;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::link::{Link, Named};
use crate::retry::{Safety, Verdict, certainly_not_executed, holds_everywhere, judge};
use crate::routes::Routes;
use crate::runner::Runner;
use quorate_base::Rng;
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status, TimeoutExpired};

/// What the library answers for a member that did not in time.
const EXPIRED: &str = "Timeout expired";
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A client of one cluster. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<Config>,
    links: Arc<Mutex<Links>>,
    named: Named,
    pub(crate) routes: Arc<Routes>,
    runners: Arc<Mutex<BTreeMap<Endpoint, Runner>>>,
}

#[derive(Debug)]
struct Links {
    endpoints: Vec<Endpoint>,
    /// One connection per endpoint, made when first needed.
    channels: Vec<Option<Channel>>,
    balancer: Balancer,
    rng: Rng,
}

impl Links {
    fn new(endpoints: Vec<Endpoint>, mut rng: Rng) -> Links {
        // Many clients with the same list must not all begin with its first.
        let first = usize::try_from(rng.next_u64() >> 33).unwrap_or(0);
        let balancer = Balancer::new(endpoints.len(), first);
        Links { channels: vec![None; endpoints.len()], endpoints, balancer, rng }
    }
}

/// Connects to one endpoint.
///
/// # Errors
/// [`Error::Unavailable`], if it did not accept within `timeout`.
pub async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Channel, Error> {
    let unavailable = |last: String| Error::Unavailable { last };
    let transport = tonic::transport::Endpoint::from_shared(endpoint.url())
        .map_err(|e| Error::Endpoint { endpoint: endpoint.to_string(), why: e.to_string() })?
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(3));
    match tokio::time::timeout(timeout, transport.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(unavailable(format!("{endpoint}: {}", innermost(&error)))),
        Err(_) => Err(unavailable(format!("{endpoint}: no connection within {timeout:?}"))),
    }
}

/// The cause of the cause: "connection refused" says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl Client {
    /// A client that connects when it is first asked something.
    pub fn new(config: Config) -> Client {
        let seed = RandomState::new().build_hasher().finish();
        let links = Links::new(config.endpoints.clone(), Rng::new(seed));
        let named = Named::of(config.keyspace.as_deref());
        let (config, links) = (Arc::new(config), Arc::new(Mutex::new(links)));
        Client { config, links, named, routes: Arc::default(), runners: Arc::default() }
    }

    /// What calls go out by, over this connection.
    pub(crate) fn link(&self, channel: Channel) -> Link {
        Link::new(channel, self.named.clone())
    }

    /// The same, for a call that is waited for until then. Members are told, so that they answer in
    /// time with what they know by then.
    fn link_until(&self, channel: Channel, until: Instant) -> Link {
        let left = until.saturating_duration_since(Instant::now());
        Link::new(channel, self.named.clone().within(left))
    }

    /// The endpoints in use.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.links().endpoints.clone()
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// From now on uses these endpoints; an empty list changes nothing.
    pub(crate) fn use_endpoints(&self, endpoints: Vec<Endpoint>) {
        let mut links = self.links();
        if endpoints.is_empty() || endpoints == links.endpoints {
            return;
        }
        let rng = Rng::new(links.rng.next_u64());
        let old = std::mem::replace(&mut *links, Links::new(endpoints, rng));
        for (endpoint, channel) in old.endpoints.iter().zip(old.channels) {
            if let Some(i) = links.endpoints.iter().position(|e| e == endpoint) {
                links.channels[i] = channel;
            }
        }
        self.runners().retain(|endpoint, _| links.endpoints.contains(endpoint));
    }

    // A panic while the lock was held leaves the links as usable as before.
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `attempt` on one endpoint after the other until one answers.
    ///
    /// # Errors
    /// Each kind but [`Error::Endpoint`].
    pub async fn call<R, F>(&self, safety: Safety, attempt: impl Fn(Link) -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        self.call_at(None, safety, |_, channel, until| {
            let answer = attempt(self.link_until(channel, until));
            async { answer.await.map(tonic::Response::into_inner) }
        })
        .await
    }

    /// The same, beginning with this endpoint, if it is one of ours and has not failed lately. Each
    /// attempt is told whom it asks, by which connection, and until when.
    pub(crate) async fn call_at<R, F>(
        &self,
        mut first: Option<Endpoint>,
        safety: Safety,
        attempt: impl Fn(&Endpoint, Channel, Instant) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<R, Status>>,
    {
        let deadline = Instant::now() + self.config.timeout;
        let mut last = "no time to ask anybody".to_owned();
        // What a member has said of the call says more than that another one is away, or silent.
        let (mut told, mut may_be_done) = (false, false);
        for round in 0u32.. {
            let (endpoint, channel) = match self.channel(first.take(), deadline).await {
                Ok(found) => found,
                Err(why) => {
                    if !told {
                        last = why;
                    }
                    if !self.pause(round, deadline).await {
                        break;
                    }
                    continue;
                }
            };
            let patience = self.patience(safety, deadline);
            let attempt = attempt(&endpoint, channel, patience);
            let (status, says) = match timeout_at(patience, attempt).await {
                Ok(Ok(response)) => {
                    self.answered(&endpoint);
                    return Ok(response);
                }
                Ok(Err(status)) => failure(status),
                Err(_) => silence(),
            };
            let words = format!("{endpoint}: {}", describe(&status));
            match judge(&status, safety) {
                Verdict::Final => {
                    self.answered(&endpoint);
                    // Of what was done, one that has not heard of it knows nothing.
                    return Err(match may_be_done && !holds_everywhere(&status) {
                        true => Error::Unknown { last: words },
                        false => Error::Refused(Box::new(status)),
                    });
                }
                Verdict::Unknown => {
                    self.failed(&endpoint);
                    return Err(Error::Unknown { last: words });
                }
                Verdict::Again => {
                    self.failed(&endpoint);
                    may_be_done |= safety == Safety::Idempotent && !certainly_not_executed(&status);
                }
            }
            if says || !told {
                (last, told) = (words, says);
            }
            if !self.pause(round, deadline).await {
                break;
            }
        }
        match may_be_done {
            true => Err(Error::Unknown { last }),
            false => Err(Error::Unavailable { last }),
        }
    }

    /// Until when one endpoint is waited for.
    fn patience(&self, safety: Safety, deadline: Instant) -> Instant {
        match safety {
            Safety::Repeatable | Safety::Idempotent => {
                deadline.min(Instant::now() + self.config.attempt_timeout)
            }
            Safety::Once => deadline,
        }
    }

    /// A connection to the first, if it is there, or to whoever's turn it is; or why there is none.
    pub(crate) async fn channel(
        &self,
        first: Option<Endpoint>,
        deadline: Instant,
    ) -> Result<(Endpoint, Channel), String> {
        let (endpoint, channel) = {
            let mut links = self.links();
            let now = std::time::Instant::now();
            let known = first.and_then(|first| links.endpoints.iter().position(|e| *e == first));
            let known = known.filter(|i| !links.balancer.rests(*i, now));
            let i = known.unwrap_or_else(|| links.balancer.pick(now));
            (links.endpoints[i].clone(), links.channels[i].clone())
        };
        if let Some(channel) = channel {
            return Ok((endpoint, channel));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match connect(&endpoint, self.config.connect_timeout.min(left)).await {
            Ok(channel) => {
                let mut links = self.links();
                if let Some(i) = links.endpoints.iter().position(|e| *e == endpoint) {
                    links.channels[i] = Some(channel.clone());
                }
                Ok((endpoint, channel))
            }
            Err(error) => {
                self.failed(&endpoint);
                Err(match error {
                    Error::Unavailable { last } => last,
                    other => other.to_string(),
                })
            }
        }
    }

    pub(crate) fn answered(&self, endpoint: &Endpoint) {
        let mut links = self.links();
        if let Some(i) = links.endpoints.iter().position(|e| e == endpoint) {
            links.balancer.answered(i);
        }
    }

    /// It is left alone for a while, and its connection is made afresh.
    pub(crate) fn failed(&self, endpoint: &Endpoint) {
        let mut links = self.links();
        if let Some(i) = links.endpoints.iter().position(|e| e == endpoint) {
            links.balancer.failed(i, std::time::Instant::now());
            links.channels[i] = None;
        }
        drop(links);
        self.runners().remove(endpoint);
    }

    /// What runs transactions there, by this connection unless there is one already.
    pub(crate) fn runner(&self, endpoint: &Endpoint, channel: Channel) -> Runner {
        let mut runners = self.runners();
        runners.entry(endpoint.clone()).or_insert_with(|| Runner::new(self.link(channel))).clone()
    }

    fn runners(&self) -> MutexGuard<'_, BTreeMap<Endpoint, Runner>> {
        self.runners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a little, longer each round and never the same; false when the deadline comes first.
    pub(crate) async fn pause(&self, round: u32, deadline: Instant) -> bool {
        let longest = FIRST_PAUSE.saturating_mul(1 << round.min(10)).min(LONGEST_PAUSE);
        let jitter = self.links().rng.next_u64() % 1_000;
        let pause = longest / 2 + longest.mul_f64(jitter as f64 / 2_000.0);
        let until = Instant::now() + pause;
        if until >= deadline {
            return false;
        }
        sleep_until(until).await;
        true
    }
}

/// How an attempt has failed, and whether it was the member that says so.
fn failure(status: Status) -> (Status, bool) {
    match is_timeout(&status) {
        true => silence(),
        false => {
            let says = std::error::Error::source(&status).is_none();
            (status, says)
        }
    }
}

fn silence() -> (Status, bool) {
    (Status::deadline_exceeded("no answer in time"), false)
}

/// Whether the connection itself has noticed first that the time is up.
fn is_timeout(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    // A member whose own timer is the first says it like this.
    status.code() == Code::Cancelled && status.message() == EXPIRED
}

pub(crate) fn describe(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{} ({})", innermost(source), status.code()),
        None => format!("{} ({:?})", status.message(), status.code()),
    }
}
