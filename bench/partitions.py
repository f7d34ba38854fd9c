#!/usr/bin/env python3
"""Quorate beside etcd under partial partitions: real processes, each in a namespace of its own.

    bench/partitions.py --quorate target/release/quorate --etcd /usr/bin/etcd --etcd ~/etcd-3.6/etcd

Needs root, `ip`, `nft` and `etcdctl`. Everything that it makes (namespaces, a bridge, links, rules)
has its own names, lives in namespaces of its own, and is removed at the end; no packet leaves them.
Links are cut by nftables rules at the receiver, one direction at a time. Clients sit at the bridge
and reach every node all the time.

A case runs for --seconds under a closed loop of writes through all nodes. The figure is the longest
time without one successful write after the links were cut, in election timeouts (of --election-ms,
the same for all servers), as median and worst of --repetitions.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SUBNET = "10.213.77"
CLIENT_PORT, PEER_PORT = 2379, 2380
# How far behind the hub of a constrained election is: less than an election timeout, so that it
# does not stand for election meanwhile.
LAG = 0.6
# etcdctl and the nodes get so long to be ready.
PATIENCE = 60


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


class Network:
    """A namespace for each node, and one with the bridge between them, where clients are."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.prefix = f"qpart{os.getpid() % 100000}"
        self.hub = f"{self.prefix}-hub"
        self.cuts = {}

    def name(self, i):
        return f"{self.prefix}-{i}"

    def address(self, i):
        return f"{SUBNET}.{i + 1}"

    def __enter__(self):
        try:
            self.make()
        except BaseException:
            self.remove()
            raise
        return self

    def make(self):
        run("ip", "netns", "add", self.hub)
        inside = ["ip", "-n", self.hub]
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "link", "add", "br0", "type", "bridge")
        run(*inside, "address", "add", f"{SUBNET}.254/24", "dev", "br0")
        run(*inside, "link", "set", "br0", "up")
        for i in range(self.nodes):
            name = self.name(i)
            run("ip", "netns", "add", name)
            run("ip", "link", "add", f"v{i}", "netns", self.hub, "type", "veth",
                "peer", "name", "eth0", "netns", name)
            run(*inside, "link", "set", f"v{i}", "master", "br0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "address", "add", f"{self.address(i)}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            self.rules(i, set())

    def rules(self, receiver, senders):
        """Replaces, at once, whom a node does not hear."""
        text = "add table inet cut\ndelete table inet cut\ntable inet cut {\n chain input {\n"
        text += "  type filter hook input priority 0; policy accept;\n"
        text += "".join(f"  ip saddr {self.address(i)} drop\n" for i in sorted(senders))
        text += " }\n}\n"
        run("ip", "netns", "exec", self.name(receiver), "nft", "-f", "-", input=text)
        self.cuts[receiver] = set(senders)

    def cut(self, links):
        """Cuts exactly these links, each (sender, receiver); all others work."""
        for receiver in range(self.nodes):
            senders = {s for s, r in links if r == receiver}
            if senders != self.cuts[receiver]:
                self.rules(receiver, senders)

    def remove(self):
        for name in [self.hub, *map(self.name, range(self.nodes))]:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def __exit__(self, *_):
        self.remove()


class Cluster:
    """Real processes, one in each namespace."""

    def __init__(self, network, server, election_ms):
        self.network = network
        self.server = server
        self.root = tempfile.mkdtemp(prefix="partitions-", dir=os.environ.get("BENCH_DIR"))
        self.processes = []
        self.election_ms = election_ms

    def __enter__(self):
        network = self.network
        members = ",".join(f"n{i}=http://{network.address(i)}:{PEER_PORT}"
                           for i in range(network.nodes))
        for i in range(network.nodes):
            client = f"http://{network.address(i)}:{CLIENT_PORT}"
            peer = f"http://{network.address(i)}:{PEER_PORT}"
            log = open(os.path.join(self.root, f"n{i}.log"), "ab")
            self.processes.append(subprocess.Popen(
                ["ip", "netns", "exec", network.name(i), *self.server.command,
                 "--name", f"n{i}", "--data-dir", os.path.join(self.root, f"n{i}"),
                 "--listen-client-urls", client, "--advertise-client-urls", client,
                 "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", members, "--initial-cluster-state", "new",
                 "--heartbeat-interval", str(self.election_ms // 10),
                 "--election-timeout", str(self.election_ms), *self.server.flags],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        return self

    @property
    def endpoints(self):
        addresses = map(self.network.address, range(self.network.nodes))
        return ",".join(f"{address}:{CLIENT_PORT}" for address in addresses)

    def etcdctl(self, endpoint, *command):
        return subprocess.run(
            ["ip", "netns", "exec", self.network.hub, "etcdctl", "--endpoints", endpoint,
             "--command-timeout", "2s", "--dial-timeout", "1s", *command],
            env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True)

    def settled(self):
        """Waits until a put through each node succeeds; the leader's number."""
        deadline = time.time() + PATIENCE
        for i in range(self.network.nodes):
            endpoint = f"{self.network.address(i)}:{CLIENT_PORT}"
            while self.etcdctl(endpoint, "put", "ready", "yes").returncode != 0:
                if time.time() > deadline:
                    raise RuntimeError(f"{self.server.name}: node {i} is not ready: {self.root}")
                time.sleep(0.1)
        while time.time() < deadline:
            for i in range(self.network.nodes):
                endpoint = f"{self.network.address(i)}:{CLIENT_PORT}"
                told = self.etcdctl(endpoint, "endpoint", "status", "-w", "json")
                if told.returncode == 0 and told.stdout:
                    status = json.loads(told.stdout)[0]["Status"]
                    if status.get("leader") == status["header"]["member_id"]:
                        return i
        raise RuntimeError(f"{self.server.name}: no leader: {self.root}")

    def __exit__(self, kind, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        if kind:
            print(f"# logs and data are kept in {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root, ignore_errors=True)


class Server:
    """What to run, and under which name."""

    def __init__(self, name, command, flags=()):
        self.name, self.command, self.flags = name, command, list(flags)

    @staticmethod
    def etcd(path):
        version = run(path, "--version").stdout.split("etcd Version: ")[1].split()[0]
        return Server(f"etcd {version}", [path])


def both(pairs):
    return {(a, b) for x, y in pairs for a, b in ((x, y), (y, x))}


def every(nodes):
    return {(a, b) for a in nodes for b in nodes if a != b}


def star(hub, nodes):
    """All links but the hub's."""
    return {(a, b) for a, b in every(nodes) if hub not in (a, b)}


class Case:
    """A leader, the others, and what becomes of the links between them."""

    def __init__(self, network, leader, seconds, rng):
        self.network, self.leader, self.seconds, self.rng = network, leader, seconds, rng
        self.nodes = list(range(network.nodes))
        self.others = [i for i in self.nodes if i != leader]
        rng.shuffle(self.others)

    def quorum_loss(self):
        """One node reaches all, nobody else reaches more than it; the leader is not that one."""
        self.network.cut(star(self.others[0], self.nodes))

    def constrained(self):
        """The same, the leader gone, and the one in the middle lacks the last entries."""
        hub = self.others[0]
        self.network.cut(both((hub, i) for i in self.nodes if i != hub))
        time.sleep(LAG)
        self.network.cut(star(hub, self.nodes) | both((self.leader, i) for i in self.others))

    def chained(self):
        """Each reaches its neighbours in a row only, at whose end the leader is."""
        row = [self.leader, *self.others]
        self.network.cut(every(self.nodes) - both(zip(row, row[1:])))

    def one_way(self):
        """One follower does not hear the leader, which hears it."""
        self.network.cut({(self.leader, self.others[0])})

    def mute(self):
        """Nobody hears the leader, which hears all."""
        self.network.cut({(self.leader, i) for i in self.others})

    def deaf(self):
        """The leader hears nobody, and all hear it."""
        self.network.cut({(i, self.leader) for i in self.others})

    def isolated(self):
        """The leader reaches nobody and is reached by nobody."""
        self.network.cut(both((self.leader, i) for i in self.others))

    def flapping(self):
        """A link of the leader comes and goes, a few tenths of a second each."""
        until = time.time() + self.seconds
        while time.time() < until - 1:
            for links in (both([(self.leader, self.others[0])]), set()):
                self.network.cut(links)
                time.sleep(self.rng.uniform(0.2, 0.8))


# name, method, numbers of nodes
CASES = [
    ("quorum loss", Case.quorum_loss, (5,)),
    ("constrained election", Case.constrained, (5,)),
    ("chained", Case.chained, (3, 5)),
    ("one-way link", Case.one_way, (3, 5)),
    ("leader heard by nobody", Case.mute, (3, 5)),
    ("leader hears nobody", Case.deaf, (3, 5)),
    ("leader isolated", Case.isolated, (3, 5)),
    ("flapping link", Case.flapping, (3, 5)),
]


def load(args, cluster, seconds):
    """Writers through all nodes, which give up on a request soon; reports pauses from 0.1 s on."""
    return subprocess.Popen(
        ["ip", "netns", "exec", cluster.network.hub, args.quorate, "bench", "put",
         "--endpoints", cluster.endpoints, "--connections", str(2 * cluster.network.nodes),
         "--clients", str(2 * cluster.network.nodes), "--keys", "100", "--value-size", "64",
         "--request-timeout", "300ms", "--warmup", "500ms", "--duration", f"{seconds:.1f}s",
         "--output", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outage(args, cluster, method, rng):
    """The longest pause after the cut, in seconds, and whether it lasted to the end."""
    network = cluster.network
    network.cut(set())
    leader = cluster.settled()
    # Leaders that were elected a moment ago may still be catching others up.
    time.sleep(1)
    running = load(args, cluster, args.seconds + 3)
    time.sleep(1.5)
    case = Case(network, leader, args.seconds, rng)
    began = time.time()
    worker = threading.Thread(target=method, args=(case,))
    worker.start()
    out, errors = running.communicate(timeout=args.seconds + 60)
    worker.join()
    if not out.strip():
        raise RuntimeError(f"{cluster.server.name}: the load failed: {errors}")
    report = json.loads(out)
    end = report["ended_unix"]
    pauses = [(p["began_unix"], p["began_unix"] + p["seconds"]) for p in report["pauses"]]
    pauses = [(max(a, began), b) for a, b in pauses if b > began]
    longest = max((b - a for a, b in pauses), default=0.0)
    return longest, any(b > end - 0.05 and b - a == longest for a, b in pauses)


def measure(args, nodes, server, results):
    rng = random.Random(args.seed)
    wanted = args.cases.split(",") if args.cases else None
    with Network(nodes) as network, Cluster(network, server, args.election_ms) as cluster:
        for name, method, sizes in CASES:
            if nodes not in sizes or (wanted and name not in wanted):
                continue
            for _ in range(args.repetitions):
                seconds, open_ended = outage(args, cluster, method, rng)
                results.setdefault((nodes, name, server.name), []).append((seconds, open_ended))
                print(f"# {server.name}, {nodes} nodes, {name}: {seconds:.2f} s"
                      f"{' and more' if open_ended else ''}", file=sys.stderr, flush=True)


def shown(args, measured):
    unit = args.election_ms / 1000
    if all(open_ended for _, open_ended in measured):
        return f"no write in {min(s for s, _ in measured):.0f} s"
    values = sorted(seconds / unit for seconds, _ in measured)
    median, worst = statistics.median(values), values[-1]
    stalled = sum(open_ended for _, open_ended in measured)
    text = f"{median:.1f} / {worst:.1f}" if worst >= 0.1 else "< 0.1"
    return text + (f", {stalled} of {len(measured)} without end" if stalled else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quorate", default="target/release/quorate")
    parser.add_argument("--etcd", action="append", default=[], help="an etcd server, for comparison")
    parser.add_argument("--nodes", type=int, action="append", help="3, 5; both by default")
    parser.add_argument("--cases", help="comma-separated; all by default")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--election-ms", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    servers = [Server(f"Quorate, {p}", [args.quorate, "start"], ["--protocol", p])
               for p in ("raft", "paxos")]
    servers += [Server.etcd(path) for path in args.etcd]
    results = {}
    for nodes in args.nodes or [3, 5]:
        for server in servers:
            measure(args, nodes, server, results)
    print("| nodes | partition | " + " | ".join(s.name for s in servers) + " |")
    print("| --- | --- |" + " --- |" * len(servers))
    for nodes, name in dict.fromkeys((nodes, name) for nodes, name, _ in results):
        cells = [shown(args, results[(nodes, name, s.name)]) for s in servers]
        print(f"| {nodes} | {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
