//! The members as clients see them: names and addresses.
//!
//! Who votes is the log's own business and settled before an entry comes here. A change that
//! comes with the log's is checked again only as far as it concerns this table.

use crate::codec::{read_member, write_member};
use crate::command::{Member, MemberChange};
use crate::reply::KeyspaceError;
use bytes::Bytes;
use quorate_base::NodeId;
use quorate_base::codec::{DecodeError, Reader, Writer};
use quorate_replicated_log::Membership;
use std::collections::BTreeMap;

/// The member table. A removed member's id is never used again.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Members(BTreeMap<NodeId, Option<Member>>);

impl Members {
    /// The members, in order of id.
    pub fn list(&self) -> Vec<Member> {
        self.0.values().flatten().cloned().collect()
    }

    /// One member.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.0.get(&id)?.as_ref()
    }

    /// Whether this was a member and has left for ever.
    pub fn was_removed(&self, id: NodeId) -> bool {
        matches!(self.0.get(&id), Some(None))
    }

    /// Who left for ever, in order of id.
    pub fn removed(&self) -> Vec<NodeId> {
        self.0.iter().filter(|(_, member)| member.is_none()).map(|(id, _)| *id).collect()
    }

    /// What etcd checks before it proposes a change; `max_learners` bounds the learners.
    pub fn check(&self, change: &MemberChange, max_learners: usize) -> Result<(), KeyspaceError> {
        match change {
            MemberChange::Add(member) => {
                if self.0.contains_key(&member.id) {
                    return Err(KeyspaceError::MemberExists);
                }
                self.check_urls(member.id, &member.peer_urls)?;
                let learners = self.0.values().flatten().filter(|m| m.learner).count();
                if member.learner && learners >= max_learners {
                    return Err(KeyspaceError::TooManyLearners);
                }
                Ok(())
            }
            MemberChange::Promote(id) => match self.known(*id)?.learner {
                true => Ok(()),
                false => Err(KeyspaceError::NotLearner),
            },
            MemberChange::Remove(id) | MemberChange::Publish { id, .. } => {
                self.known(*id).map(|_| ())
            }
            MemberChange::UpdatePeers { id, peer_urls } => {
                self.known(*id)?;
                self.check_urls(*id, peer_urls)
            }
        }
    }

    fn known(&self, id: NodeId) -> Result<&Member, KeyspaceError> {
        self.get(id).ok_or(KeyspaceError::MemberNotFound)
    }

    fn check_urls(&self, id: NodeId, urls: &[String]) -> Result<(), KeyspaceError> {
        let others = self.0.values().flatten().filter(|m| m.id != id);
        let taken = others.flat_map(|m| &m.peer_urls).any(|url| urls.contains(url));
        if taken { Err(KeyspaceError::PeerUrlExists) } else { Ok(()) }
    }

    /// Carries out a change and returns whom it concerned. `log` has the members that the log
    /// gave the group in the same entry: adding, promoting and removing follow the log, so they
    /// are refused without it, and never refused because of addresses.
    pub(crate) fn apply(
        &mut self,
        change: MemberChange,
        log: Option<&Membership>,
    ) -> Result<NodeId, KeyspaceError> {
        match (change, log) {
            (MemberChange::Add(mut member), Some(log)) => {
                let id = member.id;
                if self.0.contains_key(&id) {
                    return Err(KeyspaceError::MemberExists);
                }
                member.learner = log.learners.contains(&id);
                self.0.insert(id, Some(member));
                Ok(id)
            }
            (MemberChange::Promote(id), Some(_)) => {
                let member = self.known_mut(id)?;
                if !member.learner {
                    return Err(KeyspaceError::NotLearner);
                }
                member.learner = false;
                Ok(id)
            }
            (MemberChange::Remove(id), Some(_)) => {
                self.known(id)?;
                self.0.insert(id, None);
                Ok(id)
            }
            (MemberChange::Add(_) | MemberChange::Promote(_) | MemberChange::Remove(_), None) => {
                Err(KeyspaceError::Unsupported)
            }
            (MemberChange::UpdatePeers { id, peer_urls }, _) => {
                self.known(id)?;
                self.check_urls(id, &peer_urls)?;
                self.known_mut(id)?.peer_urls = peer_urls;
                Ok(id)
            }
            (MemberChange::Publish { id, name, client_urls }, _) => {
                let member = self.known_mut(id)?;
                (member.name, member.client_urls) = (name, client_urls);
                Ok(id)
            }
        }
    }

    fn known_mut(&mut self, id: NodeId) -> Result<&mut Member, KeyspaceError> {
        self.0.get_mut(&id).and_then(Option::as_mut).ok_or(KeyspaceError::MemberNotFound)
    }

    /// The record of one member; nothing for one that was never heard of.
    pub(crate) fn encode(&self, id: NodeId) -> Option<Bytes> {
        let mut w = Writer::new();
        match self.0.get(&id)? {
            Some(member) => write_member(w.bool(true), member),
            None => {
                w.bool(false);
            }
        }
        Some(w.into_bytes())
    }

    pub(crate) fn restore(&mut self, id: NodeId, bytes: Bytes) -> Result<(), DecodeError> {
        let mut r = Reader::new(bytes);
        let member =
            if r.bool("presence of a member")? { Some(read_member(&mut r)?) } else { None };
        r.finish()?;
        self.0.insert(id, member);
        Ok(())
    }

    pub(crate) fn insert(&mut self, member: Member) {
        self.0.insert(member.id, Some(member));
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.0.keys().copied()
    }
}
