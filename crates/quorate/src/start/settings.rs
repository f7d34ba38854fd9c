//! Options, checked against each other and turned into what a node needs.

use super::compaction::Retention;
use super::coordinator::Coordinator;
use super::options::Options;
use super::urls;
use quorate_replicated_log::Protocol;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing_subscriber::filter::LevelFilter;

/// Everything a node is told.
#[derive(Debug)]
pub struct Settings {
    pub name: String,
    pub data_dir: PathBuf,
    pub listen_clients: Vec<SocketAddr>,
    /// Ports for clients of one keyspace.
    pub listen_keyspaces: Vec<(String, SocketAddr)>,
    pub client_urls: Vec<String>,
    pub listen_peers: Vec<SocketAddr>,
    pub peer_urls: Vec<String>,
    /// Names and peer URLs of the initial members.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    pub join: bool,
    pub token: String,
    pub protocol: Option<Protocol>,
    pub coordinator: Coordinator,
    pub heartbeat: Duration,
    pub election_timeout: Duration,
    pub snapshot_count: u64,
    pub quota_bytes: u64,
    pub retention: Retention,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    pub max_concurrent_streams: u32,
    pub progress_notify_interval: Duration,
    pub lease_clock_drift_ppm: Option<u32>,
    pub log_level: LevelFilter,
    pub log_json: bool,
    pub worker_threads: usize,
    /// Where the participants of transactions are configured.
    pub participants: Option<PathBuf>,
}

const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;
/// As etcd: longer than this is a mistake.
const LONGEST_ELECTION_MS: u64 = 50_000;

impl Settings {
    /// Checks and turns them.
    pub fn of(options: &Options) -> Result<Settings, String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let name = text(&options.name);
        if name.is_empty() || name.contains([',', '=']) {
            return Err("--name: it must not be empty nor contain `,` or `=`".to_owned());
        }
        let (heartbeat, election_timeout) = timing(options)?;
        let protocol = options.protocol.as_deref().map(str::parse::<Protocol>).transpose();
        let protocol = protocol.map_err(|e| format!("--protocol: {e}"))?;
        always("pre-vote", options.pre_vote)?;
        always("strict-reconfig-check", options.strict_reconfig_check)?;
        let listen_client = text(&options.listen_client_urls);
        let listen_peer = text(&options.listen_peer_urls);
        let listen_client_urls = urls::list("listen-client-urls", &listen_client)?;
        let listen_peer_urls = urls::list("listen-peer-urls", &listen_peer)?;
        let advertised = |flag: &str, set: &Option<String>, listen: &[String]| match set {
            Some(set) => urls::list(flag, set),
            None => Ok(listen.to_vec()),
        };
        let client_urls = advertised(
            "advertise-client-urls",
            &options.advertise_client_urls,
            &listen_client_urls,
        )?;
        let peer_urls = advertised(
            "initial-advertise-peer-urls",
            &options.initial_advertise_peer_urls,
            &listen_peer_urls,
        )?;
        let initial_cluster = initial_cluster(options, &name, &peer_urls)?;
        Ok(Settings {
            data_dir: options.data_dir.clone().unwrap_or_else(|| format!("{name}.quorate").into()),
            name,
            listen_clients: urls::addresses("listen-client-urls", &listen_client_urls)?,
            listen_keyspaces: urls::keyspaces(
                options.listen_keyspace_urls.as_deref().unwrap_or_default(),
            )?,
            client_urls,
            listen_peers: urls::addresses("listen-peer-urls", &listen_peer_urls)?,
            peer_urls,
            initial_cluster,
            join: joins(&text(&options.initial_cluster_state))?,
            token: text(&options.initial_cluster_token),
            protocol,
            coordinator: options.coordinator.unwrap_or_default(),
            heartbeat,
            election_timeout,
            snapshot_count: options.snapshot_count.unwrap_or_default().max(1),
            quota_bytes: match options.quota_backend_bytes.unwrap_or_default() {
                0 => DEFAULT_QUOTA_BYTES,
                bytes => bytes,
            },
            retention: Retention::parse(
                &text(&options.auto_compaction_mode),
                &text(&options.auto_compaction_retention),
            )?,
            max_request_bytes: sized("max-request-bytes", options.max_request_bytes, 1 << 30)?,
            max_txn_ops: sized("max-txn-ops", options.max_txn_ops, MAX_TXN_OPS)?,
            max_concurrent_streams: options.max_concurrent_streams.unwrap_or_default().max(1),
            progress_notify_interval: interval(
                "watch-progress-notify-interval",
                &text(&options.watch_progress_notify_interval),
            )?,
            lease_clock_drift_ppm: options.lease_clock_drift_ppm,
            log_level: level(&text(&options.log_level))?,
            log_json: json(&text(&options.log_format))?,
            participants: options.participants.clone(),
            worker_threads: options.worker_threads.unwrap_or_else(usual_threads).max(1),
        })
    }
}

fn timing(options: &Options) -> Result<(Duration, Duration), String> {
    let heartbeat = options.heartbeat_interval.unwrap_or_default();
    let election = options.election_timeout.unwrap_or_default();
    if heartbeat == 0 {
        return Err("--heartbeat-interval: must be at least 1 millisecond".to_owned());
    }
    if election < heartbeat.saturating_mul(5) {
        return Err(format!(
            "--election-timeout: {election} ms is less than five times the heartbeat interval \
             ({heartbeat} ms)"
        ));
    }
    if election > LONGEST_ELECTION_MS {
        return Err(format!("--election-timeout: must be at most {LONGEST_ELECTION_MS} ms"));
    }
    Ok((Duration::from_millis(heartbeat), Duration::from_millis(election)))
}

fn initial_cluster(
    options: &Options,
    name: &str,
    peer_urls: &[String],
) -> Result<Vec<(String, Vec<String>)>, String> {
    let Some(text) = &options.initial_cluster else {
        return Ok(vec![(name.to_owned(), peer_urls.to_vec())]);
    };
    let members = urls::members(text)?;
    let same = |a: &[String], b: &[String]| {
        let sorted = |urls: &[String]| {
            let mut urls: Vec<String> =
                urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
            urls.sort();
            urls
        };
        sorted(a) == sorted(b)
    };
    match members.iter().find(|(member, _)| member == name) {
        None => Err(format!("--initial-cluster: this node, `{name}`, is not in it")),
        Some((_, urls)) if !same(urls, peer_urls) => Err(format!(
            "--initial-cluster has {} for `{name}`, but --initial-advertise-peer-urls is {}",
            urls.join(","),
            peer_urls.join(",")
        )),
        Some(_) => Ok(members),
    }
}

fn joins(state: &str) -> Result<bool, String> {
    match state {
        "new" => Ok(false),
        "existing" => Ok(true),
        other => Err(format!("--initial-cluster-state: `{other}` is neither new nor existing")),
    }
}

fn always(flag: &str, value: Option<bool>) -> Result<(), String> {
    match value {
        Some(false) => Err(format!("--{flag}: it cannot be turned off")),
        _ => Ok(()),
    }
}

/// Operations of a transaction that its command can hold.
const MAX_TXN_OPS: u64 = 1 << 20;

fn sized(flag: &str, value: Option<u64>, most: u64) -> Result<usize, String> {
    let value = value.unwrap_or_default();
    match usize::try_from(value) {
        Ok(size) if size > 0 && value <= most => Ok(size),
        _ => Err(format!("--{flag}: must be between 1 and {most}")),
    }
}

/// How often a watch stream with nothing to tell says so.
fn interval(flag: &str, text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err(format!("--{flag}: must be longer than nothing")),
        parsed => parsed.map_err(|e| format!("--{flag}: {e}")),
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        other => Err(format!("--log-level: there is no level `{other}`")),
    }
}

fn json(text: &str) -> Result<bool, String> {
    match text {
        "console" => Ok(false),
        "json" => Ok(true),
        other => Err(format!("--log-format: `{other}` is neither console nor json")),
    }
}

/// Half of the processors serve clients: the driver, the log and the services have threads of their
/// own. Fewer threads answer more requests with one system call.
fn usual_threads() -> usize {
    (std::thread::available_parallelism().map_or(2, usize::from) / 2).clamp(1, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        // What the defaults are is the business of `options`; here they are written out.
        let defaults = "listen-client-urls = \"http://127.0.0.1:2379\"\n\
             listen-peer-urls = \"http://127.0.0.1:2380\"\ninitial-cluster-state = \"new\"\n\
             auto-compaction-mode = \"periodic\"\nauto-compaction-retention = \"0\"\n\
             watch-progress-notify-interval = \"10m\"\nlog-level = \"info\"\n\
             log-format = \"console\"\nmax-request-bytes = 1000\nmax-txn-ops = 128\n";
        let mut table: toml::Table = defaults.parse().unwrap();
        table.extend(
            "name = \"a\"\nheartbeat-interval = 40\nelection-timeout = 200"
                .parse::<toml::Table>()
                .unwrap(),
        );
        table.extend(text.parse::<toml::Table>().unwrap());
        table.try_into().unwrap()
    }

    #[test]
    fn the_little_that_is_needed_is_enough() {
        let settings = Settings::of(&options("")).unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("a.quorate"));
        assert_eq!(settings.client_urls, ["http://127.0.0.1:2379"]);
        assert_eq!(settings.initial_cluster.len(), 1);
        assert_eq!(settings.quota_bytes, DEFAULT_QUOTA_BYTES);
        assert!(!settings.join);
    }

    #[test]
    fn contradictions_are_named_after_their_flag() {
        for (text, flag) in [
            ("name = \"a=b\"", "--name"),
            ("election-timeout = 100", "--election-timeout"),
            ("election-timeout = 60000", "--election-timeout"),
            ("heartbeat-interval = 0", "--heartbeat-interval"),
            ("pre-vote = false", "--pre-vote"),
            ("initial-cluster = \"b=http://b:1\"", "--initial-cluster"),
            ("initial-cluster = \"a=http://b:1\"", "--initial-cluster"),
            ("initial-cluster-state = \"old\"", "--initial-cluster-state"),
            ("listen-peer-urls = \"https://a:1\"", "--listen-peer-urls"),
            ("max-txn-ops = 0", "--max-txn-ops"),
            ("max-txn-ops = 1048577", "--max-txn-ops"),
            ("watch-progress-notify-interval = \"0s\"", "--watch-progress-notify-interval"),
            ("log-level = \"loud\"", "--log-level"),
        ] {
            let error = Settings::of(&options(text)).unwrap_err();
            assert!(error.starts_with(flag), "{text}: {error}");
        }
    }

    #[test]
    fn milliseconds_are_milliseconds() {
        let settings = Settings::of(&options("heartbeat-interval = 100\nelection-timeout = 1000"));
        let settings = settings.unwrap();
        assert_eq!(settings.heartbeat, Duration::from_millis(100));
        assert_eq!(settings.election_timeout, Duration::from_secs(1));
    }
}
