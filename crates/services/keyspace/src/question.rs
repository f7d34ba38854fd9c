//! What the leader's keyspace is asked about leases, and what it answers: neither is replicated.
//!
//! Format version 1, as in [`crate::codec`]: byte 1, a tag, the fields.

use crate::codec::{expect_version, unknown};
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_mvcc::LeaseId;

const VERSION: u8 = 1;
const MAX_KEYS: u64 = 1 << 24;
const MAX_KEY_BYTES: u64 = 1 << 30;

/// A question to the leader's lease clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Start the lease's time afresh.
    KeepAlive {
        /// The lease.
        id: LeaseId,
    },
    /// How long does the lease still live?
    TimeToLive {
        /// The lease.
        id: LeaseId,
        /// And which keys are attached to it?
        keys: bool,
    },
}

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseAnswer {
    /// No such lease; or it has run out and its end is on its way.
    NotFound,
    /// It was kept alive and lives this long from now.
    KeptAlive {
        /// Its full time to live.
        ttl_seconds: i64,
    },
    /// It lives.
    Lives {
        /// Its full time to live.
        granted_seconds: i64,
        /// How long it still lives, rounded down.
        remaining_seconds: i64,
        /// Its keys in order, if asked for.
        keys: Vec<Bytes>,
    },
}

impl Question {
    /// The bytes to ask with.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(16);
        w.u8(VERSION);
        match self {
            Question::KeepAlive { id } => w.u8(1).signed(*id),
            Question::TimeToLive { id, keys } => w.u8(2).signed(*id).bool(*keys),
        };
        w.into_bytes()
    }

    /// Reads a question.
    pub fn decode(bytes: Bytes) -> Result<Question, DecodeError> {
        let mut r = Reader::new(bytes);
        expect_version(&mut r, "question version", VERSION)?;
        let question = match r.u8()? {
            1 => Question::KeepAlive { id: r.signed()? },
            2 => Question::TimeToLive { id: r.signed()?, keys: r.bool("keys flag")? },
            other => return unknown("question", other),
        };
        r.finish()?;
        Ok(question)
    }
}

impl LeaseAnswer {
    /// The bytes to answer with.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            LeaseAnswer::NotFound => {
                w.u8(1);
            }
            LeaseAnswer::KeptAlive { ttl_seconds } => {
                w.u8(2).signed(*ttl_seconds);
            }
            LeaseAnswer::Lives { granted_seconds, remaining_seconds, keys } => {
                w.u8(3).signed(*granted_seconds).signed(*remaining_seconds);
                w.varint(keys.len() as u64);
                for key in keys {
                    w.bytes(key);
                }
            }
        }
        w.into_bytes()
    }

    /// Reads an answer; its keys share the memory of `bytes`.
    pub fn decode(bytes: Bytes) -> Result<LeaseAnswer, DecodeError> {
        let mut r = Reader::new(bytes);
        expect_version(&mut r, "answer version", VERSION)?;
        let answer = match r.u8()? {
            1 => LeaseAnswer::NotFound,
            2 => LeaseAnswer::KeptAlive { ttl_seconds: r.signed()? },
            3 => {
                let (granted_seconds, remaining_seconds) = (r.signed()?, r.signed()?);
                let n = r.count(MAX_KEYS, 1)?;
                let mut keys = Vec::with_capacity(n.min(1024));
                for _ in 0..n {
                    keys.push(r.bytes(MAX_KEY_BYTES)?);
                }
                LeaseAnswer::Lives { granted_seconds, remaining_seconds, keys }
            }
            other => return unknown("answer", other),
        };
        r.finish()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_of_version_1() {
        let ask = Question::TimeToLive { id: 300, keys: true };
        assert_eq!(&ask.encode()[..], &[1, 2, 0xd8, 4, 1]);
        assert_eq!(Question::decode(ask.encode()), Ok(ask));
        assert_eq!(&Question::KeepAlive { id: -1 }.encode()[..], &[1, 1, 1]);

        let answer = LeaseAnswer::Lives {
            granted_seconds: 10,
            remaining_seconds: 7,
            keys: vec![Bytes::from_static(b"a")],
        };
        assert_eq!(&answer.encode()[..], &[1, 3, 20, 14, 1, 1, b'a']);
        assert_eq!(LeaseAnswer::decode(answer.encode()), Ok(answer));
        for answer in [LeaseAnswer::NotFound, LeaseAnswer::KeptAlive { ttl_seconds: 60 }] {
            assert_eq!(LeaseAnswer::decode(answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(Question::decode(Bytes::from_static(&[2, 1, 1])).is_err());
        assert!(Question::decode(Bytes::from_static(&[1, 9, 1])).is_err());
        assert!(Question::decode(Bytes::from_static(&[1, 1, 1, 0])).is_err());
        let huge = Bytes::from_static(&[1, 3, 0, 0, 0xff, 0xff, 0xff, 0x03]);
        assert!(LeaseAnswer::decode(huge).is_err());
    }
}
