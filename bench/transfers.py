#!/usr/bin/env python3
"""What transfers cost: across two keyspaces beside one, across two databases beside a bare 2PC.

    bench/transfers.py keyspaces --quorate target/release/quorate --rounds 3 --seconds 8
    bench/transfers.py databases --quorate target/release/quorate \\
        --databases target/release/quorate-databases --bare path/to/twopc

Three nodes and the load on this machine. Everything is measured in turn, --rounds times on the same
servers; what is printed are medians, and each one's throughput beside that of its first: as it was,
and as it would be on a machine that these processes alone keep busy, which is what CPU says where
others use the machine too. CPU is that of the middle of a run, in microseconds for each transfer, of
the nodes (idle ones, too), the databases and the generator, and of them together. `others` is what
everybody else on the machine used meanwhile, in cores.

`--bare` is a generator that makes the same transfers by two-phase commit between the same two
databases, but could not recover: no record of its decisions, no proof of commits. It takes
--pg, --my, --clients, --accounts, --seconds, --warmup and prints one JSON object. PostgreSQL and
MariaDB are started by the program given with --databases (`cargo build --release -p
quorate-databases`), with their syncs on, which is checked; `psql` and `mariadb` are needed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from cluster import Cluster
from databases import PASSWORD, Databases
from processes import cpu_seconds, families_cpu, machine_cpu

WARMUP = 1.5
# How far from a run's ends its CPU time is looked at.
MARGIN = 0.5


class Bench:
    """Runs generators beside servers."""

    def __init__(self, args, cluster, databases=None):
        self.args, self.cluster, self.databases = args, cluster, databases
        self.results = {}

    def own(self, clients, *flags):
        """How `quorate bench` is called."""
        return [self.args.quorate, "bench", "transfer", "--endpoints", self.cluster.endpoints,
                "--clients", str(clients), "--connections", str(self.args.connections),
                "--duration", f"{self.args.seconds}s", "--warmup", f"{WARMUP}s",
                "--value-size", "64", "--output", "json", *flags]

    def bare(self, clients):
        pg = (f"host=127.0.0.1 port={self.databases.postgres_port} user=postgres "
              f"password={PASSWORD} dbname=bank")
        my = f"mysql://root@127.0.0.1:{self.databases.mariadb_port}/shop"
        return [self.args.bare, "--pg", pg, "--my", my, "--clients", str(clients),
                "--accounts", str(self.args.accounts), "--seconds", str(self.args.seconds),
                "--warmup", str(WARMUP)]

    def begin(self, *flags):
        """The first transactions, unmeasured: they make what later ones need."""
        first = self.own(1, *flags)
        first[first.index("--duration") + 1] = "2s"
        subprocess.run(first, check=True, capture_output=True, timeout=120)

    def used(self, generator):
        """CPU seconds so far: nodes, databases, generator, machine."""
        databases = families_cpu([self.databases.process.pid]) if self.databases else 0.0
        return [sum(map(cpu_seconds, self.cluster.pids())), databases, cpu_seconds(generator),
                machine_cpu()]

    def run(self, case, name, command):
        """Runs it once, and keeps what came of it."""
        syncs = self.databases.syncs() if self.databases else (0, 0)
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(WARMUP + MARGIN)
        before, began = self.used(running.pid), time.monotonic()
        time.sleep(max(self.args.seconds - 2 * MARGIN, MARGIN))
        after, took = self.used(running.pid), time.monotonic() - began
        out, errors = running.communicate(timeout=120)
        if running.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {errors}")
        report = json.loads(out)
        per_second = report.get("per_second") or report["ops_per_s"]
        nodes, databases, generator, machine = [b - a for a, b in zip(before, after)]
        each = 1e6 / (per_second * took)
        failed = report["errors"]
        result = {
            "per second": per_second,
            "p50": report["latency_ms"]["p50"], "p99": report["latency_ms"]["p99"],
            "nodes": nodes * each, "databases": databases * each, "generator": generator * each,
            "CPU": (nodes + databases + generator) * each,
            "others": (machine - nodes - databases - generator) / took,
            "errors": sum(failed.values()) if isinstance(failed, dict) else failed,
        }
        if self.databases:
            # Of the whole run, the warm-up included, of which it is supposed to be as fast.
            made = per_second * (self.args.seconds + WARMUP)
            here, there = [(b - a) / made for a, b in zip(syncs, self.databases.syncs())]
            result |= {"PostgreSQL's syncs": here, "MariaDB's syncs": there}
        self.results.setdefault(case, {}).setdefault(name, []).append(result)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in result.items())
        print(f"# {case}, {name}: {shown}; load average {os.getloadavg()[0]:.1f}"
              + (f"; {failed}" if failed else ""), file=sys.stderr, flush=True)

    def table(self):
        columns = list(next(iter(next(iter(self.results.values())).values()))[0])
        print("| case | | of the first | by CPU | " + " | ".join(columns) + " |")
        print("| --- | --- | --- | --- |" + " --- |" * len(columns))
        for case, rows in self.results.items():
            first = None
            for name, runs in rows.items():
                median = [statistics.median(run[column] for run in runs) for column in columns]
                cpu = median[columns.index("CPU")]
                first = first or (median[0], cpu)
                ratios = f"{median[0] / first[0]:.2f} | {first[1] / cpu:.2f}"
                values = " | ".join(f"{value:.4g}" for value in median)
                print(f"| {case} | {name} | {ratios} | {values} |")


def make_keyspaces(args, cluster):
    for name, protocol in (("orders", "raft"), ("stock", "paxos")):
        subprocess.run([args.quorate, "keyspace", "create", name, "--endpoints", cluster.endpoints,
                        "--replicas", "3", "--protocol", protocol, "--timeout", "30s"],
                       check=True, capture_output=True)


def keyspaces(args):
    """Two keyspaces beside one, any keys and one key."""
    with Cluster("transfers", args.quorate, ["start"], args.base_port) as cluster:
        make_keyspaces(args, cluster)
        bench = Bench(args, cluster)
        bench.begin("--across", "orders,stock")
        for _ in range(args.rounds):
            for keys, what in ((10_000, "any of 10,000 keys"), (1, "one key")):
                for clients in args.clients or [64]:
                    for name, flags in (
                        ("one keyspace", ["--across", "orders"]),
                        ("two, Paxos Commit", ["--across", "orders,stock", "--commit", "paxos-commit"]),
                        ("two, Paxos Commit, by calls",
                         ["--across", "orders,stock", "--commit", "paxos-commit", "--calls"]),
                        ("two, two-phase commit", ["--across", "orders,stock", "--commit", "two-phase"]),
                        ("two, two-phase commit, each by itself",
                         ["--across", "orders,stock", "--commit", "two-phase", "--alone"]),
                    ):
                        time.sleep(1)
                        bench.run(f"{clients} clients, {what}", name,
                                  bench.own(clients, "--keys", str(keys), *flags))
        bench.table()


def databases(args):
    """Both databases through the coordinator, beside the bare generator."""
    with Databases(args.databases, args.accounts) as servers:
        print("# PostgreSQL {}, MariaDB {}".format(*servers.versions()), servers.settings(),
              file=sys.stderr)
        cluster = Cluster("transfers", args.quorate, ["start"], args.base_port)
        file = os.path.join(cluster.root, "participants.toml")
        servers.write_participants(file)
        cluster.extra = ["--participants", file]
        with cluster:
            bench = Bench(args, cluster, servers)
            bench.begin("--postgres", "bank", "--mariadb", "shop")
            for _ in range(args.rounds):
                for clients in args.clients or [8, 32]:
                    case = f"{clients} clients"
                    own = bench.own(clients, "--postgres", "bank", "--mariadb", "shop",
                                    "--keys", str(args.accounts))
                    if args.bare:
                        bench.run(case, "bare", bench.bare(clients))
                    bench.run(case, "coordinator, until carried out", [*own, "--applied"])
                    bench.run(case, "coordinator, until decided", own)
            bench.table()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["keyspaces", "databases"])
    parser.add_argument("--quorate", default="target/release/quorate")
    parser.add_argument("--databases", default="target/release/quorate-databases",
                        help="the program that starts PostgreSQL and MariaDB")
    parser.add_argument("--bare", help="the bare generator's program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--clients", type=int, action="append",
                        help="may be repeated [64 with keyspaces, 8 and 32 with databases]")
    parser.add_argument("--connections", type=int, default=9)
    parser.add_argument("--accounts", type=int, default=10_000, help="rows in each database")
    parser.add_argument("--base-port", type=int, default=24790)
    args = parser.parse_args()
    {"keyspaces": keyspaces, "databases": databases}[args.what](args)


if __name__ == "__main__":
    main()
