//! The outgoing side: one task per peer and stream connects, shakes hands, writes what the
//! pushing side could not, and notices at once when the connection breaks.

use crate::config::Config;
use crate::error::TransportError;
use crate::frame::{self, Frame, kind};
use crate::handshake::{self, Hello, PREFACE, Purpose, VERSIONS, Welcome};
use crate::outbox::{Outbox, Progress};
use crate::receiver::Receiver;
use crate::stats::Counters;
use crate::stream;
use bytes::BytesMut;
use quorate_base::{NodeId, Rng};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// A connection that held for this long was a good one: the next wait is short again.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// What a dialing task needs.
pub(crate) struct Dialer {
    pub(crate) config: Arc<Config>,
    pub(crate) receiver: Arc<dyn Receiver>,
    pub(crate) peer: NodeId,
    pub(crate) purpose: Purpose,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) counters: Arc<Counters>,
    /// Where the peer is; closed when it is a peer no more.
    pub(crate) addresses: watch::Receiver<Vec<String>>,
}

enum End {
    /// The connection broke.
    Broken(TransportError),
    /// It is not needed now.
    Idle,
    /// The peer is elsewhere now.
    Moved,
    /// It is a peer no more.
    Removed,
}

impl Dialer {
    /// Runs until the peer is removed.
    pub(crate) async fn run(mut self) {
        let timing = self.config.timing;
        let mut rng = Rng::new(self.config.seed ^ self.peer.0.rotate_left(32));
        let mut backoff = timing.backoff_min;
        let mut complaint = String::new();
        loop {
            if self.purpose == Purpose::Bulk && !self.wait_for_work().await {
                return;
            }
            let started = Instant::now();
            match self.establish().await {
                Ok((link, version)) => {
                    complaint.clear();
                    match self.serve(link, version).await {
                        End::Removed => return,
                        End::Moved | End::Idle => continue,
                        End::Broken(error) => self.broken(&error),
                    }
                }
                Err(error) => self.failed(&error, &mut complaint),
            }
            if started.elapsed() > GOOD_CONNECTION + timing.connect {
                backoff = timing.backoff_min;
            }
            // Full jitter above a half: peers that lost each other do not meet again at once.
            let wait = rng.duration(backoff / 2, backoff);
            backoff = (backoff * 2).min(timing.backoff_max);
            tokio::select! {
                () = sleep(wait) => {}
                changed = self.addresses.changed() => match changed {
                    Ok(()) => backoff = timing.backoff_min,
                    Err(_) => return,
                },
            }
        }
    }

    /// Waits until something is to be sent; false if the peer was removed meanwhile.
    async fn wait_for_work(&mut self) -> bool {
        while self.outbox.is_empty() {
            tokio::select! {
                () = self.outbox.wake.notified() => {}
                changed = self.addresses.changed() => if changed.is_err() { return false },
            }
        }
        true
    }

    async fn establish(&mut self) -> Result<(TcpStream, u8), TransportError> {
        let addresses = self.addresses.borrow_and_update().clone();
        let mut last = TransportError::Network {
            doing: "looking for the peer",
            source: io::Error::new(io::ErrorKind::NotFound, "no address of it is known"),
        };
        for address in &addresses {
            let hello = Hello {
                versions: VERSIONS,
                purpose: self.purpose,
                cluster: self.config.cluster,
                from: self.config.node,
                to: self.peer,
                advertise: self.config.advertise.clone(),
                birth: self.config.birth,
            };
            match self.greet(address, &hello).await {
                Ok(greeted) => return Ok(greeted),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection, and the version to be spoken on it.
    async fn greet(&self, address: &str, hello: &Hello) -> Result<(TcpStream, u8), TransportError> {
        let (link, answer) = call(address, hello, &self.config).await?;
        if answer.kind != kind::WELCOME {
            return Err(TransportError::Unexpected { kind: answer.kind });
        }
        let Welcome { version, cluster, node } = Welcome::decode(answer.payload)?;
        let spoken = (VERSIONS.0..=VERSIONS.1).contains(&version);
        if cluster != hello.cluster || node != hello.to || !spoken {
            return Err(TransportError::WrongAnswer { cluster, node });
        }
        Ok((link, version))
    }

    async fn serve(&mut self, link: TcpStream, version: u8) -> End {
        let link = Arc::new(link);
        self.counters.connects.fetch_add(1, Relaxed);
        if self.purpose == Purpose::Ordinary {
            self.counters.version.store(version, Relaxed);
            self.counters.connected.store(true, Relaxed);
            tracing::info!(peer = %self.peer, "connected to peer");
        }
        self.outbox.connect(link.clone(), version);
        let end = self.pump(&link).await;
        self.outbox.disconnect();
        if self.purpose == Purpose::Ordinary {
            self.counters.connected.store(false, Relaxed);
        }
        end
    }

    async fn pump(&mut self, link: &TcpStream) -> End {
        loop {
            let blocked = match self.outbox.flush() {
                Progress::Idle => false,
                Progress::Blocked => true,
                Progress::Broken(source) => {
                    return End::Broken(TransportError::Network { doing: "sending", source });
                }
            };
            let idle = self.config.timing.bulk_idle;
            tokio::select! {
                () = self.outbox.wake.notified() => {}
                result = link.writable(), if blocked => if let Err(source) = result {
                    return End::Broken(TransportError::Network { doing: "sending", source });
                },
                end = listen(link) => return End::Broken(end),
                changed = self.addresses.changed() => return match changed {
                    Ok(()) => End::Moved,
                    Err(_) => End::Removed,
                },
                () = sleep(idle), if self.purpose == Purpose::Bulk && !blocked => return End::Idle,
            }
        }
    }

    fn broken(&self, error: &TransportError) {
        if self.purpose == Purpose::Ordinary {
            tracing::warn!(peer = %self.peer, %error, "lost the connection to peer");
            self.receiver.lost(self.peer);
        }
    }

    /// Says why there is no connection, once per reason.
    fn failed(&self, error: &TransportError, complaint: &mut String) {
        if let TransportError::Refused { refusal, .. } = error {
            self.receiver.refused(self.peer, *refusal);
        }
        let text = error.to_string();
        if *complaint != text {
            tracing::warn!(peer = %self.peer, error = %text, "cannot connect to peer");
            *complaint = text;
        }
    }
}

/// Connects, says hello, and waits for the answer, of whatever kind but a refusal.
pub(crate) async fn call(
    address: &str,
    hello: &Hello,
    config: &Config,
) -> Result<(TcpStream, Frame), TransportError> {
    let mut link = stream::connect(address, &config.timing).await?;
    let exchange = async {
        let mut words = PREFACE.to_vec();
        words.extend_from_slice(&frame::whole(kind::HELLO, &hello.encode()));
        let fail = |source| TransportError::Network { doing: "shaking hands", source };
        link.write_all(&words).await.map_err(fail)?;
        let mut buffer = BytesMut::with_capacity(256);
        // A directory is larger than the frames of the hand-shake proper.
        let limit = if hello.purpose == Purpose::Inquiry {
            config.limits.frame_bytes
        } else {
            handshake::LIMIT_BYTES
        };
        loop {
            if let Some(answer) = frame::next(&mut buffer, limit)? {
                return Ok(answer);
            }
            if link.read_buf(&mut buffer).await.map_err(fail)? == 0 {
                return Err(fail(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    };
    let answer = match timeout(config.timing.handshake, exchange).await {
        Ok(answer) => answer?,
        Err(_) => return Err(TransportError::Timeout { doing: "shaking hands" }),
    };
    match answer.kind {
        kind::REFUSAL => Err(handshake::decode_refusal(answer.payload)),
        _ => Ok((link, answer)),
    }
}

/// Waits for the connection to end: after the hand-shake the other side never writes.
async fn listen(link: &TcpStream) -> TransportError {
    let mut byte = [0];
    loop {
        let result = match link.readable().await {
            Ok(()) => link.try_read(&mut byte),
            Err(error) => Err(error),
        };
        match result {
            Ok(0) => {
                let source = io::ErrorKind::ConnectionReset.into();
                return TransportError::Network { doing: "waiting: the peer closed", source };
            }
            Ok(_) => return TransportError::Unexpected { kind: byte[0] },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(source) => return TransportError::Network { doing: "waiting", source },
        }
    }
}
