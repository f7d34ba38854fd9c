"""PostgreSQL and MariaDB for a benchmark: servers of its own, with their syncs on."""

import os
import subprocess

PASSWORD = "only-for-tests"
# What makes a vote durable; looked at, and never changed here.
DURABLE = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
    "innodb_flush_log_at_trx_commit": "1", "innodb_doublewrite": "ON",
}


class Session:
    """A client program that is asked one question after the other."""

    def __init__(self, command, environment, end):
        self.end = end
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, sql):
        """The rows, each as its columns."""
        self.process.stdin.write(f"{sql};\n{self.end}\n")
        self.process.stdin.flush()
        rows = []
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line == "END":
                return rows
            rows.append(line.split("\t"))
        raise RuntimeError(f"no answer to {sql}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Databases:
    """Both servers, each with accounts 0 to `accounts` - 1, as `quorate-databases` starts them."""

    def __init__(self, program, accounts):
        self.process = subprocess.Popen(
            [program, "max_connections=300", "max_prepared_transactions=300",
             "--max-connections=300"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.postgres_port, self.mariadb_port = self.ports()
        self.postgres = self.in_postgres("postgres")
        self.postgres.ask("CREATE DATABASE bank")
        self.postgres.close()
        self.postgres = self.in_postgres("bank")
        self.mariadb = self.in_mariadb()
        table = "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL)"
        last = accounts - 1
        self.postgres.ask(table)
        self.postgres.ask(f"INSERT INTO account SELECT g, 1000000 FROM generate_series(0, {last}) g")
        for sql in ("CREATE DATABASE shop", "USE shop", f"{table} ENGINE = InnoDB",
                    f"INSERT INTO account SELECT seq, 1000000 FROM seq_0_to_{last}"):
            self.mariadb.ask(sql)
        found = self.settings()
        wrong = {name: found.get(name) for name, wanted in DURABLE.items()
                 if found.get(name) != wanted}
        if wrong:
            raise RuntimeError(f"the databases do not sync as they should: {wrong}")

    def ports(self):
        found = {}
        for line in self.process.stdout:
            if line.startswith("PostgreSQL: "):
                found["postgres"] = line.split("port=")[1].split()[0]
            if line.startswith("MariaDB: "):
                found["mariadb"] = line.split(":")[-1].strip().rstrip("/")
            if line.startswith("Enter"):
                break
        if len(found) != 2:
            raise RuntimeError("PostgreSQL and MariaDB are needed, and one of them is not installed")
        return int(found["postgres"]), int(found["mariadb"])

    def in_postgres(self, database):
        command = ["psql", "-X", "-A", "-t", "-q", "-F", "\t", "-h", "127.0.0.1",
                   "-p", str(self.postgres_port), "-U", "postgres", "-d", database]
        return Session(command, {"PGPASSWORD": PASSWORD}, "\\echo END")

    def in_mariadb(self):
        command = ["mariadb", "--no-defaults", "--skip-column-names", "--batch", "--unbuffered",
                   "-h", "127.0.0.1", "-P", str(self.mariadb_port), "-u", "root"]
        return Session(command, {}, "SELECT 'END';")

    def settings(self):
        names = ", ".join(f"'{name}'" for name in DURABLE)
        here = self.postgres.ask(f"SELECT name, setting FROM pg_settings WHERE name IN ({names})")
        there = self.mariadb.ask(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
        return dict(here + there)

    def versions(self):
        here, = self.postgres.ask("SHOW server_version")
        there, = self.mariadb.ask("SELECT version()")
        return here[0].split()[0], there[0].split("-")[0]

    def syncs(self):
        """How often each has synced so far: PostgreSQL its log, MariaDB all files."""
        (here,), = self.postgres.ask("SELECT wal_sync FROM pg_stat_wal")
        (_, there), = self.mariadb.ask("SHOW GLOBAL STATUS LIKE 'Innodb_data_fsyncs'")
        return int(here), int(there)

    def prepared(self):
        """The ids of the transactions that have a prepared branch in either."""
        here = [gid.split(":")[3] for gid, in self.postgres.ask("SELECT gid FROM pg_prepared_xacts")]
        # Format, length of the transaction's part, length of the branch's, both parts.
        there = [data[:int(length)].split(":")[3]
                 for _, length, _, data in self.mariadb.ask("XA RECOVER")]
        return here, there

    def write_participants(self, path):
        with open(path, "w") as file:
            file.write(
                f"[[postgres]]\nname = 'bank'\nhost = '127.0.0.1'\nport = {self.postgres_port}\n"
                f"user = 'postgres'\npassword = '{PASSWORD}'\ndatabase = 'bank'\n"
                f"[[mariadb]]\nname = 'shop'\nhost = '127.0.0.1'\nport = {self.mariadb_port}\n"
                "user = 'root'\ndatabase = 'shop'\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.postgres.close()
        self.mariadb.close()
        # The end of its input is its end, and the servers'.
        self.process.stdin.close()
        self.process.wait()
