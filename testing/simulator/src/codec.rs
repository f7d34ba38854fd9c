//! Peers' messages as bytes, and as a number for the trace.

use crate::trace::StableHasher;
use quorate_base::codec::{Reader, Writer};
use quorate_checkers::Violation;
use quorate_driver::PeerMessage;
use quorate_transport::codec;
use std::hash::{Hash, Hasher};

/// Encodes and decodes a message; both must succeed and agree.
pub fn round_trip(message: &PeerMessage) -> Result<PeerMessage, Violation> {
    let wrong = |why: String| Violation::new("peer codec", format!("{why}: {message:?}"));
    let mut writer = Writer::new();
    codec::encode(message, &mut writer).map_err(|e| wrong(format!("not encoded ({e:?})")))?;
    let mut reader = Reader::new(writer.into_bytes());
    let back = codec::decode(&mut reader).map_err(|e| wrong(format!("not decoded ({e})")))?;
    reader.finish().map_err(|e| wrong(format!("not decoded whole ({e})")))?;
    if back != *message {
        return Err(wrong("decoded differently".into()));
    }
    Ok(back)
}

/// A number that tells a message from another.
pub fn digest(from: u64, message: &PeerMessage) -> u64 {
    let mut hasher = StableHasher::default();
    hasher.write_u64(from);
    std::mem::discriminant(message).hash(&mut hasher);
    match message {
        PeerMessage::Log { message, .. } => message.hash(&mut hasher),
        PeerMessage::Forward { commands, .. } => commands.hash(&mut hasher),
        PeerMessage::ForwardChange { change, judged, context, .. } => {
            (change, judged, context).hash(&mut hasher);
        }
        PeerMessage::ForwardTransfer { to, .. } => to.hash(&mut hasher),
        PeerMessage::ForwardRefused { requests, .. } => requests.hash(&mut hasher),
        PeerMessage::Query { id, question, .. } => (id, question).hash(&mut hasher),
        PeerMessage::QueryReply { id, answer, .. } => (id, answer).hash(&mut hasher),
        PeerMessage::Snapshot { session, part, base, chunk, .. } => {
            (session, part, base, chunk.checksum).hash(&mut hasher);
        }
        PeerMessage::SnapshotReply { session, index, .. } => (session, index).hash(&mut hasher),
        PeerMessage::Switch { next, judged, .. } => (next, judged).hash(&mut hasher),
        PeerMessage::SwitchRefused { judged, .. } => judged.hash(&mut hasher),
        PeerMessage::Opened { epoch, .. } | PeerMessage::CatchUp { epoch, .. } => {
            epoch.hash(&mut hasher);
        }
    }
    hasher.finish()
}
