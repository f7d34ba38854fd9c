//! What waits to be sent to one peer over one stream.
//!
//! Invariant: [`Outbox::push`] never blocks and the queue never exceeds its limits: a peer that
//! is slower than its messages loses the newest, a peer that is away loses the oldest. Protocols
//! repeat what matters. Whoever pushes while nothing waits writes to the socket itself, which
//! saves waking a task; otherwise the dialing task writes on, all that waits in one call.

use crate::codec;
use crate::config::Limits;
use crate::frame;
use crate::handshake::VERSIONS;
use crate::stats::Counters;
use parking_lot::Mutex;
use quorate_base::codec::Writer;
use quorate_driver::PeerMessage;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A frame is closed once it holds so many bytes.
const FRAME_GOAL_BYTES: usize = 256 << 10;
/// More than this is written by the dialing task, not by whoever pushes.
const DIRECT_LIMIT_BYTES: usize = 256 << 10;
/// What is kept for a peer that is away: enough to find it in the midst of things when it comes
/// back, not enough to drown it in the past.
const AWAY_MESSAGES: usize = 256;
const AWAY_BYTES: usize = 1 << 20;
/// A buffer that grew larger than this is given back.
const BUFFER_KEEP_BYTES: usize = 2 << 20;

/// A queue, and the connection it empties into.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Tells the dialing task that there is something to write or that the connection broke.
    pub(crate) wake: Notify,
    counters: Arc<Counters>,
    limits: Limits,
    direct: bool,
}

struct State {
    queue: VecDeque<PeerMessage>,
    queued_bytes: usize,
    link: Option<Arc<TcpStream>>,
    /// Of the protocol, as the peer speaks it.
    version: u8,
    /// One frame, sent up to `sent`.
    buffer: Vec<u8>,
    sent: usize,
}

/// How far writing got.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing waits.
    Idle,
    /// The socket takes no more at the moment.
    Blocked,
    /// The connection broke.
    Broken(io::Error),
}

impl Outbox {
    /// An empty queue. `direct`: whoever pushes may write.
    pub(crate) fn new(limits: Limits, direct: bool, counters: Arc<Counters>) -> Self {
        Outbox {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                queued_bytes: 0,
                link: None,
                version: VERSIONS.1,
                buffer: Vec::new(),
                sent: 0,
            }),
            wake: Notify::new(),
            counters,
            limits,
            direct,
        }
    }

    /// Takes messages for the peer; what is over the limits is dropped and counted.
    pub(crate) fn push(&self, messages: impl Iterator<Item = PeerMessage>) {
        let mut state = self.state.lock();
        let busy = !state.is_idle();
        for message in messages {
            self.enqueue(&mut state, message);
        }
        if state.queue.is_empty() {
            return;
        }
        let connected = state.link.is_some();
        if connected && self.direct && !busy && state.queued_bytes <= DIRECT_LIMIT_BYTES {
            if let Progress::Idle = self.write(&mut state) {
                return;
            }
        } else if connected && self.direct && busy {
            // The dialing task is at it already.
            return;
        }
        drop(state);
        self.wake.notify_one();
    }

    fn enqueue(&self, state: &mut State, message: PeerMessage) {
        let weight = codec::weight(&message);
        let (mut messages, mut bytes) = (self.limits.queue_messages, self.limits.queue_bytes);
        if state.link.is_none() && self.direct {
            (messages, bytes) = (messages.min(AWAY_MESSAGES), bytes.min(AWAY_BYTES));
        }
        let full = |s: &State| {
            s.queue.len() >= messages || (s.queued_bytes + weight > bytes && !s.queue.is_empty())
        };
        if state.link.is_some() {
            if full(state) {
                self.counters.dropped_full.fetch_add(1, Relaxed);
                return;
            }
        } else {
            while full(state) {
                state.pop();
                self.counters.dropped_full.fetch_add(1, Relaxed);
            }
        }
        state.queued_bytes += weight;
        state.queue.push_back(message);
    }

    /// Empties into this connection from now on, as that version of the protocol has it.
    pub(crate) fn connect(&self, link: Arc<TcpStream>, version: u8) {
        let mut state = self.state.lock();
        (state.link, state.version) = (Some(link), version);
    }

    /// The connection is gone, and with it a frame that was under way.
    pub(crate) fn disconnect(&self) {
        let mut state = self.state.lock();
        state.link = None;
        state.buffer.clear();
        state.sent = 0;
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&self) -> Progress {
        self.write(&mut self.state.lock())
    }

    fn write(&self, state: &mut State) -> Progress {
        let Some(link) = state.link.clone() else {
            return Progress::Idle;
        };
        loop {
            if state.sent == state.buffer.len() && !self.fill(state) {
                return Progress::Idle;
            }
            match link.try_write(&state.buffer[state.sent..]) {
                Ok(n) => {
                    state.sent += n;
                    self.counters.sent_bytes.fetch_add(n as u64, Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Blocked;
                }
                Err(error) => {
                    state.link = None;
                    return Progress::Broken(error);
                }
            }
        }
    }

    /// Makes the next frame of what is queued; whether there is one.
    fn fill(&self, state: &mut State) -> bool {
        if state.buffer.capacity() > BUFFER_KEEP_BYTES {
            state.buffer = Vec::new();
        }
        frame::begin(&mut state.buffer);
        let mut w = Writer::from(std::mem::take(&mut state.buffer));
        let mut messages = 0;
        while let Some(message) = state.queue.front() {
            let mark = w.len();
            let encoded = match state.version {
                1 if codec::spoken_since(message) > 1 => {
                    // A peer that is older: what it cannot read it must do without.
                    state.pop();
                    self.counters.dropped_newer.fetch_add(1, Relaxed);
                    continue;
                }
                1 => codec::encode_old(message, &mut w),
                _ => codec::encode(message, &mut w),
            };
            let fits = encoded.is_ok() && w.len() - frame::HEADER_BYTES <= self.limits.frame_bytes;
            if !fits {
                let mut bytes = w.into_vec();
                bytes.truncate(mark);
                w = Writer::from(bytes);
                if messages > 0 {
                    break; // It may fit a frame of its own.
                }
                state.pop();
                self.counters.dropped_oversized.fetch_add(1, Relaxed);
                continue;
            }
            state.pop();
            messages += 1;
            if w.len() >= FRAME_GOAL_BYTES {
                break;
            }
        }
        state.buffer = w.into_vec();
        state.sent = 0;
        if messages == 0 {
            state.buffer.clear();
            return false;
        }
        frame::finish(&mut state.buffer, frame::kind::MESSAGES);
        self.counters.sent_frames.fetch_add(1, Relaxed);
        self.counters.sent_messages.fetch_add(messages, Relaxed);
        true
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.sent == self.buffer.len()
    }

    fn pop(&mut self) {
        if let Some(message) = self.queue.pop_front() {
            self.queued_bytes -= codec::weight(&message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use quorate_base::GroupId;

    fn question(id: u64, bytes: usize) -> PeerMessage {
        PeerMessage::Query { group: GroupId(1), id, question: Bytes::from(vec![0; bytes]) }
    }

    fn outbox(queue_messages: usize, frame_bytes: usize) -> Outbox {
        let limits = Limits { queue_messages, frame_bytes, ..Limits::default() };
        Outbox::new(limits, true, Arc::default())
    }

    fn queued(outbox: &Outbox) -> Vec<u64> {
        let ids = outbox.state.lock();
        ids.queue
            .iter()
            .map(|m| match m {
                PeerMessage::Query { id, .. } => *id,
                _ => 0,
            })
            .collect()
    }

    fn next_frame(outbox: &Outbox) -> Vec<PeerMessage> {
        let mut state = outbox.state.lock();
        let mut messages = Vec::new();
        if outbox.fill(&mut state) {
            let mut bytes = BytesMut::from(&state.buffer[..]);
            let frame = frame::next(&mut bytes, 1 << 30).unwrap().unwrap();
            codec::decode_all(frame.payload, &mut messages).unwrap();
        }
        messages
    }

    #[test]
    fn a_peer_that_is_away_loses_the_oldest() {
        let outbox = outbox(3, 1 << 20);
        outbox.push((1..=5).map(|id| question(id, 10)));
        assert_eq!(queued(&outbox), [3, 4, 5]);
        assert_eq!(outbox.counters.dropped_full.load(Relaxed), 2);
    }

    #[test]
    fn an_older_peer_is_sent_what_it_can_read() {
        let outbox = outbox(100, 1 << 20);
        let log = |epoch| PeerMessage::Log {
            group: GroupId(1),
            message: quorate_replicated_log::Message {
                epoch: quorate_replicated_log::Epoch(epoch),
                ballot: quorate_base::Ballot::ZERO,
                body: quorate_replicated_log::Body::TimeoutNow,
            },
        };
        outbox.state.lock().version = 1;
        outbox.push([log(0), log(1), question(1, 1)].into_iter());
        assert_eq!(next_frame(&outbox), [log(0), question(1, 1)]);
        assert_eq!(outbox.counters.dropped_newer.load(Relaxed), 1);
    }

    #[test]
    fn everything_that_waits_goes_into_one_frame() {
        let outbox = outbox(100, 1 << 20);
        outbox.push((1..=50).map(|id| question(id, 10)));
        assert_eq!(next_frame(&outbox).len(), 50);
        assert_eq!(next_frame(&outbox).len(), 0);
        assert_eq!(outbox.state.lock().queued_bytes, 0);
    }

    #[test]
    fn what_does_not_fit_one_frame_goes_into_the_next_and_what_fits_none_is_dropped() {
        let outbox = outbox(100, 1_000);
        outbox.push(
            [question(1, 800), question(2, 800), question(3, 2_000), question(4, 1)].into_iter(),
        );
        assert_eq!(next_frame(&outbox), [question(1, 800)]);
        assert_eq!(next_frame(&outbox), [question(2, 800)]);
        assert_eq!(next_frame(&outbox), [question(4, 1)]);
        assert_eq!(outbox.counters.dropped_oversized.load(Relaxed), 1);
    }
}
