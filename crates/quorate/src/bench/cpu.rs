//! CPU seconds of processes, as the kernel counts them (`/proc/<pid>/stat`, Linux only).

use super::Arguments;
use crate::up::state::State;
use quorate_client::Endpoint;

/// CPU seconds of a process since it began, in user and kernel mode; nothing where unknown.
pub fn seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = ticks(&stat)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Fields 14 and 15; the second is the program's name in parentheses, and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

/// CPU seconds of all; nothing if one is unknown.
pub fn total(pids: &[u32]) -> Option<f64> {
    if pids.is_empty() {
        return None;
    }
    pids.iter().map(|pid| seconds(*pid)).sum()
}

/// The processes behind the endpoints: as they were given, or as `quorate up` noted them.
pub fn servers(arguments: &Arguments, endpoints: &[Endpoint]) -> Vec<u32> {
    if !arguments.server_pids.is_empty() {
        return arguments.server_pids.clone();
    }
    let Some(state) = State::read(&arguments.up_data) else { return Vec::new() };
    let asked = |client: &str| endpoints.iter().any(|e| e.to_string() == client);
    // Another cluster's CPU time would be a wrong answer, which is worse than none.
    match state.nodes.iter().any(|node| asked(&node.client)) {
        true => state.nodes.iter().filter_map(|node| node.pid).collect(),
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194304 1 2 3 4 150 25 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_uses_some_time() {
        assert!(seconds(std::process::id()).is_some());
        assert_eq!(total(&[]), None);
    }
}
