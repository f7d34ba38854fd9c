//! The names of what may go wrong.

use super::{Key, Value};
use std::fmt;

/// An anomaly. Every one but those of real time breaks serializability.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A list holds a value twice, or one that nobody appended.
    Garbage,
    /// A transaction does not see its own steps.
    Internal,
    /// Two reads of a list disagree about the order of its values.
    IncompatibleOrder,
    /// G1a: what a transaction that was rolled back appended was read.
    AbortedRead,
    /// G1b: a list was read between two appends of one transaction.
    IntermediateRead,
    /// G0: a cycle of appends.
    WriteCycle,
    /// G1c: a cycle of appends and reads of them.
    CircularInformation,
    /// G-single: a cycle with one read of what was changed later.
    ReadSkew,
    /// G2: a cycle with several such reads (write skew).
    AntiDependencyCycle,
    /// A cycle that real time closes: serializable, but not strictly.
    RealTime,
}

impl Kind {
    /// The field's short name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Garbage => "garbage",
            Kind::Internal => "internal",
            Kind::IncompatibleOrder => "incompatible order",
            Kind::AbortedRead => "G1a",
            Kind::IntermediateRead => "G1b",
            Kind::WriteCycle => "G0",
            Kind::CircularInformation => "G1c",
            Kind::ReadSkew => "G-single",
            Kind::AntiDependencyCycle => "G2",
            Kind::RealTime => "real time",
        }
    }
}

/// Why a transaction comes before another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// It appended before (ww).
    Append(Key),
    /// The other read what it appended (wr).
    Read(Key),
    /// The other appended what it did not read (rw).
    Overtaken(Key),
    /// It had ended when the other began.
    Time,
}

/// An anomaly and what shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Anomaly {
    /// Which.
    pub kind: Kind,
    /// The places of the transactions in the history; of a cycle, in its order.
    pub transactions: Vec<usize>,
    /// The list and the value, or how the cycle goes.
    pub text: String,
}

impl Anomaly {
    pub(super) fn of_list(kind: Kind, at: &[usize], key: Key, value: Option<Value>) -> Anomaly {
        let value = value.map(|v| format!(", value {v}")).unwrap_or_default();
        Anomaly { kind, transactions: at.to_vec(), text: format!("list {key}{value}") }
    }

    /// A cycle: each transaction, and why it comes before the next.
    pub(super) fn of_cycle(kind: Kind, steps: &[(usize, Reason)]) -> Anomaly {
        let transactions = steps.iter().map(|(at, _)| *at).collect();
        let step = |(at, reason): &(usize, Reason)| match reason {
            Reason::Append(key) => format!("T{at} -ww {key}-> "),
            Reason::Read(key) => format!("T{at} -wr {key}-> "),
            Reason::Overtaken(key) => format!("T{at} -rw {key}-> "),
            Reason::Time => format!("T{at} -time-> "),
        };
        let first = steps.first().map_or(0, |(at, _)| *at);
        let text = steps.iter().map(step).collect::<String>() + &format!("T{first}");
        Anomaly { kind, transactions, text }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.text)
    }
}
