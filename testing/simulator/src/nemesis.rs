//! The nemesis: does harm at random moments, and undoes it after a while.

use crate::clients::Wish;
use crate::counters::Happening;
use crate::plan::{Deed, draw_deed};
use crate::world::{Happens, World};
use quorate_base::NodeId;
use quorate_checkers::End;
use quorate_keyspace::Command;
use quorate_keyspace::command::{Member, MemberChange};
use quorate_replicated_log::{Change, Protocol, Role};
use std::time::Duration;

impl World<'_> {
    /// Does one deed and plans the next.
    pub fn nemesis(&mut self) {
        if self.healing {
            return;
        }
        let mut from = self.now;
        if self.plan.is_calm() {
            // Clients write in each epoch before it ends.
            from = from + self.plan.election * 4;
        } else {
            self.do_a_deed();
        }
        if self.rng.chance_ppm(self.plan.switch_ppm) {
            self.switch();
        }
        let at = from + self.rng.duration(Duration::from_nanos(1), self.plan.nemesis_every);
        self.queue.push(at, 3_000, Happens::Nemesis);
    }

    fn do_a_deed(&mut self) {
        let deed = draw_deed(&mut self.rng, &self.plan.nemesis);
        self.line(0, format_args!("nemesis: {deed:?}"));
        self.trace.note(self.now, 0, 37, deed as u64);
        match deed {
            Deed::Crash => {
                if let Some(id) = self.a_member() {
                    self.crash(id);
                }
            }
            Deed::CrashLeader => {
                if let Some(id) = self.leader() {
                    self.crash(id);
                }
            }
            Deed::CrashAll => {
                self.count(Happening::CrashAll);
                for id in 1..=self.plan.ids {
                    self.crash(id);
                }
            }
            Deed::Pause => self.pause(),
            Deed::Partition => self.partition(),
            Deed::OneWay => self.one_way(),
            Deed::Pair => self.pair(),
            Deed::StallDisk => self.stall_disk(),
            Deed::FillDisk => self.fill_disk(),
            Deed::Damage => self.do_damage(),
            Deed::FailPersist => {
                if let Some(id) = self.a_member() {
                    let node = self.node(id);
                    node.engine.fail_next_persist();
                    node.engine_failing = true;
                }
            }
            Deed::Members => self.admin(0),
            Deed::Transfer => self.transfer(),
        }
    }

    fn a_member(&mut self) -> Option<u64> {
        let up = |n: &&crate::node::Node| n.running.is_some();
        let ids: Vec<u64> = self.nodes.iter().filter(up).map(|n| n.id).collect();
        self.rng.pick(&ids).copied()
    }

    /// A node that believes that it leads.
    pub fn leader(&self) -> Option<u64> {
        let leads = |n: &&crate::node::Node| {
            n.running.as_ref().is_some_and(|running| running.role == Role::Leader)
        };
        self.nodes.iter().rfind(leads).map(|node| node.id)
    }

    fn for_a_while(&mut self) -> Duration {
        // Half of the time about as long as an election takes, which is when most is undecided.
        let longest = match self.rng.below(2) {
            0 => self.plan.election * 3,
            _ => Duration::from_millis(3_000),
        };
        self.rng.duration(Duration::from_millis(10), longest)
    }

    /// A node loses power at the moment its log says that something is durable, or just after it
    /// has told others so; sometimes the whole cluster does.
    pub fn strike_after_write(&mut self, id: u64) {
        match self.rng.below(4) {
            0 => self.crash(id),
            1 => {
                let at = self.soon(Duration::from_millis(2));
                for id in 1..=self.plan.ids {
                    let alive = self.node(id).alive();
                    self.queue.push(at, 3_000, Happens::Strike(alive));
                }
            }
            _ => {
                let (at, alive) = (self.soon(Duration::from_millis(2)), self.node(id).alive());
                self.queue.push(at, 3_000, Happens::Strike(alive));
            }
        }
    }

    /// A new leader may die at once.
    pub fn strike_new_leader(&mut self, id: u64) {
        if !self.healing && self.rng.chance_ppm(self.plan.crash_new_leader_ppm) {
            let alive = self.node(id).alive();
            let at = self.soon(Duration::from_millis(4));
            self.queue.push(at, 3_000, Happens::Strike(alive));
        }
    }

    fn pause(&mut self) {
        let until = self.now + self.for_a_while();
        if let Some(id) = self.a_member() {
            self.count(Happening::Pause);
            let node = self.node(id);
            node.frozen_until = until;
            node.hindered_until = until;
        }
    }

    fn cut(&mut self, links: Vec<(u64, u64)>) {
        for &(from, to) in &links {
            self.network.set_cut(from, to, true);
            // A broken cable resets nothing; a firewall may.
            if self.rng.below(2) == 0 {
                let at = self.soon(Duration::from_millis(5));
                self.queue.push(at, to as u32, Happens::PeerLost { to, peer: from });
            }
        }
        let at = self.now + self.for_a_while();
        self.queue.push(at, 3_000, Happens::Mend(links));
    }

    /// Mends links.
    pub fn mend(&mut self, links: &[(u64, u64)]) {
        for &(from, to) in links {
            self.network.set_cut(from, to, false);
        }
    }

    /// Half of the time the leader is alone.
    fn partition(&mut self) {
        self.count(Happening::Partition);
        let mut side: Vec<bool> = (0..self.plan.ids).map(|_| self.rng.below(2) == 0).collect();
        if self.rng.below(2) == 0
            && let Some(leader) = self.leader()
        {
            side = (1..=self.plan.ids).map(|id| id == leader).collect();
        }
        let across = |a: &u64, b: &u64| side[*a as usize - 1] != side[*b as usize - 1];
        let ids = self.plan.ids;
        let pairs = (1..=ids).flat_map(|a| (1..=ids).map(move |b| (a, b)));
        let links: Vec<(u64, u64)> = pairs.filter(|(a, b)| across(a, b)).collect();
        self.cut(links);
    }

    fn one_way(&mut self) {
        let Some(id) = self.leader().filter(|_| self.rng_coin()).or_else(|| self.a_member()) else {
            return;
        };
        self.count(Happening::PartitionOneWay);
        let hears = self.rng_coin();
        let others = (1..=self.plan.ids).filter(|other| *other != id);
        let links = others.map(|other| if hears { (id, other) } else { (other, id) }).collect();
        self.cut(links);
    }

    fn pair(&mut self) {
        let (Some(a), Some(b)) = (self.a_member(), self.a_member()) else { return };
        if a != b {
            self.count(Happening::PartitionPartial);
            self.cut(vec![(a, b), (b, a)]);
        }
    }

    fn rng_coin(&self) -> bool {
        self.now.0 & 1024 == 0
    }

    fn stall_disk(&mut self) {
        let until = self.now + self.for_a_while();
        let id = if self.rng.below(2) == 0 { self.leader() } else { None };
        if let Some(id) = id.or_else(|| self.a_member()) {
            let node = self.node(id);
            node.disk.stall_until(until);
            node.hindered_until = node.hindered_until.max(until);
        }
    }

    fn fill_disk(&mut self) {
        if let Some(id) = self.a_member() {
            self.node(id).disk.set_full(true);
            let at = self.now + self.for_a_while() * 3;
            self.queue.push(at, 3_000, Happens::Room(id));
        }
    }

    fn admin_seat(&self) -> usize {
        self.seats.len() - 1
    }

    fn transfer(&mut self) {
        let voters = self.members().voters;
        if let Some(to) = self.rng.pick(&voters).copied() {
            self.administer(Wish::Transfer(to.0));
        }
    }

    /// The other protocol, as a rule; now and then what makes no sense, or comes late.
    fn switch(&mut self) {
        let (mut epoch, here) = self.record.latest;
        let other = Protocol::ALL.into_iter().find(|protocol| *protocol != here);
        let to = if self.rng.below(16) == 0 { here } else { other.unwrap_or(here) };
        if self.rng.below(16) == 0 {
            epoch.0 = epoch.0.saturating_sub(1);
        }
        self.administer(Wish::Switch(to, epoch));
    }

    /// Asks for something as the administrator, if he waits for nothing else.
    fn administer(&mut self, wish: Wish) {
        let seat = self.admin_seat();
        let nodes = self.reachable();
        if self.seats[seat].open.is_none()
            && let Some(node) = self.rng.pick(&nodes).copied()
        {
            self.ask(seat, wish, node);
        }
    }

    /// Changes the members, one step at a time.
    pub fn admin(&mut self, step: u32) {
        let members = self.members();
        if self.healing || members.is_joint() || step > 3 || self.plan.is_calm() {
            return;
        }
        // An identity never comes back.
        let spare = (1..=self.plan.ids).find(|id| !self.record.members_ever.contains(id));
        let learner = members.learners.first().copied();
        let change = match (learner, spare) {
            (Some(learner), _) if self.rng.below(4) > 0 => Some(promote(learner)),
            (_, Some(spare)) if members.voters.len() < 5 && self.rng.below(3) > 0 => {
                self.start_soon(spare);
                Some(add(NodeId(spare), self.rng.below(2) == 0))
            }
            _ => match self.rng.pick(&members.voters).copied() {
                Some(voter) if self.can_be_spared(voter) => Some(remove(voter)),
                _ => learner.map(remove),
            },
        };
        if let Some((change, command)) = change {
            self.atlas.removing |= matches!(change, Change::Remove(_));
            let judged = self.applied_anywhere();
            self.administer(Wish::Change { change, judged, command });
        }
    }

    /// The operator starts a node that is to join.
    fn start_soon(&mut self, id: u64) {
        self.node(id).member = true;
        let at = self.soon(Duration::from_millis(500));
        self.queue.push(at, id as u32, Happens::Boot(id));
    }

    /// Without this voter there is still a quorum of voters whose data was never damaged, or that
    /// can speak of every entry.
    fn can_be_spared(&self, voter: NodeId) -> bool {
        let voters = self.members().voters;
        if self.atlas.is_helix() {
            let left: Vec<NodeId> = voters.into_iter().filter(|node| *node != voter).collect();
            return left.len() >= 2 && self.can_be_told_by(&left);
        }
        let whole = |node: &&NodeId| **node != voter && !self.atlas.was_damaged(node.0);
        let left = voters.len() - 1;
        left >= 2 && voters.iter().filter(whole).count() * 2 > left
    }

    /// The administrator was answered: he may have more to do.
    pub fn admin_ended(&mut self, wish: &Wish, end: &End) {
        if let (Wish::Change { change, .. }, End::Answered { .. }) = (wish, end) {
            self.atlas.removing &= !matches!(change, Change::Remove(_));
            self.count(match change {
                Change::AddLearner(_) => Happening::LearnerAdded,
                Change::Promote(_) => Happening::LearnerPromoted,
                Change::AddVoter(_) => Happening::VoterAdded,
                Change::Remove(_) | Change::Keep => Happening::MemberRemoved,
            });
        }
        if self.rng.below(2) == 0 {
            let at = self.soon(Duration::from_secs(1));
            self.queue.push(at, 3_000, Happens::Admin(self.rng.below(4) as u32));
        }
    }

    /// The operator shuts a removed node down.
    pub fn retire(&mut self, id: u64) {
        if self.members().contains(NodeId(id)) {
            return;
        }
        self.line(id, format_args!("is retired"));
        self.node(id).removed = true;
        self.stop(id);
    }
}

fn add(id: NodeId, learner: bool) -> (Change, Command) {
    let url = format!("http://n{}:2380", id.0);
    let member = Member { id, peer_urls: vec![url], learner, ..Member::default() };
    let change = if learner { Change::AddLearner(id) } else { Change::AddVoter(id) };
    (change, Command::Member(MemberChange::Add(member)))
}

fn promote(id: NodeId) -> (Change, Command) {
    (Change::Promote(id), Command::Member(MemberChange::Promote(id)))
}

fn remove(id: NodeId) -> (Change, Command) {
    (Change::Remove(id), Command::Member(MemberChange::Remove(id)))
}
