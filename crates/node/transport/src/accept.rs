//! The incoming side: one task per connection checks the hand-shake and reads messages.

use crate::codec;
use crate::error::{Refusal, TransportError};
use crate::frame::{self, kind};
use crate::handshake::{self, Hello, PREFACE, Purpose, VERSIONS, Welcome};
use crate::stream;
use crate::transport::Shared;
use bytes::{Buf, BytesMut};
use quorate_base::NodeId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Room made for reading at a time.
const READ_BYTES: usize = 64 << 10;
/// Less room than this and more is made.
const READ_BYTES_MIN: usize = 8 << 10;
/// A congested receiver is looked at again after this long.
const CONGESTION_PAUSE: Duration = Duration::from_millis(1);

/// Accepts until it is dropped, and with it every connection it accepted.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(shared.config.limits.inbound_connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (link, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others may be given back meanwhile.
                tracing::warn!(%error, "cannot accept connections from peers");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many connections from peers: refused one");
            continue;
        };
        let shared = shared.clone();
        connections.spawn(async move {
            serve(link, address, &shared).await;
            drop(place);
        });
    }
}

async fn serve(link: TcpStream, address: SocketAddr, shared: &Shared) {
    let greeted = timeout(shared.config.timing.handshake, greet(link, shared)).await;
    let (mut link, hello, mut buffer) = match greeted {
        Ok(Ok(Some(greeted))) => greeted,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            tracing::warn!(%address, %error, "a connection from outside was not let in");
            return;
        }
        Err(_) => {
            tracing::warn!(%address, "a connection from outside did not shake hands in time");
            return;
        }
    };
    let (generation, replaced) = shared.inbound.enter(hello.from, hello.purpose);
    let error = tokio::select! {
        error = read(&mut link, hello.from, &mut buffer, shared) => Some(error),
        () = replaced.notified() => None,
    };
    shared.inbound.leave(hello.from, hello.purpose, generation);
    if let Some(error) = error
        && hello.purpose == Purpose::Ordinary
    {
        tracing::warn!(peer = %hello.from, %address, %error, "a connection from a peer ended");
        shared.receiver.lost(hello.from);
    }
}

/// Hears the hello and answers; `None` if an inquiry was answered and all is done.
async fn greet(
    link: TcpStream,
    shared: &Shared,
) -> Result<Option<(TcpStream, Hello, BytesMut)>, TransportError> {
    let mut link = stream::admit(link, &shared.config.timing)?;
    let fail = |source| TransportError::Network { doing: "shaking hands", source };
    let mut buffer = BytesMut::with_capacity(1 << 10);
    while buffer.len() < PREFACE.len() {
        if link.read_buf(&mut buffer).await.map_err(fail)? == 0 {
            return Err(TransportError::NotAPeer);
        }
        let seen = buffer.len().min(PREFACE.len());
        if buffer[..seen] != PREFACE[..seen] {
            return Err(TransportError::NotAPeer);
        }
    }
    buffer.advance(PREFACE.len());
    let first = loop {
        if let Some(frame) = frame::next(&mut buffer, handshake::LIMIT_BYTES)? {
            break frame;
        }
        if link.read_buf(&mut buffer).await.map_err(fail)? == 0 {
            return Err(fail(io::ErrorKind::UnexpectedEof.into()));
        }
    };
    if first.kind != kind::HELLO {
        return Err(TransportError::Unexpected { kind: first.kind });
    }
    let hello = Hello::decode(first.payload)?;
    if let Err((refusal, reason)) = judge(&hello, shared) {
        let answer = frame::whole(kind::REFUSAL, &handshake::encode_refusal(refusal, &reason));
        link.write_all(&answer).await.map_err(fail)?;
        return Err(TransportError::WeRefused { refusal, reason });
    }
    if hello.purpose == Purpose::Inquiry {
        let directory = shared.receiver.directory();
        link.write_all(&frame::whole(kind::DIRECTORY, &directory)).await.map_err(fail)?;
        return Ok(None);
    }
    let welcome = Welcome {
        version: hello.common_version().unwrap_or(VERSIONS.1),
        cluster: shared.config.cluster,
        node: shared.config.node,
    };
    link.write_all(&frame::whole(kind::WELCOME, &welcome.encode())).await.map_err(fail)?;
    shared.learn(hello.from, &hello.advertise);
    Ok(Some((link, hello, buffer)))
}

/// Whether to let a caller in; if not, why not.
fn judge(hello: &Hello, shared: &Shared) -> Result<(), (Refusal, String)> {
    let config = &shared.config;
    if hello.common_version().is_none() {
        let (oldest, newest) = hello.versions;
        let reason = format!(
            "versions {oldest} to {newest} of the peer protocol were offered, {} to {} are spoken",
            VERSIONS.0, VERSIONS.1
        );
        return Err((Refusal::WrongVersion, reason));
    }
    if hello.purpose == Purpose::Inquiry {
        return Ok(());
    }
    if hello.cluster != config.cluster {
        let reason = format!(
            "node {} is of cluster {}, this is node {} of cluster {}",
            hello.from, hello.cluster, config.node, config.cluster
        );
        return Err((Refusal::WrongCluster, reason));
    }
    if hello.to != config.node {
        let reason = format!("node {} was called, this is node {}", hello.to, config.node);
        return Err((Refusal::WrongNode, reason));
    }
    if hello.from == config.node || hello.from.is_none() {
        let reason = format!("the caller says that it is node {}, as this is", hello.from);
        return Err((Refusal::WrongNode, reason));
    }
    if shared.is_removed(hello.from) {
        let reason = format!("node {} was removed from the cluster", hello.from);
        return Err((Refusal::Removed, reason));
    }
    if hello.birth == 0 {
        return Ok(()); // An earlier version, which says nothing of it.
    }
    match shared.receiver.recognizes(hello.from, hello.birth) {
        Some(true) => Ok(()),
        Some(false) => {
            let reason = format!(
                "node {} once had another data directory, and lost what it promised with it",
                hello.from
            );
            Err((Refusal::Forgot, reason))
        }
        None => Err((Refusal::Busy, "the disk does not take note of the caller".into())),
    }
}

/// Hands over what arrives, all that is there at a time; returns why it ended.
async fn read(
    link: &mut TcpStream,
    from: NodeId,
    buffer: &mut BytesMut,
    shared: &Shared,
) -> TransportError {
    let mut messages = Vec::new();
    loop {
        loop {
            let frame = match frame::next(buffer, shared.config.limits.frame_bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return error.into(),
            };
            if frame.kind != kind::MESSAGES {
                return TransportError::Unexpected { kind: frame.kind };
            }
            if let Err(error) = codec::decode_all(frame.payload, &mut messages) {
                return error.into();
            }
        }
        if !messages.is_empty() {
            shared.receiver.deliver(from, &mut messages);
            messages.clear();
        }
        while shared.receiver.congested() {
            sleep(CONGESTION_PAUSE).await;
        }
        if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
            buffer.reserve(READ_BYTES);
        }
        let doing = "reading";
        match link.read_buf(buffer).await {
            Ok(0) => {
                let source = io::ErrorKind::UnexpectedEof.into();
                return TransportError::Network { doing, source };
            }
            Ok(_) => {}
            Err(source) => return TransportError::Network { doing, source },
        }
    }
}

/// The connections that came in: a newer one of the same peer and purpose ends the older.
#[derive(Default)]
pub(crate) struct Inbound {
    #[allow(clippy::type_complexity)]
    current: parking_lot::Mutex<(u64, std::collections::BTreeMap<(NodeId, Purpose), Seat>)>,
}

struct Seat {
    generation: u64,
    replaced: Arc<Notify>,
}

impl Inbound {
    fn enter(&self, from: NodeId, purpose: Purpose) -> (u64, Arc<Notify>) {
        let mut current = self.current.lock();
        current.0 += 1;
        let generation = current.0;
        let replaced = Arc::new(Notify::new());
        let seat = Seat { generation, replaced: replaced.clone() };
        if let Some(older) = current.1.insert((from, purpose), seat) {
            older.replaced.notify_one();
        }
        (generation, replaced)
    }

    fn leave(&self, from: NodeId, purpose: Purpose, generation: u64) {
        let mut current = self.current.lock();
        if current.1.get(&(from, purpose)).is_some_and(|seat| seat.generation == generation) {
            current.1.remove(&(from, purpose));
        }
    }

    /// Ends the connections of a peer.
    pub(crate) fn end(&self, from: NodeId) {
        let current = self.current.lock();
        for purpose in [Purpose::Ordinary, Purpose::Bulk] {
            if let Some(seat) = current.1.get(&(from, purpose)) {
                seat.replaced.notify_one();
            }
        }
    }
}
