"""What processes use, as the kernel counts it (/proc, Linux)."""

import os

TICKS = os.sysconf("SC_CLK_TCK")


def _stat(path):
    """A stat file's name, and its fields from the state on. The name may hold anything."""
    with open(path) as stat:
        head, tail = stat.read().rsplit(")", 1)
    return head.split("(", 1)[1], tail.split()


def cpu_seconds(pid):
    _, fields = _stat(f"/proc/{pid}/stat")
    return (int(fields[11]) + int(fields[12])) / TICKS


def threads_cpu(pid):
    """CPU seconds by name of thread."""
    found = {}
    for tid in os.listdir(f"/proc/{pid}/task"):
        try:
            name, fields = _stat(f"/proc/{pid}/task/{tid}/stat")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS
    return found


def families_cpu(pids):
    """CPU seconds of these processes and all below them, with those that have ended already."""
    children, used = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            _, fields = _stat(f"/proc/{entry}/stat")
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(entry))
        # Of itself, and of children that it has waited for.
        used[int(entry)] = sum(map(int, fields[11:15])) / TICKS
    total, rest = 0.0, list(pids)
    while rest:
        pid = rest.pop()
        total += used.get(pid, 0.0)
        rest += children.get(pid, [])
    return total


def machine_cpu():
    """CPU seconds of the whole machine, all that is not idle."""
    with open("/proc/stat") as stat:
        fields = stat.readline().split()[1:]
    return sum(int(fields[i]) for i in (0, 1, 2, 5, 6, 7)) / TICKS


def resident_mib(pid):
    """Resident memory, shared file pages included, in MiB."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0
