//! An alarm: a branch that somebody ended against the decision, met where no open record tells of
//! it. Kept beside the records until people have seen to it.

use crate::codec::{kind_code, kind_of, text, unknown, write_text};
use crate::record::Kind;
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};

const VERSION: u8 = 1;
const MAX_NAME_BYTES: u64 = 256;
const MAX_TEXT_BYTES: u64 = 4_096;

/// One alarm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The transaction's id.
    pub transaction: String,
    /// What the client calls the branch.
    pub branch: String,
    /// What its participant is.
    pub kind: Kind,
    /// What the participant is called.
    pub participant: String,
    /// What was found.
    pub what: String,
    /// Since when, by the clock of who found it, in milliseconds since 1970. For people.
    pub since_ms: u64,
}

impl Alarm {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(64 + self.what.len());
        w.u8(VERSION).bytes(self.transaction.as_bytes()).bytes(self.branch.as_bytes());
        w.u8(kind_code(self.kind)).bytes(self.participant.as_bytes());
        write_text(&mut w, &self.what);
        w.varint(self.since_ms);
        w.into_bytes()
    }

    /// Reads an alarm.
    ///
    /// # Errors
    /// [`DecodeError`]: a newer version wrote it, or nobody of ours.
    pub fn decode(bytes: Bytes) -> Result<Alarm, DecodeError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            other => return unknown("version of an alarm", other),
        }
        let transaction = text(&mut r, MAX_NAME_BYTES)?;
        let branch = text(&mut r, MAX_NAME_BYTES)?;
        let kind = kind_of(r.u8()?)?;
        let participant = text(&mut r, MAX_NAME_BYTES)?;
        let (what, since_ms) = (text(&mut r, MAX_TEXT_BYTES)?, r.varint()?);
        r.finish()?;
        Ok(Alarm { transaction, branch, kind, participant, what, since_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let alarm = Alarm {
            transaction: "t".to_owned(),
            branch: "b".to_owned(),
            kind: Kind::MariaDb,
            participant: "shop".to_owned(),
            what: "no".to_owned(),
            since_ms: 300,
        };
        let bytes = alarm.encode();
        assert_eq!(bytes, &b"\x01\x01t\x01b\x03\x04shop\x02no\xac\x02"[..]);
        assert_eq!(Alarm::decode(bytes.clone()), Ok(alarm));
        for cut in 0..bytes.len() {
            assert!(Alarm::decode(bytes.slice(..cut)).is_err());
        }
        assert!(Alarm::decode(Bytes::from_static(b"\x02")).is_err());
    }
}
