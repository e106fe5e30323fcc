"""Clients that write through doors, and the ledger of what they were told is durable, kept outside of PostgreSQL.

Each client inserts one row after the other, each in a transaction of its own, through its own door. An id is acknowledged when
COMMIT returned without a warning; one whose answer never came may be there or not."""

import threading
import time

import psycopg2

from .process import CommandFailed

PREPARE = "CREATE TABLE IF NOT EXISTS bench_ledger (id bigint PRIMARY KEY, client int NOT NULL)"
STRIDE = 1_000_000  # ids of one client
PAUSE_S = 0.002     # between two writes of a client
RETRY_S = 0.02
PATIENCE_S = 60


def connect(host, port):
    connection = psycopg2.connect(host=host, port=port, dbname="postgres", user="postgres", connect_timeout=5)
    connection.autocommit = True
    return connection


class Writers:
    """`doors`: (host, port) of each; `clients` of them are spread over all. Ids begin at `first`: unique in one table."""

    def __init__(self, doors, clients, first):
        self._doors, self._first = doors, first
        self._lock = threading.Lock()
        self._acknowledged = [[] for _ in range(clients)]  # (when, id) in order
        self._errors = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(clients)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            if thread.is_alive():
                raise CommandFailed("a client did not get an answer for a minute")

    def _write(self, client):
        connection, number = None, self._first + client * STRIDE
        while not self._stop.wait(PAUSE_S):
            number += 1
            try:
                connection = connection or connect(*self._doors[client % len(self._doors)])
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO bench_ledger VALUES (%s, %s)", (number, client))
                if any("synchronous replication" in notice for notice in connection.notices):
                    raise psycopg2.OperationalError("committed on the primary, and perhaps nowhere else")
            except psycopg2.Error as error:
                with self._lock:
                    self._errors.append(str(error).strip())
                if connection is not None:
                    connection.close()
                connection = None
                self._stop.wait(RETRY_S)
                continue
            with self._lock:
                self._acknowledged[client].append((time.monotonic(), number))
        if connection is not None:
            connection.close()

    @property
    def errors(self):
        with self._lock:
            return list(self._errors)

    def _times(self):
        """Of each client, in order."""
        with self._lock:
            return [[when for when, _ in client] for client in self._acknowledged]

    def ids(self):
        with self._lock:
            return {number for client in self._acknowledged for _, number in client}

    def last(self):
        """When somebody was served last; 0.0: nobody yet."""
        return max((client[-1] for client in self._times() if client), default=0.0)

    def first_after(self, moment):
        """Seconds from `moment` to the next acknowledgement; None when none came."""
        return min((when - moment for client in self._times() for when in client if when > moment), default=None)

    def wait_served(self, since, patience_s=PATIENCE_S):
        """Until every client was acknowledged something begun after `since`."""
        deadline = time.monotonic() + patience_s
        while not all(sum(when > since for when in client) >= 2 for client in self._times()):
            if time.monotonic() > deadline:
                raise CommandFailed(f"not every client is served again after {patience_s} s: {self.errors[-1:]}")
            time.sleep(0.02)

    def longest_stall(self):
        """Seconds: the longest time that any one client spent between two acknowledgements."""
        return max(map(_longest_gap, self._times()), default=0.0)

    def longest_silence(self):
        """Seconds: the longest time in which nobody at all was acknowledged anything."""
        return _longest_gap(sorted(when for client in self._times() for when in client))


def _longest_gap(times):
    return max((later - earlier for earlier, later in zip(times, times[1:])), default=0.0)


# Every row is read: an index may have lost its entry.
READ_ALL = ("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; "
            "SELECT id FROM bench_ledger")


def missing(ids, sql):
    """Those of the acknowledged `ids` that a server does not have; `sql` asks it past its door."""
    return ids - set(map(int, sql(READ_ALL).split()))
