//! A leader's knowledge of one follower, and how much may be under way to it.
//!
//! Invariant: `matched < next`; whatever is under way lies in `matched + 1 .. next`; the window's
//! messages and bytes stay within their limits (one message always fits).

use crate::config::Limits;
use alloc::collections::VecDeque;
use quorate_base::{Index, Instant, NodeId};

/// How a follower is being sent the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Where the logs agree is not known: one message at a time, then wait for its answer.
    Probe {
        /// A message is under way.
        paused: bool,
    },
    /// The logs agree: messages follow each other without waiting.
    Replicate,
    /// It needs the service's state first.
    Snapshot,
}

/// What a leader knows of one follower.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Who.
    pub node: NodeId,
    /// Names this relation; answers of another are ignored.
    pub session: u64,
    /// The follower's durable log is known to agree up to here.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    /// How it is being sent the log.
    pub mode: Mode,
    /// When it was last heard from, if ever in this ballot.
    pub heard: Option<Instant>,
    /// The latest leadership probe it has answered.
    pub probe: u64,
    /// The commit index it was last told and may act on.
    pub commit_told: Index,
    /// `matched` at its last heartbeat reply: no growth since means that something was lost.
    pub matched_at_heartbeat: Index,
    window: Window,
}

impl Progress {
    /// Of a follower about which nothing is known, to be probed from `next` on.
    pub fn new(node: NodeId, session: u64, next: Index) -> Self {
        Progress {
            node,
            session,
            matched: 0,
            next: next.max(1),
            mode: Mode::Probe { paused: false },
            heard: None,
            probe: 0,
            commit_told: 0,
            matched_at_heartbeat: 0,
            window: Window::default(),
        }
    }

    /// Whether it was heard from at or after `since`.
    pub fn active_since(&self, since: Instant) -> bool {
        self.heard.is_some_and(|at| at >= since)
    }

    /// Whether another message with entries may be sent.
    pub fn may_send(&self, limits: &Limits) -> bool {
        match self.mode {
            Mode::Probe { paused } => !paused,
            Mode::Replicate => self.window.has_room(limits),
            Mode::Snapshot => false,
        }
    }

    /// A message with the entries up to `last`, of `bytes`, is being sent.
    pub fn sent(&mut self, last: Index, bytes: usize) {
        match &mut self.mode {
            Mode::Probe { paused } => *paused = true,
            Mode::Replicate => {
                debug_assert!(last >= self.next);
                self.next = last + 1;
                self.window.push(last, bytes);
            }
            Mode::Snapshot => debug_assert!(false, "nothing is sent beside a snapshot"),
        }
    }

    /// The follower agrees up to `matched`. Returns whether that is news.
    pub fn accepted(&mut self, matched: Index) -> bool {
        let news = matched > self.matched;
        if news {
            self.matched = matched;
            self.window.free(matched);
        }
        self.next = self.next.max(matched + 1);
        if self.mode != Mode::Replicate && matched == self.matched {
            self.replicate();
        }
        news
    }

    /// Goes on without waiting, from just after what is known to agree.
    fn replicate(&mut self) {
        self.mode = Mode::Replicate;
        self.next = self.matched + 1;
        self.window.clear();
    }

    /// Goes back to one message at a time, from `next` (but never into what is known to agree).
    pub fn probe_from(&mut self, next: Index) {
        self.mode = Mode::Probe { paused: false };
        self.next = next.max(self.matched + 1);
        self.window.clear();
    }

    /// Waits for a snapshot to be sent.
    pub fn await_snapshot(&mut self) {
        self.mode = Mode::Snapshot;
        self.window.clear();
    }

    /// A lost probe may be repeated.
    pub fn unpause(&mut self) {
        if let Mode::Probe { paused } = &mut self.mode {
            *paused = false;
        }
    }

    /// Feeds `state` with all but the time: for exhaustive checking.
    pub fn fingerprint<H: core::hash::Hasher>(&self, state: &mut H) {
        use core::hash::Hash;
        let Progress {
            node,
            session,
            matched,
            next,
            mode,
            heard: _,
            probe,
            commit_told,
            matched_at_heartbeat,
            window,
        } = self;
        (node, session, matched, next, mode, probe).hash(state);
        (commit_told, matched_at_heartbeat, window).hash(state);
    }

    /// Whether messages are under way.
    pub fn is_waiting(&self) -> bool {
        !self.window.sent.is_empty()
    }
}

/// What is under way: the last index and the bytes of each message.
#[derive(Clone, Hash, Debug, Default)]
struct Window {
    sent: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Window {
    fn has_room(&self, limits: &Limits) -> bool {
        self.sent.len() < limits.inflight_messages.max(1)
            && (self.sent.is_empty() || self.bytes < limits.inflight_bytes)
    }

    fn push(&mut self, last: Index, bytes: usize) {
        self.sent.push_back((last, bytes));
        self.bytes += bytes;
    }

    fn free(&mut self, matched: Index) {
        while let Some(&(last, bytes)) = self.sent.front()
            && last <= matched
        {
            self.sent.pop_front();
            self.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }
}

/// All followers of a leader, in order of node.
#[derive(Clone, Debug, Default)]
pub struct Followers(alloc::vec::Vec<Progress>);

impl Followers {
    /// The follower `node`.
    pub fn get(&self, node: NodeId) -> Option<&Progress> {
        // A handful: a scan beats a search.
        self.0.iter().find(|p| p.node == node)
    }

    /// The follower `node`.
    pub fn get_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.0.iter_mut().find(|p| p.node == node)
    }

    /// All of them.
    pub fn iter(&self) -> core::slice::Iter<'_, Progress> {
        self.0.iter()
    }

    /// All of them.
    pub fn iter_mut(&mut self) -> core::slice::IterMut<'_, Progress> {
        self.0.iter_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keeps who is among `nodes` (sorted), forgets the others and adds who is new, under
    /// `session`, to be probed from `next` on.
    pub fn set(&mut self, nodes: &[NodeId], session: u64, next: Index) {
        self.0.retain(|p| nodes.contains(&p.node));
        for &node in nodes {
            if let Err(at) = self.0.binary_search_by_key(&node, |p| p.node) {
                self.0.insert(at, Progress::new(node, session, next));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { inflight_messages: 2, inflight_bytes: 100, ..Limits::default() }
    }

    #[test]
    fn a_probe_waits_for_its_answer_and_then_streams() {
        let mut p = Progress::new(NodeId(2), 1, 5);
        assert!(p.may_send(&limits()));
        p.sent(6, 10);
        assert!(!p.may_send(&limits()) && p.next == 5);
        p.unpause();
        assert!(p.may_send(&limits()));
        assert!(p.accepted(6));
        assert_eq!((p.mode, p.matched, p.next), (Mode::Replicate, 6, 7));
    }

    #[test]
    fn the_window_limits_messages_and_bytes() {
        let mut p = Progress::new(NodeId(2), 1, 1);
        p.accepted(0);
        p.sent(1, 10);
        p.sent(2, 10);
        assert!(!p.may_send(&limits()), "two messages");
        assert!(p.accepted(1) && p.may_send(&limits()));
        p.sent(3, 500);
        p.accepted(2);
        assert!(!p.may_send(&limits()), "too many bytes");
        p.accepted(3);
        assert!(p.may_send(&limits()) && !p.is_waiting());
        assert!(!p.accepted(2), "old news");
        assert_eq!((p.matched, p.next), (3, 4));
    }

    #[test]
    fn probing_never_goes_back_into_what_agrees() {
        let mut p = Progress::new(NodeId(2), 1, 1);
        p.accepted(7);
        p.sent(9, 1);
        p.probe_from(3);
        assert_eq!((p.next, p.mode), (8, Mode::Probe { paused: false }));
        p.await_snapshot();
        assert!(!p.may_send(&limits()));
        p.accepted(7);
        assert_eq!(p.mode, Mode::Replicate);
    }

    #[test]
    fn followers_come_and_go_with_fresh_sessions() {
        let mut all = Followers::default();
        all.set(&[NodeId(2), NodeId(3)], 1, 1);
        all.get_mut(NodeId(3)).unwrap().accepted(9);
        all.set(&[NodeId(2)], 5, 10);
        all.set(&[NodeId(2), NodeId(3)], 7, 11);
        let of = |n| all.get(NodeId(n)).map(|p| (p.session, p.matched)).unwrap();
        assert_eq!((of(2), of(3)), ((1, 0), (7, 0)));
    }
}
