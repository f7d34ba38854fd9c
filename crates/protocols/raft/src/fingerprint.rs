//! What of a replica decides its future, apart from time and chance: for exhaustive checking.
//!
//! Two replicas with equal fingerprints answer the same inputs with the same effects, as long as
//! none of these depends on the time, the generator or the absolute numbers of writes. Every field
//! is named below, so that a new one does not compile before it is considered.

use crate::raft::Raft;
use core::hash::{Hash, Hasher};

impl Raft {
    /// Feeds `state` with all of that.
    pub fn fingerprint<H: Hasher>(&self, state: &mut H) {
        let Raft {
            // Chance, and what never changes or only serves events.
            config: _,
            spec: _,
            rng: _,
            canary: _,
            announced: _,
            // Time: when something is due, was heard or began.
            election_at: _,
            sticky_until: _,
            resting_until: _,
            heartbeat_at: _,
            led_since: _,
            steady_until: _,
            progress_at: _,
            // The rest counts.
            promised,
            promise_write,
            log,
            journal,
            commit,
            handed_out,
            applied,
            role,
            leader,
            votes,
            standing_by_transfer,
            pull,
            promised_end,
            lost,
            mending: _,
            repair_from,
            followers,
            next_session,
            first_own,
            ready,
            reads,
            transfer,
            offered,
            uncommitted,
            uncommitted_bytes,
        } = self;
        (promised, journal.until_done(*promise_write), log).hash(state);
        journal.fingerprint(state);
        (commit, handed_out, applied, role, leader, votes, standing_by_transfer).hash(state);
        reads.fingerprint(state);
        (pull, promised_end, lost, repair_from).hash(state);
        followers.iter().for_each(|progress| progress.fingerprint(state));
        (next_session, first_own, ready, offered).hash(state);
        (transfer.map(|(to, _)| to), uncommitted, uncommitted_bytes).hash(state);
    }
}
