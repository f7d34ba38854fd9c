//! What is checked of transactions.

use super::RECORDS;
use super::scribes::{List, content};
use crate::counters::Happening;
use crate::neighbours::groups;
use crate::world::World;
use quorate_base::Instant;
use quorate_checkers::Violation;
use quorate_checkers::appends::{Ending, Step, Transaction, check_appends};
use quorate_keyspace::branch::{BranchState, Done};
use quorate_transactions::End;
use quorate_transactions::branches::{holds, transaction_of};
use quorate_transactions::records::look_for;
use std::time::Duration;

/// What is told of a transaction.
#[derive(Clone)]
pub(super) struct Told {
    pub commits: bool,
    /// When.
    pub at: Instant,
    /// What its branches answered, if the teller knows.
    pub answers: Option<Vec<Option<Done>>>,
}

impl World<'_> {
    /// Somebody says how a transaction ends.
    pub(super) fn outcome(&mut self, node: u64, id: &str, told: Told) {
        let known = *self.transactions.outcomes.entry(id.to_owned()).or_insert(told.commits);
        if known != told.commits && self.neighbours_have_a_quorum() {
            let text = format!("transaction {id}: commit {known}, but node {node} says otherwise");
            self.check(Err(Violation::new("one outcome of a transaction", text)));
        }
        let better = |known: &Told| known.answers.is_none();
        if self.transactions.told.get(id).is_none_or(better) {
            self.transactions.told.insert(id.to_owned(), told);
        }
    }

    /// What keeps transactions from being over, if anything does.
    fn unfinished(&mut self) -> Option<String> {
        if !self.scribes_rest() {
            return Some("a client waits".to_owned());
        }
        for id in self.sound_founders() {
            match self.open_records(id) {
                None => return Some(format!("node {id} cannot be asked")),
                Some(open) => {
                    if let Some((txn, (record, _))) = open.first() {
                        return Some(format!("transaction {txn} is open at node {id}: {record:?}"));
                    }
                }
            }
            for group in groups(self.plan.neighbours) {
                let neighbour = self.running(id).and_then(|it| it.neighbours.get(&group));
                let branches = neighbour.map(|it| it.host.service().branches());
                if let Some(branch) = branches.into_iter().flatten().find(holds) {
                    return Some(format!("node {id}, group {group}: {branch:?}"));
                }
                if !self.neighbour_settled(group) {
                    return Some(format!("a replica of group {group} is behind"));
                }
            }
        }
        None
    }

    /// Once everything has healed: every transaction ends, and what clients were told agrees.
    pub fn transactions_end(&mut self, deadline: Instant) {
        while self.plan.scribes > 0 && self.neighbours_have_a_quorum() {
            self.run_until(self.now + Duration::from_millis(200));
            if self.violation.is_some() {
                return;
            }
            match self.unfinished() {
                None => {
                    self.count(Happening::TransactionsJudged);
                    let verdict = self.appends_verdict().and_then(|()| self.branches_agree());
                    return self.check(verdict);
                }
                Some(_) if self.now < deadline => {}
                Some(what) => {
                    return self.check(Err(Violation::new("transactions end at last", what)));
                }
            }
        }
    }

    /// What keyspaces remember as committed was told to be. Not the other way round: what is
    /// forgotten may be rolled back once more, by who saw it prepared just before.
    fn branches_agree(&mut self) -> Result<(), Violation> {
        for id in self.sound_founders() {
            let Some(running) = self.nodes[id as usize - 1].running.as_ref() else { continue };
            let Some(records) = running.neighbours.get(&RECORDS) else { continue };
            let reader = records.host.service().reader();
            let branches = running.neighbours.values().flat_map(|it| it.host.service().branches());
            for branch in branches {
                let Some((txn, asker)) = transaction_of(&branch.id) else { continue };
                let known = look_for(&reader, &txn).ok().flatten();
                let own = known.is_some_and(|known| known.record.asker == asker);
                let committed = matches!(branch.state, BranchState::Committed { .. });
                match self.transactions.outcomes.get(&txn) {
                    Some(false) if own && committed => {
                        let text = format!("node {id}: {branch:?}, but told was a rollback");
                        return Err(Violation::new("branches end as was told", text));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn ended_otherwise(
        &mut self,
        node: u64,
        drive: u64,
        id: &str,
        commit: bool,
        end: &End,
    ) {
        let alone = self.drive_of(node, drive).is_some_and(|it| it.coordinator.record().is_alone());
        let otherwise = match end {
            End::Committed(_) => !commit && !alone,
            End::RolledBack => commit,
            End::Heuristic(_) => true,
            End::Superseded => false,
        };
        if otherwise && self.neighbours_have_a_quorum() {
            let text = format!("transaction {id}, commit {commit}: {end:?}");
            self.check(Err(Violation::new("no branch is ended against the decision", text)));
        }
    }

    fn appends_verdict(&mut self) -> Result<(), Violation> {
        let (called, begun) = (self.now, self.transactions.begun);
        let mut steps = Vec::new();
        if let Some(id) = self.sound_founders().first().copied() {
            for list in List::all(self.plan.neighbours, begun) {
                let neighbour = self.running(id).and_then(|it| it.neighbours.get(&list.group()));
                let Some(values) = neighbour.and_then(|it| content(it.host.service(), list)) else {
                    let text = format!("node {id}: what is in {list:?} makes no sense");
                    return Err(Violation::new("lists are readable", text));
                };
                steps.push(Step::Read(list.key(), Some(values)));
            }
        }
        let (client, ending) = (u64::MAX, Ending::Committed(Instant(called.0 + 1)));
        self.transactions.history.push(Transaction { client, called, steps, ending });
        check_appends(&self.transactions.history)
    }
}
