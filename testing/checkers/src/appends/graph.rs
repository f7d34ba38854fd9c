//! Cycles of dependencies: the weakest kinds of dependency that close one name the anomaly.

use super::anomaly::{Anomaly, Kind, Reason};
use super::dependencies::Dependencies;
use std::collections::{BTreeMap, VecDeque};

/// Which kinds of dependency are looked at.
#[derive(Clone, Copy)]
struct Level {
    kind: Kind,
    reads: bool,
    overtaken: bool,
    time: bool,
}

impl Level {
    fn admits(self, reason: Reason) -> bool {
        match reason {
            Reason::Append(_) => true,
            Reason::Read(_) => self.reads,
            Reason::Overtaken(_) => self.overtaken,
            Reason::Time => self.time,
        }
    }
}

const fn level(kind: Kind, reads: bool, overtaken: bool, time: bool) -> Level {
    Level { kind, reads, overtaken, time }
}

/// From the strongest dependencies to the weakest.
const APPENDS: Level = level(Kind::WriteCycle, false, false, false);
const READS: Level = level(Kind::CircularInformation, true, false, false);
const OVERTAKEN: Level = level(Kind::AntiDependencyCycle, true, true, false);
const TIME: Level = level(Kind::RealTime, true, true, true);

/// Adds, for each part of the graph that is a knot, the worst anomaly in it.
pub fn cycles(dependencies: &Dependencies, found: &mut Vec<Anomaly>) {
    let mut known: Vec<usize> = Vec::new();
    for level in [APPENDS, READS, OVERTAKEN, TIME] {
        for knot in knots(dependencies, level) {
            if knot.iter().any(|node| known.binary_search(node).is_ok()) {
                continue; // Named already, by a worse name.
            }
            if let Some(anomaly) = name(dependencies, level, &knot) {
                found.push(anomaly);
                known.extend(&knot);
                known.sort_unstable();
            }
        }
    }
}

fn name(dependencies: &Dependencies, level: Level, knot: &[usize]) -> Option<Anomaly> {
    if level.kind == Kind::AntiDependencyCycle {
        // One read that was overtaken, closed by appends and reads alone?
        for &from in knot {
            for (to, reason) in &dependencies.after[from] {
                if matches!(reason, Reason::Overtaken(_))
                    && let Some(mut path) = path(dependencies, READS, knot, *to, from)
                {
                    path.insert(0, (from, *reason));
                    return Some(Anomaly::of_cycle(Kind::ReadSkew, &path));
                }
            }
        }
    }
    let shortest = knot.iter().filter_map(|node| around(dependencies, level, knot, *node));
    let steps = shortest.min_by_key(Vec::len)?;
    let transactions: Vec<_> =
        steps.into_iter().filter(|(node, _)| *node < dependencies.transactions).collect();
    Some(Anomaly::of_cycle(level.kind, &transactions))
}

/// The shortest way from a node back to itself.
fn around(
    dependencies: &Dependencies,
    level: Level,
    knot: &[usize],
    node: usize,
) -> Option<Vec<(usize, Reason)>> {
    let steps = dependencies.after[node].iter().filter(|(_, reason)| level.admits(*reason));
    let ways = steps.filter_map(|(next, reason)| {
        let mut way = path(dependencies, level, knot, *next, node)?;
        way.insert(0, (node, *reason));
        Some(way)
    });
    ways.min_by_key(Vec::len)
}

/// The shortest path within a knot: each node before the last, and why it comes before the next.
fn path(
    dependencies: &Dependencies,
    level: Level,
    knot: &[usize],
    from: usize,
    to: usize,
) -> Option<Vec<(usize, Reason)>> {
    let mut came: BTreeMap<usize, (usize, Reason)> = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if node == to {
            let mut steps = Vec::new();
            let mut at = to;
            while at != from {
                let (before, reason) = *came.get(&at)?;
                steps.push((before, reason));
                at = before;
            }
            steps.reverse();
            return Some(steps);
        }
        for (next, reason) in &dependencies.after[node] {
            let inside = level.admits(*reason) && knot.binary_search(next).is_ok();
            if inside && *next != from && !came.contains_key(next) {
                came.insert(*next, (node, *reason));
                queue.push_back(*next);
            }
        }
    }
    None
}

/// The strongly connected parts of more than one node, each in order: R. Tarjan, *Depth-First
/// Search and Linear Graph Algorithms* (1972), without recursion.
fn knots(dependencies: &Dependencies, level: Level) -> Vec<Vec<usize>> {
    let n = dependencies.nodes;
    let mut search = Search { number: vec![0; n], low: vec![0; n], open: vec![false; n], next: 1 };
    let (mut stack, mut found) = (Vec::new(), Vec::new());
    for start in 0..n {
        if search.number[start] != 0 {
            continue;
        }
        search.enter(start, &mut stack);
        let mut calls = vec![(start, 0)];
        while let Some((node, edge)) = calls.pop() {
            if let Some((next, reason)) = dependencies.after[node].get(edge) {
                calls.push((node, edge + 1));
                if !level.admits(*reason) {
                    continue;
                }
                if search.number[*next] == 0 {
                    search.enter(*next, &mut stack);
                    calls.push((*next, 0));
                } else if search.open[*next] {
                    search.low[node] = search.low[node].min(search.number[*next]);
                }
                continue;
            }
            if let Some((parent, _)) = calls.last() {
                search.low[*parent] = search.low[*parent].min(search.low[node]);
            }
            if search.low[node] == search.number[node] {
                let at = stack.iter().rposition(|other| *other == node).unwrap_or(0);
                let mut knot = stack.split_off(at);
                knot.iter().for_each(|other| search.open[*other] = false);
                if knot.len() > 1 {
                    knot.sort_unstable();
                    found.push(knot);
                }
            }
        }
    }
    found
}

struct Search {
    number: Vec<usize>,
    low: Vec<usize>,
    open: Vec<bool>,
    next: usize,
}

impl Search {
    fn enter(&mut self, node: usize, stack: &mut Vec<usize>) {
        (self.number[node], self.low[node], self.open[node]) = (self.next, self.next, true);
        self.next += 1;
        stack.push(node);
    }
}
