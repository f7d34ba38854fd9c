//! Our linearizability search and Stateright's must agree on random small histories.

use quorate_base::{Instant, Rng};
use quorate_checkers::{Call, Limit, Model, Verdict, check};
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

struct Ours;

impl Model for Ours {
    type State = u8;
    type Input = RegisterOp<u8>;
    type Output = RegisterRet<u8>;

    fn initial(&self) -> u8 {
        0
    }

    fn step(
        &self,
        state: &u8,
        input: &RegisterOp<u8>,
        output: Option<&RegisterRet<u8>>,
    ) -> Option<u8> {
        match (input, output) {
            (RegisterOp::Write(v), _) => Some(*v),
            (RegisterOp::Read, Some(RegisterRet::ReadOk(v))) => (v == state).then_some(*state),
            (RegisterOp::Read, _) => Some(*state),
        }
    }
}

/// A random history of three threads; answers to reads are guesses, so that some histories are
/// linearizable and some are not. Some calls stay without an answer.
fn compare(seed: u64) -> Verdict {
    let mut rng = Rng::new(seed);
    let mut theirs: LinearizabilityTester<usize, Register<u8>> =
        LinearizabilityTester::new(Register(0));
    let mut history: Vec<Call<RegisterOp<u8>, RegisterRet<u8>>> = Vec::new();
    let mut open: [Option<usize>; 3] = [None; 3];
    let mut last_written = 0;
    for step in 0..rng.between(4, 14) {
        let thread = rng.below(3) as usize;
        let now = Instant(step * 10);
        if let Some(i) = open[thread] {
            if rng.below(8) == 0 {
                continue;
            }
            let output = match &history[i].input {
                RegisterOp::Write(_) => RegisterRet::WriteOk,
                RegisterOp::Read if rng.below(3) == 0 => {
                    RegisterRet::ReadOk(rng.between(0, last_written.into()) as u8)
                }
                RegisterOp::Read => RegisterRet::ReadOk(last_written),
            };
            theirs.on_return(thread, output.clone()).unwrap();
            history[i].returned = Some((now, output));
            open[thread] = None;
        } else {
            let input = if rng.below(2) == 0 {
                last_written += 1;
                RegisterOp::Write(last_written)
            } else {
                RegisterOp::Read
            };
            theirs.on_invoke(thread, input.clone()).unwrap();
            open[thread] = Some(history.len());
            history.push(Call { called: now, returned: None, input });
        }
    }
    let ours = check(&Ours, &history, Limit(1_000_000));
    assert_eq!(
        ours == Verdict::Linearizable,
        theirs.is_consistent(),
        "seed {seed}: {ours:?} for {history:#?}"
    );
    ours
}

#[test]
fn random_histories_get_the_same_verdict() {
    let (mut accepted, mut rejected) = (0, 0);
    for seed in 0..8_000 {
        match compare(seed) {
            Verdict::Linearizable => accepted += 1,
            Verdict::Violated { .. } => rejected += 1,
            Verdict::Undecided => panic!("seed {seed} undecided"),
        }
    }
    assert!(accepted > 500 && rejected > 500, "{accepted} accepted, {rejected} rejected");
}
