#!/usr/bin/env python3
"""How long transactions stay in doubt when the node that coordinates them is killed under load.

    bench/doubt.py keyspaces --quorate target/release/quorate --kills 50
    bench/doubt.py databases --quorate target/release/quorate --kills 50 \\
        --databases target/release/quorate-databases

Transfers run in a closed loop through all three nodes. Again and again the node that drives most of
them is killed with SIGKILL, and it is asked until no branch of its transactions is in doubt, which
is when, twice in a row,

- with keyspaces, linearizable reads of all keys are answered in both, which wait for every branch
  that has a lock, also one that no record tells of,
- with databases, neither PostgreSQL (`pg_prepared_xacts`) nor MariaDB (`XA RECOVER`) has a branch
  that was prepared within 0.1 s of the kill: so fast nobody takes the dead node's place.

The time from the kill to the end of the first of these two looks is the figure; a look takes a few
hundredths of a second. Then the node is started again.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from cluster import NODES, Cluster
from databases import Databases
from transfers import make_keyspaces

CONNECTIONS = 9
# Between two looks.
PAUSE = 0.02
# Longer than this nothing may be in doubt.
LIMIT = 60


class Doubt:
    """A cluster under load, and what is asked of it."""

    def __init__(self, args, cluster, servers=None):
        self.args, self.cluster, self.servers = args, cluster, servers
        self.pool = ThreadPoolExecutor(2)
        self.members = {}
        self.left = set()

    def load(self):
        where = ["--postgres", "bank", "--mariadb", "shop"] if self.servers else \
            ["--across", "orders,stock", "--commit", self.args.commit]
        return subprocess.Popen(
            [self.args.quorate, "bench", "transfer", "--endpoints", self.cluster.endpoints,
             "--clients", str(self.args.clients), "--connections", str(CONNECTIONS),
             "--keys", str(self.args.accounts), "--value-size", "64", "--duration", "24h", *where],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(self, alive, *words):
        endpoints = ",".join(self.cluster.client(i) for i in alive)
        return subprocess.run(
            [self.args.quorate, *words, "--endpoints", endpoints, "--timeout", "30s"],
            capture_output=True, text=True)

    def list(self, alive, limit):
        done = self.ask(alive, "txn", "list", "--limit", str(limit), "--output", "json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def learn_members(self):
        done = self.ask(range(NODES), "status", "--output", "json")
        for i, status in enumerate(json.loads(done.stdout)):
            self.members[status["member_id"]] = i

    def coordinator(self):
        """The node that drives most of the latest transactions; of equals any."""
        until, driven = time.monotonic() + LIMIT, Counter()
        while not driven:
            if time.monotonic() > until:
                raise RuntimeError("no transaction is under way")
            time.sleep(PAUSE)
            latest = self.list(range(NODES), 200) or []
            driven = Counter(self.members[it["coordinator"]] for it in latest)
        return driven.most_common(1)[0][0]

    def look(self, dead, since):
        """Whether no branch of the dead node's is in doubt."""
        alive = [i for i in range(NODES) if i != dead]
        if self.servers:
            prepared = set().union(*self.servers.prepared())
            if time.monotonic() - since < 0.1:
                self.left |= prepared
            return not self.left & prepared

        def readable(keyspace):
            return self.ask(alive, "get", "/bench/", "--prefix", "--count-only",
                            "--keyspace", keyspace).returncode == 0

        return all(list(self.pool.map(readable, ("orders", "stock"))))

    def measure(self, dead):
        """Kills a node; seconds until no branch of its transactions was in doubt."""
        since = time.monotonic()
        self.cluster.kill(dead)
        clean, self.left = None, set()
        while clean is None or time.monotonic() - clean < 0.2:
            if time.monotonic() - since > LIMIT:
                return LIMIT
            if self.look(dead, since):
                clean = clean or time.monotonic()
            else:
                clean = None
            time.sleep(PAUSE)
        return clean - since

    def run(self):
        rng = random.Random(self.args.seed)
        self.learn_members()
        running, times = self.load(), []
        try:
            while len(times) < self.args.kills:
                time.sleep(0.5 + rng.random())
                dead = self.coordinator()
                times.append(self.measure(dead))
                self.cluster.start_node(dead)
                self.cluster.wait_ready()
                print(f"# {len(times)}: node {dead}, {times[-1]:.2f} s; "
                      f"load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        finally:
            running.kill()
            running.wait()
        times.sort()
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        over = sum(it > 1 for it in times)
        print(f"| {self.args.what} | {self.args.clients} clients | n {len(times)} "
              f"| min {times[0]:.2f} s | p50 {statistics.median(times):.2f} s | p99 {p99:.2f} s "
              f"| max {times[-1]:.2f} s | {over} above 1 s |")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["keyspaces", "databases"])
    parser.add_argument("--quorate", default="target/release/quorate")
    parser.add_argument("--databases", default="target/release/quorate-databases",
                        help="the program that starts PostgreSQL and MariaDB")
    parser.add_argument("--commit", default="paxos-commit", help="how two keyspaces agree")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--accounts", type=int, default=1_000, help="at each place")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base-port", type=int, default=24790)
    args = parser.parse_args()
    cluster = Cluster("doubt", args.quorate, ["start"], args.base_port)
    if args.what == "keyspaces":
        with cluster:
            make_keyspaces(args, cluster)
            Doubt(args, cluster).run()
        return
    with Databases(args.databases, args.accounts) as servers:
        file = os.path.join(cluster.root, "participants.toml")
        servers.write_participants(file)
        cluster.extra = ["--participants", file]
        with cluster:
            Doubt(args, cluster, servers).run()


if __name__ == "__main__":
    main()
