//! From listening sockets to answers: connections, dispatch, and the end of it all.
//!
//! One port speaks HTTP/1 and HTTP/2 (with prior knowledge), told apart by the first bytes. Of
//! gRPC, the paths of [`crate::unary`] take the short way and all others go through tonic. The
//! place of TLS is between `accept` and `serve_connection`.

use crate::auth::AuthService;
use crate::backend::Backend;
use crate::cluster::ClusterService;
use crate::election::ElectionService;
use crate::health::HealthService;
use crate::keyspaces::{KEYSPACE_HEADER, Keyspaces};
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::lock::LockService;
use crate::maintenance::MaintenanceService;
use crate::node::Node;
use crate::options::Options;
use crate::unary::{Answer, Unary, refused};
use crate::watch::{self, WatchService};
use crate::{http, leader};
use ::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use quorate_wire::etcdserverpb::auth_server::AuthServer;
use quorate_wire::etcdserverpb::cluster_server::ClusterServer;
use quorate_wire::etcdserverpb::kv_server::KvServer;
use quorate_wire::etcdserverpb::lease_server::LeaseServer;
use quorate_wire::etcdserverpb::maintenance_server::MaintenanceServer;
use quorate_wire::etcdserverpb::watch_server::WatchServer;
use quorate_wire::health::health_server::HealthServer;
use quorate_wire::v3electionpb::election_server::ElectionServer;
use quorate_wire::v3lockpb::lock_server::LockServer;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch as flag};
use tokio::task::JoinSet;
use tonic::service::Routes;
use tower_service::Service;

/// How long connections may take to finish their calls when the server stops.
const GRACE: Duration = Duration::from_secs(2);
/// How long a client may take over the head of an HTTP/1 request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// As etcd: a connection that was silent for so long is pinged, and closed if that goes unheard.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2 * 3600);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// After a failed accept (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that clients come in by, and the keyspace of those who name none.
#[derive(Debug)]
pub struct Door {
    /// The socket.
    pub listener: TcpListener,
    /// The keyspace; nothing is the default one.
    pub keyspace: Option<String>,
}

/// Serves the API on these sockets until `shutdown` ends: [`serve_doors`].
pub async fn serve<B: Backend>(
    listeners: Vec<TcpListener>,
    backend: B,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) {
    let doors = listeners.into_iter().map(|listener| Door { listener, keyspace: None });
    serve_doors(doors.collect(), backend, options, shutdown).await;
}

/// Serves the API at these doors until `shutdown` ends. What is under way then may finish within
/// two seconds.
pub async fn serve_doors<B: Backend>(
    doors: Vec<Door>,
    backend: B,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) {
    let node = Node::new(backend, options);
    let server = Server::new(&node);
    let mut background = JoinSet::new();
    follow(&node, |task| {
        background.spawn(task);
    });
    let (stop, stopping) = flag::channel(false);
    let permits = Arc::new(Semaphore::new(node.options.max_connections));
    for Door { listener, keyspace } in doors {
        let server = Server { home: keyspace.map(Arc::from), ..server.clone() };
        let accept = accept(listener, server, permits.clone(), stopping.clone());
        background.spawn(accept);
    }
    drop(stopping);
    shutdown.await;
    // The receivers hear it even if they were not waiting; without receivers there is no news.
    let _ = stop.send(true);
    let done = tokio::time::timeout(GRACE, stop.closed()).await;
    if done.is_err() {
        tracing::info!("some connections did not finish in time and are cut off");
    }
    background.shutdown().await;
}

async fn accept<B: Backend>(
    listener: TcpListener,
    server: Server<B>,
    permits: Arc<Semaphore>,
    mut stopping: flag::Receiver<bool>,
) {
    // Dropped with this task, which ends what outlives the grace.
    let mut connections = JoinSet::new();
    let mut runtimes = server.node.options.workers.clone();
    runtimes.push(Handle::current());
    let mut turns = (0..runtimes.len()).cycle();
    loop {
        // Without a permit the next client waits in the backlog.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // Losing this costs latency only.
                let _ = stream.set_nodelay(true);
                let runtime = turns.next().and_then(|turn| runtimes.get(turn));
                let (Some(runtime), Ok(stream)) = (runtime, stream.into_std()) else { continue };
                let connection = connection(stream, server.clone(), permit, stopping.clone());
                connections.spawn_on(connection, runtime);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client's connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    drop(stopping);
    while connections.join_next().await.is_some() {}
}

/// The wish to stop was heard, or whoever could utter it is gone.
async fn stopped(stopping: &mut flag::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn connection<B: Backend>(
    stream: std::net::TcpStream,
    server: Server<B>,
    permit: OwnedSemaphorePermit,
    mut stopping: flag::Receiver<bool>,
) {
    // Only here, for a socket belongs to the runtime it was registered with.
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let node = server.node.clone();
    node.metrics.connection_opened();
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(node.options.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        () = stopped(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a client's connection broke");
    }
    node.metrics.connection_closed();
    drop(permit);
}

/// What goes on for a keyspace as long as it is served.
pub(crate) fn follow<B: Backend>(
    node: &Node<B>,
    mut spawn: impl FnMut(Pin<Box<dyn Future<Output = ()> + Send>>),
) {
    spawn(Box::pin(watch::dispatch(node.clone())));
    spawn(Box::pin(watch::serve_history(node.clone())));
    spawn(Box::pin(leader::monitor(node.clone())));
}

/// Answers requests. Cloning is cheap.
struct Server<B> {
    /// Serves the default keyspace.
    site: Site<B>,
    others: Arc<Keyspaces<B>>,
    /// The keyspace of requests that name none, if it is another.
    home: Option<Arc<str>>,
}

impl<B> Clone for Server<B> {
    fn clone(&self) -> Self {
        let (site, others) = (self.site.clone(), self.others.clone());
        Server { site, others, home: self.home.clone() }
    }
}

impl<B: Backend> std::ops::Deref for Server<B> {
    type Target = Site<B>;
    fn deref(&self) -> &Site<B> {
        &self.site
    }
}

/// Whether a call is about the cluster, whichever keyspace it names.
fn concerns_cluster(path: &str) -> bool {
    path.starts_with("/quorate.") || path.starts_with("/etcdserverpb.Cluster/")
}

impl<B: Backend> Server<B> {
    fn new(node: &Node<B>) -> Server<B> {
        let others = Arc::new(Keyspaces::new(Handle::current()));
        Server { site: Site::new(node), others, home: None }
    }

    async fn answer(self, request: Request<Incoming>) -> Response<AnswerBody> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if !grpc {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            return http::answer(&self.node, &method, &uri).await.map(AnswerBody::Http);
        }
        let named = request.headers().get(KEYSPACE_HEADER);
        if named.is_none() && self.home.is_none() || concerns_cluster(request.uri().path()) {
            return self.site.answer(request).await;
        }
        let home = self.home.as_deref().map(str::as_bytes);
        match self.others.site(&self.site, named.map(HeaderValue::as_bytes).or(home)) {
            Ok(site) => site.answer(request).await,
            Err(status) => refused(&status).map(AnswerBody::Unary),
        }
    }
}

/// Serves one keyspace. Cloning is cheap.
pub(crate) struct Site<B> {
    pub node: Node<B>,
    unary: Unary<B>,
    routes: Routes,
}

impl<B> Clone for Site<B> {
    fn clone(&self) -> Self {
        let (node, unary) = (self.node.clone(), self.unary.clone());
        Site { node, unary, routes: self.routes.clone() }
    }
}

impl<B: Backend> Site<B> {
    fn new(node: &Node<B>) -> Site<B> {
        let limit = node.options.max_message_bytes();
        let (kv, lease) = (KvService(node.clone()), LeaseService(node.clone()));
        let mut routes = Routes::builder();
        macro_rules! add {
            ($($server:ident($service:expr)),*) => {
                $(routes.add_service(
                    $server::new($service)
                        .max_decoding_message_size(limit)
                        .max_encoding_message_size(usize::MAX),
                );)*
            };
        }
        add!(
            KvServer(kv.clone()),
            WatchServer(WatchService(node.clone())),
            LeaseServer(lease.clone()),
            ClusterServer(ClusterService(node.clone())),
            MaintenanceServer(MaintenanceService(node.clone())),
            AuthServer(AuthService(node.clone())),
            LockServer(LockService(node.clone())),
            ElectionServer(ElectionService(node.clone())),
            HealthServer(HealthService(node.clone()))
        );
        let unary = Unary::new(node.clone(), kv, lease);
        Site { node: node.clone(), unary, routes: routes.routes().prepare() }
    }

    /// The same for another keyspace.
    pub fn beside(&self, backend: B) -> Site<B> {
        Site::new(&self.node.with(backend))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let path = request.uri().path();
        if Unary::<B>::serves(path) {
            return self.unary.call(request).await.map(AnswerBody::Unary);
        }
        let control = self.node.options.control.as_ref().filter(|_| path.starts_with("/quorate."));
        let mut routes = control.unwrap_or(&self.routes).clone();
        match routes.call(request.map(tonic::body::Body::new)).await {
            Ok(response) => response.map(AnswerBody::Tonic),
            Err(error) => match error {},
        }
    }
}

/// The body of any answer.
enum AnswerBody {
    Unary(Answer),
    Tonic(tonic::body::Body),
    Http(Full<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match &mut *self {
            AnswerBody::Unary(body) => {
                Pin::new(body).poll_frame(cx).map_err(|never| match never {})
            }
            AnswerBody::Tonic(body) => Pin::new(body).poll_frame(cx),
            AnswerBody::Http(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AnswerBody::Unary(body) => body.is_end_stream(),
            AnswerBody::Tonic(body) => body.is_end_stream(),
            AnswerBody::Http(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            AnswerBody::Unary(body) => body.size_hint(),
            AnswerBody::Tonic(body) => body.size_hint(),
            AnswerBody::Http(body) => body.size_hint(),
        }
    }
}
