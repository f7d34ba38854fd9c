//! The first words of a stream: who calls, whom, of which cluster, in which versions, what for.
//!
//! The caller opens with the four bytes `QRTP` and a `HELLO` frame; the answer is a `WELCOME`, a
//! `REFUSAL` with a reason, or, to an inquiry, a `DIRECTORY`. These frames are the same in every
//! version of the protocol, so that any two versions can at least tell each other why not.

use crate::error::{Refusal, TransportError};
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{ClusterId, NodeId};

/// Opens every stream.
pub const PREFACE: [u8; 4] = *b"QRTP";

/// The versions of the peer protocol this build speaks.
pub const VERSIONS: (u8, u8) = (1, 2);

/// Longest payload of a hand-shake frame in bytes.
pub const LIMIT_BYTES: usize = 4 << 10;

const TEXT_LIMIT_BYTES: usize = 1 << 10;

/// What a stream is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// Messages that must not wait.
    Ordinary,
    /// Messages that may: parts of snapshots.
    Bulk,
    /// Only the question who belongs to the cluster; identities may be unknown.
    Inquiry,
}

/// The caller's first words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The oldest and the newest version it speaks.
    pub versions: (u8, u8),
    /// What for.
    pub purpose: Purpose,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Who it is.
    pub from: NodeId,
    /// Whom it wants.
    pub to: NodeId,
    /// Where it is reached itself, as `host:port`.
    pub advertise: String,
    /// Tells its data directory from another; zero if nobody said.
    pub birth: u64,
}

/// The answer that lets a caller in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The version to be spoken.
    pub version: u8,
    /// The cluster that answers.
    pub cluster: ClusterId,
    /// The node that answers.
    pub node: NodeId,
}

impl Hello {
    /// The payload of its frame.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(64);
        w.u8(self.versions.0).u8(self.versions.1);
        w.u8(match self.purpose {
            Purpose::Ordinary => 0,
            Purpose::Bulk => 1,
            Purpose::Inquiry => 2,
        });
        w.u64(self.cluster.0).u64(self.from.0).u64(self.to.0);
        w.bytes(&self.advertise.as_bytes()[..self.advertise.len().min(TEXT_LIMIT_BYTES)]);
        w.u64(self.birth);
        w.into_bytes()
    }

    /// Reads it back. What a newer version adds at the end is passed over.
    ///
    /// # Errors
    /// [`DecodeError`], if the bytes are no hello.
    pub fn decode(payload: Bytes) -> Result<Hello, DecodeError> {
        let mut r = Reader::new(payload);
        Ok(Hello {
            versions: (r.u8()?, r.u8()?),
            purpose: match r.u8()? {
                0 => Purpose::Ordinary,
                1 => Purpose::Bulk,
                2 => Purpose::Inquiry,
                other => {
                    return Err(DecodeError::Unknown { field: "purpose", value: other.into() });
                }
            },
            cluster: ClusterId(r.u64()?),
            from: NodeId(r.u64()?),
            to: NodeId(r.u64()?),
            advertise: text(&mut r)?,
            birth: if r.remaining() >= 8 { r.u64()? } else { 0 },
        })
    }

    /// The newest version both speak.
    pub fn common_version(&self) -> Option<u8> {
        let newest = self.versions.1.min(VERSIONS.1);
        (newest >= self.versions.0.max(VERSIONS.0)).then_some(newest)
    }
}

impl Welcome {
    /// The payload of its frame.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(24);
        w.u8(self.version).u64(self.cluster.0).u64(self.node.0);
        w.into_bytes()
    }

    /// Reads it back. What a newer version adds at the end is passed over.
    ///
    /// # Errors
    /// [`DecodeError`], if the bytes are no welcome.
    pub fn decode(payload: Bytes) -> Result<Welcome, DecodeError> {
        let mut r = Reader::new(payload);
        Ok(Welcome { version: r.u8()?, cluster: ClusterId(r.u64()?), node: NodeId(r.u64()?) })
    }
}

/// The payload of a refusal's frame.
pub fn encode_refusal(refusal: Refusal, reason: &str) -> Bytes {
    let mut w = Writer::with_capacity(reason.len() + 4);
    w.u8(match refusal {
        Refusal::WrongCluster => 1,
        Refusal::WrongNode => 2,
        Refusal::WrongVersion => 3,
        Refusal::Removed => 4,
        Refusal::Busy => 5,
        Refusal::Forgot => 6,
    });
    w.bytes(&reason.as_bytes()[..reason.len().min(TEXT_LIMIT_BYTES)]);
    w.into_bytes()
}

/// Reads a refusal back, as the error it is to the caller.
pub fn decode_refusal(payload: Bytes) -> TransportError {
    let mut r = Reader::new(payload);
    let read = |r: &mut Reader| -> Result<(Refusal, String), DecodeError> {
        let refusal = match r.u8()? {
            1 => Refusal::WrongCluster,
            2 => Refusal::WrongNode,
            3 => Refusal::WrongVersion,
            4 => Refusal::Removed,
            5 => Refusal::Busy,
            6 => Refusal::Forgot,
            other => return Err(DecodeError::Unknown { field: "refusal", value: other.into() }),
        };
        Ok((refusal, text(r)?))
    };
    match read(&mut r) {
        Ok((refusal, reason)) => TransportError::Refused { refusal, reason },
        Err(error) => TransportError::Content(error),
    }
}

fn text(r: &mut Reader) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(&r.bytes(TEXT_LIMIT_BYTES as u64)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello(versions: (u8, u8)) -> Hello {
        Hello {
            versions,
            purpose: Purpose::Bulk,
            cluster: ClusterId(0x0102),
            from: NodeId(3),
            to: NodeId(4),
            advertise: "a:1".to_owned(),
            birth: 9,
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = hello((1, 2)).encode();
        let mut golden = vec![1, 2, 1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        golden.extend_from_slice(&[4, 0, 0, 0, 0, 0, 0, 0, 3, b'a', b':', b'1']);
        let older = Hello { birth: 0, ..hello((1, 2)) };
        assert_eq!(Hello::decode(golden.clone().into()), Ok(older), "as it once was");
        golden.extend_from_slice(&[9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, golden);
        assert_eq!(Hello::decode(bytes), Ok(hello((1, 2))));
        let welcome = Welcome { version: 1, cluster: ClusterId(5), node: NodeId(6) };
        assert_eq!(&welcome.encode()[..], &[1, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Welcome::decode(welcome.encode()), Ok(welcome));
        assert_eq!(&encode_refusal(Refusal::Removed, "no")[..], &[4, 2, b'n', b'o']);
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        assert_eq!(hello((1, 1)).common_version(), Some(1));
        assert_eq!(hello((1, 9)).common_version(), Some(2));
        assert_eq!(hello((3, 9)).common_version(), None);
        assert_eq!(hello((0, 0)).common_version(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = Bytes::from(bytes);
            let _ = Hello::decode(bytes.clone());
            let _ = Welcome::decode(bytes.clone());
            let _ = decode_refusal(bytes);
        }
    }
}
