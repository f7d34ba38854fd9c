//! Frames: what a stream between two nodes is cut into.
//!
//! A frame is a header of 12 bytes and a payload. The header: payload length (4 bytes), kind (1),
//! zeros (3), CRC32C of those eight bytes and the payload (4); numbers are little-endian.
//!
//! Invariant: nothing is allocated for a frame whose claimed length is over the limit, and no
//! payload is looked into before its checksum was found right.

use crate::error::FrameError;
use bytes::{Buf, Bytes, BytesMut};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 12;

/// Kinds of frames.
pub mod kind {
    /// The caller's first words.
    pub const HELLO: u8 = 1;
    /// The answer that lets it in.
    pub const WELCOME: u8 = 2;
    /// The answer that does not.
    pub const REFUSAL: u8 = 3;
    /// Any number of messages, one after the other.
    pub const MESSAGES: u8 = 4;
    /// The answer to an inquiry: who belongs to the cluster.
    pub const DIRECTORY: u8 = 5;
}

/// A frame that arrived whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// Its payload, sharing the receive buffer's memory.
    pub payload: Bytes,
}

/// Starts a frame in `buffer`, which is emptied: the payload is to be appended.
pub fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
}

/// Fills in the header of the frame that `buffer` holds.
pub fn finish(buffer: &mut [u8], kind: u8) {
    assert!(buffer.len() >= HEADER_BYTES, "finish follows begin");
    let (header, payload) = buffer.split_at_mut(HEADER_BYTES);
    // The sender's frame limit is far below 4 GiB.
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..8].copy_from_slice(&[kind, 0, 0, 0]);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), payload);
    header[8..].copy_from_slice(&checksum.to_le_bytes());
}

/// A whole frame of `kind` around `payload`.
pub fn whole(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(HEADER_BYTES + payload.len());
    begin(&mut buffer);
    buffer.extend_from_slice(payload);
    finish(&mut buffer, kind);
    buffer
}

/// Takes a frame off the front of `buffer`, if one is there whole; makes room for the rest of one
/// that is not.
///
/// # Errors
/// [`FrameError`]; the stream is of no use afterwards.
pub fn next(buffer: &mut BytesMut, limit_bytes: usize) -> Result<Option<Frame>, FrameError> {
    let Some((header, _)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let header = *header;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length > limit_bytes {
        return Err(FrameError::TooLong { claimed: length as u64, limit: limit_bytes as u64 });
    }
    if header[5..8] != [0; 3] {
        return Err(FrameError::Reserved);
    }
    let whole = HEADER_BYTES + length;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    let mut frame = buffer.split_to(whole).freeze();
    frame.advance(HEADER_BYTES);
    let claimed = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    let computed = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &frame);
    if claimed != computed {
        return Err(FrameError::Checksum { claimed, computed });
    }
    Ok(Some(Frame { kind: header[4], payload: frame }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let bytes = whole(kind::MESSAGES, b"abc");
        assert_eq!(&bytes[..8], &[3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(&bytes[8..12], &0xe560_8156_u32.to_le_bytes());
        assert_eq!(&bytes[12..], b"abc");
    }

    #[test]
    fn a_frame_that_comes_in_pieces_is_put_together() {
        let bytes = whole(kind::HELLO, &[7; 100]);
        let mut buffer = BytesMut::new();
        for piece in bytes[..111].chunks(10) {
            buffer.extend_from_slice(piece);
            assert_eq!(next(&mut buffer, 100), Ok(None));
        }
        buffer.extend_from_slice(&bytes[111..]);
        let frame = Frame { kind: kind::HELLO, payload: Bytes::from_static(&[7; 100]) };
        assert_eq!(next(&mut buffer, 100), Ok(Some(frame)));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_claimed_length_over_the_limit_is_refused_before_anything_is_allocated() {
        let mut buffer = BytesMut::from(&[255u8; HEADER_BYTES][..]);
        let capacity = buffer.capacity();
        let error = FrameError::TooLong { claimed: u64::from(u32::MAX), limit: 1 << 20 };
        assert_eq!(next(&mut buffer, 1 << 20), Err(error));
        assert_eq!(buffer.capacity(), capacity);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_always_seen(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            bit: u64,
        ) {
            let mut bytes = whole(kind::MESSAGES, &payload);
            let bit = bit as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut buffer = BytesMut::from(&bytes[..]);
            // A longer length waits for bytes that do not come; all else is an error.
            prop_assert!(!matches!(next(&mut buffer, 1 << 30), Ok(Some(_))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = next(&mut buffer, 1 << 16) {}
        }
    }
}
