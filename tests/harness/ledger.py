"""A ledger: what clients were told is durable, kept outside of PostgreSQL, to be held against what the servers have later.

Many clients insert unique ids, each in a transaction of its own: at a server, or at whichever of several places takes writes:
servers, or the doors of their hosts. Each client begins at another place, and moves on where it was refused or not answered in
time. An id is acknowledged when COMMIT returned without a warning; an id whose answer never came may be there or not. `check` says
what acknowledged ids a server has lost or has twice. The longest stall is the longest time in which no client was acknowledged
anything.

A WriteWatch tries to write at each server by itself and notes which one accepted, when, and on which timeline: a write that an
older timeline takes after a newer one acknowledged some, or a timeline with two writers, means two primaries.

What either of them finds is a Violation: a test that failed with one is never run again (conftest.py, tests/run).
"""
import itertools
import select
import threading
import time

import psycopg2

from harness.process import wait_for

PREPARE = """
DO $$ BEGIN CREATE ROLE ledger LOGIN PASSWORD 'ledger'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, client int NOT NULL);
GRANT SELECT, INSERT ON ledger TO ledger;
"""
STRIDE = 1_000_000  # ids of one client


NOT_REPLICATED = "synchronous replication"  # in the warning of a commit that no standby has confirmed


class Violation(Exception):
    """What a shard promises was broken: an acknowledged commit is lost, or two servers were primaries. Once is too often, so no
    second run that passes may excuse it, and no wait_for() waits until it is over."""


def promised(condition, text):
    """As an assertion of what must never be otherwise, not even once."""
    if not condition:
        raise Violation(text)


def violation_in(error):
    """The Violation that an exception is or was raised from or after; None without one."""
    seen = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Violation):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


class Client:
    """One connection. A statement that has no answer within `patience` seconds raises psycopg2.OperationalError, whatever the
    network and the server do; the connection is then good for nothing but close()."""

    def __init__(self, host, port, patience=5.0):
        self._patience = patience
        self._connection = psycopg2.connect(host=host, port=port, dbname="postgres", user="ledger", password="ledger",
                                            application_name="ledger", async_=True)
        try:
            self._wait("connecting")
        except psycopg2.Error:
            self._connection.close()
            raise

    def _wait(self, what):
        deadline = time.monotonic() + self._patience
        while (state := self._connection.poll()) != psycopg2.extensions.POLL_OK:
            file, left = self._connection.fileno(), deadline - time.monotonic()
            wanted = ([file], [], []) if state == psycopg2.extensions.POLL_READ else ([], [file], [])
            if left <= 0 or not any(select.select(*wanted, left)):
                raise psycopg2.OperationalError(f"{what}: no answer within {self._patience} s")

    def execute(self, statement, parameters=()):
        """The first row of the answer, or None. A commit that is only local is an error."""
        cursor = self._connection.cursor()
        cursor.execute(statement, parameters)
        self._wait(statement.split(None, 1)[0])
        if any(NOT_REPLICATED in notice for notice in self._connection.notices):
            raise psycopg2.OperationalError("committed here, and perhaps nowhere else")
        return cursor.fetchone() if cursor.description else None

    def close(self):
        self._connection.close()


def lets_in(host, port, patience):
    """Whether clients are served there now."""
    client = None
    try:
        client = Client(host, port, patience=patience)
        return client.execute("SELECT 1") == (1,)
    except Exception:  # whatever it is: not yet
        return False
    finally:
        if client:
            client.close()


class Ledger:
    """`places`: (host, port) of servers or doors."""

    _number = itertools.count(1)

    def __init__(self, places, clients=4, pause=0.0):
        self.first = next(self._number) << 32  # ledgers that share a table have ids of their own
        self.places, self.pause = list(places), pause
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

    def _write(self, number):
        connection, last, places = None, self.first + number * STRIDE, itertools.cycle(self.places)
        for _ in range(number % len(self.places)):
            next(places)
        while not self._stop.is_set():
            last += 1
            try:
                connection = connection or Client(*next(places))
                connection.execute("INSERT INTO ledger VALUES (%s, %s)", (last, number))
            except psycopg2.Error as error:
                with self._lock:
                    self._errors.append((time.monotonic(), str(error).strip()))
                if connection is not None:
                    connection.close()
                connection = None
                self._stop.wait(0.05)
                continue
            self.acknowledge(last)
            if self.pause:
                self._stop.wait(self.pause)
        if connection is not None:
            connection.close()

    def acknowledge(self, number):
        """A client was told that this id is durable."""
        with self._lock:
            self._acknowledged[number] = time.monotonic()

    @property
    def acknowledged(self):
        with self._lock:
            return set(self._acknowledged)

    def wait_more(self, count=5, timeout=60):
        """Until so many more rows are acknowledged."""
        before = len(self.acknowledged)
        wait_for("clients write", lambda: len(self.acknowledged) > before + count, timeout)

    @property
    def errors(self):
        with self._lock:
            return [what for _, what in self._errors]

    def longest_stall(self):
        """Seconds; of the whole time between the first and the last acknowledgement."""
        with self._lock:
            times = sorted(self._acknowledged.values())
        return max((later - earlier for earlier, later in zip(times, times[1:])), default=0.0)

    def stall_since(self, moment):
        """(begin, end), in time.monotonic(), of the longest time without an acknowledgement from that moment on."""
        with self._lock:
            times = [moment, *sorted(each for each in self._acknowledged.values() if each > moment)]
        return max(zip(times, times[1:]), key=lambda pair: pair[1] - pair[0])

    def first_after(self, moment):
        """Seconds from a time.monotonic() to the next acknowledgement; None when none came."""
        with self._lock:
            return min((each - moment for each in self._acknowledged.values() if each > moment), default=None)

    def check(self, host, port):
        """A Violation unless a server has every acknowledged id, once; answers how many rows it has."""
        connection = psycopg2.connect(host=host, port=port, dbname="postgres", user="ledger", password="ledger", connect_timeout=10)
        with connection.cursor() as cursor:
            # A sequential scan: an index that lost an entry must not hide a row.
            for each in ("indexscan", "indexonlyscan", "bitmapscan"):
                cursor.execute(f"SET enable_{each} = off")
            cursor.execute("SELECT id, count(*) FROM ledger WHERE id >= %s AND id < %s GROUP BY id",
                           (self.first, self.first + (1 << 32)))
            found = dict(cursor.fetchall())
        connection.close()
        return self.compare(found)

    def compare(self, found):
        """As check() does with what a server has: id → how many rows."""
        lost = sorted(self.acknowledged - found.keys())
        promised(not lost, f"{len(lost)} acknowledged rows are lost, the first ones: {lost[:10]}")
        twice = [each for each, count in found.items() if count > 1]
        promised(not twice, f"rows are there twice: {twice[:10]}")
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
                connection = connection or Client(host, port)
                # A commit that wrote WAL: it waits for standbys where the policy says so. A standby refuses it.
                timeline = int(connection.execute("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), "
                                                  "pg_logical_emit_message(true, 'watch', 'x')")[0], 16)
            except psycopg2.Error:
                if connection is not None:
                    connection.close()
                connection = None
                continue
            self.accept(begin, time.monotonic(), timeline, name)

    def accept(self, begin, end, timeline, name):
        """A server took a write of this timeline, which was begun and acknowledged at these moments."""
        with self._lock:
            self._accepted.append((begin, end, timeline, name))

    def writes(self, name):
        """(begin, end) in time.monotonic() of what a server accepted."""
        with self._lock:
            return [(begin, end) for begin, end, _, writer in self._accepted if writer == name]

    def check(self):
        """A Violation when a server accepted a write of an older timeline after one of a newer was acknowledged, or when a
        timeline had two writers. Answers the names of those that wrote, in order. A watch that saw nobody write proves nothing:
        that is an AssertionError."""
        with self._lock:
            accepted = sorted(self._accepted)
        assert accepted, f"the watch saw none of {', '.join(self.servers)} accept a write"
        writers = {}
        for begin, _, timeline, name in accepted:
            first = writers.setdefault(timeline, name)
            promised(first == name, f"{first} and {name} both accepted writes on timeline {timeline}: two primaries")
        acknowledged = {}  # timeline → when its first write was acknowledged
        for _, end, timeline, _ in accepted:
            acknowledged[timeline] = min(end, acknowledged.get(timeline, end))
        for begin, _, timeline, name in accepted:
            later = [newer for newer, end in acknowledged.items() if newer > timeline and end < begin]
            if later:
                raise Violation(f"{name} accepted a write on timeline {timeline} {begin - acknowledged[later[0]]:.3f} s after "
                                f"{writers[later[0]]} had acknowledged one on {later[0]}: two primaries")
        return [writers[timeline] for timeline in sorted(writers)]
