"""A ledger: what clients were told is durable, kept outside of PostgreSQL, to be held against what the servers have later.

Many clients insert unique ids, each in a transaction of its own, through one address (a gate), straight at a server, or at
whichever of several ("a,b", "1,2") takes writes. An id is acknowledged when COMMIT returned without a warning; an id whose
answer never came may be there or not. `check` says what acknowledged ids a server has lost or has twice. The longest stall is the
longest time in which no client was acknowledged anything.

A WriteWatch tries to write at each server by itself and notes which one accepted, when, and on which timeline: a write that an
older timeline takes after a newer one acknowledged some, or a timeline with two writers, means two primaries.
"""
import itertools
import threading
import time

import psycopg2

PREPARE = """
DO $$ BEGIN CREATE ROLE ledger LOGIN PASSWORD 'ledger'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, client int NOT NULL);
GRANT SELECT, INSERT ON ledger TO ledger;
"""
STRIDE = 1_000_000  # ids of one client


def connect(host, port, timeout=5, database="postgres"):
    connection = psycopg2.connect(host=host, port=port, dbname=database, user="ledger", password="ledger", connect_timeout=timeout,
                                  application_name="ledger", options="-c statement_timeout=20s",
                                  target_session_attrs="read-write" if "," in str(host) else "any")
    connection.autocommit = True
    return connection


class Ledger:
    _number = itertools.count(1)

    def __init__(self, host, port, clients=4, pause=0.0):
        self.first = next(self._number) << 32  # ledgers that share a table have ids of their own
        self.host, self.port, self.pause = host, port, pause
        self._lock = threading.Lock()
        self._acknowledged = {}  # id → when
        self._errors = []        # (when, what)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(clients)]

    def start(self, primary):
        """`primary`: a Database whose superuser makes the table and the role."""
        primary.sql(PREPARE)
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client of the ledger hangs"
        return self

    def _write(self, client):
        connection, number = None, self.first + client * STRIDE
        while not self._stop.is_set():
            number += 1
            try:
                if connection is None:
                    connection = connect(self.host, self.port)
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO ledger VALUES (%s, %s)", (number, client))
                if any("synchronous replication" in notice for notice in connection.notices):
                    raise psycopg2.OperationalError("committed here, and perhaps nowhere else")
            except psycopg2.Error as error:
                with self._lock:
                    self._errors.append((time.monotonic(), str(error).strip()))
                if connection is not None:
                    connection.close()
                connection = None
                self._stop.wait(0.05)
                continue
            with self._lock:
                self._acknowledged[number] = time.monotonic()
            if self.pause:
                self._stop.wait(self.pause)
        if connection is not None:
            connection.close()

    @property
    def acknowledged(self):
        with self._lock:
            return set(self._acknowledged)

    @property
    def errors(self):
        with self._lock:
            return [what for _, what in self._errors]

    def longest_stall(self):
        """Seconds; of the whole time between the first and the last acknowledgement."""
        with self._lock:
            times = sorted(self._acknowledged.values())
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=0.0)

    def first_after(self, moment):
        """Seconds from a time.monotonic() to the next acknowledgement; None when none came."""
        with self._lock:
            return min((each - moment for each in self._acknowledged.values() if each > moment), default=None)

    def check(self, host, port):
        """Asserts that a server has every acknowledged id, once."""
        connection = connect(host, port)
        with connection.cursor() as cursor:
            # A sequential scan: an index that lost an entry must not hide a row.
            cursor.execute("SET enable_indexscan = off")
            cursor.execute("SET enable_indexonlyscan = off")
            cursor.execute("SET enable_bitmapscan = off")
            cursor.execute("SELECT id, count(*) FROM ledger GROUP BY id")
            found = dict(cursor.fetchall())
        connection.close()
        lost = sorted(self.acknowledged - found.keys())
        assert not lost, f"{len(lost)} acknowledged rows are lost, the first ones: {lost[:10]}"
        twice = [each for each, count in found.items() if count > 1]
        assert not twice, f"rows are there twice: {twice[:10]}"
        return len(found)


class WriteWatch:
    """Tries to write at each of the servers by itself, all the time. `servers`: name → (host, port)."""

    def __init__(self, servers, every=0.02):
        self.servers, self.every = servers, every
        self._lock = threading.Lock()
        self._accepted = []  # (begin, end, timeline, name): the server acknowledged a commit between begin and end
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._try, args=(name, *place), daemon=True)
                         for name, place in servers.items()]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client of the watch hangs"
        return self

    def _try(self, name, host, port):
        connection = None
        while not self._stop.wait(self.every):
            begin = time.monotonic()
            try:
                if connection is None:
                    connection = connect(host, port, 2)
                with connection.cursor() as cursor:
                    # A commit that wrote WAL: it waits for standbys where the policy says so. A standby refuses it.
                    cursor.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), "
                                   "pg_logical_emit_message(true, 'watch', 'x')")
                    timeline = int(cursor.fetchone()[0], 16)
            except psycopg2.Error:
                if connection is not None:
                    connection.close()
                connection = None
                continue
            with self._lock:
                self._accepted.append((begin, time.monotonic(), timeline, name))

    def check(self):
        """Asserts that no server accepted a write of an older timeline after one of a newer was acknowledged, and that no
        timeline had two writers. Answers the names of those that wrote, in order."""
        with self._lock:
            accepted = sorted(self._accepted)
        writers = {}
        for begin, _, timeline, name in accepted:
            first = writers.setdefault(timeline, name)
            assert first == name, f"{first} and {name} both accepted writes on timeline {timeline}: two primaries"
        for begin, _, timeline, name in accepted:
            later = [(end, other) for _, end, newer, other in accepted if newer > timeline and end < begin]
            assert not later, (f"{name} accepted a write on timeline {timeline} {begin - later[0][0]:.3f} s after {later[0][1]} "
                               "had acknowledged one on a newer: two primaries")
        return [writers[timeline] for timeline in sorted(writers)]
