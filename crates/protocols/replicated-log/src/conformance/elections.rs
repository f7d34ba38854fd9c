//! What an election costs whose winner has something to learn first, L bytes in p parts of at most
//! A (`append_bytes`), as `docs/raft-and-paxos.md` says. Each engine has a formula of its own.

use super::cluster::{Cluster, ELECTION_TIMEOUT, Factory};
use super::cost::{MESSAGE, WRITE, settled, time_until};
use super::counts::Counts;
use alloc::vec::Vec;
use core::time::Duration;

/// An entry weighs 40 bytes, a part holds 400.
const PER_PART: u64 = 10;

/// What an election cost until somebody led, and until all that was found is chosen.
struct Election {
    took: Duration,
    elected: Counts,
    chosen: Counts,
}

/// Lets the leader propose this many entries, in as many batches as they have parts.
fn propose(cluster: &mut Cluster, leader: u64, entries: u64, apart: Duration) {
    for first in (0..entries).step_by(PER_PART as usize) {
        cluster.propose(leader, PER_PART.min(entries - first) as usize);
        cluster.run_for(apart);
    }
    cluster.run_for(MESSAGE * 4);
}

/// Everybody dies. The first of these comes back and loses its patience before the others, which
/// come back as well, can; then it leads, and all up to `wanted` is chosen.
fn elect(cluster: &mut Cluster, up: &[u64], wanted: u64) -> Election {
    (1..=cluster.len()).for_each(|id| cluster.crash(id));
    cluster.cut.clear();
    cluster.run_for(ELECTION_TIMEOUT);
    cluster.start(up[0]);
    cluster.run_for(ELECTION_TIMEOUT / 2 + MESSAGE * 5);
    up.iter().for_each(|id| cluster.start(*id));
    cluster.counts = Counts::default();
    time_until(cluster, |cluster| cluster.counts.votes > 0);
    let began = cluster.now;
    time_until(cluster, |cluster| cluster.leader() == Some(up[0]));
    let (took, elected) = (cluster.now.since(began), cluster.counts);
    time_until(cluster, |cluster| cluster.chosen_up_to() >= wanted);
    cluster.run_for(MESSAGE * 3);
    Election { took, elected, chosen: cluster.counts }
}

/// The time that was taken for, to what `time_until` can tell.
fn assert_took(took: Duration, exact: Duration, what: &str) {
    assert!(took <= exact && took + Duration::from_micros(200) >= exact, "{took:?}: {what}");
}

/// Everybody, with the leader at the end, and the next to lead before the others.
fn in_turn(cluster: &Cluster, leader: u64) -> Vec<u64> {
    let n = cluster.len();
    (0..n).map(|at| (leader + at) % n + 1).collect()
}

/// Multi-Paxos: all followers hold p parts that nobody knows to be chosen, and k of them answer
/// the candidate. Each part that comes has everybody asked again who has more to say, or has said
/// nothing. So a further part costs (n − 1)k questions and k² answers, 2 delays and no write. What
/// was found is then proposed again, in p or p + 1 batches with the leader's first value.
pub fn unchosen_slots(factory: Factory) {
    for (n, k) in [(3, 1), (3, 2), (5, 2), (5, 3), (5, 4)] {
        for entries in [5, 10, 15, 30, 45] {
            let (mut cluster, leader) = settled(factory, n);
            let all = in_turn(&cluster, leader);
            let hear_nobody = all.iter().map(|id| (*id, leader));
            cluster.cut.extend(hear_nobody);
            let wanted = cluster.chosen_up_to() + entries + 1;
            propose(&mut cluster, leader, entries, MESSAGE / 10);
            assert!(cluster.chosen_up_to() < wanted - entries, "nothing is known to be chosen");
            let Election { took, elected, chosen } =
                elect(&mut cluster, &all[..k as usize + 1], wanted);
            let parts = entries.div_ceil(PER_PART);
            let (what, more) = (alloc::format!("n {n}, k {k}, {entries} entries"), parts - 1);
            assert_eq!(elected.pre_votes, n - 1 + k, "{what}");
            assert_eq!(elected.questions, (n - 1) * (1 + more * k), "{what}");
            assert_eq!(elected.answers, k * (1 + more * k), "{what}");
            // A promise of everybody, and the leader's own write of all that it proposes.
            assert_eq!(elected.writes, k + 1 + 1, "{what}");
            let delays = 4 + 2 * more as u32;
            assert_took(took, MESSAGE * delays + WRITE * 2, &what);
            let batches = chosen.append_replies;
            assert!(batches.is_multiple_of(k) && chosen.writes == elected.writes + batches);
            assert!((parts..=parts + 1).contains(&(batches / k)), "{what}: {chosen:?}");
        }
    }
}

/// Multi-Paxos: while the parts of one answer follow each other faster than heartbeats would,
/// nobody is told to wait; where they do not, whoever gives none is, at most once per interval.
pub fn a_long_answer(factory: Factory) {
    let n = 5;
    for slow in [false, true] {
        let (mut cluster, leader) = settled(factory, n);
        let all = in_turn(&cluster, leader);
        // One holds everything, three have heard of nothing. It takes the one to be elected.
        let (candidate, empty, full) = (all[0], all[1], all[2]);
        for id in all.iter().filter(|id| ![leader, full].contains(id)) {
            cluster.cut.extend([(*id, leader), (leader, *id)]);
        }
        let (entries, wanted) = (180, cluster.chosen_up_to() + 180 + 1);
        propose(&mut cluster, leader, entries, MESSAGE * 3);
        assert!(cluster.chosen_up_to() < wanted - entries, "nothing is known to be chosen");
        cluster.delay_max = if slow { 15 } else { 1 };
        let Election { took, elected, .. } = elect(&mut cluster, &[candidate, empty, full], wanted);
        // It does not know either that the leader's first value is chosen, which weighs 48 bytes.
        let parts = 1 + (entries - 8).div_ceil(PER_PART);
        let delays = 4 + 2 * (parts - 1) as u32;
        if slow {
            let intervals = took.as_millis() as u64 / 20;
            let most = (n - 2) * intervals;
            assert!(elected.waits > 0 && elected.waits <= most, "{elected:?}, {intervals}");
        } else {
            assert_took(took, MESSAGE * delays + WRITE * 2, "19 parts");
            assert_eq!(elected.waits, 0);
        }
    }
}

/// Raft: the candidate lacks p parts that are committed, and k voters answer it. They refuse it
/// their pre-votes, so that it asks as many as it takes to lose for what it lacks, goes on with
/// who answers first, one part at a time, writes each, and asks for pre-votes once more.
pub fn a_candidate_that_lags(factory: Factory) {
    for (n, k) in [(3, 1), (3, 2), (5, 2), (5, 3), (5, 4)] {
        for entries in [5, 10, 15, 30, 45] {
            let (mut cluster, leader) = settled(factory, n);
            let all = in_turn(&cluster, leader);
            cluster.cut.insert((leader, all[0]));
            let wanted = cluster.chosen_up_to() + entries;
            propose(&mut cluster, leader, entries, MESSAGE * 5);
            assert_eq!(cluster.chosen_up_to(), wanted, "the others commit it");
            let up = &all[..k as usize + 1];
            let Election { took, elected, .. } = elect(&mut cluster, up, wanted + 1);
            let parts = entries.div_ceil(PER_PART);
            let what = alloc::format!("n {n}, k {k}, {entries} entries");
            let asked = k.min(n / 2 + 1) + parts - 1;
            assert_eq!((elected.questions, elected.answers), (asked, asked), "{what}");
            assert_eq!(elected.pre_votes, 2 * (n - 1 + k), "{what}");
            let votes = elected.votes - elected.pre_votes - 2 * asked;
            assert_eq!(votes, n - 1 + k, "{what}");
            // Every vote, every part, and the leader's own first entry.
            assert_eq!(elected.writes, k + 1 + parts + 1, "{what}");
            let delays = 4 + 2 + 2 * parts as u32;
            assert_took(took, MESSAGE * delays + WRITE * 2, &what);
        }
    }
}
