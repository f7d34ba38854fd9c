//! Where the requests of a line wait, and who goes when.

use super::Ride;
use super::line::Line;
use super::returns::Returns;
use crate::request::Branch;
use quorate_mvcc::Revision;
use quorate_resource_managers::{Deadline, STATEMENTS_LIMIT};
use quorate_transactions::{BranchRecord, MAX_CARRIED};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes of all that one bundle carries,
const MOST_BYTES: usize = 256 << 10;
/// and its different statements: a session keeps no more of them prepared.
const MOST_TEXTS: usize = STATEMENTS_LIMIT;
/// Lines that are remembered while nobody is in them.
const MOST_LINES: usize = 1_024;

/// A request that waits.
pub(super) struct Waiting {
    pub id: String,
    pub content: u128,
    pub bytes: usize,
    /// Whether it is answered only when it is carried out.
    pub late: bool,
    pub branches: Vec<Branch>,
    /// What a record has of them.
    pub records: Vec<BranchRecord>,
    /// As of when its id was seen to be free.
    pub free_as_of: Revision,
    /// It may stay undecided until then,
    pub until: Deadline,
    /// and a bundle may for so long.
    pub needs: Duration,
    pub reply: oneshot::Sender<Ride>,
}

impl Waiting {
    /// The different statements that it runs in databases.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let works = self.branches.iter().filter_map(|branch| branch.work.sql());
        works.flat_map(|work| work.statements.iter().map(|statement| statement.sql.as_str()))
    }
}

/// How many go at a time: learned from how those before fared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pace {
    /// How many a bundle carries at the most: fewer, where bundles are refused for one of them.
    most: usize,
    /// Committed in a row since that last changed.
    well: usize,
    /// Whether the last one was refused for somebody who is known.
    refused: bool,
}

/// How one ended that went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    Committed,
    /// For one of those whom it carried, who goes alone.
    RefusedForOne,
    /// It was refused, or is somebody else's; everybody goes alone.
    Failed,
}

impl Pace {
    fn new() -> Pace {
        Pace { most: MAX_CARRIED, well: 0, refused: false }
    }

    /// The next go while fewer are under way. Where bundles are small there must be more of them.
    fn limit(self) -> usize {
        MAX_CARRIED / self.most
    }

    pub fn ended(&mut self, carried: usize, how: How) {
        let again = std::mem::replace(&mut self.refused, how == How::RefusedForOne);
        if how == How::Committed {
            self.well += carried;
            if self.well >= 4 * self.most && self.most < MAX_CARRIED {
                (self.most, self.well) = (self.most * 2, 0);
            }
            return;
        }
        if carried == 1 {
            return;
        }
        self.well = 0;
        // Who is known to be guilty costs the others one ride: fewer only where there are many.
        if how == How::Failed || again {
            // A larger one may have gone before others were refused.
            self.most = self.most.min(carried.next_power_of_two() / 2);
        }
    }
}

/// Where the requests of one line wait.
pub(super) struct Stop {
    pub waiting: VecDeque<Waiting>,
    /// Requests that have gone and are not decided.
    pub under_way: usize,
    pub pace: Pace,
    /// Who has just been answered may have more to ask.
    pub expects: Option<Expected>,
    /// How soon they come back.
    pub returns: Returns,
}

/// Who is waited for.
pub(super) struct Expected {
    /// How many go together when they are there.
    pub all: usize,
    pub until: Instant,
}

impl Stop {
    pub fn new() -> Stop {
        Stop {
            waiting: VecDeque::new(),
            under_way: 0,
            pace: Pace::new(),
            expects: None,
            returns: Returns::new(),
        }
    }

    /// Somebody has come.
    pub fn board(&mut self, it: Waiting) {
        self.returns.came(Instant::now());
        self.waiting.push_back(it);
    }

    /// So many that went together, so long ago, are decided. Until when the next ones wait for
    /// them.
    pub fn decided(&mut self, ids: usize, took: Duration) -> Option<Instant> {
        self.under_way -= ids;
        let there = self.waiting.len();
        let all = (ids + there).min(self.pace.most);
        if self.under_way > 0 || all <= there.max(1) {
            return None;
        }
        let now = Instant::now();
        if ids > 1 {
            // Of one nothing is learned: whoever comes next may be anybody.
            self.returns.answered(ids, now);
        }
        let until = now + self.returns.patience(took);
        self.expects = Some(Expected { all, until });
        Some(until)
    }

    /// They were not answered, and nobody else was.
    pub fn expect_nobody(&mut self) {
        self.expects = None;
        self.returns.forget();
    }

    /// Whether somebody is expected who has not come yet.
    fn lingers(&mut self) -> bool {
        let Some(expected) = &self.expects else { return false };
        if self.waiting.len() < expected.all && Instant::now() < expected.until {
            return true;
        }
        self.expects = None;
        false
    }

    /// How many of the first fit together.
    fn fit(&self) -> usize {
        let (mut bytes, mut texts) = (0, BTreeSet::new());
        let first = self.waiting.iter().take(self.pace.most);
        for (n, it) in first.clone().enumerate() {
            bytes += it.bytes;
            texts.extend(it.texts());
            if bytes > MOST_BYTES || texts.len() > MOST_TEXTS {
                return n;
            }
        }
        first.count()
    }

    /// Who goes now, together.
    fn leave(&mut self) -> Vec<Vec<Waiting>> {
        let mut all = Vec::new();
        if self.lingers() {
            return all;
        }
        while self.under_way < self.pace.limit() && !self.waiting.is_empty() {
            let n = self.fit().max(1);
            let some: Vec<Waiting> = self.waiting.drain(..n).collect();
            self.under_way += some.len();
            all.push(some);
        }
        all
    }
}

#[derive(Default)]
pub(super) struct All {
    pub lines: BTreeMap<Line, Stop>,
    /// Who waits, or is under way.
    pub aboard: BTreeSet<String>,
}

impl All {
    /// Who goes now. Whoever has gone away is left behind, and who has no time for a bundle goes
    /// alone.
    pub fn depart(&mut self, line: &Line) -> Vec<Vec<Waiting>> {
        let Some(stop) = self.lines.get_mut(line) else { return Vec::new() };
        if stop.under_way >= stop.pace.limit() || stop.lingers() {
            return Vec::new();
        }
        for it in std::mem::take(&mut stop.waiting) {
            if !it.reply.is_closed() && it.until.left() >= it.needs {
                stop.waiting.push_back(it);
            } else {
                self.aboard.remove(&it.id);
                let _ = it.reply.send(Ride::Alone(None));
            }
        }
        stop.leave()
    }

    /// What was learned of lines is forgotten where there are too many.
    pub fn thin_out(&mut self) {
        if self.lines.len() > MOST_LINES {
            self.lines.retain(|_, stop| stop.under_way > 0 || !stop.waiting.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundles::line::Seat;
    use crate::bundles::returns::LINGER;
    use quorate_atomic_commit::Protocol;
    use quorate_base::GroupId;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn line(seats: Vec<Seat>) -> Line {
        Line { protocol: Protocol::PaxosCommit, seats }
    }

    /// One that waits, and where it is answered.
    fn waiting(id: &str, bytes: usize, patience: Duration) -> (Waiting, oneshot::Receiver<Ride>) {
        let (reply, answer) = oneshot::channel();
        let it = Waiting {
            id: id.to_owned(),
            content: 0,
            bytes,
            late: false,
            branches: Vec::new(),
            records: Vec::new(),
            free_as_of: 0,
            until: Deadline::within(patience),
            needs: Duration::from_millis(500),
            reply,
        };
        (it, answer)
    }

    fn wait(stop: &mut Stop, bytes: usize) {
        let id = stop.waiting.len().to_string();
        stop.board(waiting(&id, bytes, PATIENCE).0);
    }

    fn sizes(all: &[Vec<Waiting>]) -> Vec<usize> {
        all.iter().map(Vec::len).collect()
    }

    #[test]
    fn the_first_goes_at_once_and_the_next_together() {
        let mut stop = Stop::new();
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [1]);
        for _ in 0..20 {
            wait(&mut stop, 10);
            assert!(stop.leave().is_empty());
        }
        stop.under_way -= 1;
        assert_eq!(sizes(&stop.leave()), [20]);
        (0..MAX_CARRIED + 1).for_each(|_| wait(&mut stop, 10));
        assert!(stop.leave().is_empty(), "twenty are under way");
        stop.under_way -= 20;
        assert_eq!(sizes(&stop.leave()), [MAX_CARRIED]);
        (0..2).for_each(|_| wait(&mut stop, MOST_BYTES));
        for _ in 0..3 {
            stop.under_way = 0;
            assert_eq!(sizes(&stop.leave()), [1], "what is too large for company goes alone");
        }
    }

    /// A session keeps no more statements prepared than those of one branch may be.
    #[test]
    fn a_bundle_has_no_more_different_statements_than_a_session_keeps() {
        use crate::request::BranchWork;
        use quorate_resource_managers::{Kind, SqlWork, Statement, Work};
        let statement = |sql: String| Statement { sql, ..Statement::default() };
        let mut stop = Stop::new();
        for n in 0..MAX_CARRIED {
            let (mut it, _) = waiting(&n.to_string(), 10, PATIENCE);
            let own = statement(format!("UPDATE t SET a = {n}"));
            let statements = vec![statement("UPDATE u SET a = 1".to_owned()), own];
            let work = Work::Sql(SqlWork { statements, ..SqlWork::default() });
            let work = BranchWork::Manager(Kind::MariaDb, work);
            it.branches.push(Branch { name: "b".into(), participant: "p".into(), work });
            stop.waiting.push_back(it);
        }
        assert_eq!(sizes(&stop.leave()), [MOST_TEXTS - 1]);
    }

    const RIDE: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_next_wait_for_those_who_were_just_answered() {
        let mut stop = Stop::new();
        (0..8).for_each(|_| wait(&mut stop, 10));
        assert_eq!(sizes(&stop.leave()), [8]);
        (0..2).for_each(|_| wait(&mut stop, 10));
        let until = stop.decided(8, RIDE).unwrap();
        assert!(until <= Instant::now() + LINGER, "however long the ride was");
        stop.expects.as_mut().unwrap().until += RIDE;
        for _ in 0..7 {
            assert!(stop.leave().is_empty());
            wait(&mut stop, 10);
        }
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [10], "all are there");
        assert_eq!(
            stop.decided(10, Duration::ZERO).map(|until| until < Instant::now()),
            Some(true)
        );
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [1], "their time was up");
        assert_eq!(stop.decided(1, RIDE), None, "nobody else is known");
        wait(&mut stop, 10);
        assert_eq!(sizes(&stop.leave()), [1]);
    }

    #[test]
    fn who_does_not_come_back_is_not_waited_for() {
        let mut stop = Stop::new();
        for waited in [true, false] {
            stop.under_way = 8;
            let before = Instant::now();
            let until = stop.decided(8, RIDE).unwrap();
            let shown = if waited { until >= before + LINGER } else { until <= Instant::now() };
            assert!(shown, "they are waited for: {waited}");
            std::thread::sleep(2 * LINGER);
            wait(&mut stop, 10);
            assert_eq!(stop.leave().len(), 1);
            stop.under_way = 0;
        }
    }

    #[test]
    fn a_line_where_somebody_waits_is_not_forgotten() {
        let mut all = All::default();
        for n in 0..=MOST_LINES {
            let seat = Seat::Keyspace(n.to_string(), GroupId(1), false);
            all.lines.insert(line(vec![seat]), Stop::new());
        }
        wait(all.lines.first_entry().unwrap().get_mut(), 10);
        all.thin_out();
        assert_eq!(all.lines.len(), 1);
    }

    #[test]
    fn bundles_that_are_refused_become_smaller_and_more_go_at_a_time() {
        let mut pace = Pace::new();
        assert_eq!(pace.limit(), 1);
        pace.ended(20, How::Failed);
        assert_eq!((pace.most, pace.limit()), (16, 4));
        (0..5).for_each(|_| pace.ended(pace.most, How::Failed));
        assert_eq!((pace.most, pace.limit()), (1, 64));
        pace.ended(20, How::Failed);
        assert_eq!(pace.most, 1, "a larger one that ends late makes them no larger");
        pace.ended(1, How::Failed);
        assert_eq!(pace.most, 1, "one's own refusal says nothing of company");
        (0..4).for_each(|_| pace.ended(1, How::Committed));
        assert_eq!(pace.most, 2);
        (0..100).for_each(|_| pace.ended(pace.most, How::Committed));
        assert_eq!(pace.most, MAX_CARRIED);
        let one = How::RefusedForOne;
        pace.ended(20, one);
        pace.ended(20, How::Committed);
        pace.ended(20, one);
        assert_eq!(pace.most, MAX_CARRIED, "who is guilty is left out the next time");
        pace.ended(20, one);
        assert_eq!(pace.most, 16, "there are many such");
    }

    #[test]
    fn whoever_has_gone_away_is_left_behind_and_the_late_go_alone() {
        let (line, mut all) = (line(Vec::new()), All::default());
        let mut replies = Vec::new();
        let mut stop = Stop { under_way: 1, ..Stop::new() };
        for (id, patience) in [("gone", 9), ("late", 0), ("first", 9), ("second", 9)] {
            all.aboard.insert(id.to_owned());
            let (it, answer) = waiting(id, 1, Duration::from_secs(patience));
            stop.waiting.push_back(it);
            replies.push(answer);
        }
        all.lines.insert(line.clone(), stop);
        drop(replies.remove(0));
        assert!(all.depart(&line).is_empty(), "one is under way");
        all.lines.get_mut(&line).unwrap().under_way = 0;
        let next = all.depart(&line);
        let ids: Vec<&str> = next[0].iter().map(|it| it.id.as_str()).collect();
        assert_eq!((next.len(), &ids[..]), (1, &["first", "second"][..]));
        assert!(matches!(replies[0].try_recv(), Ok(Ride::Alone(None))));
        assert_eq!(all.aboard.len(), 2);
    }
}
