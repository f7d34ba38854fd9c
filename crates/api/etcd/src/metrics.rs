//! What `/metrics` tells: etcd's names where the meaning is the same, `quorate_` ones elsewhere.
//!
//! Invariant: on the hot path a metric costs one relaxed atomic addition; gauges are read from the
//! backend only when somebody asks.

use crate::backend::{Backend, Identity};
use crate::node::Node;
use crate::options::{CLUSTER_VERSION, SERVER_VERSION};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tonic::Code;

type Labels = Vec<(&'static str, String)>;

/// The counters of the API.
#[derive(Default)]
pub(crate) struct Metrics {
    puts: Counter,
    ranges: Counter,
    deletes: Counter,
    txns: Counter,
    events: Counter,
    history_reads: Counter,
    watch_streams: Gauge,
    leases_granted: Counter,
    leases_revoked: Counter,
    leases_renewed: Counter,
    proposals_failed: Counter,
    proposals_pending: AtomicI64,
    leader_changes: Counter,
    health_success: Counter,
    health_failures: Counter,
    handled_ok: Counter,
    handled: Family<Labels, Counter>,
    received_bytes: Counter,
    sent_bytes: Counter,
    connections: Gauge,
    identity: Identity,
}

/// A proposal under way.
pub(crate) struct Pending<'a>(&'a Metrics);

impl Pending<'_> {
    pub fn failed(self) {
        self.0.proposals_failed.inc();
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.proposals_pending.fetch_sub(1, Ordering::Relaxed);
    }
}

macro_rules! increments {
    ($($method:ident => $counter:ident),*) => {
        $(pub fn $method(&self) { self.$counter.inc(); })*
    };
}

impl Metrics {
    pub fn new(identity: Identity) -> Metrics {
        Metrics { identity, ..Metrics::default() }
    }

    increments! {
        put => puts, range => ranges, delete => deletes, txn => txns,
        history_read => history_reads, lease_granted => leases_granted,
        lease_revoked => leases_revoked, lease_renewed => leases_renewed,
        leader_changed => leader_changes, watch_stream_opened => watch_streams,
        connection_opened => connections
    }

    pub fn watch_stream_closed(&self) {
        self.watch_streams.dec();
    }

    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    pub fn events(&self, count: usize) {
        self.events.inc_by(count as u64);
    }

    pub fn proposal(&self) -> Pending<'_> {
        self.proposals_pending.fetch_add(1, Ordering::Relaxed);
        Pending(self)
    }

    pub fn health(&self, healthy: bool) {
        if healthy {
            self.health_success.inc()
        } else {
            self.health_failures.inc()
        };
    }

    /// A unary call was answered.
    pub fn handled(&self, path: &str, code: Code, received: usize, sent: usize) {
        self.received_bytes.inc_by(received as u64);
        self.sent_bytes.inc_by(sent as u64);
        if code == Code::Ok {
            self.handled_ok.inc();
            return;
        }
        let (service, method) =
            path.trim_start_matches('/').split_once('/').unwrap_or(("unknown", "unknown"));
        let labels = vec![
            ("grpc_service", service.to_owned()),
            ("grpc_method", method.to_owned()),
            ("grpc_code", format!("{code:?}")),
        ];
        self.handled.get_or_create(&labels).inc();
    }
}

/// A figure that somebody else tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Measure {
    /// What it is called; a counter without `_total`, which the encoder adds.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// How much it is now.
    pub value: u64,
    /// Whether it only ever grows, while the node lives.
    pub counts_up: bool,
}

/// Tells figures when somebody asks for them.
#[derive(Clone)]
pub struct Measures(Arc<dyn Fn() -> Vec<Measure> + Send + Sync>);

impl Measures {
    /// Told by this.
    pub fn new(tell: impl Fn() -> Vec<Measure> + Send + Sync + 'static) -> Measures {
        Measures(Arc::new(tell))
    }

    fn register(&self, registry: &mut Registry) {
        for Measure { name, help, value, counts_up } in (self.0)() {
            if counts_up {
                let counter: Counter = Counter::default();
                counter.inc_by(value);
                registry.register(name, help, counter);
            } else {
                let gauge: Gauge = Gauge::default();
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
                registry.register(name, help, gauge);
            }
        }
    }
}

impl std::fmt::Debug for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Measures")
    }
}

/// The text of `/metrics`.
pub(crate) fn text<B: Backend>(node: &Node<B>) -> String {
    let mut registry = Registry::default();
    counters(&node.metrics, &mut registry);
    gauges(node, &mut registry);
    if let Some(measures) = &node.options.measures {
        measures.register(&mut registry);
    }
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Counters are registered without `_total`, which the encoder adds.
fn counters(metrics: &Metrics, registry: &mut Registry) {
    let list: [(&str, &str, &Counter); 16] = [
        ("etcd_mvcc_put", "Puts asked for through this member", &metrics.puts),
        ("etcd_mvcc_range", "Ranges answered by this member", &metrics.ranges),
        ("etcd_mvcc_delete", "Deletes asked for through this member", &metrics.deletes),
        ("etcd_mvcc_txn", "Transactions asked for through this member", &metrics.txns),
        ("etcd_debugging_mvcc_events", "Events sent to watchers", &metrics.events),
        (
            "quorate_watch_history_reads",
            "Pieces of history read for watchers",
            &metrics.history_reads,
        ),
        ("etcd_debugging_lease_granted", "Leases granted here", &metrics.leases_granted),
        ("etcd_debugging_lease_revoked", "Leases revoked here", &metrics.leases_revoked),
        ("etcd_debugging_lease_renewed", "Keep-alives answered here", &metrics.leases_renewed),
        ("etcd_server_proposals_failed", "Proposals that failed", &metrics.proposals_failed),
        ("etcd_server_leader_changes_seen", "Leaders seen", &metrics.leader_changes),
        ("etcd_server_health_success", "Health checks passed", &metrics.health_success),
        ("etcd_server_health_failures", "Health checks failed", &metrics.health_failures),
        ("quorate_grpc_unary_ok", "Unary calls answered with OK", &metrics.handled_ok),
        (
            "etcd_network_client_grpc_received_bytes",
            "Bytes of unary requests",
            &metrics.received_bytes,
        ),
        ("etcd_network_client_grpc_sent_bytes", "Bytes of unary answers", &metrics.sent_bytes),
    ];
    for (name, help, counter) in list {
        registry.register(name, help, counter.clone());
    }
    registry.register(
        "grpc_server_handled",
        "Unary calls answered with an error",
        metrics.handled.clone(),
    );
}

fn gauges<B: Backend>(node: &Node<B>, registry: &mut Registry) {
    let (consensus, storage) = (node.backend.consensus(), node.backend.storage());
    let identity = node.metrics.identity;
    let leads = !consensus.leader.is_none() && consensus.leader == identity.member;
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (watchers, behind) = node.hub.counts();
    let (reader, sizes) = (node.backend.reader(), node.backend.reader().sizes());
    let list: [(&str, &str, i64); 19] = [
        (
            "etcd_server_has_leader",
            "Whether somebody leads",
            i64::from(!consensus.leader.is_none()),
        ),
        ("etcd_server_is_leader", "Whether this member leads", i64::from(leads)),
        ("etcd_server_is_learner", "Whether it is a learner", i64::from(consensus.is_learner)),
        ("etcd_server_proposals_committed_total", "Committed index", number(consensus.commit)),
        ("etcd_server_proposals_applied_total", "Applied index", number(consensus.applied)),
        (
            "etcd_server_proposals_pending",
            "Proposals under way",
            node.metrics.proposals_pending.load(Ordering::Relaxed),
        ),
        ("etcd_server_quota_backend_bytes", "Allowed storage", number(storage.quota)),
        ("etcd_mvcc_db_total_size_in_bytes", "Storage used on disk", number(storage.size)),
        ("etcd_mvcc_db_total_size_in_use_in_bytes", "Of that, in use", number(sizes.logical_bytes)),
        ("etcd_debugging_mvcc_keys_total", "Keys there are", number(sizes.keys)),
        (
            "etcd_debugging_mvcc_current_revision",
            "Revision of the store",
            number(reader.revision()),
        ),
        (
            "etcd_debugging_mvcc_compact_revision",
            "Compacted up to here",
            number(reader.compacted_revision()),
        ),
        ("etcd_debugging_mvcc_watcher_total", "Watchers", number(watchers as u64)),
        ("etcd_debugging_mvcc_slow_watcher_total", "Watchers behind", number(behind as u64)),
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "Watch streams",
            node.metrics.watch_streams.get(),
        ),
        ("quorate_client_connections", "Open connections", node.metrics.connections.get()),
        ("quorate_raft_term", "The term", number(consensus.term)),
        ("quorate_leases", "Leases there are", number(reader.leases().len() as u64)),
        (
            "quorate_alarms",
            "Alarms about members' stores, which are full or corrupt",
            number(reader.alarms().len() as u64),
        ),
    ];
    for (name, help, value) in list {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    let infos: [(&str, &str, (&'static str, String)); 3] = [
        ("etcd_server_id", "Id of the member", ("server_id", format!("{}", identity.member))),
        ("etcd_server_version", "Version served", ("server_version", SERVER_VERSION.to_owned())),
        ("etcd_cluster_version", "Version agreed", ("cluster_version", CLUSTER_VERSION.to_owned())),
    ];
    for (name, help, label) in infos {
        let family: Family<Labels, Gauge> = Family::default();
        family.get_or_create(&vec![label]).set(1);
        registry.register(name, help, family);
    }
}
