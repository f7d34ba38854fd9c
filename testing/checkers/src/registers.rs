//! Linearizability of the values that clients saw, as a black box: keys are registers, and
//! revisions, which the cluster itself hands out, are not believed.
//!
//! Invariant: sound partition. Keys that one request touches are checked together; keys never
//! touched together are checked apart (linearizability is local: Herlihy and Wing, 1990).

use crate::history::{Compare, End, Op, Operation, Outcome, Request, Span, Target};
use crate::linearizability::{Call, Limit, Model, Verdict, check};
use crate::violation::Violation;
use bytes::Bytes;
use quorate_base::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// Checks the operations on keys that start with `prefix`, which no lease may touch and no compare
/// with a number other than zero: those only the cluster's own order can judge
/// (`check_revisions`). Returns how
/// many groups of keys stayed undecided within `limit`.
pub fn check_registers(
    history: &[Operation],
    prefix: &[u8],
    limit: Limit,
) -> Result<usize, Violation> {
    let mut keys: BTreeSet<&Bytes> = BTreeSet::new();
    for operation in history {
        keys.extend(single_keys(&operation.request).filter(|key| key.starts_with(prefix)));
    }
    let keys: Vec<&Bytes> = keys.into_iter().collect();
    let mut groups = Groups((0..keys.len()).collect());
    let touched: Vec<Vec<usize>> = history.iter().map(|o| touched(&o.request, &keys)).collect();
    for list in &touched {
        for pair in list.windows(2) {
            groups.join(pair[0], pair[1]);
        }
    }
    let observed = observed(history);
    let mut histories: BTreeMap<usize, Vec<Call<&Request, Option<&Outcome>>>> = BTreeMap::new();
    for (operation, list) in history.iter().zip(&touched) {
        if let Some(&first) = list.first()
            && let Some(call) = call(operation, &observed)
        {
            histories.entry(groups.find(first)).or_default().push(call);
        }
    }
    let mut undecided = 0;
    for (group, calls) in histories {
        let model = Registers { keys: &keys, group, groups: &groups };
        // Most writes without an answer whose values nobody saw never happened; if that explains
        // the rest, it is an explanation. Only otherwise every one of them has to be considered.
        let seen = |call: &&Call<&Request, Option<&Outcome>>| {
            call.returned.is_some() || puts(call.input).next().is_none()
        };
        let likely: Vec<_> = calls.iter().filter(seen).cloned().collect();
        let verdict = match check(&model, &likely, limit) {
            Verdict::Linearizable => Verdict::Linearizable,
            _ => check(&model, &calls, limit),
        };
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Undecided => undecided += 1,
            Verdict::Violated { explained } => {
                let text = format!(
                    "{} calls on the keys with {:?}: at best {explained} can be explained",
                    calls.len(),
                    keys[group]
                );
                return Err(Violation::new("linearizability", text));
            }
        }
    }
    Ok(undecided)
}

/// Every value that an answer showed, and when one first did.
fn observed(history: &[Operation]) -> BTreeMap<&Bytes, Instant> {
    fn collect<'a>(outcome: &'a Outcome, at: Instant, values: &mut BTreeMap<&'a Bytes, Instant>) {
        match outcome {
            Outcome::Found(kvs) => {
                for kv in kvs {
                    let first = values.entry(&kv.value).or_insert(at);
                    *first = at.min(*first);
                }
            }
            Outcome::Txn { outcomes, .. } => {
                outcomes.iter().for_each(|outcome| collect(outcome, at, values));
            }
            _ => {}
        }
    }
    let mut values = BTreeMap::new();
    for (at, reply) in history.iter().filter_map(Operation::answer) {
        collect(&reply.outcome, at, &mut values);
    }
    values
}

fn puts(request: &Request) -> impl Iterator<Item = &Bytes> {
    let (_, success, failure) = ops(request);
    success.iter().chain(failure).filter_map(|op| match op {
        Op::Put { value, .. } => Some(value),
        _ => None,
    })
}

fn call<'a>(
    operation: &'a Operation,
    observed: &BTreeMap<&Bytes, Instant>,
) -> Option<Call<&'a Request, Option<&'a Outcome>>> {
    if matches!(operation.request, Request::Old { .. }) {
        return None;
    }
    let returned = match &operation.end {
        End::NotDone => return None,
        End::Unknown if !operation.request.writes() => return None,
        // Each value is written by one request: it was done before anybody was shown it.
        End::Unknown => {
            let shown = puts(&operation.request).filter_map(|value| observed.get(value)).min();
            shown.map(|at| (*at, None))
        }
        End::Answered { reply, .. } if matches!(reply.outcome, Outcome::Refused(_)) => return None,
        End::Answered { at, reply } => Some((*at, Some(&reply.outcome))),
    };
    Some(Call { called: operation.called, returned, input: &operation.request })
}

fn ops(request: &Request) -> (&[Compare], &[Op], &[Op]) {
    match request {
        Request::Op(op) => (&[], std::slice::from_ref(op), &[]),
        Request::Txn { compares, success, failure } => (compares, success, failure),
        _ => (&[], &[], &[]),
    }
}

fn single_keys(request: &Request) -> impl Iterator<Item = &Bytes> {
    let (compares, success, failure) = ops(request);
    let named = success.iter().chain(failure).filter_map(|op| match op {
        Op::Put { key, .. } => Some(key),
        Op::Delete(Span { from, to: None }) | Op::Range(Span { from, to: None }) => Some(from),
        _ => None,
    });
    compares.iter().map(|c| &c.key).chain(named)
}

fn touched(request: &Request, keys: &[&Bytes]) -> Vec<usize> {
    let (compares, success, failure) = ops(request);
    let touches = |key: &Bytes| {
        compares.iter().any(|c| c.key == *key)
            || success.iter().chain(failure).any(|op| match op {
                Op::Put { key: put, .. } => put == key,
                Op::Delete(span) | Op::Range(span) => span.contains(key),
            })
    };
    (0..keys.len()).filter(|&i| touches(keys[i])).collect()
}

/// Union and find, without ranks: there are few keys.
struct Groups(Vec<usize>);

impl Groups {
    fn find(&self, mut i: usize) -> usize {
        while self.0[i] != i {
            i = self.0[i];
        }
        i
    }
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

/// The keys of one group: each has a value or is not there.
struct Registers<'a> {
    keys: &'a [&'a Bytes],
    group: usize,
    groups: &'a Groups,
}

type State = BTreeMap<Bytes, Bytes>;

impl<'a> Model for Registers<'a> {
    type State = State;
    type Input = &'a Request;
    /// Nothing if it was done but nobody was told how it went.
    type Output = Option<&'a Outcome>;

    fn initial(&self) -> State {
        BTreeMap::new()
    }

    fn step(
        &self,
        state: &State,
        input: &&Request,
        output: Option<&Option<&Outcome>>,
    ) -> Option<State> {
        let output = output.copied().flatten();
        let (compares, success, failure) = ops(input);
        let Request::Txn { .. } = input else {
            let mut after = state.clone();
            let op = success.first()?;
            return self.apply(&mut after, op, output).then_some(after);
        };
        let told = match output {
            None => None,
            Some(Outcome::Txn { succeeded, outcomes }) => Some((*succeeded, outcomes)),
            Some(_) => return None,
        };
        let holds = compares.iter().all(|c| holds(state, c));
        let succeeded = match told {
            Some((told, _)) if told != holds => return None,
            _ => holds,
        };
        let list = if succeeded { success } else { failure };
        let mut after = state.clone();
        for (i, op) in list.iter().enumerate() {
            let outcome = match told {
                None => None,
                Some((_, outcomes)) => Some(outcomes.get(i)?),
            };
            if !self.apply(&mut after, op, outcome) {
                return None;
            }
        }
        Some(after)
    }
}

impl Registers<'_> {
    fn apply(&self, state: &mut State, op: &Op, outcome: Option<&Outcome>) -> bool {
        match op {
            Op::Put { key, value, .. } => {
                state.insert(key.clone(), value.clone());
                outcome.is_none_or(|o| *o == Outcome::Done)
            }
            Op::Delete(span) => {
                let before = state.len();
                state.retain(|key, _| !span.contains(key));
                let deleted = (before - state.len()) as u64;
                outcome.is_none_or(|o| *o == Outcome::Deleted(deleted))
            }
            Op::Range(span) => match outcome {
                None => true,
                Some(Outcome::Found(kvs)) => {
                    let ours = |key: &Bytes| {
                        self.keys
                            .iter()
                            .position(|k| *k == key)
                            .is_some_and(|i| self.groups.find(i) == self.group)
                    };
                    let found = kvs.iter().filter(|kv| ours(&kv.key));
                    let have = state.iter().filter(|(key, _)| span.contains(key));
                    found.map(|kv| (&kv.key, &kv.value)).eq(have)
                }
                Some(_) => false,
            },
        }
    }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let value = state.get(&compare.key);
    match &compare.target {
        Target::Value(wanted) => value == Some(wanted),
        Target::Version(0) | Target::Create(0) | Target::Mod(0) => value.is_none(),
        // Excluded by the contract of `check_registers`.
        Target::Version(_) | Target::Create(_) | Target::Mod(_) => false,
    }
}
