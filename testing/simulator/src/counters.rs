//! What happened in a run, counted: the proof that each fault really fired and each path was
//! really taken over a set of seeds.

use std::fmt;

macro_rules! happenings {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Something worth counting.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Happening {
            $($(#[$doc])* $name,)*
        }

        impl Happening {
            /// All of them.
            pub const ALL: &'static [Happening] = &[$(Happening::$name,)*];

            /// Its name, for people.
            pub fn name(self) -> &'static str {
                match self {
                    $(Happening::$name => $text,)*
                }
            }
        }
    };
}

happenings! {
    /// A message was dropped by the network.
    MessageLost => "message lost",
    /// A message was delivered twice.
    MessageDuplicated => "message duplicated",
    /// A message overtook another.
    MessageReordered => "message reordered",
    /// A message was dropped because its link was cut.
    MessageCut => "message cut",
    /// A message met the receiver of a connection that had been reset.
    ConnectionReset => "connection reset",
    /// A link held all its messages for a while.
    LinkClogged => "link clogged",
    /// The cluster was cut in two.
    Partition => "partition",
    /// Links were cut in one direction only.
    PartitionOneWay => "one-way partition",
    /// One pair of nodes was cut while both reach the rest.
    PartitionPartial => "partial partition",
    /// A node lost power.
    Crash => "crash",
    /// All nodes lost power at once.
    CrashAll => "all nodes crashed",
    /// A node lost power while a change of members was under way.
    CrashInJoint => "crash in joint consensus",
    /// A node started again.
    Restart => "restart",
    /// A node was frozen for a while.
    Pause => "pause",
    /// A node's clock runs faster or slower than true time.
    ClockDrift => "clock drift",
    /// A crash kept some sectors of a write and lost others.
    WriteTorn => "write torn",
    /// A crash lost a whole write that was not yet durable.
    WriteLost => "write lost",
    /// A crash kept a later sector and lost an earlier one.
    WriteReordered => "sectors reordered",
    /// A bit of durable data flipped.
    BitRot => "bit rot",
    /// Sectors of the log were found where others belong.
    WriteMisdirected => "write misdirected",
    /// A durable write was as if it had never been made.
    WriteVanished => "write vanished",
    /// A sector of a durable write was as it had been before.
    SectorStale => "sector stale",
    /// A segment of the log ended too early.
    SegmentTruncated => "segment truncated",
    /// A state could not be read any more.
    StateDamaged => "state damaged",
    /// A damaged state was set aside: its replica goes on without.
    StateSetAside => "state set aside",
    /// A part of a snapshot was not what was sent.
    SnapshotDamaged => "snapshot damaged",
    /// Every voter was damaged at once, each somewhere else.
    AllDamaged => "every voter damaged",
    /// Damage would have left too few copies, and was not done.
    DamageSpared => "damage spared",
    /// A sync failed.
    SyncFailed => "sync failed",
    /// A write failed.
    WriteFailed => "write failed",
    /// The disk had no room.
    DiskFull => "disk full",
    /// The disk completed nothing for a while.
    DiskStalled => "disk stalled",
    /// The state engine could not be made durable.
    PersistFailed => "persist failed",
    /// A crash undid applied entries that the engine had not made durable.
    EngineRolledBack => "engine rolled back",
    /// The log found damage when it was opened.
    DamageFound => "damage found",
    /// The log was so damaged that it refused to be opened.
    LogRefused => "log refused",
    /// Nobody went on where more was lost than can be made up for, and somebody said what.
    StoodStill => "stood still beyond repair",
    /// A replica said which entries keep its group from going on.
    GroupBlocked => "group blocked by damage",
    /// A learner joined.
    LearnerAdded => "learner added",
    /// A learner became a voter.
    LearnerPromoted => "learner promoted",
    /// A node joined as a voter at once.
    VoterAdded => "voter added",
    /// A member left.
    MemberRemoved => "member removed",
    /// Leadership was handed over.
    LeadershipTransferred => "leadership transferred",
    /// A replica's log went on in another epoch.
    EpochOpened => "epoch opened",
    /// The same while some links were cut.
    EpochOpenedInPartition => "epoch opened in a partition",
    /// The same at a start: power failed after the state was persisted.
    EpochOpenedAtStart => "epoch opened at a start",
    /// A replica of an earlier epoch was sent the state of a later one.
    CaughtUpAcrossEpochs => "caught up across epochs",
    /// A node lost power between applying the end of an epoch and opening the next.
    CrashInSwitch => "crash in a switch",
    /// A change of protocols was answered.
    SwitchAnswered => "switch answered",
    /// A node became leader.
    LeaderElected => "leader elected",
    /// A leader gave up because it heard no quorum.
    SteppedDownNoQuorum => "stepped down: no quorum",
    /// A leader gave up because its disk stalled.
    SteppedDownDisk => "stepped down: disk stalled",
    /// A follower was sent a snapshot.
    SnapshotSent => "snapshot sent",
    /// A replica's state was replaced by a snapshot.
    SnapshotInstalled => "snapshot installed",
    /// A log dropped entries that its service has.
    LogCompacted => "log compacted",
    /// A long log asked groups to let its oldest segment go.
    LogHeldBack => "log held back",
    /// A log dropped entries that a new leader overruled.
    LogTruncated => "log truncated",
    /// A driver proposed a request again.
    RequestRetried => "request retried",
    /// A client was told that its deadline passed.
    DeadlineExceeded => "deadline exceeded",
    /// A client was told that no leader could be reached.
    Unavailable => "unavailable",
    /// A client's node died under its request.
    ClientCutOff => "client cut off",
    /// A write was acknowledged.
    WriteAcknowledged => "write acknowledged",
    /// A linearizable read was answered.
    ReadAnswered => "read answered",
    /// A read of one node's present or past state was answered.
    OldReadAnswered => "serializable or old read answered",
    /// A compare-and-swap won.
    SwapWon => "compare-and-swap won",
    /// A compare-and-swap lost.
    SwapLost => "compare-and-swap lost",
    /// History was compacted by a client.
    HistoryCompacted => "history compacted",
    /// A lease was kept alive.
    LeaseKeptAlive => "lease kept alive",
    /// A lease was revoked by a client.
    LeaseRevoked => "lease revoked",
    /// A lease ran out.
    LeaseExpired => "lease expired",
    /// A watch delivered events.
    WatchTold => "watch told",
    /// A watch was resumed on another node or after a restart.
    WatchResumed => "watch resumed",
    /// A watch was cancelled because what it waited for was compacted.
    WatchCompacted => "watch compacted",
    /// A further group of the same nodes elected a leader.
    NeighbourLed => "neighbour elected a leader",
    /// A put in a further group was acknowledged.
    NeighbourWritten => "neighbour's write acknowledged",
    /// A transaction across further groups was decided: commit.
    TransactionCommitted => "transaction committed",
    /// The same: rollback.
    TransactionRolledBack => "transaction rolled back",
    /// Somebody else than its owner went on with a transaction.
    TransactionTakenOver => "transaction taken over",
    /// Whoever drove a transaction lost it to somebody else.
    TransactionDeposed => "transaction's coordinator deposed",
    /// A client asked another node for the same transaction.
    TransactionAskedAgain => "transaction asked for again",
    /// A client did not want its transaction any more.
    TransactionCancelled => "transaction cancelled",
    /// In the end it was judged what was told of transactions.
    TransactionsJudged => "transactions judged",
    /// A read met the lock of a branch.
    ReadMetLock => "read met a branch's lock",
    /// A branch was rolled back that nobody saw to.
    OrphanRolledBack => "orphaned branch rolled back",
    /// The search for a linearization was given up.
    SearchGivenUp => "search given up",
}

/// How often each thing happened.
#[derive(Clone, PartialEq, Eq)]
pub struct Counters([u64; Happening::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Counters([0; Happening::ALL.len()])
    }
}

impl Counters {
    /// It happened once more.
    pub fn add(&mut self, what: Happening) {
        self.0[what as usize] += 1;
    }

    /// How often it happened.
    pub fn get(&self, what: Happening) -> u64 {
        self.0[what as usize]
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Counters) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<Happening> {
        Happening::ALL.iter().copied().filter(|&h| self.get(h) == 0).collect()
    }

    /// Each thing and how often it happened.
    pub fn iter(&self) -> impl Iterator<Item = (Happening, u64)> + '_ {
        Happening::ALL.iter().map(|&h| (h, self.get(h)))
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(h, n)| (h.name(), n))).finish()
    }
}
