//! Histories as others' checkers read them: Jepsen's operations as JSON, one a line, in the order
//! in which they happened. Elle and the `adya` crate know this form.
//!
//! Invariant: a transaction comes before another here if and only if it ended before the other was
//! called. Each is a process of its own, since one whose end is unknown may last for ever; what a
//! client does one after the other is told by time anyway.

use super::{Ending, Step, Transaction};

/// Where in time a line is: of what happens at the same moment, calls come first.
type Place = (u64, bool);

/// The history as JSON.
pub fn json(history: &[Transaction]) -> String {
    let mut lines: Vec<(Place, String)> = Vec::new();
    for (process, transaction) in history.iter().enumerate() {
        let line = |kind: &str, found: bool| {
            let value = steps(&transaction.steps, found);
            format!("{{\"type\":\"{kind}\",\"process\":{process},\"value\":[{value}]}}\n")
        };
        let called = transaction.called.0;
        lines.push(((called, false), line("invoke", false)));
        lines.push(match transaction.ending {
            Ending::Committed(at) => ((at.0, true), line("ok", true)),
            // When does not matter.
            Ending::RolledBack => ((called, true), line("fail", false)),
            Ending::Unknown => ((u64::MAX, true), line("info", false)),
        });
    }
    lines.sort_by_key(|(place, _)| *place);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// A transaction's steps as they are asked for, or with what they found. A read of which nobody
/// knows what it found is left out then: nothing would be taken for an empty list.
fn steps(steps: &[Step], found: bool) -> String {
    let step = |step: &Step| match step {
        Step::Append(key, value) => Some(format!("[\"append\",{key},{value}]")),
        Step::Read(key, Some(values)) if found => Some(format!("[\"r\",{key},{values:?}]")),
        Step::Read(key, _) => (!found).then(|| format!("[\"r\",{key},null]")),
    };
    steps.iter().filter_map(step).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_base::Instant;

    #[test]
    fn lines_are_in_the_order_of_time() {
        let transaction = |called, steps: &[Step], ending| Transaction {
            client: 1,
            called: Instant(called),
            steps: steps.to_vec(),
            ending,
        };
        let append = Step::Append(7, 1);
        let history = [
            transaction(5, &[Step::Read(7, Some(vec![1, 2]))], Ending::Committed(Instant(9))),
            transaction(1, &[append.clone(), Step::Read(8, None)], Ending::Committed(Instant(5))),
            transaction(2, &[Step::Append(7, 2)], Ending::Unknown),
            transaction(3, &[Step::Append(7, 3)], Ending::RolledBack),
        ];
        let lines = r#"{"type":"invoke","process":1,"value":[["append",7,1],["r",8,null]]}
{"type":"invoke","process":2,"value":[["append",7,2]]}
{"type":"invoke","process":3,"value":[["append",7,3]]}
{"type":"fail","process":3,"value":[["append",7,3]]}
{"type":"invoke","process":0,"value":[["r",7,null]]}
{"type":"ok","process":1,"value":[["append",7,1]]}
{"type":"ok","process":0,"value":[["r",7,[1, 2]]]}
{"type":"info","process":2,"value":[["append",7,2]]}
"#;
        assert_eq!(json(&history), lines);
    }
}
