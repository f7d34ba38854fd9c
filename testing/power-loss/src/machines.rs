//! Real nodes, each on a disk whose power can be cut.

use crate::disk::{Loss, Settings};
use crate::machine::PoweredDisk;
use quorate_end_to_end::{Cluster, Node};
use rustix::process::Signal;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What runs on the machines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// Quorate, with this `--protocol`.
    Quorate(String),
    /// etcd, for comparison: where it is.
    Etcd(PathBuf),
}

impl Server {
    /// Flags beside a node's own: little history and a short log, so that both are cut off often.
    fn arguments(&self) -> Vec<&str> {
        let mut all = vec!["--snapshot-count", "1000"];
        all.extend(["--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000"]);
        if let Server::Quorate(protocol) = self {
            all.extend(["--protocol", protocol]);
        }
        all
    }
}

/// A cluster, and the disks of its nodes. Fields are dropped in order: who uses a disk goes first.
pub struct Machines {
    /// The nodes.
    pub cluster: Cluster,
    /// Their disks.
    pub disks: Vec<PoweredDisk>,
    _places: TempDir,
}

impl Machines {
    /// Starts `n` nodes, each on a new disk.
    ///
    /// # Errors
    /// If a disk cannot be mounted.
    pub fn start(n: u16, server: &Server, settings: &Settings) -> io::Result<Machines> {
        let places = tempfile::tempdir()?;
        let mut cluster = Cluster::prepare(n, &server.arguments());
        let mut disks = Vec::new();
        for (i, node) in cluster.nodes.iter_mut().enumerate() {
            let place = places.path().join(&node.name);
            std::fs::create_dir(&place)?;
            let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(i as u64);
            disks.push(PoweredDisk::mount(&place, Settings { seed, ..settings.clone() })?);
            node.data_dir = place.join("data");
            if let Server::Etcd(path) = server {
                node.instead = Some(path.clone());
            }
        }
        let mut machines = Machines { cluster, disks, _places: places };
        let arguments: Vec<String> =
            machines.cluster.arguments().into_iter().map(str::to_owned).collect();
        for node in &mut machines.cluster.nodes {
            node.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        }
        machines.cluster.settled();
        Ok(machines)
    }

    /// Cuts the power of these machines, of all at the same moment.
    ///
    /// # Panics
    /// If something still uses a disk ten seconds later.
    pub fn cut(&mut self, which: &[usize]) {
        for &i in which {
            self.disks[i].freeze();
        }
        for &i in which {
            if self.cluster.nodes[i].runs() {
                self.cluster.nodes[i].signal(Signal::KILL);
            }
        }
        for &i in which {
            self.disks[i].let_go();
            self.cluster.nodes[i].kill();
            self.disks[i].power_off().unwrap();
        }
    }

    /// Gives these machines their power back, and starts their nodes.
    ///
    /// # Panics
    /// If a disk cannot be mounted again.
    pub fn restore(&mut self, which: &[usize]) {
        for &i in which {
            self.disks[i].power_on().unwrap();
            self.cluster.nodes[i].start_again();
        }
    }

    /// Nodes that ended though nobody ended them, each with the end of its log.
    pub fn ended(&mut self) -> Vec<String> {
        let nodes = self.cluster.nodes.iter_mut();
        nodes
            .filter_map(|node| {
                (!node.runs()).then(|| format!("{} ended: {}", node.name, end(node)))
            })
            .collect()
    }

    /// Copies every disk, and what every node logged, to a directory to look into.
    ///
    /// # Errors
    /// If something cannot be read or written.
    pub fn keep(&self, directory: &Path) -> io::Result<()> {
        for (node, disk) in self.cluster.nodes.iter().zip(&self.disks) {
            let to = directory.join(&node.name);
            copy(disk.mountpoint(), &to)?;
            std::fs::write(to.join("output.txt"), node.log())?;
        }
        Ok(())
    }

    /// What all power failures did.
    pub fn loss(&self) -> Loss {
        let mut all = Loss::default();
        self.disks.iter().for_each(|disk| all += disk.loss());
        all
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name()))?,
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name()))?),
        }
    }
    Ok(())
}

fn end(node: &Node) -> String {
    let log = node.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
