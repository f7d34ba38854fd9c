"""Three nodes of etcd or of Quorate on loopback, started with the same flags."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from processes import resident_mib

NODES = 3


class Cluster:
    """Three processes; their data is removed with them unless it is to be kept."""

    def __init__(self, name, binary, arguments=(), base_port=23790, extra=()):
        self.name = name
        self.command = [binary, *arguments]
        self.extra = list(extra)
        self.base = base_port
        self.root = tempfile.mkdtemp(prefix=f"bench-{name}-", dir=os.environ.get("BENCH_DIR"))
        self.processes = [None] * NODES
        self.token = f"bench-{os.getpid()}-{time.time_ns()}"

    def client(self, i):
        return f"http://127.0.0.1:{self.base + 10 * i}"

    def peer(self, i):
        return f"http://127.0.0.1:{self.base + 10 * i + 1}"

    @property
    def endpoints(self):
        return ",".join(self.client(i) for i in range(NODES))

    def start_node(self, i):
        members = ",".join(f"n{j}={self.peer(j)}" for j in range(NODES))
        log = open(os.path.join(self.root, f"n{i}.log"), "ab")
        self.processes[i] = subprocess.Popen(
            [
                *self.command,
                "--name", f"n{i}",
                "--data-dir", os.path.join(self.root, f"n{i}"),
                "--listen-client-urls", self.client(i),
                "--advertise-client-urls", self.client(i),
                "--listen-peer-urls", self.peer(i),
                "--initial-advertise-peer-urls", self.peer(i),
                "--initial-cluster", members,
                "--initial-cluster-state", "new",
                "--initial-cluster-token", self.token,
                *self.extra,
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )

    def start(self):
        for i in range(NODES):
            self.start_node(i)
        self.wait_ready()
        return self

    def put(self, i, timeout="2s"):
        """Whether a put through node i succeeds."""
        done = subprocess.run(
            ["etcdctl", "--endpoints", self.client(i), "--command-timeout", timeout,
             "--dial-timeout", timeout, "put", "ready", "yes"],
            env={**os.environ, "ETCDCTL_API": "3"},
            capture_output=True,
        )
        return done.returncode == 0

    def wait_ready(self, seconds=60):
        deadline = time.time() + seconds
        for i in range(NODES):
            while not self.put(i):
                if time.time() > deadline:
                    raise RuntimeError(f"{self.name}: node {i} is not ready; see {self.root}")
                time.sleep(0.1)

    def leader(self):
        """The leader's number."""
        deadline = time.time() + 30
        while time.time() < deadline:
            for i in range(NODES):
                done = subprocess.run(
                    ["etcdctl", "--endpoints", f"127.0.0.1:{self.base + 10 * i}",
                     "--command-timeout", "1s",
                     "endpoint", "status", "-w", "json"],
                    env={**os.environ, "ETCDCTL_API": "3"},
                    capture_output=True,
                )
                if done.returncode != 0 or not done.stdout:
                    continue
                status = json.loads(done.stdout)[0]["Status"]
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return i
            time.sleep(0.1)
        raise RuntimeError(f"{self.name}: no leader")

    def pids(self):
        return [p.pid for p in self.processes if p and p.poll() is None]

    def resident_mib(self, i):
        """Resident memory of one node, shared file pages included, in MiB."""
        return resident_mib(self.processes[i].pid)

    def kill(self, i, sig=signal.SIGKILL):
        self.processes[i].send_signal(sig)
        if sig in (signal.SIGKILL, signal.SIGTERM):
            self.processes[i].wait()

    def restart(self):
        """Ends all nodes cleanly and starts them again."""
        self.stop_processes()
        return self.start()

    def stop_processes(self):
        for process in self.processes:
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            if process:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def stop(self):
        self.stop_processes()
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop_processes()
            raise

    def __exit__(self, kind, *_):
        if kind:
            # What the nodes have to say about it is in their logs.
            self.stop_processes()
            print(f"# {self.name}: logs and data are kept in {self.root}", flush=True)
        else:
            self.stop()
