//! Is a concurrent history linearizable? The search of Wing and Gong ("Testing and Verifying
//! Concurrent Objects", 1993) with Lowe's memoisation ("Testing for linearizability", 2017).
//!
//! Invariant: [`Verdict::Linearizable`] and [`Verdict::Violated`] are both exact. A call without
//! an answer may have taken effect at any moment after it was made, or never.

use quorate_base::Instant;
use std::collections::BTreeSet;

/// The sequential object that a history is compared with.
pub trait Model {
    /// Its state. Ordered, so that visited states can be remembered without a random hasher.
    type State: Clone + Ord;
    /// What is asked of it.
    type Input;
    /// What it answers.
    type Output;

    /// The state before the first call.
    fn initial(&self) -> Self::State;

    /// The state after `input`, if the object could have answered `output` in `state`. With no
    /// output the answer is unknown, and any is allowed.
    fn step(
        &self,
        state: &Self::State,
        input: &Self::Input,
        output: Option<&Self::Output>,
    ) -> Option<Self::State>;
}

/// One call of a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call<I, O> {
    /// When it was made.
    pub called: Instant,
    /// When the answer came and what it was; `None` if it may or may not have taken effect.
    pub returned: Option<(Instant, O)>,
    /// What was asked.
    pub input: I,
}

/// How many search steps a check may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit(pub usize);

/// What a check found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// There is an order of the calls that explains every answer.
    Linearizable,
    /// There is none. At best this many answered calls could be explained.
    Violated {
        /// How many.
        explained: usize,
    },
    /// The limit was reached first.
    Undecided,
}

/// Checks a history of any order of calls against `model`.
pub fn check<M: Model>(model: &M, history: &[Call<M::Input, M::Output>], limit: Limit) -> Verdict {
    let mut known: Vec<usize> = Vec::new();
    let mut unknown: Vec<usize> = Vec::new();
    for (i, call) in history.iter().enumerate() {
        if call.returned.is_some() { known.push(i) } else { unknown.push(i) }
    }
    known.sort_by_key(|&i| (history[i].called, i));
    unknown.sort_by_key(|&i| (history[i].called, i));
    Search { model, history, known, unknown, taken: Bits::new(history.len()) }.run(limit)
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Call<M::Input, M::Output>],
    /// Answered calls, in order of being made.
    known: Vec<usize>,
    /// Calls without an answer, in order of being made.
    unknown: Vec<usize>,
    /// The calls already given a place.
    taken: Bits,
}

/// A place in the order: the state before it, the calls that may come here, the one tried.
struct Frame<S> {
    state: S,
    candidates: Vec<usize>,
    tried: usize,
    /// Where in `known` the first call without a place is.
    low: usize,
}

impl<M: Model> Search<'_, M> {
    fn run(mut self, limit: Limit) -> Verdict {
        let mut visited: BTreeSet<(Bits, M::State)> = BTreeSet::new();
        let mut answered = 0;
        let mut explained = 0;
        let mut steps = 0;
        let mut frames = vec![self.frame(self.model.initial(), 0)];
        loop {
            if answered == self.known.len() {
                return Verdict::Linearizable;
            }
            explained = explained.max(answered);
            let Some(frame) = frames.last_mut() else {
                return Verdict::Violated { explained };
            };
            let Some(&next) = frame.candidates.get(frame.tried) else {
                frames.pop();
                if let Some(previous) = frames.last_mut() {
                    let call = previous.candidates[previous.tried];
                    previous.tried += 1;
                    self.taken.clear(call);
                    answered -= usize::from(self.history[call].returned.is_some());
                }
                continue;
            };
            steps += 1;
            if steps > limit.0 {
                return Verdict::Undecided;
            }
            let low = frame.low;
            let call = &self.history[next];
            let output = call.returned.as_ref().map(|(_, output)| output);
            let Some(state) = self.model.step(&frame.state, &call.input, output) else {
                frame.tried += 1;
                continue;
            };
            self.taken.set(next);
            if visited.insert((self.taken.clone(), state.clone())) {
                answered += usize::from(call.returned.is_some());
                let frame = self.frame(state, low);
                frames.push(frame);
            } else {
                self.taken.clear(next);
                frame.tried += 1;
            }
        }
    }

    /// The calls that may come next are those made before the first answer still to be
    /// explained. Answered ones first: an unanswered one need not come at all.
    fn frame(&self, state: M::State, mut low: usize) -> Frame<M::State> {
        while self.known.get(low).is_some_and(|&i| self.taken.has(i)) {
            low += 1;
        }
        let mut first_answer = Instant::FAR;
        let mut candidates = Vec::new();
        for &i in &self.known[low..] {
            let call = &self.history[i];
            if call.called > first_answer {
                break;
            }
            if !self.taken.has(i) {
                candidates.push(i);
                if let Some((at, _)) = &call.returned {
                    first_answer = first_answer.min(*at);
                }
            }
        }
        let made = |&&i: &&usize| self.history[i].called <= first_answer;
        let unknown = self.unknown.iter().take_while(made);
        candidates.extend(unknown.filter(|&&i| !self.taken.has(i)));
        Frame { state, candidates, tried: 0, low }
    }
}

/// A set of small numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(n: usize) -> Self {
        Bits(vec![0; n.div_ceil(64)])
    }
    fn has(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }
    fn set(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }
    fn clear(&mut self, i: usize) {
        self.0[i / 64] &= !(1 << (i % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Register;
    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Input {
        Read,
        Write(u8),
    }
    impl Model for Register {
        type State = u8;
        type Input = Input;
        type Output = u8;
        fn initial(&self) -> u8 {
            0
        }
        fn step(&self, state: &u8, input: &Input, output: Option<&u8>) -> Option<u8> {
            match input {
                Input::Read => output.is_none_or(|o| o == state).then_some(*state),
                Input::Write(v) => Some(*v),
            }
        }
    }

    fn call(called: u64, returned: u64, input: Input, output: u8) -> Call<Input, u8> {
        Call { called: Instant(called), returned: Some((Instant(returned), output)), input }
    }

    fn verdict(history: &[Call<Input, u8>]) -> Verdict {
        check(&Register, history, Limit(100_000))
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [call(0, 1, Input::Write(1), 0), call(2, 3, Input::Read, 0)];
        assert_eq!(verdict(&history), Verdict::Violated { explained: 1 });
    }

    #[test]
    fn overlapping_calls_may_come_in_any_order() {
        let history = [call(0, 5, Input::Write(1), 0), call(2, 3, Input::Read, 0)];
        assert_eq!(verdict(&history), Verdict::Linearizable);
    }

    #[test]
    fn a_write_without_an_answer_may_come_late_once_or_never() {
        let lost = Call { called: Instant(0), returned: None, input: Input::Write(7) };
        let read = |at, value| call(at, at + 1, Input::Read, value);
        assert_eq!(verdict(&[lost.clone(), read(10, 0), read(20, 7)]), Verdict::Linearizable);
        assert_eq!(verdict(&[lost.clone(), read(10, 0)]), Verdict::Linearizable);
        let twice = [lost, read(10, 7), call(20, 21, Input::Write(1), 0), read(30, 7)];
        assert!(matches!(verdict(&twice), Verdict::Violated { .. }));
    }

    #[test]
    fn the_limit_is_kept() {
        let lost = |i: u8| Call { called: Instant(0), returned: None, input: Input::Write(i) };
        let mut history: Vec<_> = (1..40).map(lost).collect();
        history.push(call(1, 2, Input::Read, 200));
        assert_eq!(check(&Register, &history, Limit(1_000)), Verdict::Undecided);
    }
}
