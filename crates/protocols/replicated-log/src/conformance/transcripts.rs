//! Transcripts: what is done to replicas, and all that they do, in words.
//!
//! A line that starts with `> ` is a command; the lines after it, up to the next command or an
//! empty line, are what it must print. Lines that start with `#` explain. The commands are listed
//! in `docs/transcripts.md`. Where the texts are kept, and how they are written anew, is the
//! business of whoever replays them: nothing here opens a file.

use super::cluster::Factory;
use super::lab::{Lab, Options};
use crate::{Change, Limits, Protocol};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use quorate_base::NodeId;

/// The file as it should be: its commands and comments, and what the commands print now.
///
/// # Panics
/// If the text is none of that, or a replica breaks what holds for all of them.
pub fn replay(factory: Factory, text: &str) -> String {
    let mut lab = None;
    let mut result = String::new();
    let mut in_output = false;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            result.push_str(line);
            result.push('\n');
            result.push_str(&run(factory, &mut lab, command));
            in_output = true;
        } else if line.is_empty() || line.starts_with('#') {
            result.push_str(line);
            result.push('\n');
            in_output = false;
        } else {
            assert!(in_output, "neither a command nor its output: {line}");
        }
    }
    result
}

fn run(factory: Factory, lab: &mut Option<Lab>, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["nodes", n, options @ ..] = &words[..] {
        *lab = Some(Lab::new(factory, parse_options(n, options)));
        return String::new();
    }
    let Some(lab) = lab else { panic!("the first command is `nodes`, not {command}") };
    let (quietly, words) = match words.split_first() {
        Some((&"quietly", rest)) => (true, rest),
        _ => (false, &words[..]),
    };
    obey(lab, words);
    let output = lab.take_output();
    if quietly { String::new() } else { output }
}

fn parse_options(nodes: &str, options: &[&str]) -> Options {
    let nodes = number(nodes);
    let limits = Limits::default();
    let (lease_clock_drift_ppm, volatile, no_pulls) = (None, false, false);
    let voters = nodes;
    let mut parsed = Options { nodes, voters, lease_clock_drift_ppm, limits, volatile, no_pulls };
    for option in options {
        if *option == "volatile" {
            parsed.volatile = true;
            continue;
        }
        if *option == "no-pulls" {
            parsed.no_pulls = true;
            continue;
        }
        let (name, value) = option.split_once('=').unwrap_or((*option, "1"));
        let size = number(value) as usize;
        match name {
            "voters" => parsed.voters = number(value),
            "lease" => parsed.lease_clock_drift_ppm = Some(size as u32),
            "append_bytes" => parsed.limits.append_bytes = size,
            "inflight" => parsed.limits.inflight_messages = size,
            "uncommitted_bytes" => parsed.limits.uncommitted_bytes = size,
            _ => panic!("unknown option {name}"),
        }
    }
    parsed
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn parse_protocol(word: &str) -> Protocol {
    word.parse().unwrap_or_else(|wrong| panic!("{word}: {wrong}"))
}

/// `judged N`: whoever asks had applied N entries when the change made sense; else all there are.
fn parse_change(name: &str, node: NodeId, judged: &[&str]) -> (Change, u64) {
    let change = match name {
        "add-voter" => Change::AddVoter(node),
        "add-learner" => Change::AddLearner(node),
        "promote" => Change::Promote(node),
        _ => Change::Remove(node),
    };
    match judged {
        ["judged", index] => (change, number(index)),
        _ => (change, u64::MAX),
    }
}

fn obey(lab: &mut Lab, words: &[&str]) {
    let n = |word: &&str| number(word);
    match words {
        ["settle"] => lab.settle(),
        ["wait", time] => lab.wait(Duration::from_millis(number(time.trim_end_matches("ms")))),
        ["run", time] => {
            lab.run(Duration::from_millis(number(time.trim_end_matches("ms"))), None);
        }
        ["due", id] => lab.due(n(id)),
        ["timeout", id] => lab.timeout(n(id)),
        ["write", id] => lab.write(n(id)),
        ["stall", id] => lab.stall(n(id), true),
        ["unstall", id] => lab.stall(n(id), false),
        ["cut", a, b] => lab.cut(n(a), n(b)),
        ["join"] => lab.join(),
        ["deliver", from, to] => lab.deliver(n(from), n(to)),
        ["deliver", name] => lab.deliver_kept(name),
        ["keep", from, to, "as", name] => lab.keep(n(from), n(to), name),
        ["lose"] => lab.lose(None),
        ["lose", from, to] => lab.lose(Some((n(from), n(to)))),
        ["crash", id] => lab.crash(n(id)),
        ["start", id] => lab.start(n(id)),
        ["wipe", id] => lab.wipe(n(id)),
        ["damage", id, from, to] => lab.damage(n(id), n(from), n(to)),
        ["unreadable", id, from, to] => lab.unreadable(n(id), n(from), n(to)),
        ["propose", id, commands @ ..] => lab.propose(n(id), commands),
        ["read", id, read] => lab.read(n(id), n(read)),
        ["add-voter" | "add-learner" | "promote" | "remove", id, node, judged @ ..] => {
            let (change, judged) = parse_change(words[0], NodeId(n(node)), judged);
            lab.change(n(id), change, judged);
        }
        ["seal", id, protocol] => lab.seal(n(id), parse_protocol(protocol)),
        ["transfer", id, to] => lab.transfer(n(id), n(to)),
        ["peer-lost", id, peer] => lab.peer_lost(n(id), n(peer)),
        ["compact", id, index] => lab.compact(n(id), n(index)),
        ["snapshot", from, to] => lab.snapshot(n(from), n(to), true),
        ["snapshot-fails", from, to] => lab.snapshot(n(from), n(to), false),
        ["status"] => (1..=lab.len()).for_each(|id| lab.status(id)),
        ["status", id] => lab.status(n(id)),
        ["disk", id] => lab.show_disk(n(id)),
        _ => panic!("unknown command {words:?}"),
    }
}

/// The first line in which two transcripts differ, in words, if there is one.
pub fn difference(now: &str, then: &str) -> Option<String> {
    if now == then {
        return None;
    }
    let at = now.lines().zip(then.lines()).take_while(|(a, b)| a == b).count();
    let line = |of: &str| of.lines().nth(at).unwrap_or("the end").to_owned();
    let (now, then) = (line(now), line(then));
    Some(format!("line {}: printed\n  {now}\nexpected\n  {then}", at + 1))
}
