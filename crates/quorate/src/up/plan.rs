//! Which nodes there are and where: decided at the first `up` and kept in the data directory, for
//! the nodes remember each other's addresses.

use super::Arguments;
use crate::exit::Failure;
use crate::start::Coordinator;
use quorate_replicated_log::Protocol;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const FILE: &str = "cluster.toml";
const LOCK: &str = "up.lock";
const DEFAULT_NODES: u16 = 3;
const DEFAULT_PORT: u16 = 2379;

/// What the first `up` decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub nodes: u16,
    pub port: u16,
    /// How the log is replicated.
    #[serde(with = "protocol_name", default)]
    pub protocol: Protocol,
    /// Who decides on the records of transactions.
    #[serde(default)]
    pub coordinator: Coordinator,
}

/// A protocol is kept by its name.
mod protocol_name {
    use quorate_replicated_log::Protocol;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(protocol: &Protocol, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(protocol.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// One node of the plan.
#[derive(Clone, Debug)]
pub struct Seat {
    pub name: String,
    pub protocol: Protocol,
    pub coordinator: Coordinator,
    pub client: String,
    pub peer: String,
    pub data_dir: PathBuf,
    pub log_file: PathBuf,
}

/// Held as long as this process supervises the directory.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "dropping it unlocks")] File);

/// Locks the directory, making it if it is not there.
pub fn lock(data: &Path) -> Result<Lock, Failure> {
    let machine = |e: std::io::Error| Failure::Machine(format!("{}: {e}", data.display()));
    std::fs::create_dir_all(data).map_err(machine)?;
    let file = File::create(data.join(LOCK)).map_err(machine)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Failure::Machine(format!(
            "the data directory {} is in use by another `quorate up`",
            data.display()
        ))),
        Err(TryLockError::Error(error)) => Err(machine(error)),
    }
}

impl Plan {
    /// The plan that the directory has, or a new one; the arguments must not contradict it.
    pub fn establish(arguments: &Arguments) -> Result<Plan, Failure> {
        let path = arguments.data.join(FILE);
        let machine = |e: std::io::Error| Failure::Machine(format!("{}: {e}", path.display()));
        let plan = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str::<Plan>(&text).map_err(|e| {
                Failure::Machine(format!("{} is damaged: {}", path.display(), e.message()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let plan = Plan {
                    nodes: arguments.nodes.unwrap_or(DEFAULT_NODES),
                    port: arguments.port.unwrap_or(DEFAULT_PORT),
                    protocol: arguments.protocol.unwrap_or_default(),
                    coordinator: arguments.coordinator.unwrap_or_default(),
                };
                // Ports are looked at first: a plan that cannot work should not be remembered.
                plan.check_ports()?;
                let text = toml::to_string(&plan).map_err(|e| Failure::Failed(e.to_string()))?;
                let draft = path.with_extension("new");
                let mut file = File::create(&draft).map_err(machine)?;
                file.write_all(text.as_bytes()).map_err(machine)?;
                file.sync_all().map_err(machine)?;
                std::fs::rename(&draft, &path).map_err(machine)?;
                return Ok(plan);
            }
            Err(error) => return Err(machine(error)),
        };
        let contradicts = |flag: &str, wanted: Option<String>, has: String| match wanted {
            Some(wanted) if wanted != has => Err(Failure::Usage(format!(
                "--{flag} {wanted}: the cluster in {} was made with {has}; leave the flag away, or \
                 give another --data",
                arguments.data.display()
            ))),
            _ => Ok(()),
        };
        contradicts("nodes", arguments.nodes.map(|n| n.to_string()), plan.nodes.to_string())?;
        contradicts("port", arguments.port.map(|n| n.to_string()), plan.port.to_string())?;
        let wanted = arguments.protocol.map(|p| p.to_string());
        contradicts("protocol", wanted, plan.protocol.to_string())?;
        let wanted = arguments.coordinator.map(|it| it.name().to_owned());
        contradicts("coordinator", wanted, plan.coordinator.name().to_owned())?;
        plan.check_ports()?;
        Ok(plan)
    }

    /// The client port and the peer port of each node.
    fn ports(self) -> impl Iterator<Item = (u16, u16)> {
        (0..self.nodes).map(move |i| (self.port + 2 * i, self.port + 2 * i + 1))
    }

    fn check_ports(self) -> Result<(), Failure> {
        for port in self.ports().flat_map(|(client, peer)| [client, peer]) {
            if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                let last = self.port + 2 * self.nodes - 1;
                return Err(Failure::Machine(format!(
                    "port {port} is taken ({error}): the cluster needs {} to {last}; choose \
                     others with --port, and for another cluster another --data",
                    self.port
                )));
            }
        }
        Ok(())
    }

    /// The nodes.
    pub fn seats(self, data: &Path) -> Vec<Seat> {
        let seat = |(i, (client, peer))| {
            let name = format!("node{}", i + 1);
            Seat {
                protocol: self.protocol,
                coordinator: self.coordinator,
                client: format!("127.0.0.1:{client}"),
                peer: format!("127.0.0.1:{peer}"),
                data_dir: data.join(&name),
                log_file: data.join(format!("{name}.log")),
                name,
            }
        };
        self.ports().enumerate().map(seat).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(data: &Path, nodes: Option<u16>, port: Option<u16>) -> Arguments {
        Arguments {
            nodes,
            data: data.to_path_buf(),
            port,
            protocol: None,
            coordinator: None,
            restart: false,
        }
    }

    /// A port with free ones after it, as likely as not.
    fn port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().min(60_000)
    }

    #[test]
    fn the_first_plan_is_kept() {
        let data = tempfile::tempdir().unwrap();
        let first = Plan::establish(&arguments(data.path(), Some(2), Some(port()))).unwrap();
        assert_eq!(Plan::establish(&arguments(data.path(), None, None)).unwrap(), first);
        let other = Plan::establish(&arguments(data.path(), Some(3), None)).unwrap_err();
        assert!(other.to_string().contains("was made with 2"), "{other}");
        let coordinator = Some(Coordinator::Unreplicated);
        let other = Arguments { coordinator, ..arguments(data.path(), None, None) };
        let other = Plan::establish(&other).unwrap_err();
        assert!(other.to_string().contains("was made with replicated"), "{other}");
    }

    #[test]
    fn a_plan_of_an_earlier_version_is_read() {
        let plan: Plan = toml::from_str("nodes = 3\nport = 2379\n").unwrap();
        assert_eq!((plan.protocol, plan.coordinator), Default::default());
    }

    #[test]
    fn a_taken_port_is_named() {
        let data = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Plan::establish(&arguments(data.path(), Some(1), Some(port))).unwrap_err();
        assert!(error.to_string().contains(&format!("port {port} is taken")), "{error}");
        assert!(!data.path().join(FILE).exists(), "a plan that cannot work is not remembered");
    }

    #[test]
    fn one_supervisor_for_a_directory() {
        let data = tempfile::tempdir().unwrap();
        let held = lock(data.path()).unwrap();
        assert!(lock(data.path()).unwrap_err().to_string().contains("in use"));
        drop(held);
        lock(data.path()).unwrap();
    }

    #[test]
    fn every_node_has_two_ports() {
        let plan = Plan {
            nodes: 2,
            port: 100,
            protocol: Protocol::Raft,
            coordinator: Coordinator::Replicated,
        };
        let seats = plan.seats(Path::new("d"));
        let addresses: Vec<_> = seats.iter().flat_map(|s| [&s.client, &s.peer]).collect();
        assert_eq!(addresses, ["127.0.0.1:100", "127.0.0.1:101", "127.0.0.1:102", "127.0.0.1:103"]);
    }
}
