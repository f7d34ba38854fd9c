//! How a command is wrapped: who asked, so that it is applied once and answered where it came from.

use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{NodeId, RequestId};

/// A command and the identity of the request it came from.
///
/// Format version 1: byte 1, then node, run, sequence and settled as varints, then the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The request.
    pub request: RequestId,
    /// The service's own encoding of the command.
    pub body: Bytes,
}

const VERSION: u8 = 1;

impl Envelope {
    /// The bytes that are replicated.
    pub fn encode(request: RequestId, body: &[u8]) -> Bytes {
        let mut w = Writer::with_capacity(body.len() + 24);
        w.u8(VERSION).varint(request.node.0).varint(request.run);
        w.varint(request.sequence).varint(request.settled).raw(body);
        w.into_bytes()
    }

    /// Reads the bytes back; the body shares their memory.
    pub fn decode(bytes: Bytes) -> Result<Envelope, DecodeError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            other => {
                return Err(DecodeError::Unknown {
                    field: "envelope version",
                    value: u64::from(other),
                });
            }
        }
        let request = RequestId {
            node: NodeId(r.varint()?),
            run: r.varint()?,
            sequence: r.varint()?,
            settled: r.varint()?,
        };
        Ok(Envelope { request, body: r.rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_version_1() {
        let request = RequestId { node: NodeId(300), run: 2, sequence: 9, settled: 4 };
        let bytes = Envelope::encode(request, b"xy");
        assert_eq!(&bytes[..], &[1, 0xac, 2, 2, 9, 4, b'x', b'y']);
        let back = Envelope::decode(bytes);
        assert_eq!(back, Ok(Envelope { request, body: Bytes::from_static(b"xy") }));
    }

    #[test]
    fn another_version_is_refused() {
        let future = Envelope::decode(Bytes::from_static(&[2, 0, 0, 0, 0]));
        assert_eq!(future, Err(DecodeError::Unknown { field: "envelope version", value: 2 }));
        assert!(Envelope::decode(Bytes::new()).is_err());
    }
}
