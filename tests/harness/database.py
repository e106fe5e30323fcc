"""Contents for tests: a small database with everything that a backup can get wrong, traffic on it, and proofs about a copy."""
import hashlib
import os
import re
import shutil
import threading

from harness.process import run, wait_for

FILL = """
CREATE EXTENSION amcheck;
CREATE TABLE plain AS SELECT g AS id, md5(g::text) AS text, now() AS at FROM generate_series(1, 20000) g;
ALTER TABLE plain ADD PRIMARY KEY (id);
CREATE INDEX ON plain (text);
CREATE TABLE documents AS SELECT g AS id, jsonb_build_object('k', g, 'v', repeat(md5(g::text), 90)) AS body
  FROM generate_series(1, 500) g;
CREATE INDEX ON documents USING gin (body);
CREATE UNLOGGED TABLE unlogged AS SELECT g AS a FROM generate_series(1, 20000) g;
CREATE INDEX ON unlogged (a);
CREATE TABLE spaced TABLESPACE space AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g;
CREATE INDEX ON spaced (a) TABLESPACE space;
CREATE SEQUENCE counter;
SELECT nextval('counter') FROM generate_series(1, 10);
SELECT lo_from_bytea(70000 + g, decode(repeat(md5(g::text), 2000), 'hex')) FROM generate_series(1, 20) g;
CREATE TABLE empty (a int);
CREATE MATERIALIZED VIEW view AS SELECT count(*) FROM plain;
VACUUM ANALYZE;
"""

STORM = [
    "CREATE TABLE storm_{n} AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 3000) g; CREATE INDEX ON storm_{n} (a);",
    "ALTER TABLE storm_{n} SET TABLESPACE space;",
    "UPDATE storm_{n} SET b = b || 'x' WHERE a % 3 = 0;",
    "VACUUM FULL storm_{n};",
    "ALTER TABLE storm_{n} SET TABLESPACE pg_default;",
    "CREATE TABLE brief_{n} AS SELECT * FROM storm_{n}; DROP TABLE brief_{n};",
    "CREATE TABLE cut_{n} AS SELECT * FROM storm_{n}; TRUNCATE cut_{n}; INSERT INTO cut_{n} VALUES (1, 'a');",
    "DELETE FROM storm_{n} WHERE a > 500; VACUUM storm_{n};",  # gives its tail back to the file system
    "REINDEX TABLE plain;",
    "VACUUM FULL spaced;",
    "CREATE UNLOGGED TABLE light_{n} AS SELECT * FROM storm_{n}; ALTER TABLE light_{n} SET LOGGED;",
    "REFRESH MATERIALIZED VIEW view;",
    "DROP TABLE IF EXISTS storm_{before};",
    # Alone in their statements: none of these may run in a transaction with others.
    "CREATE TABLESPACE brief_space LOCATION '{location}';",
    "CREATE TABLE in_brief_space TABLESPACE brief_space AS SELECT * FROM storm_{n};",
    "DROP TABLE in_brief_space;",
    "DROP TABLESPACE brief_space;",
    "CREATE DATABASE brief_database;",
    "DROP DATABASE brief_database;",
]


def fill(node, workspace):
    """Returns the tablespace's location."""
    location = workspace.directory(f"{node.name}/space")
    node.sql(f"CREATE TABLESPACE space LOCATION '{location}';")
    node.sql(FILL)
    node.pgbench_load(scale=2)
    return location


class Storm:
    """DDL in a thread of its own until it is stopped; every statement must succeed. It ends with a whole round: a tablespace
    that were left would be emptied by the copy that replays its creation on the same host."""

    def __init__(self, node):
        self._node, self._stop, self.rounds, self.error = node, threading.Event(), 0, None
        # Outlives the storm: a copy that replays the creation needs the place too.
        self._location = node.workspace.directory(f"{node.name}/brief-space")
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)

    def _run(self):
        try:
            while not self._stop.is_set():
                for statement in STORM:
                    self._node.sql(statement.format(
                        n=self.rounds, before=self.rounds - 2 if self.rounds >= 2 else "none", location=self._location))
                self.rounds += 1
        except AssertionError as error:
            self.error = error


def tables(server, database="postgres"):
    """Row count and checksum over all rows of every table that a copy must have, by name."""
    names = server.sql("SELECT quote_ident(nspname) || '.' || quote_ident(relname) FROM pg_class c "
                       "JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'm') "
                       "AND relpersistence = 'p' AND nspname = 'public' ORDER BY 1", database).splitlines()
    query = " UNION ALL ".join(f"SELECT '{name}', count(*), sum(hashtextextended(t::text, 0)) FROM {name} t" for name in names)
    return sorted(server.sql(query, database).splitlines())


def dump_digest(server, database="postgres"):
    """SHA-256 of pg_dump's output, large objects included; without the heartbeat, and the random token of newer versions."""
    dump = server.run("pg_dump", "-d", database, "--no-unlogged-table-data", "--blobs", "-N", "metal").stdout
    lines = [line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_relations(server):
    """pg_amcheck --heapallindexed over every database; on 13, which has none, bt_index_check over every B-tree."""
    if server.version.has("pg_amcheck"):
        server.run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--no-strict-names", timeout=300)
    else:
        server.sql("CREATE EXTENSION IF NOT EXISTS amcheck; SELECT count(bt_index_check(i.indexrelid, true)) FROM pg_index i "
                   "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
                   "WHERE a.amname = 'btree' AND c.relpersistence <> 't' AND i.indisready AND i.indisvalid;")


# What the agent writes anew in its own node's directory after a restore.
SETTINGS = ("postgresql.conf", "metal.conf", "pg_hba.conf")


def verify_restored(node, target, ignored=()):
    """pg_verifybackup on a restored directory that was never started, with the WAL that it needs from the archive.
    `ignored`: files that were changed since."""
    wal = os.path.join(node.workspace.path, os.path.basename(target) + ".wal")
    os.makedirs(wal)
    node.workspace.give(wal)
    with open(os.path.join(target, "backup_manifest"), encoding="utf-8") as file:
        manifest = __import__("json").load(file)
    from harness.node import BIN, lsn_number
    control = node.run("pg_controldata", target).stdout
    size = int(re.search(r"Bytes per WAL segment: +(\d+)", control).group(1))
    for each in manifest["WAL-Ranges"]:
        for number in range(lsn_number(each["Start-LSN"]) // size, (lsn_number(each["End-LSN"]) - 1) // size + 1):
            per_file = (1 << 32) // size
            name = f"{each['Timeline']:08X}{number // per_file:08X}{number % per_file:08X}"
            run([f"{BIN}/metal-wal", "fetch", "--socket", node.config["agent"]["wal_socket"], "--cluster",
                 node.system_identifier(), name, os.path.join(wal, name)])
    node.run("pg_verifybackup", "-w", wal, *(f"--ignore={each}" for each in ignored), target)
    shutil.rmtree(wal)


def check_checksums(version, data_dir):
    """pg_checksums --check on a directory that was shut down cleanly."""
    said = run([version.program("pg_checksums"), "--check", "-D", data_dir]).stdout
    assert "Bad checksums:  0" in said, said


def prove_restored(node, target):
    """Every proof that there is about a restored directory that was never started: its files and their checksums against
    the manifest, the WAL that it needs, then, opened for writes at its first consistent point and stopped, every index
    entry, heap tuple and page."""
    from harness.postgres import PlainServer
    verify_restored(node, target)
    server = PlainServer(node.version, target, node.workspace, recovery_target="immediate", recovery_target_action="promote",
                         recovery_target_timeline="current", primary_conninfo="").start()
    wait_for("the copy is open for writes", lambda: server.sql("SELECT pg_is_in_recovery()") == "f", 60)
    check_relations(server)
    server.stop()
    check_checksums(node.version, target)


def prove_own(node):
    """The same about the node's own directory, which the agent started after a restore and made the primary: its index
    entries, heap tuples and pages. verify_restored(…, SETTINGS) goes before the start."""
    check_relations(node)
    node.ok("pg", "stop")
    check_checksums(node.version, node.data_dir)
    node.ok("pg", "start")
