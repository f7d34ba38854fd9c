//! Deliberate bugs, to prove that the simulator finds them. Compiled in only with the feature
//! `canary`, and even then off until chosen.

/// A deliberate bug of the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Canary {
    /// No bug.
    #[default]
    None,
    /// A batch is reported durable once it is written, before the sync.
    AcknowledgeBeforeSync,
    /// Every bad checksum is taken for a torn tail: the log is cut there, whatever follows.
    TruncateAtDamage,
    /// A block is believed wherever it is found, whatever address it carries.
    IgnoreAddress,
    /// A group's hard state is not carried forward when its segment is recycled.
    ForgetHardState,
    /// New segments are used without making their names durable.
    SkipDirectorySync,
    /// What a block repeats of those before it is not read: nobody misses one that is gone.
    IgnoreRecap,
    /// A sync that failed is tried again, and what it says then is believed.
    RetrySync,
}

impl Canary {
    /// Every bug there is.
    pub const ALL: [Canary; 7] = [
        Canary::AcknowledgeBeforeSync,
        Canary::TruncateAtDamage,
        Canary::IgnoreAddress,
        Canary::ForgetHardState,
        Canary::SkipDirectorySync,
        Canary::IgnoreRecap,
        Canary::RetrySync,
    ];
}
