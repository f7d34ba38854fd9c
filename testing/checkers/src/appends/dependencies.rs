//! Who comes before whom, as the answers say.

use super::anomaly::{Anomaly, Kind, Reason};
use super::{Ending, Key, Step, Transaction, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The dependencies between the transactions that are committed, or must be.
#[derive(Default, Debug)]
pub struct Dependencies {
    /// How many nodes there are: the transactions, then moments of time.
    pub nodes: usize,
    /// How many of them are transactions.
    pub transactions: usize,
    /// Of each node, who comes after it.
    pub after: Vec<Vec<(usize, Reason)>>,
}

impl Dependencies {
    fn add(&mut self, from: usize, to: usize, reason: Reason) {
        if from != to {
            self.after[from].push((to, reason));
        }
    }
}

/// Who appended a value, and whether it was that transaction's last to the list.
#[derive(Clone, Copy, Debug)]
struct Author {
    at: usize,
    last: bool,
}

struct History<'h> {
    all: &'h [Transaction],
    authors: BTreeMap<(Key, Value), Author>,
    /// The longest committed read of each list: the order of its values.
    orders: BTreeMap<Key, (usize, &'h [Value])>,
    /// Committed, as far as anybody can tell.
    committed: Vec<bool>,
}

/// Derives the dependencies; adds the anomalies that need no cycle.
pub fn derive(all: &[Transaction], found: &mut Vec<Anomaly>) -> Dependencies {
    let told = |t: &Transaction| matches!(t.ending, Ending::Committed(_));
    let mut history = History {
        all,
        authors: authors(all),
        orders: BTreeMap::new(),
        committed: all.iter().map(told).collect(),
    };
    history.find_orders(found);
    history.check_reads(found);
    history.believe_what_was_read();
    let (nodes, after) = (all.len(), vec![Vec::new(); all.len()]);
    let mut dependencies = Dependencies { nodes, transactions: all.len(), after };
    history.order_appends(&mut dependencies);
    history.order_reads(&mut dependencies);
    history.order_by_time(&mut dependencies);
    dependencies
}

fn authors(all: &[Transaction]) -> BTreeMap<(Key, Value), Author> {
    let mut authors = BTreeMap::new();
    for (at, transaction) in all.iter().enumerate() {
        let mut lists = BTreeSet::new();
        for step in transaction.steps.iter().rev() {
            if let Step::Append(key, value) = step {
                let last = lists.insert(*key);
                authors.insert((*key, *value), Author { at, last });
            }
        }
    }
    authors
}

impl<'h> History<'h> {
    /// What committed transactions read, but for their own appends before: (who, list, values).
    fn reads(&self) -> impl Iterator<Item = (usize, Key, &'h [Value])> {
        let committed = self.all.iter().enumerate().filter(|(at, _)| self.committed[*at]);
        committed.flat_map(|(at, transaction)| {
            let reads = transaction.steps.iter().filter_map(|step| match step {
                Step::Read(key, Some(values)) => Some((*key, &values[..])),
                _ => None,
            });
            reads.map(move |(key, values)| (at, key, values))
        })
    }

    fn find_orders(&mut self, found: &mut Vec<Anomaly>) {
        let reads: Vec<_> = self.reads().collect();
        for &(at, key, values) in &reads {
            let known = self.orders.entry(key).or_insert((at, values));
            if known.1.len() < values.len() {
                *known = (at, values);
            }
        }
        for (at, key, values) in reads {
            if let Some((longest, order)) = self.orders.get(&key).copied()
                && !order.starts_with(values)
            {
                let kind = Kind::IncompatibleOrder;
                found.push(Anomaly::of_list(kind, &[longest, at], key, None));
            }
        }
    }

    fn check_reads(&self, found: &mut Vec<Anomaly>) {
        for (at, key, values) in self.reads() {
            let mut seen = BTreeSet::new();
            for value in values {
                let author = self.authors.get(&(key, *value));
                if author.is_none() || !seen.insert(value) {
                    found.push(Anomaly::of_list(Kind::Garbage, &[at], key, Some(*value)));
                }
                if let Some(author) = author
                    && self.all[author.at].ending == Ending::RolledBack
                {
                    let kind = Kind::AbortedRead;
                    found.push(Anomaly::of_list(kind, &[author.at, at], key, Some(*value)));
                }
            }
            if let Some(value) = values.last()
                && let Some(author) = self.authors.get(&(key, *value))
                && author.at != at
                && !author.last
            {
                let kind = Kind::IntermediateRead;
                found.push(Anomaly::of_list(kind, &[author.at, at], key, Some(*value)));
            }
        }
        let committed = self.all.iter().enumerate().filter(|(at, _)| self.committed[*at]);
        for (at, transaction) in committed {
            if let Some(key) = forgets_itself(&transaction.steps) {
                found.push(Anomaly::of_list(Kind::Internal, &[at], key, None));
            }
        }
    }

    /// Who was told nothing, but was read by someone committed, is committed.
    fn believe_what_was_read(&mut self) {
        for (key, (_, order)) in &self.orders {
            for value in *order {
                if let Some(author) = self.authors.get(&(*key, *value))
                    && self.all[author.at].ending == Ending::Unknown
                {
                    self.committed[author.at] = true;
                }
            }
        }
    }

    /// Appends in the order in which they were read; those that nobody read came after.
    fn order_appends(&self, dependencies: &mut Dependencies) {
        for (key, (_, order)) in &self.orders {
            let authors: Vec<usize> = order
                .iter()
                .filter_map(|value| self.authors.get(&(*key, *value)))
                .map(|author| author.at)
                .collect();
            for pair in authors.windows(2) {
                dependencies.add(pair[0], pair[1], Reason::Append(*key));
            }
            if let Some(last) = authors.last() {
                for later in self.unread(*key, order) {
                    dependencies.add(*last, later, Reason::Append(*key));
                }
            }
        }
    }

    /// The committed transactions that appended to a list what no committed read has.
    fn unread(&self, key: Key, order: &[Value]) -> Vec<usize> {
        let appended = self.authors.range((key, 0)..=(key, Value::MAX));
        appended
            .filter(|((_, value), author)| self.committed[author.at] && !order.contains(value))
            .map(|(_, author)| author.at)
            .collect()
    }

    fn order_reads(&self, dependencies: &mut Dependencies) {
        let unread: BTreeMap<Key, Vec<usize>> =
            self.orders.iter().map(|(key, (_, order))| (*key, self.unread(*key, order))).collect();
        for (at, key, values) in self.reads() {
            if let Some(value) = values.last()
                && let Some(author) = self.authors.get(&(key, *value))
            {
                dependencies.add(author.at, at, Reason::Read(key));
            }
            let Some((_, order)) = self.orders.get(&key) else { continue };
            // What it read of its own is no version that others could overtake.
            match order.get(values.len()).and_then(|value| self.authors.get(&(key, *value))) {
                Some(next) => dependencies.add(at, next.at, Reason::Overtaken(key)),
                None => {
                    for later in unread.get(&key).into_iter().flatten() {
                        dependencies.add(at, *later, Reason::Overtaken(key));
                    }
                }
            }
        }
    }

    /// A node for each end, in a chain: after it come those that began later.
    fn order_by_time(&self, dependencies: &mut Dependencies) {
        let mut ends: Vec<_> = Vec::new();
        for (at, transaction) in self.all.iter().enumerate() {
            if let Ending::Committed(end) = transaction.ending {
                ends.push((end, at));
            }
        }
        ends.sort_unstable();
        let first = dependencies.nodes;
        dependencies.nodes += ends.len();
        dependencies.after.resize(dependencies.nodes, Vec::new());
        for (n, (_, at)) in ends.iter().enumerate() {
            dependencies.add(*at, first + n, Reason::Time);
            if n > 0 {
                dependencies.add(first + n - 1, first + n, Reason::Time);
            }
        }
        for (at, transaction) in self.all.iter().enumerate() {
            let earlier = ends.partition_point(|(end, _)| *end < transaction.called);
            if earlier > 0 && self.committed[at] {
                dependencies.add(first + earlier - 1, at, Reason::Time);
            }
        }
    }
}

/// A list whose read does not have what the transaction itself read and appended before.
fn forgets_itself(steps: &[Step]) -> Option<Key> {
    let mut expected: BTreeMap<Key, (bool, Vec<Value>)> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Append(key, value) => expected.entry(*key).or_default().1.push(*value),
            Step::Read(key, Some(values)) => {
                let (whole, known) = expected.entry(*key).or_default();
                let agrees = match whole {
                    true => values == known,
                    false => values.ends_with(known),
                };
                if !agrees {
                    return Some(*key);
                }
                (*whole, *known) = (true, values.clone());
            }
            Step::Read(_, None) => {}
        }
    }
    None
}
