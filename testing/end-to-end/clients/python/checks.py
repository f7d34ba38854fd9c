"""Checks with the Python client `etcd3`: `checks.py HOST:PORT`."""

import os
import sys

# The client's generated code needs protobuf's own implementation in Python.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

import etcd3  # noqa: E402


def keys(client):
    client.put("py/a", "1")
    client.put("py/b", "2")
    value, meta = client.get("py/a")
    assert value == b"1" and meta.version == 1, (value, meta)
    assert [v for v, _ in client.get_prefix("py/")] == [b"1", b"2"]
    assert client.replace("py/a", "1", "3")
    assert not client.replace("py/a", "1", "4")
    assert client.put_if_not_exists("py/c", "new")
    assert not client.put_if_not_exists("py/c", "newer")
    assert client.delete("py/c") and not client.delete("py/c")
    assert client.delete_prefix("py/").deleted == 2


def transactions(client):
    client.put("py/t", "x")
    done, answers = client.transaction(
        compare=[client.transactions.value("py/t") == "x", client.transactions.version("py/t") > 0],
        success=[client.transactions.put("py/t", "y"), client.transactions.get("py/t")],
        failure=[client.transactions.delete("py/t")],
    )
    assert done and answers[1][0][0] == b"y", (done, answers)


def watches(client):
    events, cancel = client.watch_prefix("py/w/")
    client.put("py/w/1", "one")
    client.delete("py/w/1")
    first, second = next(events), next(events)
    assert isinstance(first, etcd3.events.PutEvent) and first.value == b"one"
    assert isinstance(second, etcd3.events.DeleteEvent) and second.key == b"py/w/1"
    cancel()


def leases(client):
    lease = client.lease(60)
    client.put("py/l", "leased", lease=lease)
    assert list(lease.keys) == [b"py/l"] and 0 < lease.remaining_ttl <= 60
    assert list(lease.refresh())[0].TTL == 60
    lease.revoke()
    assert client.get("py/l") == (None, None)


def locks(client):
    with client.lock("py/lock", ttl=10) as lock:
        assert lock.is_acquired()
        assert not client.lock("py/lock", ttl=10).acquire(timeout=0.3)


def cluster(client):
    assert len(list(client.members)) == 3
    status = client.status()
    assert status.version == "3.7.0" and status.leader is not None
    client.compact(client.get("py/t")[1].mod_revision)
    client.defragment()
    assert client.hash() is not None
    assert list(client.list_alarms()) == []


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    client = etcd3.client(host=host, port=int(port), timeout=10)
    for check in (keys, transactions, watches, leases, locks, cluster):
        check(client)
        print("ok", check.__name__)
    client.close()
    print("all checks passed")


if __name__ == "__main__":
    main()
