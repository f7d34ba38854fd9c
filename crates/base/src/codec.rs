//! Reading and writing the project's own binary formats.
//!
//! Integers are little-endian or LEB128 varints; byte strings are a varint length and the bytes.
//! Invariant: a [`Reader`] never panics and never allocates by a length it has not compared with
//! what is really there; byte strings it returns share the input's memory.

use alloc::vec::Vec;
use bytes::{Buf, Bytes};
use core::fmt;

/// Why bytes could not be read. Says where, so that a report names the damaged place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// The input ended `missing` bytes too early.
    Truncated {
        /// How many more bytes were needed.
        missing: usize,
    },
    /// A varint of more than ten bytes, or over 64 bits.
    Varint,
    /// A length or count above the format's limit.
    TooLong {
        /// What was claimed.
        claimed: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A tag, flag or version that the format does not know.
    Unknown {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// Bytes were left over after the last field.
    Trailing {
        /// How many.
        bytes: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Truncated { missing } => write!(f, "input ends {missing} bytes too early"),
            DecodeError::Varint => write!(f, "malformed varint"),
            DecodeError::TooLong { claimed, limit } => {
                write!(f, "length {claimed} is over the limit of {limit}")
            }
            DecodeError::Unknown { field, value } => write!(f, "unknown {field} {value}"),
            DecodeError::Trailing { bytes } => write!(f, "{bytes} bytes left over"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Takes fields off the front of a byte string.
#[derive(Clone, Debug)]
pub struct Reader(Bytes);

impl Reader {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Reader(bytes)
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.0.len()
    }

    fn need(&self, n: usize) -> Result<(), DecodeError> {
        match n.checked_sub(self.0.len()) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(DecodeError::Truncated { missing }),
        }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.0.get_u32_le())
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }

    /// An unsigned LEB128 varint.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError::Varint);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Varint)
    }

    /// A signed number, zigzag-coded.
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let v = self.varint()?;
        Ok((v >> 1) as i64 ^ -((v & 1) as i64))
    }

    /// A byte that must be 0 or 1.
    pub fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Unknown { field, value: u64::from(other) }),
        }
    }

    /// A count of items of at least `item_bytes` each: refused when the rest could not hold them.
    pub fn count(&mut self, limit: u64, item_bytes: usize) -> Result<usize, DecodeError> {
        let claimed = self.varint()?;
        if claimed > limit {
            return Err(DecodeError::TooLong { claimed, limit });
        }
        let n = usize::try_from(claimed).map_err(|_| DecodeError::TooLong { claimed, limit })?;
        self.need(n.saturating_mul(item_bytes))?;
        Ok(n)
    }

    /// A byte string of at most `limit` bytes, sharing the input's memory.
    pub fn bytes(&mut self, limit: u64) -> Result<Bytes, DecodeError> {
        let n = self.count(limit, 1)?;
        Ok(self.0.split_to(n))
    }

    /// Exactly `n` bytes, sharing the input's memory.
    pub fn take(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        self.need(n)?;
        Ok(self.0.split_to(n))
    }

    /// All that is left.
    pub fn rest(self) -> Bytes {
        self.0
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { bytes }),
        }
    }
}

/// Appends fields to a growing buffer.
#[derive(Default, Debug)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty buffer.
    pub fn new() -> Self {
        Writer(Vec::new())
    }

    /// An empty buffer with room for `n` bytes.
    pub fn with_capacity(n: usize) -> Self {
        Writer(Vec::with_capacity(n))
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.0.push(v);
        self
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    /// An unsigned LEB128 varint.
    pub fn varint(&mut self, mut v: u64) -> &mut Self {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
        self
    }

    /// A signed number, zigzag-coded.
    pub fn signed(&mut self, v: i64) -> &mut Self {
        self.varint(((v << 1) ^ (v >> 63)) as u64)
    }

    /// A byte that is 0 or 1.
    pub fn bool(&mut self, v: bool) -> &mut Self {
        self.u8(u8::from(v))
    }

    /// A varint length and the bytes.
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.varint(v.len() as u64);
        self.0.extend_from_slice(v);
        self
    }

    /// The bytes alone, without their length.
    pub fn raw(&mut self, v: &[u8]) -> &mut Self {
        self.0.extend_from_slice(v);
        self
    }

    /// How many bytes were written.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was written.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.0)
    }

    /// What was written, as a vector.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

/// Goes on at the end of what `bytes` holds, and keeps its memory.
impl From<Vec<u8>> for Writer {
    fn from(bytes: Vec<u8>) -> Self {
        Writer(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut w = Writer::new();
        w.u8(7).u32(1 << 30).u64(u64::MAX).varint(300).varint(u64::MAX).signed(-1).signed(i64::MIN);
        w.bool(true).bytes(b"hello").raw(b"end");
        let mut r = Reader::new(w.into_bytes());
        assert_eq!((r.u8(), r.u32(), r.u64()), (Ok(7), Ok(1 << 30), Ok(u64::MAX)));
        assert_eq!((r.varint(), r.varint()), (Ok(300), Ok(u64::MAX)));
        assert_eq!((r.signed(), r.signed(), r.bool("b")), (Ok(-1), Ok(i64::MIN), Ok(true)));
        assert_eq!(r.bytes(5), Ok(Bytes::from_static(b"hello")));
        assert_eq!(r.clone().finish(), Err(DecodeError::Trailing { bytes: 3 }));
        assert_eq!(r.rest(), Bytes::from_static(b"end"));
    }

    #[test]
    fn a_length_is_checked_before_it_is_believed() {
        let mut w = Writer::new();
        w.varint(1 << 40);
        let input = w.into_bytes();
        let too_long = DecodeError::TooLong { claimed: 1 << 40, limit: 10 };
        assert_eq!(Reader::new(input.clone()).bytes(10), Err(too_long));
        assert_eq!(
            Reader::new(input).bytes(u64::MAX),
            Err(DecodeError::Truncated { missing: 1 << 40 })
        );
    }

    #[test]
    fn an_overlong_varint_is_refused() {
        let over = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]);
        assert_eq!(Reader::new(over).varint(), Err(DecodeError::Varint));
    }
}
