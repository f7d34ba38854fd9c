//! Deliberate bugs, compiled in by the `canary` feature alone.

/// One deliberate bug, of what waits for what or of a change of epochs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Canary {
    /// No bug.
    #[default]
    None,
    /// Send before what a message rests on is durable.
    IgnoreGates,
    /// Forget the promised ballot when the log begins anew.
    ForgetPromise,
    /// Follow others into their epoch without knowing how the last one ended.
    DropTail,
}

impl Canary {
    /// Every deliberate bug.
    pub const ALL: [Canary; 3] = [Canary::IgnoreGates, Canary::ForgetPromise, Canary::DropTail];
}
