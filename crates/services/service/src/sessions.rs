//! Which requests were already applied: what makes a retried proposal apply once.

use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_base::{NodeId, RequestId};
use std::collections::BTreeMap;

/// The applied requests of every node's latest run. Part of the replicated state.
///
/// Bounded: a run remembers only what it has not settled, as stretches of numbers, and the driver
/// bounds how many requests it keeps unsettled.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sessions(BTreeMap<NodeId, Session>);

/// One node's latest run.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Session {
    /// The run.
    pub run: u64,
    /// Every sequence below this is settled.
    pub settled: u64,
    /// The applied sequences from `settled` on.
    pub applied: Stretches,
}

/// A set of numbers as the stretches that it is made of: requests are applied almost in order,
/// so a few stretches hold thousands.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stretches(Vec<(u64, u64)>);

/// Stretches in one encoded session.
const MAX_STRETCHES: u64 = 1 << 20;

impl Stretches {
    /// Adds a number; tells whether it is new.
    pub fn insert(&mut self, n: u64) -> bool {
        // The first stretch that ends (excluded) at `n` or later.
        let i = self.0.partition_point(|(_, end)| *end < n);
        let Some((start, end)) = self.0.get_mut(i) else {
            self.0.push((n, n + 1));
            return true;
        };
        if *start <= n && n < *end {
            return false;
        }
        if n == *end {
            *end = n + 1;
            if let Some((next_start, next_end)) = self.0.get(i + 1).copied()
                && next_start == n + 1
            {
                self.0[i].1 = next_end;
                self.0.remove(i + 1);
            }
        } else if n + 1 == *start {
            *start = n;
        } else {
            self.0.insert(i, (n, n + 1));
        }
        true
    }

    /// Whether a number is in the set.
    pub fn contains(&self, n: u64) -> bool {
        let i = self.0.partition_point(|(_, end)| *end <= n);
        self.0.get(i).is_some_and(|(start, _)| *start <= n)
    }

    /// Forgets every number below `n`.
    pub fn forget_below(&mut self, n: u64) {
        let gone = self.0.partition_point(|(_, end)| *end <= n);
        self.0.drain(..gone);
        if let Some((start, _)) = self.0.first_mut() {
            *start = (*start).max(n);
        }
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Session {
    /// Appends the session: run, settled, and the stretches as distances, all varints.
    pub fn write(&self, w: &mut Writer) {
        w.varint(self.run).varint(self.settled).varint(self.applied.0.len() as u64);
        let mut at = self.settled;
        for (start, end) in &self.applied.0 {
            w.varint(start - at).varint(end - start);
            at = *end;
        }
    }

    /// Reads a session back.
    pub fn read(r: &mut Reader) -> Result<Session, DecodeError> {
        let (run, settled) = (r.varint()?, r.varint()?);
        let n = r.count(MAX_STRETCHES, 2)?;
        let mut stretches = Vec::with_capacity(n);
        let mut at = settled;
        for i in 0..n {
            let (gap, length) = (r.varint()?, r.varint()?);
            let end =
                at.checked_add(gap).and_then(|start| Some((start, start.checked_add(length)?)));
            match end {
                Some((start, end)) if length > 0 && (i == 0 || gap > 0) => {
                    stretches.push((start, end));
                    at = end;
                }
                _ => return Err(DecodeError::Unknown { field: "stretch of requests", value: gap }),
            }
        }
        Ok(Session { run, settled, applied: Stretches(stretches) })
    }
}

impl Sessions {
    /// Whether `request` is to be applied now; remembers that it was. A request of an earlier run,
    /// a settled one, or one applied before is not.
    pub fn admit(&mut self, request: RequestId) -> bool {
        let session = self.0.entry(request.node).or_default();
        if request.run < session.run {
            return false;
        }
        if request.run > session.run {
            *session = Session { run: request.run, ..Session::default() };
        }
        if request.settled > session.settled {
            session.settled = request.settled;
            session.applied.forget_below(request.settled);
        }
        // The last number has no successor, which the stretches need; nobody gets that far.
        request.sequence >= session.settled
            && request.sequence < u64::MAX
            && session.applied.insert(request.sequence)
    }

    /// Every node's latest run, in order of node.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Session)> {
        self.0.iter().map(|(node, session)| (*node, session))
    }

    /// One node's latest run.
    pub fn get(&self, node: NodeId) -> Option<&Session> {
        self.0.get(&node)
    }

    /// Puts back what [`Sessions::iter`] gave.
    pub fn restore(&mut self, node: NodeId, session: Session) {
        self.0.insert(node, session);
    }

    /// Forgets a node that has left the cluster for ever.
    pub fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(run: u64, sequence: u64, settled: u64) -> RequestId {
        RequestId { node: NodeId(1), run, sequence, settled }
    }

    #[test]
    fn a_request_is_admitted_once_in_any_order() {
        let mut s = Sessions::default();
        assert!(s.admit(request(1, 2, 1)));
        assert!(s.admit(request(1, 1, 1)));
        assert!(!s.admit(request(1, 2, 1)));
        assert!(s.admit(request(1, 5, 3)));
        assert!(!s.admit(request(1, 2, 1)), "settled");
        assert_eq!(s.get(NodeId(1)).map(|s| s.applied.len()), Some(1));
    }

    #[test]
    fn stretches_are_a_set() {
        let mut rng = quorate_base::Rng::new(3);
        let (mut stretches, mut set) = (Stretches::default(), std::collections::BTreeSet::new());
        for _ in 0..20_000 {
            let n = rng.below(300);
            match rng.below(100) {
                0 => {
                    stretches.forget_below(n);
                    set = set.split_off(&n);
                }
                _ => assert_eq!(stretches.insert(n), set.insert(n), "{n}"),
            }
            assert_eq!(stretches.len(), set.len() as u64);
            assert_eq!(stretches.contains(n), set.contains(&n));
            assert!(stretches.0.windows(2).all(|w| w[0].1 < w[1].0), "{stretches:?}");
        }
    }

    #[test]
    fn a_session_is_read_back_and_nonsense_is_refused() {
        let mut s = Sessions::default();
        for sequence in [5, 6, 9, 12, 11] {
            s.admit(request(3, sequence, 4));
        }
        let session = s.get(NodeId(1)).cloned().unwrap();
        let mut w = Writer::new();
        session.write(&mut w);
        let bytes = w.into_bytes();
        assert_eq!(&bytes[..], &[3, 4, 3, 1, 2, 2, 1, 1, 2], "5-6, 9, 11-12");
        assert_eq!(Session::read(&mut Reader::new(bytes)), Ok(session));
        for bad in [&[3, 4, 200][..], &[3, 4, 1, 0, 0], &[3, 4, 2, 0, 1, 0, 1]] {
            assert!(Session::read(&mut Reader::new(bytes::Bytes::from(bad.to_vec()))).is_err());
        }
    }

    #[test]
    fn a_later_run_ends_the_earlier_one() {
        let mut s = Sessions::default();
        assert!(s.admit(request(1, 1, 1)));
        assert!(s.admit(request(2, 1, 1)));
        assert!(!s.admit(request(1, 2, 1)));
    }
}
