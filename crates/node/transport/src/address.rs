//! Peer URLs, as etcd writes them, and the addresses in them.

use crate::error::TransportError;

/// The `host:port` of a peer URL (`http://host:port`).
///
/// # Errors
/// [`TransportError::Address`]: another scheme, a path, no host or no port.
pub fn peer_address(url: &str) -> Result<String, TransportError> {
    let fail = |reason| TransportError::Address { address: url.to_owned(), reason };
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(fail("TLS between peers is not supported yet")),
        Some(_) => return Err(fail("the scheme must be http")),
        None => return Err(fail("it must begin with http://")),
    };
    let address = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = address.rsplit_once(':').ok_or_else(|| fail("it has no port"))?;
    if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
        return Err(fail("it must be a host and a port"));
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_peers() {
        assert_eq!(peer_address("http://10.0.0.1:2380").ok().as_deref(), Some("10.0.0.1:2380"));
        assert_eq!(peer_address("http://[::1]:2380/").ok().as_deref(), Some("[::1]:2380"));
        for wrong in ["https://a:1", "ftp://a:1", "a:1", "http://a", "http://:1", "http://a/b:1"] {
            assert!(peer_address(wrong).is_err(), "{wrong}");
        }
    }
}
