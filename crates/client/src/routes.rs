//! Which member drives transactions between which participants, as members have told.
//!
//! A member that is asked for a transaction which another one drives hands it on, and says so. To
//! ask that one next time spares a way. Invariant: what is known here decides only who is asked
//! first; a member that does not answer, or drives them no more, costs that way again.

use crate::endpoint::Endpoint;
use quorate_wire::quorate::RunTransactionRequest;
use quorate_wire::quorate::branch::Work;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How many are remembered. With more, all are forgotten, and told anew.
const MOST: usize = 1_024;

/// The kinds and names of a transaction's participants, in the order of its branches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Participants(Vec<(u8, String)>);

impl Participants {
    pub(crate) fn of(request: &RunTransactionRequest) -> Participants {
        let works = request.branches.iter().filter_map(|branch| branch.work.as_ref());
        let named = works.map(|work| match work {
            Work::Keyspace(work) => (0, work.keyspace.clone()),
            Work::Postgres(work) => (1, work.participant.clone()),
            Work::Mariadb(work) => (2, work.participant.clone()),
            Work::Http(work) => (3, work.participant.clone()),
        });
        Participants(named.collect())
    }
}

/// What is known.
#[derive(Default, Debug)]
pub(crate) struct Routes(Mutex<BTreeMap<Participants, Endpoint>>);

impl Routes {
    /// Who drives transactions between these.
    pub(crate) fn get(&self, participants: &Participants) -> Option<Endpoint> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(participants).cloned()
    }

    /// This one does.
    pub(crate) fn learn(&self, participants: Participants, endpoint: Endpoint) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&participants) {
            known.clear();
        }
        known.insert(participants, endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_wire::quorate::{Branch, KeyspaceWork, SqlWork};

    fn request(keyspace: &str) -> RunTransactionRequest {
        let first = KeyspaceWork { keyspace: keyspace.to_owned(), ..Default::default() };
        let second = SqlWork { participant: "bank".to_owned(), ..Default::default() };
        let works = [Work::Keyspace(first), Work::Postgres(second)];
        let branch = |work| Branch { work: Some(work), ..Default::default() };
        let branches = works.map(branch).to_vec();
        RunTransactionRequest { branches, ..Default::default() }
    }

    #[test]
    fn who_drives_is_known_by_the_participants() {
        let (routes, at) = (Routes::default(), |text: &str| text.parse::<Endpoint>().unwrap());
        let of = |keyspace: &str| Participants::of(&request(keyspace));
        assert_eq!(routes.get(&of("orders")), None);
        routes.learn(of("orders"), at("a:1"));
        assert_eq!(routes.get(&of("orders")), Some(at("a:1")));
        assert_eq!(routes.get(&of("stock")), None);
        routes.learn(of("orders"), at("b:1"));
        assert_eq!(routes.get(&of("orders")), Some(at("b:1")));
        for n in 0..MOST {
            routes.learn(of(&n.to_string()), at("a:1"));
        }
        assert_eq!(routes.get(&of("orders")), None, "there is an end to it");
    }
}
