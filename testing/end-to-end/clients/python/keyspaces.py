"""Checks of keyspaces with the Python client `etcd3`: `keyspaces.py HOST:PORT HOST:PORT KEYSPACE`.

The second port is the keyspace's own. The first one serves all of them, and the metadata of a call
names the keyspace.
"""

import os
import sys

# The client's generated code needs protobuf's own implementation in Python.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

import etcd3  # noqa: E402


def connect(address, keyspace=None):
    host, port = address.rsplit(":", 1)
    client = etcd3.client(host=host, port=int(port), timeout=10)
    if keyspace is not None:
        client.metadata = (("quorate-keyspace", keyspace),)
        client.watcher._metadata = client.metadata
    return client


def main():
    everywhere, own_port, keyspace = sys.argv[1:]
    default = connect(everywhere)
    for inside in (connect(everywhere, keyspace), connect(own_port)):
        events, cancel = inside.watch_prefix("py/")
        inside.put("py/a", "inside")
        default.put("py/a", "outside")
        assert inside.get("py/a")[0] == b"inside"
        assert default.get("py/a")[0] == b"outside"
        assert inside.replace("py/a", "inside", "again") and not inside.replace("py/a", "x", "y")
        assert [next(events).value for _ in range(2)] == [b"inside", b"again"]
        cancel()
        lease = inside.lease(60)
        inside.put("py/l", "leased", lease=lease)
        assert list(lease.keys) == [b"py/l"]
        lease.revoke()
        assert inside.get("py/l") == (None, None)
        with inside.lock("py/lock", ttl=10) as lock:
            assert lock.is_acquired()
            assert not inside.lock("py/lock", ttl=10).acquire(timeout=0.3)
            # Another keyspace has locks of its own.
            with default.lock("py/lock", ttl=10) as other:
                assert other.is_acquired()
    # Whoever names another keyspace at that port is served from the other.
    named = connect(own_port, "default")
    assert named.get("py/a")[0] == b"outside"
    try:
        connect(everywhere, "nothing").get("py/a")
    except Exception as error:  # The client passes on what it knows no name for.
        assert "no keyspace" in str(error), error
    else:
        raise AssertionError("a keyspace that is not there was served")
    print("all checks passed")


if __name__ == "__main__":
    main()
