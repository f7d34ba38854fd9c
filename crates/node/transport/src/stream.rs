//! Where connections come from: the seam at which TLS will be put.
//!
//! Everything above works on what [`connect`] and [`admit`] return. Securing a stream means
//! wrapping it here, in both places; frames, hand-shake and queues stay as they are.

use crate::config::Timing;
use crate::error::TransportError;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

/// Connects to `address` (`host:port`, resolved anew each time).
pub(crate) async fn connect(address: &str, timing: &Timing) -> Result<TcpStream, TransportError> {
    let doing = "connecting";
    let attempt = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for resolved in lookup_host(address).await? {
            match TcpStream::connect(resolved).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let stream = match timeout(timing.connect, attempt).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => return Err(TransportError::Network { doing, source }),
        Err(_) => return Err(TransportError::Timeout { doing }),
    };
    configure(&stream, timing)?;
    Ok(stream)
}

/// Prepares a connection that a listener accepted.
pub(crate) fn admit(stream: TcpStream, timing: &Timing) -> Result<TcpStream, TransportError> {
    configure(&stream, timing)?;
    Ok(stream)
}

/// No waiting for more to send; and a peer that vanished without a word is noticed, idle or not:
/// without the bound on unacknowledged bytes a healed partition would wait for TCP's own
/// retransmission, which backs off to minutes.
fn configure(stream: &TcpStream, timing: &Timing) -> Result<(), TransportError> {
    let fail = |source| TransportError::Network { doing: "setting socket options", source };
    stream.set_nodelay(true).map_err(fail)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(timing.keepalive)
        .with_interval(timing.keepalive / 4)
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive).map_err(fail)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(timing.unacknowledged)).map_err(fail)?;
    Ok(())
}
