//! The bytes of a [`PeerMessage`], protocol versions 1 and 2. This is the only place that knows
//! them; `docs/peer-protocol.md` describes them, golden bytes in the tests pin them.
//!
//! Invariant: decoding never panics, never allocates by a length it has not compared with what
//! arrived, and byte strings it returns share the frame's memory. Encoding copies each payload
//! once, into the buffer that is handed to the socket.

mod log;
mod parts;
mod paxos;
#[cfg(test)]
mod tests;

use crate::error::Oversized;
use bytes::Bytes;
use parts::{MAX_ITEMS, check_items};
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{GroupId, NodeId};
use quorate_driver::{ForwardRefusal, PeerMessage, SnapshotOutcome};
use quorate_service::SnapshotChunk;

mod tag {
    pub const LOG: u8 = 1;
    pub const FORWARD: u8 = 2;
    pub const FORWARD_CHANGE: u8 = 3;
    pub const FORWARD_TRANSFER: u8 = 4;
    pub const FORWARD_REFUSED: u8 = 5;
    pub const QUERY: u8 = 6;
    pub const QUERY_REPLY: u8 = 7;
    pub const SNAPSHOT: u8 = 8;
    pub const SNAPSHOT_REPLY: u8 = 9;
    pub const SNAPSHOT_OF_EPOCH: u8 = 10;
    pub const SWITCH: u8 = 11;
    pub const SWITCH_REFUSED: u8 = 12;
    pub const OPENED: u8 = 13;
    pub const CATCH_UP: u8 = 14;
}

/// The first version of the protocol that has words for epochs.
pub const EPOCHS_SINCE: u8 = 2;

/// The oldest version of the protocol that has a form for the message.
pub fn spoken_since(message: &PeerMessage) -> u8 {
    let newer = match message {
        PeerMessage::Log { message, .. } => log::is_newer(message),
        PeerMessage::Snapshot { base, .. } => base.epoch.0 > 0,
        PeerMessage::Switch { .. }
        | PeerMessage::SwitchRefused { .. }
        | PeerMessage::Opened { .. }
        | PeerMessage::CatchUp { .. } => true,
        _ => false,
    };
    if newer { EPOCHS_SINCE } else { 1 }
}

/// Appends one message as version 1 has it, which must be able to: see [`spoken_since`].
///
/// # Errors
/// As [`encode`].
pub fn encode_old(message: &PeerMessage, w: &mut Writer) -> Result<(), Oversized> {
    match message {
        PeerMessage::Snapshot { group, session, base, part, chunk } => {
            w.u8(tag::SNAPSHOT).varint(group.0).varint(*session);
            parts::put_first_base(base, w)?;
            put_part(*part, chunk, w);
            Ok(())
        }
        _ => encode(message, w),
    }
}

/// Appends one message to `w`. On an error `w` holds part of it: the caller cuts it off.
///
/// # Errors
/// [`Oversized`] if a list is longer than a receiver accepts.
pub fn encode(message: &PeerMessage, w: &mut Writer) -> Result<(), Oversized> {
    match message {
        PeerMessage::Log { group, message } => {
            w.u8(tag::LOG).varint(group.0);
            log::encode(message, w)?;
        }
        PeerMessage::Forward { group, commands } => {
            check_items(commands.len())?;
            w.u8(tag::FORWARD).varint(group.0).varint(commands.len() as u64);
            for command in commands {
                w.bytes(command);
            }
        }
        PeerMessage::ForwardChange { group, change, judged, context } => {
            w.u8(tag::FORWARD_CHANGE).varint(group.0);
            parts::put_change(change, w);
            w.varint(*judged).bytes(context);
        }
        PeerMessage::ForwardTransfer { group, to } => {
            w.u8(tag::FORWARD_TRANSFER).varint(group.0).u64(to.0);
        }
        PeerMessage::ForwardRefused { group, requests, reason } => {
            check_items(requests.len())?;
            w.u8(tag::FORWARD_REFUSED).varint(group.0).varint(requests.len() as u64);
            for request in requests {
                parts::put_request(request, w);
            }
            put_refusal(*reason, w);
        }
        PeerMessage::Query { group, id, question } => {
            w.u8(tag::QUERY).varint(group.0).varint(*id).bytes(question);
        }
        PeerMessage::QueryReply { group, id, answer } => {
            w.u8(tag::QUERY_REPLY).varint(group.0).varint(*id).bool(answer.is_some());
            if let Some(answer) = answer {
                w.bytes(answer);
            }
        }
        PeerMessage::Snapshot { group, session, base, part, chunk } => {
            w.u8(tag::SNAPSHOT_OF_EPOCH).varint(group.0).varint(*session);
            parts::put_base(base, w)?;
            put_part(*part, chunk, w);
        }
        PeerMessage::SnapshotReply { group, session, index, outcome } => {
            w.u8(tag::SNAPSHOT_REPLY).varint(group.0).varint(*session).varint(*index);
            put_outcome(*outcome, w);
        }
        PeerMessage::Switch { group, next, judged } => {
            w.u8(tag::SWITCH).varint(group.0);
            parts::put_protocol(*next, w);
            parts::put_epoch(*judged, w);
        }
        PeerMessage::SwitchRefused { group, judged, reason } => {
            w.u8(tag::SWITCH_REFUSED).varint(group.0);
            parts::put_epoch(*judged, w);
            put_refusal(*reason, w);
        }
        PeerMessage::Opened { group, epoch } => {
            w.u8(tag::OPENED).varint(group.0);
            parts::put_epoch(*epoch, w);
        }
        PeerMessage::CatchUp { group, epoch } => {
            w.u8(tag::CATCH_UP).varint(group.0);
            parts::put_epoch(*epoch, w);
        }
    }
    Ok(())
}

/// Reads one message off the front of a frame.
///
/// # Errors
/// [`DecodeError`], if the bytes are not a message of any version up to this one.
pub fn decode(r: &mut Reader) -> Result<PeerMessage, DecodeError> {
    let tag = r.u8()?;
    let group = GroupId(r.varint()?);
    Ok(match tag {
        tag::LOG => PeerMessage::Log { group, message: log::decode(r)? },
        tag::FORWARD => {
            let n = r.count(MAX_ITEMS, 1)?;
            let commands = (0..n).map(|_| r.bytes(u64::MAX)).collect::<Result<_, _>>()?;
            PeerMessage::Forward { group, commands }
        }
        tag::FORWARD_CHANGE => PeerMessage::ForwardChange {
            group,
            change: parts::change(r)?,
            judged: r.varint()?,
            context: r.bytes(u64::MAX)?,
        },
        tag::FORWARD_TRANSFER => PeerMessage::ForwardTransfer { group, to: NodeId(r.u64()?) },
        tag::FORWARD_REFUSED => {
            let n = r.count(MAX_ITEMS, parts::REQUEST_BYTES_MIN)?;
            let requests = (0..n).map(|_| parts::request(r)).collect::<Result<_, _>>()?;
            PeerMessage::ForwardRefused { group, requests, reason: refusal(r)? }
        }
        tag::QUERY => PeerMessage::Query { group, id: r.varint()?, question: r.bytes(u64::MAX)? },
        tag::QUERY_REPLY => PeerMessage::QueryReply {
            group,
            id: r.varint()?,
            answer: match r.bool("answer flag")? {
                true => Some(r.bytes(u64::MAX)?),
                false => None,
            },
        },
        tag::SNAPSHOT | tag::SNAPSHOT_OF_EPOCH => PeerMessage::Snapshot {
            group,
            session: r.varint()?,
            base: if tag == tag::SNAPSHOT { parts::first_base(r)? } else { parts::base(r)? },
            part: r.varint()?,
            chunk: chunk(r)?,
        },
        tag::SNAPSHOT_REPLY => PeerMessage::SnapshotReply {
            group,
            session: r.varint()?,
            index: r.varint()?,
            outcome: outcome(r)?,
        },
        tag::SWITCH => {
            PeerMessage::Switch { group, next: parts::protocol(r)?, judged: parts::epoch(r)? }
        }
        tag::SWITCH_REFUSED => {
            PeerMessage::SwitchRefused { group, judged: parts::epoch(r)?, reason: refusal(r)? }
        }
        tag::OPENED => PeerMessage::Opened { group, epoch: parts::epoch(r)? },
        tag::CATCH_UP => PeerMessage::CatchUp { group, epoch: parts::epoch(r)? },
        other => {
            return Err(DecodeError::Unknown { field: "message tag", value: u64::from(other) });
        }
    })
}

/// Reads every message of a frame's payload into `messages`.
///
/// # Errors
/// As [`decode`]; what came before the malformed message is in `messages` then.
pub fn decode_all(payload: Bytes, messages: &mut Vec<PeerMessage>) -> Result<(), DecodeError> {
    let mut r = Reader::new(payload);
    while r.remaining() > 0 {
        messages.push(decode(&mut r)?);
    }
    Ok(())
}

/// About how many bytes a message occupies, in memory and encoded: for queue limits.
pub fn weight(message: &PeerMessage) -> usize {
    const FIXED: usize = 96;
    FIXED
        + match message {
            PeerMessage::Log { message, .. } => log::weight(message),
            PeerMessage::Forward { commands, .. } => commands.iter().map(|c| c.len() + 16).sum(),
            PeerMessage::ForwardChange { context, .. } => context.len(),
            PeerMessage::ForwardRefused { requests, .. } => requests.len() * 32,
            PeerMessage::Query { question, .. } => question.len(),
            PeerMessage::QueryReply { answer, .. } => answer.as_ref().map_or(0, Bytes::len),
            PeerMessage::Snapshot { chunk, .. } => chunk.bytes.len(),
            PeerMessage::ForwardTransfer { .. }
            | PeerMessage::SnapshotReply { .. }
            | PeerMessage::Switch { .. }
            | PeerMessage::SwitchRefused { .. }
            | PeerMessage::Opened { .. }
            | PeerMessage::CatchUp { .. } => 0,
        }
}

fn put_part(part: u64, chunk: &SnapshotChunk, w: &mut Writer) {
    w.varint(part).u32(chunk.checksum).bool(chunk.last).bytes(&chunk.bytes);
}

fn chunk(r: &mut Reader) -> Result<SnapshotChunk, DecodeError> {
    let (checksum, last) = (r.u32()?, r.bool("last part flag")?);
    Ok(SnapshotChunk { bytes: r.bytes(u64::MAX)?, checksum, last })
}

fn put_refusal(reason: ForwardRefusal, w: &mut Writer) {
    match reason {
        ForwardRefusal::NotLeader(leader) => w.u8(1).u64(leader.0),
        ForwardRefusal::Full => w.u8(2),
        ForwardRefusal::ChangeInProgress => w.u8(3),
        ForwardRefusal::BadChange => w.u8(4),
        ForwardRefusal::Outdated => w.u8(6),
        ForwardRefusal::NotReady => w.u8(7),
        ForwardRefusal::Transferring => w.u8(5),
    };
}

fn refusal(r: &mut Reader) -> Result<ForwardRefusal, DecodeError> {
    Ok(match r.u8()? {
        1 => ForwardRefusal::NotLeader(NodeId(r.u64()?)),
        2 => ForwardRefusal::Full,
        3 => ForwardRefusal::ChangeInProgress,
        4 => ForwardRefusal::BadChange,
        6 => ForwardRefusal::Outdated,
        7 => ForwardRefusal::NotReady,
        5 => ForwardRefusal::Transferring,
        other => {
            return Err(DecodeError::Unknown { field: "forward refusal", value: other.into() });
        }
    })
}

fn put_outcome(outcome: SnapshotOutcome, w: &mut Writer) {
    match outcome {
        SnapshotOutcome::Next(part) => w.u8(1).varint(part),
        SnapshotOutcome::Done => w.u8(2),
        SnapshotOutcome::Failed => w.u8(3),
    };
}

fn outcome(r: &mut Reader) -> Result<SnapshotOutcome, DecodeError> {
    Ok(match r.u8()? {
        1 => SnapshotOutcome::Next(r.varint()?),
        2 => SnapshotOutcome::Done,
        3 => SnapshotOutcome::Failed,
        other => {
            return Err(DecodeError::Unknown { field: "snapshot outcome", value: other.into() });
        }
    })
}
