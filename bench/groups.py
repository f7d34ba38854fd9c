#!/usr/bin/env python3
"""What idle keyspaces cost a node: CPU and memory of three nodes with many of them.

    bench/groups.py --quorate target/release/quorate --groups 500

Makes the keyspaces, lets them settle, then measures every node over a window in which nobody asks
anything. Prints one line per node, and how the leaders are spread.
"""

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from cluster import NODES, Cluster
from processes import cpu_seconds, resident_mib, threads_cpu


class Operator:
    def __init__(self, binary, endpoints):
        self.base = [binary, "keyspace", "--endpoints", endpoints.replace("http://", "")]
        self.base += ["--timeout", "30s", "--output", "json"]

    def ask(self, *words):
        done = subprocess.run([*self.base, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def wait(self):
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.ask("list")
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def create(self, number, protocol):
        name = f"bench-{number}"
        for _ in range(5):
            try:
                return self.ask("create", name, "--replicas", "3", "--protocol", protocol)
            except RuntimeError as error:
                if "already" in str(error):
                    return None
                time.sleep(1)
        raise RuntimeError(f"cannot make {name}")


def measure(pids, seconds):
    before = [(cpu_seconds(pid), threads_cpu(pid)) for pid in pids]
    start = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - start
    rows = []
    for pid, (cpu, threads) in zip(pids, before):
        share = 100 * (cpu_seconds(pid) - cpu) / took
        after = threads_cpu(pid)
        busiest = {n: 100 * (after[n] - threads.get(n, 0.0)) / took for n in after}
        top = sorted(busiest.items(), key=lambda item: -item[1])[:4]
        rows.append((share, resident_mib(pid), top))
    return rows


def report(title, rows):
    print(title)
    for i, (share, mib, top) in enumerate(rows):
        parts = ", ".join(f"{name} {cpu:.2f}" for name, cpu in top)
        print(f"  n{i}: {share:.2f} % of a core, {mib:.0f} MiB resident  ({parts})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quorate", required=True)
    parser.add_argument("--groups", type=int, default=500)
    parser.add_argument("--protocol", default="raft")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--settle", type=float, default=30)
    parser.add_argument("--base-port", type=int, default=23790)
    arguments = parser.parse_args()
    cluster = Cluster("groups", arguments.quorate, ["start"], base_port=arguments.base_port)
    try:
        for i in range(NODES):
            cluster.start_node(i)
        pids = [process.pid for process in cluster.processes]
        operator = Operator(arguments.quorate, cluster.endpoints)
        operator.wait()
        time.sleep(4)
        report("without keyspaces beside its own:", measure(pids, arguments.seconds / 2))
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            make = lambda number: operator.create(number, arguments.protocol)
            list(pool.map(make, range(arguments.groups)))
        took = time.monotonic() - started
        print(f"{arguments.groups} keyspaces made in {took:.1f} s", flush=True)
        time.sleep(arguments.settle)
        listed = operator.ask("list")
        leads = {}
        for keyspace in listed:
            leads[keyspace["leader"]] = leads.get(keyspace["leader"], 0) + 1
        print(f"{len(listed)} keyspaces; leaders per node: {sorted(leads.values())}")
        report(f"with {len(listed)} idle keyspaces:", measure(pids, arguments.seconds))
    finally:
        for i in range(NODES):
            cluster.processes[i] and cluster.processes[i].terminate()
        for i in range(NODES):
            cluster.processes[i] and cluster.processes[i].wait()
        subprocess.run(["rm", "-rf", cluster.root], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
