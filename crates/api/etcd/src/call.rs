//! What a request brings besides its message: deadline, wish for a leader, size.

use crate::errors::Refusal;
use http::HeaderMap;
use std::time::Duration;
use tonic::Status;

/// Metadata by which a client asks to be refused when nobody leads.
const HAS_LEADER: &str = "hasleader";
const CLIENT_API_VERSION: &str = "client-api-version";
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Taken off the client's own deadline, so that an answer that says why still arrives.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// The circumstances of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// How long it may take.
    pub timeout: Duration,
    /// Refuse it, or end its stream, when nobody leads.
    pub require_leader: bool,
    /// Bytes of its message, as it came.
    pub size: usize,
}

impl Call {
    /// Reads the headers; `limit` is how long the server itself would wait.
    pub fn new(headers: &HeaderMap, size: usize, limit: Duration) -> Result<Call, Status> {
        if let Some(version) = headers.get(CLIENT_API_VERSION)
            && std::str::from_utf8(version.as_bytes()).is_err()
        {
            return Err(Refusal::InvalidClientApiVersion.into());
        }
        let require_leader = headers.get(HAS_LEADER).is_some_and(|value| value == "true");
        let timeout = match headers.get(GRPC_TIMEOUT).and_then(|v| parse_timeout(v.as_bytes())) {
            Some(asked) => limit.min(asked.saturating_sub(ANSWER_MARGIN.min(asked / 5))),
            None => limit,
        };
        Ok(Call { timeout, require_leader, size })
    }
}

/// A timeout as gRPC writes it: at most 8 digits and a unit. What is written otherwise is none.
pub fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_every_unit() {
        assert_eq!(parse_timeout(b"2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse_timeout(b"3M"), Some(Duration::from_secs(180)));
        assert_eq!(parse_timeout(b"4S"), Some(Duration::from_secs(4)));
        assert_eq!(parse_timeout(b"99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(parse_timeout(b"5u"), Some(Duration::from_micros(5)));
        assert_eq!(parse_timeout(b"6n"), Some(Duration::from_nanos(6)));
        for wrong in [&b""[..], b"S", b"1", b"1x", b"123456789S", b"-1S"] {
            assert_eq!(parse_timeout(wrong), None);
        }
    }

    #[test]
    fn the_answer_comes_before_the_clients_deadline() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", "1S".parse().unwrap());
        headers.insert("hasleader", "true".parse().unwrap());
        let call = Call::new(&headers, 3, Duration::from_secs(7)).unwrap();
        assert!(call.require_leader);
        assert_eq!(call.timeout, Duration::from_millis(950));
        headers.insert("grpc-timeout", "60S".parse().unwrap());
        assert_eq!(Call::new(&headers, 3, Duration::from_secs(7)).unwrap().timeout.as_secs(), 7);
    }

    #[test]
    fn a_version_that_is_not_text_is_refused() {
        let mut headers = HeaderMap::new();
        let value = http::HeaderValue::from_bytes(&[0xff, 0xfe]).unwrap();
        headers.insert("client-api-version", value);
        let refused = Call::new(&headers, 0, Duration::from_secs(1)).unwrap_err();
        assert_eq!(refused.message(), Refusal::InvalidClientApiVersion.text());
    }
}
