//! `testdata/*.txt`: what is done to replicas, and all that they do, in words.
//!
//! A line that starts with `> ` is a command; the lines after it, up to the next command or an
//! empty line, are what it must print. Lines that start with `#` explain. `UPDATE=1` writes what is
//! printed now into the files: read the difference before believing it. The commands are listed in
//! `testdata/README.md`.

use crate::lab::{Lab, Options};
use quorate_base::NodeId;
use quorate_replicated_log::{Change, Limits};
use std::path::PathBuf;
use std::time::Duration;

/// The files, in order of name.
pub fn files() -> Vec<PathBuf> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let entries = std::fs::read_dir(dir).expect("testdata is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    files.sort();
    files
}

/// The file as it should be: its commands and comments, and what the commands print now.
pub fn replay(text: &str) -> String {
    let mut lab = None;
    let mut result = String::new();
    let mut in_output = false;
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            result.push_str(line);
            result.push('\n');
            result.push_str(&run(&mut lab, command));
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

fn run(lab: &mut Option<Lab>, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    if let ["nodes", n, options @ ..] = &words[..] {
        *lab = Some(Lab::new(parse_options(n, options)));
        return String::new();
    }
    let lab = lab.as_mut().expect("the first command is `nodes`");
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
        let (name, value) = option.split_once('=').expect("name=value");
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

#[test]
fn transcripts_say_what_happens() {
    let update = std::env::var_os("UPDATE").is_some();
    let files = files();
    assert!(files.len() >= 10, "the transcripts are there");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let now = replay(&text);
        if update {
            std::fs::write(&path, &now).unwrap();
        } else if now != text {
            let at = now.lines().zip(text.lines()).take_while(|(a, b)| a == b).count();
            let line = |of: &str| of.lines().nth(at).unwrap_or("the end").to_owned();
            let (now, then) = (line(&now), line(&text));
            panic!("{}:{}: printed\n  {now}\nexpected\n  {then}", path.display(), at + 1);
        }
    }
}
