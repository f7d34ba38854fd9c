//! What can be set for a node, under etcd's names: on the command line, by variable, in a file.
//!
//! Invariant: one list of options serves all three, so that they cannot come apart. A flag
//! outranks its variable (clap sees to that), the variable outranks the file, the file the default.

use super::coordinator::Coordinator;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The arguments of `quorate start`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Read settings from this TOML file; its keys are the long flags without their dashes
    #[arg(long, env = "QUORATE_CONFIG_FILE", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Print the settings in force, in the form of such a file, and end
    #[arg(long)]
    pub print_config: bool,
    /// Stop when standard input ends: for whoever supervises this process
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
    #[command(flatten)]
    options: Options,
}

macro_rules! options {
    ($($(#[$meta:meta])* $name:ident: $type:ty, $long:literal, $env:literal, $default:expr;)*) => {
        /// What was set; nothing where it was not.
        #[derive(Args, Clone, Default, PartialEq, Debug, Deserialize, Serialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct Options {$(
            $(#[$meta])*
            #[arg(long = $long, env = $env)]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub $name: Option<$type>,
        )*}

        impl Options {
            /// These, and where they say nothing, `other`.
            fn or(self, other: Options) -> Options {
                Options { $($name: self.$name.or(other.$name),)* }
            }

            /// The defaults that do not depend on other settings.
            fn defaults() -> Options {
                Options { $($name: $default,)* }
            }
        }

        #[cfg(test)]
        const NAMES: &[(&str, &str)] = &[$(($long, $env),)*];
    };
}

options! {
    /// The node's name, for people and for --initial-cluster
    name: String, "name", "QUORATE_NAME", Some("default".into());
    /// Where its data is [default: <name>.quorate]
    data_dir: PathBuf, "data-dir", "QUORATE_DATA_DIR", None;
    /// Where clients are listened to, separated by commas
    listen_client_urls: String, "listen-client-urls", "QUORATE_LISTEN_CLIENT_URLS",
        Some("http://127.0.0.1:2379".into());
    /// Ports for clients of one keyspace: name=url,name=url,… Nobody has to name it there
    listen_keyspace_urls: String, "listen-keyspace-urls", "QUORATE_LISTEN_KEYSPACE_URLS", None;
    /// Where clients reach this node [default: --listen-client-urls]
    advertise_client_urls: String, "advertise-client-urls", "QUORATE_ADVERTISE_CLIENT_URLS", None;
    /// Where peers are listened to, separated by commas
    listen_peer_urls: String, "listen-peer-urls", "QUORATE_LISTEN_PEER_URLS",
        Some("http://127.0.0.1:2380".into());
    /// Where peers reach this node [default: --listen-peer-urls]
    initial_advertise_peer_urls: String, "initial-advertise-peer-urls",
        "QUORATE_INITIAL_ADVERTISE_PEER_URLS", None;
    /// The members at the beginning: name=url,name=url,… [default: this node alone]
    initial_cluster: String, "initial-cluster", "QUORATE_INITIAL_CLUSTER", None;
    /// `new` to found a cluster, `existing` to join one that runs
    initial_cluster_state: String, "initial-cluster-state", "QUORATE_INITIAL_CLUSTER_STATE",
        Some("new".into());
    /// Keeps clusters apart whose members have the same addresses
    initial_cluster_token: String, "initial-cluster-token", "QUORATE_INITIAL_CLUSTER_TOKEN",
        Some("quorate-cluster".into());
    /// A TOML file with the databases and HTTP services that can take part in transactions
    participants: PathBuf, "participants", "QUORATE_PARTICIPANTS", None;
    /// `raft` or `paxos` [default: as the data directory or the cluster to be joined says, or raft]
    protocol: String, "protocol", "QUORATE_PROTOCOL", None;
    /// `replicated` or `unreplicated`: who decides on the records of transactions, said by the
    /// member that makes them. Unreplicated, transactions block while one member is away
    coordinator: Coordinator, "coordinator", "QUORATE_COORDINATOR",
        Some(Coordinator::Replicated);
    /// A leader is silent for at most one and a quarter times this, in milliseconds (keyspaces made
    /// by request: five times)
    heartbeat_interval: u64, "heartbeat-interval", "QUORATE_HEARTBEAT_INTERVAL", Some(40);
    /// Followers wait one to one and a half times this for a leader, in milliseconds
    election_timeout: u64, "election-timeout", "QUORATE_ELECTION_TIMEOUT", Some(200);
    /// Applied entries kept in the log for followers that lag
    snapshot_count: u64, "snapshot-count", "QUORATE_SNAPSHOT_COUNT", Some(10_000);
    /// Bytes the keyspace may hold; 0 is 2 GiB
    quota_backend_bytes: u64, "quota-backend-bytes", "QUORATE_QUOTA_BACKEND_BYTES", Some(0);
    /// `periodic` or `revision`
    auto_compaction_mode: String, "auto-compaction-mode", "QUORATE_AUTO_COMPACTION_MODE",
        Some("periodic".into());
    /// How much history is kept: `5m`, hours as a bare number, or revisions; 0 keeps all
    auto_compaction_retention: String, "auto-compaction-retention",
        "QUORATE_AUTO_COMPACTION_RETENTION", Some("0".into());
    /// The largest request, in bytes
    max_request_bytes: u64, "max-request-bytes", "QUORATE_MAX_REQUEST_BYTES", Some(1536 * 1024);
    /// The most operations in a transaction
    max_txn_ops: u64, "max-txn-ops", "QUORATE_MAX_TXN_OPS", Some(128);
    /// The most streams of one connection
    max_concurrent_streams: u32, "max-concurrent-streams", "QUORATE_MAX_CONCURRENT_STREAMS",
        Some(1 << 20);
    /// How often a quiet watcher that asked for it is told the revision
    watch_progress_notify_interval: String, "watch-progress-notify-interval",
        "QUORATE_WATCH_PROGRESS_NOTIFY_INTERVAL", Some("10m".into());
    /// Read without a quorum round, trusting that clocks drift apart by less than so many parts
    /// per million; unset asks the quorum
    lease_clock_drift_ppm: u32, "lease-clock-drift-ppm", "QUORATE_LEASE_CLOCK_DRIFT_PPM", None;
    /// Kept for etcd's sake: pre-vote is always on
    pre_vote: bool, "pre-vote", "QUORATE_PRE_VOTE", Some(true);
    /// Kept for etcd's sake: changes of members are always checked
    strict_reconfig_check: bool, "strict-reconfig-check", "QUORATE_STRICT_RECONFIG_CHECK",
        Some(true);
    /// `error`, `warn`, `info`, `debug` or `trace`
    log_level: String, "log-level", "QUORATE_LOG_LEVEL", Some("info".into());
    /// `console` or `json`
    log_format: String, "log-format", "QUORATE_LOG_FORMAT", Some("console".into());
    /// Threads that serve clients [default: half as many as cores, 1 to 8]
    worker_threads: usize, "worker-threads", "QUORATE_WORKER_THREADS", None;
}

impl Arguments {
    /// The settings in force.
    pub fn resolved(&self) -> Result<Options, String> {
        let file = match &self.config_file {
            None => Options::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
                toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?
            }
        };
        Ok(self.options.clone().or(file).or(Options::defaults()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_outranks_what_comes_after() {
        let set = |name: &str| Options { name: Some(name.into()), ..Options::default() };
        let file: Options = toml::from_str("name = \"file\"\nelection-timeout = 7\n").unwrap();
        let merged = set("flag").or(file.clone()).or(Options::defaults());
        assert_eq!((merged.name.as_deref(), merged.election_timeout), (Some("flag"), Some(7)));
        let merged = Options::default().or(file).or(Options::defaults());
        assert_eq!((merged.name.as_deref(), merged.max_txn_ops), (Some("file"), Some(128)));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let error = toml::from_str::<Options>("election-timeuot = 7\n").unwrap_err();
        assert!(error.to_string().contains("election-timeuot"), "{error}");
    }

    #[test]
    fn variables_are_named_after_their_flags() {
        for (long, env) in NAMES {
            assert_eq!(*env, format!("QUORATE_{}", long.to_uppercase().replace('-', "_")));
        }
    }
}
