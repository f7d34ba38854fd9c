//! What a replica starts with: its log and its service's state, as they were found.
//!
//! The state may be in a later epoch than the log: the replica crashed between persisting the one
//! and telling the other. Then all that the log holds belongs to an epoch that has ended, and that
//! the state covers; it begins anew after the state before the replica says anything.
//!
//! Or the log does not know where it begins: the block that said so cannot be read any more, or the
//! replica joined, received a state, and crashed before its log was told. Members and protocol are
//! then the state's, which was durable before the log began, and what it covers is not missed.
//!
//! A state that was lost is had from a peer; until it comes, everything up to the log's base is
//! damaged, of which only the last ballot is known. What was promised is in the log.

use crate::group::beginning;
use quorate_base::Ballot;
use quorate_replicated_log::{Base, Entries, Recovered, Write, WriteId};
use quorate_wal::RecoveredGroup;

/// The state with which a replica goes on whose own is lost: none, in its log's epoch.
pub fn lost_state(group: &RecoveredGroup) -> Base {
    let RecoveredGroup { base, .. } = group;
    Base { epoch: base.epoch, protocol: base.protocol, ..Base::default() }
}

/// A replica's log and the durable state of its service, which ends at `applied`, put together;
/// and what the log must be told first, if anything.
///
/// # Errors
/// What is missing, if the state ends before the log begins, and is not [`lost_state`].
pub fn resume(group: RecoveredGroup, applied: Base) -> Result<(Recovered, Option<Write>), String> {
    let (ends, begins) = (applied.position.index, group.base.position.index);
    if ends < begins && applied == lost_state(&group) {
        return Ok((without_state(group, applied), None));
    }
    if ends < begins {
        return Err(format!(
            "the state, which ends at entry {ends}, while the log begins after entry {begins}, "
        ));
    }
    if applied.epoch < group.base.epoch {
        return Err(format!(
            "the state, which is in epoch {}, while the log is in epoch {}, ",
            applied.epoch, group.base.epoch
        ));
    }
    // Also of a replica that joined and has nothing yet its state knows the protocol.
    let knows_more = ends > 0 || applied.protocol != group.base.protocol;
    if begins == 0 && knows_more && applied.epoch == group.base.epoch {
        return Ok(begin_after_state(group, applied));
    }
    let RecoveredGroup { base, hard_state, entries, damaged, damaged_ballots } = group;
    if applied.epoch == base.epoch {
        let written = WriteId(0);
        let found = Recovered {
            base,
            hard_state,
            entries,
            damaged,
            damaged_ballots,
            ..Recovered::default()
        };
        let recovered = Recovered { applied, written, ..found };
        return Ok((recovered, None));
    }
    // To have accepted an entry is to have promised its ballot.
    let accepted = entries.iter().flat_map(|run| run.iter().map(|entry| entry.ballot)).max();
    let promised = hard_state.promised.max(accepted.unwrap_or(Ballot::ZERO));
    let promised = promised.max(applied.position.ballot);
    let write = beginning(&applied, promised, WriteId(0));
    let hard_state = write.hard_state.unwrap_or_default();
    let recovered =
        Recovered { base: applied.clone(), applied, hard_state, ..Recovered::default() };
    Ok((recovered, Some(write)))
}

/// The log goes on from the durable state, with all that it holds past it.
fn begin_after_state(group: RecoveredGroup, applied: Base) -> (Recovered, Option<Write>) {
    let ends = applied.position.index;
    let RecoveredGroup { hard_state, entries, damaged, mut damaged_ballots, .. } = group;
    let past =
        |run: &Entries| Entries::new(run.iter().filter(|e| e.index > ends).cloned().collect());
    let entries = entries.iter().map(past).filter(|run| !run.is_empty()).collect();
    let clipped = damaged.into_iter().map(|range| *range.start().max(&(ends + 1))..=*range.end());
    let damaged = clipped.filter(|range| !range.is_empty()).collect();
    damaged_ballots.retain(|position| position.index > ends);
    let write = Write { reset: None, compact: Some(Box::new(applied.clone())), ..Write::forget() };
    let recovered = Recovered {
        base: applied.clone(),
        applied,
        hard_state,
        entries,
        damaged,
        damaged_ballots,
        written: WriteId(0),
    };
    (recovered, Some(write))
}

fn without_state(group: RecoveredGroup, applied: Base) -> Recovered {
    let RecoveredGroup { base, hard_state, entries, mut damaged, mut damaged_ballots } = group;
    damaged.insert(0, 1..=base.position.index);
    damaged_ballots.insert(0, base.position);
    let (base, written) = (applied.clone(), WriteId(0));
    Recovered { base, hard_state, entries, damaged, damaged_ballots, applied, written }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::{NodeId, Position};
    use quorate_replicated_log::{Entry, Epoch, HardState, Payload, Protocol};

    fn base(index: u64, epoch: u32) -> Base {
        let position = Position::new(index, Ballot::new(2, NodeId(1)));
        Base { position, epoch: Epoch(epoch), ..Base::default() }
    }

    fn group() -> RecoveredGroup {
        let promised = Ballot::new(3, NodeId(2));
        let payload = Payload::Seal { next: Protocol::Paxos, ballot: Ballot::new(2, NodeId(1)) };
        let entry = Entry { index: 5, ballot: Ballot::new(4, NodeId(3)), payload };
        RecoveredGroup {
            base: base(4, 0),
            hard_state: HardState { promised, commit: 4 },
            entries: vec![Entries::new(vec![entry])],
            damaged: vec![6..=7],
            damaged_ballots: Vec::new(),
        }
    }

    #[test]
    fn the_same_epoch_goes_on_as_it_was() {
        let (recovered, write) = resume(group(), base(4, 0)).unwrap();
        assert_eq!((recovered.entries.len(), recovered.damaged.len(), write), (1, 1, None));
    }

    /// Nothing of the old log is taken along but the word that was given.
    #[test]
    fn a_state_in_the_next_epoch_begins_the_log_anew() {
        let (recovered, write) = resume(group(), base(5, 1)).unwrap();
        let write = write.unwrap();
        assert_eq!((write.reset, &recovered.base), (Some(Box::new(base(5, 1))), &base(5, 1)));
        let promised = Ballot::new(4, NodeId(3));
        assert_eq!(write.hard_state, Some(HardState { promised, commit: 5 }));
        assert_eq!(recovered.hard_state, HardState { promised, commit: 5 });
        assert!(recovered.entries.is_empty() && recovered.damaged.is_empty());
    }

    /// The block that said where the log begins is lost: what it knows of members and protocol is
    /// nothing, and must not be believed.
    #[test]
    fn a_log_that_lost_its_beginning_goes_on_from_the_state() {
        let mut lost = group();
        lost.base = Base::default();
        lost.damaged = vec![1..=1, 3..=4, 6..=7];
        lost.damaged_ballots = vec![Position::new(3, Ballot::ZERO), Position::new(6, Ballot::ZERO)];
        let mut state = base(4, 0);
        state.protocol = Protocol::Paxos;
        let (recovered, write) = resume(lost.clone(), state.clone()).unwrap();
        assert_eq!((&recovered.base, &recovered.applied), (&state, &state));
        assert_eq!(recovered.hard_state, lost.hard_state);
        assert_eq!(
            (recovered.entries.clone(), recovered.damaged),
            (lost.entries.clone(), vec![6..=7])
        );
        assert_eq!(recovered.damaged_ballots, lost.damaged_ballots[1..]);
        let write = write.unwrap();
        assert_eq!(
            (write.compact, write.reset, write.hard_state),
            (Some(Box::new(state)), None, None)
        );
        // What the state covers is dropped, damaged or not.
        let (recovered, _) = resume(lost, base(6, 0)).unwrap();
        assert_eq!((recovered.entries.len(), recovered.damaged), (0, vec![7..=7]));
    }

    /// It joined and received a state: its log was to be told next.
    #[test]
    fn a_log_that_was_not_told_of_a_received_state_begins_after_it() {
        let nothing = RecoveredGroup { base: Base::default(), ..RecoveredGroup::default() };
        let (recovered, write) = resume(nothing.clone(), base(4, 0)).unwrap();
        assert_eq!(
            (recovered.base, write.unwrap().compact),
            (base(4, 0), Some(Box::new(base(4, 0))))
        );
        let (recovered, write) = resume(nothing, Base::default()).unwrap();
        assert_eq!((recovered.base, write), (Base::default(), None));
    }

    /// It joined, promised, and its log's first block is lost: it must not go on under the protocol
    /// that happens to be the default.
    #[test]
    fn a_log_that_lost_its_beginning_goes_on_under_the_protocol_of_an_empty_state() {
        let hard_state = group().hard_state;
        let lost = RecoveredGroup { hard_state, ..RecoveredGroup::default() };
        let state = Base { protocol: Protocol::Paxos, ..Base::default() };
        assert_ne!(lost.base.protocol, state.protocol);
        let (recovered, write) = resume(lost, state.clone()).unwrap();
        assert_eq!((&recovered.base, &recovered.applied), (&state, &state));
        assert_eq!(recovered.hard_state, hard_state);
        assert_eq!(write.unwrap().compact, Some(Box::new(state)));
    }

    /// What was promised is kept, and all that the state stood for is to be had from a peer.
    #[test]
    fn a_lost_state_is_damage_up_to_the_logs_base() {
        let mut group = group();
        group.base = base(4, 2);
        let (hard_state, entries) = (group.hard_state, group.entries.clone());
        let nothing = lost_state(&group);
        assert_eq!((nothing.epoch, nothing.position.index), (Epoch(2), 0));
        let (recovered, write) = resume(group, nothing.clone()).unwrap();
        assert_eq!((recovered.hard_state, &recovered.entries), (hard_state, &entries));
        assert_eq!((&recovered.base, &recovered.applied), (&nothing, &nothing));
        assert_eq!(recovered.damaged, [1..=4, 6..=7]);
        assert_eq!(recovered.damaged_ballots, [base(4, 2).position]);
        assert_eq!(write, None);
    }

    #[test]
    fn what_is_missing_is_told() {
        assert!(resume(group(), base(3, 0)).unwrap_err().contains("ends at entry 3"));
        let mut later = group();
        later.base = base(4, 2);
        assert!(resume(later, base(5, 1)).unwrap_err().contains("in epoch 1"));
    }
}
