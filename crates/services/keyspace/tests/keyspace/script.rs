//! The language of `testdata/*.txt`: a command, `----`, what came of it, an empty line.
//!
//! Keys: `a` is one key, `a..c` those between, `a..` those from there on. A transaction is
//! `txn if COMPARES then OPERATIONS else OPERATIONS end`, each item closed by `;`.

use crate::harness::{BALLOT, Replica, b};
use quorate_base::{Ballot, Instant, NodeId};
use quorate_keyspace::branch::Done;
use quorate_keyspace::command::{
    Alarm, Claim, Compare, CompareOperator, CompareTarget, Delete, Member, MemberChange, Operation,
    Put, Range, SortTarget, Txn,
};
use quorate_keyspace::reply::{OperationOutcome, PutOutcome, RangeOutcome};
use quorate_keyspace::{
    BranchCommand, BranchId, BranchOutcome, Canary, Command, Outcome, Part, Prepare, ReadError,
    Reply, codec,
};
use quorate_mvcc::{Event, KeyRange, KeyValue};
use quorate_replicated_log::{Membership, Payload};
use quorate_service::Service;
use std::fmt::Write;

/// Runs a script and returns it with what really came of it.
pub fn run(script: &str, canary: Canary) -> String {
    let mut replica = Replica::new(canary);
    let mut out = String::new();
    for block in script.split("\n\n") {
        let mut lines = block.trim_matches('\n').lines().peekable();
        while let Some(comment) = lines.next_if(|line| line.starts_with('#')) {
            writeln!(out, "{comment}").unwrap();
        }
        let command: Vec<&str> = lines.take_while(|line| *line != "----").collect();
        if !command.is_empty() {
            let words = command.join(" ");
            let mut words = words.split_whitespace().collect::<Vec<_>>().into_iter().peekable();
            let result = step(&mut replica, &mut words);
            writeln!(out, "{}\n----\n{}", command.join("\n"), result.trim_end()).unwrap();
        }
        out.push('\n');
    }
    out.trim_end().to_owned() + "\n"
}

type Words<'a> = std::iter::Peekable<std::vec::IntoIter<&'a str>>;

fn word<'a>(words: &mut Words<'a>) -> &'a str {
    words.next().expect("a word more")
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn step(replica: &mut Replica, words: &mut Words) -> String {
    let first = word(words);
    if let Some(text) = question(replica, first, words) {
        return text;
    }
    match first {
        "lead" => {
            replica.keyspace.lead(Instant(0));
            String::from("ok")
        }
        "tick" => {
            let mut commands = Vec::new();
            let now = Instant(0) + std::time::Duration::from_millis(number(word(words)));
            replica.keyspace.tick(now, &mut commands);
            let decoded = commands.into_iter().map(|body| codec::decode(body).unwrap());
            decoded.map(|command| format!("{command:?}\n")).collect()
        }
        "noop" => {
            replica.push(Payload::Noop);
            format!("rev={}", replica.keyspace.reader().revision())
        }
        "retry" => {
            let last = replica.log.last().expect("an entry").payload.clone();
            let replies = replica.push(last).len();
            format!("rev={} replies={replies}", replica.keyspace.reader().revision())
        }
        "persist" => {
            replica.persist();
            String::from("ok")
        }
        "crash" => format!("replayed {}", replica.crash()),
        "base" => {
            let base = replica.keyspace.base();
            format!("{:?} {:?}", base.position, base.membership)
        }
        "log" => {
            let learners = match words.peek() {
                Some(&"learner") => vec![NodeId(number(words.nth(1).expect("an id")))],
                _ => Vec::new(),
            };
            let voters = word(words).split(',').map(|n| NodeId(number(n)));
            let membership = Membership { learners, ..Membership::of(voters) };
            let Command::Member(change) = command(words) else { panic!("a change of members") };
            reply_text(&replica.change(change, membership))
        }
        first => {
            let rest: Vec<&str> = std::iter::once(first).chain(words).collect();
            let command = command(&mut rest.into_iter().peekable());
            let (number, replies) = replica.ask(&command);
            let mut text = String::new();
            if replies.iter().all(|(other, _)| *other != number) {
                writeln!(text, "waits as #{number}").unwrap();
            }
            for (other, reply) in replies {
                if other != number {
                    write!(text, "#{other}: ").unwrap();
                }
                writeln!(text, "{}", reply_text(&reply).trim_end()).unwrap();
            }
            text
        }
    }
}

/// What is only looked at; nothing for what does something.
fn question(replica: &Replica, first: &str, words: &mut Words) -> Option<String> {
    let reader = replica.keyspace.reader();
    Some(match first {
        "range" => match reader.range(&range(words)) {
            Ok(found) => found_text(&found),
            Err(ReadError::Refused(why)) => format!("refused: {why:?}"),
            Err(e) => panic!("{e}"),
        },
        "read" => match reader.range_unlocked(&range(words)) {
            Ok(Some((_, found))) => found_text(&found),
            Ok(None) => String::from("locked"),
            Err(e) => panic!("{e}"),
        },
        "branches" => {
            let mut text = String::new();
            for known in replica.keyspace.branches() {
                writeln!(text, "{} attempt {}: {:?}", known.id, known.epoch, known.state).unwrap();
            }
            text
        }
        "history" => {
            match reader.history(number(word(words)), words.next().map_or(1 << 20, number)) {
                Ok(history) => {
                    let mut text = format!("revisions {} to {}\n", history.from, history.to);
                    history
                        .events
                        .iter()
                        .for_each(|e| writeln!(text, "{}", event_text(e)).unwrap());
                    text
                }
                Err(ReadError::Refused(why)) => format!("refused: {why:?}"),
                Err(e) => panic!("{e}"),
            }
        }
        "leases" => format!("{:?}", reader.leases()),
        "lease" => format!("{:?}", reader.lease(number(word(words)))),
        "claim" => format!("{:?}", reader.claim(word(words).as_bytes()).unwrap()),
        "members" => reader.members().iter().map(member_text).collect(),
        "alarms" => format!("{:?}", reader.alarms()),
        _ => return None,
    })
}

/// `NAME[/NUMBER][@EPOCH]`.
fn branch_id(text: &str) -> (BranchId, u64) {
    let (name, epoch) = text.split_once('@').unwrap_or((text, "1"));
    let (name, n) = name.split_once('/').unwrap_or((name, "0"));
    (BranchId { transaction: b(name), number: number(n) }, number(epoch))
}

/// `prepare BRANCH [prio=N] [or_else] [one_phase] if … then … else … end [if … end]…`.
fn prepare(words: &mut Words) -> Command {
    let (id, epoch) = branch_id(word(words));
    let (mut priority, mut or_else, mut one_phase) = (10, false, false);
    while let Some(option) = words.next_if(|word| *word != "if") {
        match option.split_once('=') {
            Some(("prio", n)) => priority = number(n),
            None if option == "or_else" => or_else = true,
            None if option == "one_phase" => one_phase = true,
            _ => panic!("{option} is no option of prepare"),
        }
    }
    let mut txns = Vec::new();
    while words.peek() == Some(&"if") {
        txns.push(txn(words));
    }
    let prepare = Prepare { id, epoch, priority, txns: txns.into(), or_else, one_phase };
    Command::Branch(BranchCommand::Prepare(prepare))
}

fn done_text(done: &[Done], text: &mut String) {
    for one in done {
        if done.len() > 1 {
            write!(text, "\n* at {} ", one.revision).unwrap();
        }
        outcome_text(&OperationOutcome::Txn(one.outcome.clone()), 0, text);
        text.truncate(text.trim_end().len());
    }
    if !done.is_empty() {
        text.push('\n');
    }
}

fn branch_text(outcome: &BranchOutcome, text: &mut String) {
    match outcome {
        BranchOutcome::Prepared(done) => {
            text.push_str("prepared ");
            done_text(done, text);
        }
        BranchOutcome::Committed { revision, done } => {
            write!(text, "committed at {revision} ").unwrap();
            done_text(done.as_deref().unwrap_or_default(), text);
        }
        BranchOutcome::RolledBack(no) => write!(text, "rolled back: {no}").unwrap(),
        BranchOutcome::Refused(error) => write!(text, "refused: {error}").unwrap(),
        BranchOutcome::Together(all) => {
            for outcome in all {
                text.push_str("\n- ");
                branch_text(outcome, text);
                text.truncate(text.trim_end().len());
            }
        }
        other => write!(text, "{other:?}").unwrap(),
    }
}

fn command(words: &mut Words) -> Command {
    match word(words) {
        "put" => Command::Put(put(words)),
        "del" => Command::Delete(delete(words)),
        "txn" => Command::Txn(txn(words)),
        "compact" => Command::Compact { revision: number(word(words)) },
        "grant" => {
            Command::LeaseGrant { id: number(word(words)), ttl_seconds: number(word(words)) }
        }
        "revoke" => Command::LeaseRevoke { id: number(word(words)) },
        "expire" => Command::LeaseExpire { id: number(word(words)), ballot: ballot(words) },
        "checkpoint" => {
            let number_ = number(word(words));
            let remaining = vec![(number(word(words)), number(word(words)))];
            Command::LeaseCheckpoint { ballot: ballot(words), number: number_, remaining }
        }
        "alarm" => Command::Alarm {
            raise: word(words) == "raise",
            member: NodeId(number(word(words))),
            alarm: if word(words) == "nospace" { Alarm::NoSpace } else { Alarm::Corrupt },
        },
        "member" => Command::Member(member_change(words)),
        "prepare" => prepare(words),
        "commit" => {
            let (id, epoch) = branch_id(word(words));
            Command::Branch(BranchCommand::Commit { id, epoch })
        }
        "rollback" => {
            let (id, epoch) = branch_id(word(words));
            Command::Branch(BranchCommand::Rollback { id, epoch })
        }
        "resolve" => {
            let (id, epoch) = branch_id(word(words));
            Command::Branch(BranchCommand::Resolve { id, epoch })
        }
        "together" => {
            let all: Vec<&str> = words.collect();
            let part = |words: &[&str]| {
                let words = Vec::from(words);
                let mut words = words.into_iter().peekable();
                let Command::Branch(one) = command(&mut words) else { panic!("not on a branch") };
                Part::new(one).unwrap()
            };
            Command::Branch(BranchCommand::Together(
                all.split(|word| *word == "|").map(part).collect(),
            ))
        }
        "forget" => {
            let (id, epoch) = branch_id(word(words));
            Command::Branch(BranchCommand::Forget { id, epoch })
        }
        "barrier" => Command::Barrier { ranges: words.map(keys).collect() },
        "unqueue" => Command::Unqueue { entries: words.map(number).collect() },
        other => panic!("{other} is no command"),
    }
}

fn ballot(words: &mut Words) -> Ballot {
    match words.next() {
        Some("stale") => Ballot::new(BALLOT.round - 1, BALLOT.node),
        _ => BALLOT,
    }
}

fn member_change(words: &mut Words) -> MemberChange {
    let (what, id) = (word(words), NodeId(number(word(words))));
    let urls = |words: &mut Words| vec![word(words).to_owned()];
    match what {
        "add" => MemberChange::Add(Member { id, peer_urls: urls(words), ..Member::default() }),
        "promote" => MemberChange::Promote(id),
        "remove" => MemberChange::Remove(id),
        "peers" => MemberChange::UpdatePeers { id, peer_urls: urls(words) },
        "publish" => {
            MemberChange::Publish { id, name: word(words).to_owned(), client_urls: urls(words) }
        }
        other => panic!("{other} is no change of members"),
    }
}

fn keys(text: &str) -> KeyRange {
    match text.split_once("..") {
        None => KeyRange::One(b(text)),
        Some((from, "")) => KeyRange::From(b(from)),
        Some((from, to)) => KeyRange::Between(b(from), b(to)),
    }
}

/// The rest of an item: up to its `;` or the end.
fn options<'a>(words: &mut Words<'a>) -> Vec<&'a str> {
    let mut options = Vec::new();
    while let Some(word) = words.next_if(|word| *word != ";") {
        options.push(word);
    }
    words.next_if(|word| *word == ";");
    options
}

fn put(words: &mut Words) -> Put {
    let (key, value) = (b(word(words)), b(word(words)));
    let mut put = Put { key, value, ..Put::default() };
    for option in options(words) {
        match option.split_once('=') {
            Some(("lease", id)) => put.lease = number(id),
            None if option == "prev" => put.prev_kv = true,
            None if option == "ignore_value" => put.ignore_value = true,
            None if option == "ignore_lease" => put.ignore_lease = true,
            _ => panic!("{option} is no option of put"),
        }
    }
    put
}

fn delete(words: &mut Words) -> Delete {
    let range = keys(word(words));
    Delete { range, prev_kv: options(words).contains(&"prev") }
}

fn range(words: &mut Words) -> Range {
    let mut range = Range::of(keys(word(words)));
    for option in options(words) {
        match option.split_once('=') {
            Some(("limit", n)) => range.limit = number(n),
            Some(("rev", n)) => range.revision = number(n),
            Some(("minmod", n)) => range.mod_revision.0 = number(n),
            Some(("maxmod", n)) => range.mod_revision.1 = number(n),
            Some(("mincreate", n)) => range.create_revision.0 = number(n),
            Some(("maxcreate", n)) => range.create_revision.1 = number(n),
            Some(("sort", by)) => {
                let (by, descending) = match by.strip_prefix('-') {
                    Some(by) => (by, true),
                    None => (by, false),
                };
                let target = match by {
                    "key" => SortTarget::Key,
                    "version" => SortTarget::Version,
                    "create" => SortTarget::Create,
                    "mod" => SortTarget::Mod,
                    "value" => SortTarget::Value,
                    other => panic!("{other} is no sort target"),
                };
                range.sort = Some((target, descending));
            }
            None if option == "keys" => range.keys_only = true,
            None if option == "count" => range.count_only = true,
            _ => panic!("{option} is no option of range"),
        }
    }
    range
}

fn txn(words: &mut Words) -> Txn {
    assert_eq!(word(words), "if");
    let mut txn = Txn::default();
    while words.next_if(|word| *word == "then").is_none() {
        txn.compare.push(compare(words));
    }
    while words.next_if(|word| *word == "else").is_none() {
        txn.success.push(operation(words));
    }
    while words.next_if(|word| *word == "end").is_none() {
        txn.failure.push(operation(words));
    }
    txn
}

fn compare(words: &mut Words) -> Compare {
    let (what, range) = (word(words), keys(word(words)));
    let operator = match word(words) {
        "=" => CompareOperator::Equal,
        ">" => CompareOperator::Greater,
        "<" => CompareOperator::Less,
        "!=" => CompareOperator::NotEqual,
        other => panic!("{other} is no operator"),
    };
    let given = word(words);
    let target = match what {
        "ver" => CompareTarget::Version(number(given)),
        "create" => CompareTarget::Create(number(given)),
        "mod" => CompareTarget::Mod(number(given)),
        "val" => CompareTarget::Value(b(given)),
        "lease" => CompareTarget::Lease(number(given)),
        "claim" => CompareTarget::Claim(number(given)),
        other => panic!("{other} cannot be compared"),
    };
    assert_eq!(word(words), ";");
    Compare { range, operator, target }
}

fn operation(words: &mut Words) -> Operation {
    match word(words) {
        "put" => Operation::Put(put(words)),
        "del" => Operation::Delete(delete(words)),
        "range" => Operation::Range(range(words)),
        "claim" => Operation::Claim(claim(words)),
        "release" => Operation::Release(claim(words)),
        "txn" => {
            let txn = txn(words);
            words.next_if(|word| *word == ";");
            Operation::Txn(txn)
        }
        other => panic!("{other} is no operation"),
    }
}

fn claim(words: &mut Words) -> Claim {
    let (name, holder) = (b(word(words)), b(word(words)));
    assert_eq!(word(words), ";");
    Claim { name, holder }
}

fn reply_text(reply: &Reply) -> String {
    let mut text = format!("rev={} ", reply.revision);
    match &reply.result {
        Err(why) => write!(text, "refused: {why:?}").unwrap(),
        Ok(Outcome::Put(put)) => text += &put_text(put),
        Ok(Outcome::Delete(gone)) => {
            writeln!(text, "deleted={}", gone.deleted).unwrap();
            gone.previous.iter().for_each(|kv| writeln!(text, "{}", kv_text(kv)).unwrap());
        }
        Ok(Outcome::Txn(txn)) => outcome_text(&OperationOutcome::Txn(txn.clone()), 0, &mut text),
        Ok(Outcome::Branch(outcome)) => branch_text(outcome, &mut text),
        Ok(Outcome::Members(members)) => {
            text.push('\n');
            text.extend(members.iter().map(member_text));
        }
        Ok(other) => write!(text, "{other:?}").unwrap(),
    }
    text
}

fn outcome_text(outcome: &OperationOutcome, depth: usize, text: &mut String) {
    let indented = |inner: String| {
        inner.trim_end().lines().map(|l| format!("{}{l}\n", "  ".repeat(depth))).collect::<String>()
    };
    match outcome {
        OperationOutcome::Range(found) => *text += &indented(found_text(found)),
        OperationOutcome::Put(put) => *text += &indented(put_text(put)),
        OperationOutcome::Delete(gone) => *text += &indented(format!("deleted={}", gone.deleted)),
        OperationOutcome::Txn(txn) => {
            *text += &indented(format!("succeeded={}", txn.succeeded));
            txn.responses.iter().for_each(|inner| outcome_text(inner, depth + 1, text));
        }
    }
}

fn put_text(put: &PutOutcome) -> String {
    match &put.previous {
        Some(kv) => format!("put, was {}", kv_text(kv)),
        None => String::from("put"),
    }
}

fn found_text(found: &RangeOutcome) -> String {
    let more = if found.more { " more" } else { "" };
    let mut text = format!("at={} count={}{more}\n", found.revision, found.count);
    found.kvs.iter().for_each(|kv| writeln!(text, "{}", kv_text(kv)).unwrap());
    text
}

fn kv_text(kv: &KeyValue) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease={}", kv.lease) };
    format!(
        "{}={} create={} mod={} version={}{lease}",
        text(&kv.key),
        text(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

fn event_text(event: &Event) -> String {
    match event {
        Event::Put(kv) => format!("put {}", kv_text(kv)),
        Event::Delete { key, revision } => {
            format!("del {} at {revision}", String::from_utf8_lossy(key))
        }
    }
}

fn member_text(member: &Member) -> String {
    let Member { id, name, peer_urls, client_urls, learner } = member;
    let learner = if *learner { " learner" } else { "" };
    format!("{id} {name} {peer_urls:?} {client_urls:?}{learner}\n")
}
