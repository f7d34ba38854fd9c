//! What follows from what happened. Who votes and what that means is two-phase commit's matter;
//! here it is given to it, and what it says is turned into writes and orders.

use crate::canary::Bug;
use crate::coordinator::{
    CANCELLED, Coordinator, Effect, End, Input, Moment, Phase, Stored, Vote, new_site, terms,
};
use crate::record::{BranchRecord, BranchState, Stage, Verdict, Voted};
use quorate_atomic_commit as commit;
use quorate_atomic_commit::{
    Address, AtomicCommit, Body, BranchId, Effects, Event, Message, Proof, Reason,
};

pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(commit::MAX_REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl Coordinator {
    /// Takes one input and adds what follows from it to `out`.
    pub fn step(&mut self, moment: Moment, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Stored { number, stored } => {
                if self.writing == Some(number) {
                    self.writing = None;
                    self.stored(moment, stored, out);
                }
            }
            Input::Voted { branch, epoch, vote } => {
                if self.phase == Phase::Voting && epoch == self.record.asked {
                    self.voted(moment, branch, vote, out);
                }
            }
            Input::Resolved { branch, epoch, found } => {
                if self.phase == Phase::Resolving && epoch == self.record.epoch {
                    self.resolved(moment, branch, found, out);
                }
            }
            Input::Settled { branch, epoch, end } => {
                if epoch == self.record.epoch {
                    self.settled(moment, branch, end, out);
                }
            }
            Input::Trouble { branch, what } => {
                let what = cut(&what);
                if let Some(branch) = self.branch(branch).filter(|it| it.trouble != what) {
                    branch.trouble = what;
                    self.troubled = true;
                }
            }
            Input::Acknowledge { branch } => self.acknowledge(moment, branch, out),
            Input::Cancel => self.cancel(moment, out),
            Input::Tick => self.tick(moment, out),
            Input::Note => self.note(moment, out),
            Input::Seen { as_of, record } => {
                let knows = self.at.is_some_and(|at| as_of >= at);
                if self.is_idle() && knows && record != self.at {
                    self.depose(out);
                }
            }
        }
    }

    /// Whether nothing moves here, because all that is left is people's matter.
    fn is_idle(&self) -> bool {
        let settling = self.phase == Phase::Settling && self.writing.is_none();
        settling && self.record.waits_for_people() && !self.unsaved
    }

    fn note(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        let due = match self.phase {
            Phase::Settling => !self.is_idle(),
            // What is undecided is taken over by the time that it takes, not by its silence: only
            // what people see for the first time is written.
            Phase::Asking | Phase::Resolving => self.troubled,
            _ => false,
        };
        if due && self.writing.is_none() {
            self.store(moment, out);
        }
    }

    fn stored(&mut self, moment: Moment, stored: Stored, out: &mut Vec<Effect>) {
        let Stored::Done(revision) = stored else {
            return match self.at {
                None if self.record.is_eager() && self.record.is_in_keyspaces() => {
                    self.withdraw(out);
                }
                None if self.record.is_eager() => self.disband(moment, out),
                None if self.is_disbanded() => self.refused_any(out),
                _ => self.depose(out),
            };
        };
        self.at = Some(revision);
        match self.phase {
            Phase::Beginning => self.attempt(moment, out),
            Phase::Claiming => self.claimed(moment, out),
            Phase::Deciding => self.carry_out(moment, out),
            Phase::Settling => self.conclude(moment, out),
            Phase::Finishing => {
                self.phase = Phase::Over;
                self.tell(out);
                let forget = self.record.epoch == self.record.asked;
                out.push(Effect::Finished { forget });
            }
            // What it came to while a write was under way, the first one or a note.
            Phase::Voting | Phase::Asking | Phase::Resolving => {
                if let Some(decision) = self.held.take() {
                    self.decide(moment, &decision, out);
                }
            }
            Phase::Retreating => self.try_again(moment, out),
            Phase::Withdrawing | Phase::Over => {}
        }
    }

    pub(crate) fn depose(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Over;
        out.push(Effect::Deposed);
    }

    /// The record is there, or is about to be: the branches are asked to prepare.
    pub(crate) fn attempt(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        self.phase = Phase::Voting;
        self.site = new_site(self.settings, self.id, &self.record);
        self.drive(moment, commit::Input::Begin { deadline: self.deadline }, out);
        if self.cancelled {
            self.cancel(moment, out);
        } else if moment.now >= self.deadline
            && let Some((branch, reason)) = self.setback.take()
        {
            self.say(moment, branch, no(reason), out);
        }
    }

    /// A transaction that was undecided when its coordinator was lost is aborted: the tombstone
    /// that two-phase commit asks for when a participant inquires is the record that takes it over.
    pub(crate) fn bury(&mut self, why: String, moment: Moment, out: &mut Vec<Effect>) {
        self.setback = Some((0, why));
        self.say(moment, 0, Body::Inquire, out);
    }

    /// The record says that it is driven here.
    fn claimed(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        if self.record.stage == Stage::Open && self.record.is_decided_by_votes() {
            return self.resolve(out);
        }
        if self.record.stage == Stage::Open {
            // Its only participant decides, and may have. It does not any more once it was told
            // to roll back.
            self.drive(moment, commit::Input::Begin { deadline: moment.now }, &mut Vec::new());
            return self.ask_how_it_ended(out);
        }
        self.carry_out(moment, out);
    }

    fn ask_how_it_ended(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Asking;
        let (asked, epoch) = (self.record.asked, self.record.epoch);
        out.push(Effect::Settle { branch: 0, commit: false, asked, epoch });
    }

    fn voted(&mut self, moment: Moment, branch: u16, vote: Vote, out: &mut Vec<Effect>) {
        if self.state(branch) != Some(&BranchState::Asked) {
            return;
        }
        let (voted, state, body) = match vote {
            Vote::Yes => (Voted::Yes, BranchState::Prepared, Body::Vote(commit::Vote::Yes)),
            Vote::ReadOnly if self.record.is_decided_by_votes() => {
                // Keyspaces never vote so: nobody who takes over could find such a vote.
                let reason = "it left without a vote that others can find".to_owned();
                (Voted::ReadOnly, BranchState::Refused(reason.clone()), no(reason))
            }
            Vote::ReadOnly => {
                (Voted::ReadOnly, BranchState::ReadOnly, Body::Vote(commit::Vote::ReadOnly))
            }
            Vote::Done(_) if !self.record.is_alone() => return,
            Vote::Done(revision) => {
                let committed = BranchState::Committed(revision);
                (Voted::Yes, committed, Body::Decide(commit::Decision::Commit))
            }
            Vote::No { reason, again: Some(priority) }
                if moment.now < self.deadline && self.held.is_none() =>
            {
                return self.retreat(moment, branch, reason, priority, out);
            }
            Vote::No { reason, .. } => (Voted::No, BranchState::Refused(cut(&reason)), no(reason)),
        };
        if let Some(branch) = self.branch(branch) {
            branch.voted(voted, state, moment.wall_ms);
            branch.trouble.clear();
        }
        self.say(moment, branch, body, out);
    }

    /// The attempt met a younger transaction: it is rolled back everywhere, and made again as a
    /// younger one.
    fn retreat(
        &mut self,
        moment: Moment,
        branch: u16,
        reason: String,
        priority: u64,
        out: &mut Vec<Effect>,
    ) {
        self.phase = Phase::Retreating;
        self.priority = priority.saturating_add(1).max(moment.wall_ms);
        self.setback = Some((branch, reason));
        if let Some(branch) = self.branch(branch) {
            branch.voted(Voted::No, BranchState::RolledBack, moment.wall_ms);
        }
        if self.first_by.is_some() {
            // Else nobody would know what is left of the attempt where this node dies.
            self.store(moment, out);
        }
        self.settle_all(false, out);
        self.try_again(moment, out);
    }

    pub(crate) fn settle_all(&self, commit: bool, out: &mut Vec<Effect>) {
        let (asked, epoch) = (self.record.asked, self.record.epoch);
        let open = self.record.open_branches();
        out.extend(open.map(|branch| Effect::Settle { branch, commit, asked, epoch }));
    }

    /// Makes the next attempt once nothing is left of the one before.
    fn try_again(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        if self.writing.is_some() || self.record.open_branches().next().is_some() {
            return;
        }
        self.record.epoch = self.record.epoch.saturating_add(1);
        self.record.asked = self.record.epoch;
        self.record.branches.iter_mut().for_each(BranchRecord::ask);
        self.phase = Phase::Beginning;
        self.store(moment, out);
    }

    fn settled(&mut self, moment: Moment, branch: u16, end: End, out: &mut Vec<Effect>) {
        if end == End::Superseded && self.phase != Phase::Over {
            // A participant has heard of a later epoch, and only its record gives one.
            return self.depose(out);
        }
        match self.phase {
            Phase::Retreating => self.retreated(moment, branch, end, out),
            Phase::Asking => self.told(moment, end, out),
            Phase::Settling => self.applied(moment, branch, end, out),
            Phase::Withdrawing => self.withdrawn(branch, out),
            _ => {}
        }
    }

    fn retreated(&mut self, moment: Moment, index: u16, end: End, out: &mut Vec<Effect>) {
        let Some(branch) = self.branch(index).filter(|branch| branch.state.is_open()) else {
            return;
        };
        match end {
            End::RolledBack => {
                branch.ended(BranchState::RolledBack, moment.wall_ms);
                self.try_again(moment, out);
            }
            End::Heuristic(what) => {
                branch.ended(BranchState::Heuristic(what), moment.wall_ms);
                self.give_up(moment, out);
            }
            End::Committed(_) => {
                let what = "it was committed before anything was decided".to_owned();
                branch.ended(BranchState::Heuristic(what), moment.wall_ms);
                self.give_up(moment, out);
            }
            End::Superseded => {}
        }
    }

    /// No further attempt: the setback decides.
    fn give_up(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        let (branch, reason) = self.setback.take().unwrap_or((0, "it was given up".to_owned()));
        self.phase = Phase::Voting;
        self.say(moment, branch, no(reason), out);
    }

    /// The only participant says how it has decided.
    fn told(&mut self, moment: Moment, end: End, out: &mut Vec<Effect>) {
        if self.held.is_some() {
            // A copy: it is decided once the note under way is written.
            return;
        }
        let (voted, state, decision) = match end {
            End::Committed(revision) => {
                (Some(Voted::Yes), BranchState::Committed(revision), commit::Decision::Commit)
            }
            End::RolledBack => {
                let reason = match moment.now >= self.deadline {
                    _ if self.cancelled => Reason::Cancelled,
                    true => Reason::TimedOut,
                    false => Reason::NotHeard,
                };
                let branch = Some(BranchId(1));
                (None, BranchState::RolledBack, commit::Decision::Abort { branch, reason })
            }
            End::Heuristic(_) | End::Superseded => return,
        };
        if let Some(branch) = self.branch(0) {
            branch.trouble.clear();
            match voted {
                Some(voted) => branch.voted(voted, state, moment.wall_ms),
                None => branch.ended(state, moment.wall_ms),
            }
        }
        self.say(moment, 0, Body::Decide(decision), out);
    }

    /// A branch has ended as decided, or not.
    fn applied(&mut self, moment: Moment, index: u16, end: End, out: &mut Vec<Effect>) {
        let commits = self.record.stage.verdict().is_some_and(Verdict::commits);
        let Some(branch) = self.branch(index).filter(|branch| branch.state.is_open()) else {
            return;
        };
        branch.trouble.clear();
        let state = match end {
            End::Committed(revision) if commits => BranchState::Committed(revision),
            End::RolledBack if !commits => BranchState::RolledBack,
            End::Committed(_) => BranchState::Heuristic("it was committed".to_owned()),
            End::RolledBack => BranchState::Heuristic("it was rolled back".to_owned()),
            End::Heuristic(what) => BranchState::Heuristic(cut(&what)),
            End::Superseded => return,
        };
        branch.ended(state, moment.wall_ms);
        let heuristic = matches!(branch.state, BranchState::Heuristic(_));
        // People must be able to see it, and what becomes of the others.
        let seen = |branch: &BranchRecord| matches!(branch.state, BranchState::Heuristic(_));
        self.unsaved |= self.record.branches.iter().any(seen);
        if commits {
            let proof = if heuristic { Proof::Heuristic } else { Proof::Applied };
            self.say(moment, index, Body::Acknowledge(proof), out);
        }
        self.conclude(moment, out);
    }

    /// Somebody answers for a branch that ended against the decision: it is not waited for.
    fn acknowledge(&mut self, moment: Moment, index: u16, out: &mut Vec<Effect>) {
        let Some(branch) = self.branch(index) else { return };
        let BranchState::Heuristic(what) = &mut branch.state else { return };
        branch.state = BranchState::Acknowledged(std::mem::take(what));
        self.unsaved = true;
        if self.phase == Phase::Settling {
            if self.record.stage.verdict().is_some_and(Verdict::commits) {
                self.say(moment, index, Body::Acknowledge(Proof::Applied), out);
            }
            self.conclude(moment, out);
        }
    }

    /// What is decided stays so; what is between two attempts has none any more.
    fn cancel(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        self.cancelled = true;
        match self.phase {
            Phase::Voting if self.record.is_alone() => self.ask_how_it_ended(out),
            Phase::Voting => self.drive(moment, commit::Input::Cancel, out),
            // An attempt that is about to begin ends at once.
            _ => {}
        }
    }

    fn tick(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        let late = moment.now >= self.deadline;
        if self.phase == Phase::Voting && self.first_by.is_some_and(|by| by <= moment.now) {
            self.store(moment, out);
        }
        match self.phase {
            Phase::Voting if late && self.record.is_alone() => self.ask_how_it_ended(out),
            Phase::Voting if late && self.waits_with_locks() => self.let_databases_go(out),
            Phase::Voting => self.drive(moment, commit::Input::Tick, out),
            Phase::Retreating if late => self.give_up(moment, out),
            _ => {}
        }
    }

    /// The decision is on record, or the votes are it: it is told, to the client and to whoever
    /// waits for it.
    fn carry_out(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        let Some(verdict) = self.record.stage.verdict() else { return };
        let commits = verdict.commits();
        self.phase = Phase::Settling;
        self.tell(out);
        if commits {
            // As two-phase commit is restored from its own record, which says the same.
            let open = self.record.open_branches().map(|index| BranchId(index + 1));
            let (decision, unproven) = (commit::Decision::Commit, open.collect());
            let records = [commit::Record::Decided { decision, unproven }];
            self.site = restored(self, &records);
            self.drive(moment, commit::Input::Tick, out);
        } else {
            // A presumed abort is told to everybody who might be prepared, until it is proven
            // that nobody is: nobody here inquires.
            self.settle_all(false, out);
        }
        self.conclude(moment, out);
    }

    /// Tells the host the decision, once.
    fn tell(&mut self, out: &mut Vec<Effect>) {
        if !self.told {
            self.told = true;
            out.push(Effect::Decided);
        }
    }

    /// Whether every branch has ended as decided.
    fn is_applied(&self, verdict: &Verdict) -> bool {
        let done = |state: &BranchState| match state {
            BranchState::Committed(_) => verdict.commits(),
            BranchState::ReadOnly | BranchState::Acknowledged(_) => true,
            state => state.is_void() && !verdict.commits(),
        };
        self.record.branches.iter().all(|branch| done(&branch.state))
    }

    /// Writes the end, once every participant has proven that it is there.
    fn conclude(&mut self, moment: Moment, out: &mut Vec<Effect>) {
        let Stage::Decided(verdict) = &self.record.stage else { return };
        let ready = self.writing.is_none() && self.phase == Phase::Settling;
        if !ready {
            return;
        }
        if !self.is_applied(verdict) {
            if self.unsaved {
                self.store(moment, out);
            }
            return;
        }
        assert!(
            !verdict.commits() || self.site.status().waits_for.is_empty(),
            "a decision is kept until every participant has proven that it applied it"
        );
        self.record.stage = Stage::Finished(verdict.clone());
        self.phase = Phase::Finishing;
        self.store(moment, out);
    }

    /// Gives two-phase commit what a participant says.
    fn say(&mut self, moment: Moment, branch: u16, body: Body, out: &mut Vec<Effect>) {
        let message = Message {
            key: self.site.key(),
            terms: terms(&self.record),
            from: Address::Participant(BranchId(branch + 1)),
            to: Address::Coordinator,
            body,
        };
        self.drive(moment, commit::Input::Message(message), out);
    }

    /// Steps two-phase commit, and does what it wants.
    fn drive(&mut self, moment: Moment, input: commit::Input, out: &mut Vec<Effect>) {
        let mut effects = Effects::default();
        self.site.step(moment.now, input, &mut effects);
        let decided = effects.writes.iter().find_map(|write| match &write.record {
            commit::Record::Decided { decision, .. } => Some(decision.clone()),
            _ => None,
        });
        let said = effects.events.iter().find_map(|event| match event {
            Event::Decided(decision) => Some(decision.clone()),
            _ => None,
        });
        for send in &effects.sends {
            self.order(&send.message, out);
        }
        if let Some(decision) = decided.or(said) {
            self.decide(moment, &decision, out);
        }
    }

    /// What two-phase commit says to a participant. Nothing of a commit leaves here before the
    /// record has it: `carry_out` says it then.
    fn order(&mut self, message: &Message, out: &mut Vec<Effect>) {
        let Address::Participant(BranchId(number)) = message.to else { return };
        let branch = number - 1;
        let (asked, epoch) = (self.record.asked, self.record.epoch);
        match &message.body {
            Body::Prepare | Body::PrepareAlone if self.phase == Phase::Voting => {
                let (priority, alone) = (self.priority, self.record.is_alone());
                out.push(Effect::Prepare { branch, epoch: asked, priority, alone });
            }
            Body::Decide(commit::Decision::Commit) if self.phase == Phase::Settling => {
                out.push(Effect::Settle { branch, commit: true, asked, epoch });
            }
            _ => {}
        }
    }

    pub(crate) fn decide(
        &mut self,
        moment: Moment,
        decision: &commit::Decision,
        out: &mut Vec<Effect>,
    ) {
        if self.record.stage != Stage::Open {
            return;
        }
        let by_votes = *decision == commit::Decision::Commit && self.votes_decide();
        let canary = self.settings.canary;
        if self.writing.is_some() && !(by_votes && canary.sings(Bug::DecideBeforeRecord)) {
            // There is no record yet. Databases need not hold locks for it: nobody else can commit
            // what has none.
            let first = self.held.is_none();
            self.held.get_or_insert_with(|| decision.clone());
            let aborts = *decision != commit::Decision::Commit;
            if first && aborts && self.at.is_none() && !self.record.is_in_keyspaces() {
                self.settle_all(false, out);
            }
            return;
        }
        let unrecorded =
            *decision == commit::Decision::Commit && canary.sings(Bug::CommitUnrecorded);
        if by_votes || unrecorded {
            self.record.stage = Stage::Decided(Verdict::Commit);
            return self.carry_out(moment, out);
        }
        let verdict = match decision {
            commit::Decision::Commit => Verdict::Commit,
            commit::Decision::Abort { branch, reason } => {
                let reason = match (reason, self.setback.take()) {
                    (Reason::NoRecord, Some((_, why))) => why,
                    (reason, _) => words(reason),
                };
                Verdict::Abort { branch: branch.map(|BranchId(number)| number - 1), reason }
            }
        };
        self.staked |= self.at.is_none() && verdict.commits();
        if self.is_applied(&verdict) {
            // The only participant has decided, or nobody is left to be told: one write for both.
            self.record.stage = Stage::Finished(verdict);
            self.phase = Phase::Finishing;
        } else {
            self.record.stage = Stage::Decided(verdict);
            self.phase = Phase::Deciding;
        }
        self.store(moment, out);
    }
}

fn restored(it: &Coordinator, records: &[commit::Record]) -> commit::two_phase::Coordinator {
    let config = commit::Config { retry: it.settings.retry, ..commit::Config::default() };
    commit::two_phase::Coordinator::restore(config, it.site.key(), terms(&it.record), records)
}

fn no(reason: String) -> Body {
    Body::Vote(commit::Vote::No(Reason::Refused(cut(&reason))))
}

fn words(reason: &Reason) -> String {
    match reason {
        Reason::Refused(why) => why.clone(),
        Reason::TimedOut => "it did not vote before the deadline".to_owned(),
        Reason::NotHeard | Reason::NoRecord => {
            "its coordinator was lost before it had decided".to_owned()
        }
        Reason::Cancelled => CANCELLED.to_owned(),
        Reason::Superseded => "a later attempt has begun".to_owned(),
    }
}
