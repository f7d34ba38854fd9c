#!/usr/bin/env python3
"""Quorate beside etcd: the same load, in turn, on the same machine; medians and ratios.

    bench/compare.py load --quorate target/release/quorate --etcd /usr/bin/etcd
    bench/compare.py load --quorate target/release/quorate --protocol raft --protocol paxos
    bench/compare.py failover --quorate target/release/quorate --repetitions 50
    bench/compare.py memory --quorate target/release/quorate --etcd /usr/bin/etcd
    bench/compare.py calm --quorate target/release/quorate --minutes 10

The load comes from `quorate bench`, or from another generator given with --generator that takes
--workload, --endpoints, --conns, --clients, --seconds, --server-pids and prints one JSON object.

Ratios are to etcd, if it is given, and else to the protocol that was named first.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time

from cluster import Cluster

# name: (workload, clients, connections, further flags, restart before)
WORKLOADS = {
    "put-1": ("put", 1, 1, {}, False),
    "put-100": ("put", 100, 10, {}, False),
    "put-1000": ("put", 1000, 100, {}, False),
    "range": ("range", 100, 10, {"keys": 10_000}, True),
    "cas": ("cas", 100, 10, {}, True),
    "lease": ("lease", 100, 10, {}, False),
    "watch": ("watch", 10, 10, {"watchers": 100}, False),
}

# What the other generator calls a flag or a workload; the first name is `quorate bench`'s.
FLAGS = {"connections": "conns", "duration": "seconds", "keys": "keyspace"}
OWN_WORKLOADS = {"cas": "txn", "gaps": "put"}


def command(args, cluster, workload, clients, connections, seconds, **further):
    """How the generator is called."""
    flags = {"endpoints": cluster.endpoints, "connections": connections, "clients": clients,
             "duration": seconds, "value-size": 256, **further}
    if args.generator:
        flags = {FLAGS.get(name, name): value for name, value in flags.items() if name != "warmup"}
        start = [*args.generator.split(), "--workload", workload]
    else:
        flags["duration"] = f"{seconds}s"
        start = [args.quorate, "bench", OWN_WORKLOADS.get(workload, workload), "--output", "json"]
    return [*start, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


def read(args, output):
    """A generator's report: figures, and pauses as (when one began, how many seconds it took)."""
    if args.generator:
        report = json.loads(output.strip().splitlines()[-1])
        return {
            "per_second": report.get("ops_per_s"),
            "latency_ms": report.get("latency_ms"),
            "cpu_us": report.get("cpu_us_per_op", {}).get("servers"),
            "errors": report.get("errors"),
            "pauses": [(g["at_unix"], g["ms"] / 1e3) for g in report.get("gaps_over_100ms", [])],
        }
    report = json.loads(output)
    return {
        "per_second": report["per_second"],
        "latency_ms": report["latency_ms"],
        "cpu_us": report["server_cpu_us_per_operation"] or float("nan"),
        "errors": sum(report["errors"].values()),
        "pauses": [(pause["began_unix"], pause["seconds"]) for pause in report["pauses"]],
    }


def generator(args, cluster, name, seconds):
    workload, clients, connections, further, _ = WORKLOADS[name]
    pids = ",".join(map(str, cluster.pids()))
    call = command(args, cluster, workload, clients, connections, seconds,
                   **{"server-pids": pids}, **further)
    done = subprocess.run(call, capture_output=True, text=True, timeout=seconds + 120)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(call)}: {done.stderr}")
    return read(args, done.stdout)


def clusters(args):
    """The clusters to compare: a name and how to make one."""
    def quorate(name, *extra):
        return name, lambda: Cluster(name, args.quorate, ["start"], 24790, extra)

    made = [quorate(f"quorate-{it}", "--protocol", it) for it in reversed(args.protocol)]
    made = made or [quorate("quorate")]
    if args.etcd:
        made.append(("etcd", lambda: Cluster("etcd", args.etcd, [], 23790)))
    return made


def load(args):
    names = args.workloads.split(",") if args.workloads else list(WORKLOADS)
    results = {}
    for _ in range(args.rounds):
        for kind, make in clusters(args):
            with make() as cluster:
                for name in names:
                    if WORKLOADS[name][4]:
                        cluster.restart()
                    time.sleep(1)
                    result = generator(args, cluster, name, args.seconds)
                    results.setdefault((name, kind), []).append(result)
                    print(
                        f"# {kind:14} {name:9} {result['per_second']:9.0f}/s "
                        f"p50 {result['latency_ms']['p50']:.2f} "
                        f"p99 {result['latency_ms']['p99']:.2f} ms, "
                        f"{result['cpu_us']:.1f} us of server CPU, "
                        f"{result['errors']} errors",
                        file=sys.stderr,
                        flush=True,
                    )
    print("| workload | server | per second | server CPU, us | p50 ms | p99 ms |")
    print("| --- | --- | --- | --- | --- | --- |")
    kinds = [kind for kind, _ in clusters(args)]
    for name in names:
        row = {}
        for kind in kinds:
            runs = results[(name, kind)]

            def median(get):
                return statistics.median(get(run) for run in runs)

            row[kind] = [
                median(lambda r: r["per_second"]),
                median(lambda r: r["cpu_us"]),
                median(lambda r: r["latency_ms"]["p50"]),
                median(lambda r: r["latency_ms"]["p99"]),
            ]
            print(f"| {name} | {kind} | " + " | ".join(f"{v:.4g}" for v in row[kind]) + " |")
        *others, last = kinds
        for kind in others:
            ratio = [a / b if b else float("nan") for a, b in zip(row[kind], row[last])]
            print(f"| {name} | {kind} / {last} | " + " | ".join(f"{v:.2f}" for v in ratio) + " |")


def gaps(args, cluster, seconds):
    """A generator in the background that reports the periods without a successful put."""
    call = command(args, cluster, "gaps", 6, 6, seconds, warmup="0s")
    return subprocess.Popen(call, stdout=subprocess.PIPE, text=True)


def failover(args):
    """From the leader's death, or its stop, to the next acknowledged put anywhere."""
    for how, sig in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        for kind, make in clusters(args):
            with make() as cluster:
                rng = random.Random(1)
                outages = []
                while len(outages) < args.repetitions:
                    cluster.wait_ready()
                    running = gaps(args, cluster, 6)
                    time.sleep(1.5 + rng.random())
                    leader = cluster.leader()
                    at = time.time()
                    cluster.kill(leader, sig)
                    report = read(args, running.communicate(timeout=60)[0])
                    if sig == signal.SIGKILL:
                        cluster.start_node(leader)
                    else:
                        cluster.kill(leader, signal.SIGCONT)
                    after = [began + length for began, length in report["pauses"]
                             if began + length > at and began < at + 0.2]
                    end = max(after, default=at + 0.1)
                    outages.append(max(end - at, 0.0))
                outages.sort()
                p99 = outages[min(len(outages) - 1, int(len(outages) * 0.99))]
                print(
                    f"| leader {how} | {kind} | n {len(outages)} | min {outages[0]:.2f} s | "
                    f"p50 {statistics.median(outages):.2f} s | p99 {p99:.2f} s |",
                    flush=True,
                )


def memory(args):
    """Resident memory with a million keys of 256 bytes, and how long one node takes to serve."""
    for kind, make in clusters(args):
        with make() as cluster:
            call = command(args, cluster, "range", 8, 4, 2, keys=args.keys)
            subprocess.run(call, check=True, capture_output=True, timeout=1800)
            time.sleep(5)
            resident = [cluster.resident_mib(i) for i in range(3)]
            victim = (cluster.leader() + 1) % 3
            cluster.kill(victim)
            start = time.time()
            cluster.start_node(victim)
            while not cluster.put(victim, "1s"):
                time.sleep(0.02)
            print(
                f"| {args.keys} keys | {kind} | resident {max(resident):.0f} MiB "
                f"(each: {', '.join(f'{r:.0f}' for r in resident)}) | "
                f"serves {time.time() - start:.2f} s after its start |",
                flush=True,
            )


def calm(args):
    """No election may happen beside processes that hog the processors."""
    with Cluster("quorate", args.quorate, ["start"], 24790) as cluster:
        def term():
            out = subprocess.run(
                ["etcdctl", "--endpoints", f"127.0.0.1:{cluster.base}", "endpoint", "status", "-w", "json"],
                env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, check=True)
            return json.loads(out.stdout)[0]["Status"]["raftTerm"]

        before = term()
        hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"])
                for _ in range(args.hogs or os.cpu_count())]
        try:
            deadline = time.time() + args.minutes * 60
            while time.time() < deadline:
                cluster.put(random.randrange(3), "5s")
                time.sleep(0.5)
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        print(f"| {args.minutes} min beside {len(hogs)} hogs | {term() - before} elections |")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "failover", "memory", "calm"])
    parser.add_argument("--quorate", default="target/release/quorate")
    parser.add_argument("--protocol", action="append", default=[], choices=["raft", "paxos"],
                        help="Quorate's; given twice, both in turn [the default of `start`]")
    parser.add_argument("--etcd", help="an etcd server to compare with")
    parser.add_argument("--generator", help="another load generator's command")
    parser.add_argument("--workloads", help="comma-separated; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--hogs", type=int, default=0)
    args = parser.parse_args()
    {"load": load, "failover": failover, "memory": memory, "calm": calm}[args.what](args)


if __name__ == "__main__":
    main()
