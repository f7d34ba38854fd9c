//! Branches outside that were rolled back and are in no attempt of a transaction's record: their
//! applications prepared them and did not hand them in, or a prepare came when its transaction was
//! forgotten. Kept beside the record, so that whoever forgets it lets their participants forget
//! these as well.

use crate::codec::{kind_code, kind_of, text, unknown};
use crate::record::Kind;
use bytes::Bytes;
use quorate_base::codec::{DecodeError, Reader, Writer};

const VERSION: u8 = 1;
/// The branches of one record that are kept.
pub const MAX_STRAYS: usize = 256;
const MAX_NAME_BYTES: u64 = 256;

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stray {
    /// What its participant is.
    pub kind: Kind,
    /// What its participant calls it.
    pub name: String,
}

impl Stray {
    /// The bytes of all of a record.
    pub fn encode(all: &[Stray]) -> Bytes {
        let mut w = Writer::with_capacity(2 + 80 * all.len());
        w.u8(VERSION).varint(all.len() as u64);
        for stray in all {
            w.u8(kind_code(stray.kind)).bytes(stray.name.as_bytes());
        }
        w.into_bytes()
    }

    /// Reads all of a record.
    ///
    /// # Errors
    /// [`DecodeError`]: a newer version wrote it, or nobody of ours.
    pub fn decode(bytes: Bytes) -> Result<Vec<Stray>, DecodeError> {
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            other => return unknown("version of a record's strays", other),
        }
        let n = r.count(MAX_STRAYS as u64, 2)?;
        let one =
            |r: &mut Reader| Ok(Stray { kind: kind_of(r.u8()?)?, name: text(r, MAX_NAME_BYTES)? });
        let all = (0..n).map(|_| one(&mut r)).collect::<Result<_, DecodeError>>()?;
        r.finish()?;
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let stray = |kind, name: &str| Stray { kind, name: name.to_owned() };
        let all = vec![stray(Kind::Postgres, "a"), stray(Kind::Http, "bc")];
        let bytes = Stray::encode(&all);
        assert_eq!(bytes, &b"\x01\x02\x02\x01a\x04\x02bc"[..]);
        assert_eq!(Stray::decode(bytes.clone()), Ok(all));
        for cut in 0..bytes.len() {
            assert!(Stray::decode(bytes.slice(..cut)).is_err());
        }
        assert!(Stray::decode(Bytes::from_static(b"\x02\x00")).is_err());
    }
}
