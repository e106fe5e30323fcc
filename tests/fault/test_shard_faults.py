"""One rare fault at a time on a shard of three hosts, where random episodes (tests/chaos) would seldom come by: a primary that is
cut off, disks that are full or slow, WAL that is gone, clocks that step, metalctl killed at each step. Clients write meanwhile."""
import contextlib
import os
import threading
import time

import psycopg2
import pytest

from harness import process
from harness.faults import Faults, heal
from harness.hosts import Hosts
from harness.ledger import Client, promised
from harness.node import lsn_number
from harness.orchestrator import TTL, Orchestrator
from harness.process import wait_for

pytestmark = pytest.mark.slow
needs_network = pytest.mark.skipif(not process.IS_ROOT, reason="network namespaces need root")
# Every step, or in a short run each fourth.
STRIDE = 1 if int(os.environ.get("METAL_CHAOS_EPISODES", "20")) > 20 else 4


@pytest.fixture(scope="module")
def hosts(module_workspace, pg):
    return Hosts(module_workspace, pg).start()


@pytest.fixture
def shard(hosts):
    """Whole before; afterwards nothing is cut, full or slow."""
    if hosts.ctl("check").code:
        heal(hosts, Faults(hosts))
    yield hosts
    Faults(hosts).end_faults()


@contextlib.contextmanager
def nothing_lost(shard):
    """Clients write; then the shard is made whole, every node has all that was acknowledged, and only one at a time ever wrote."""
    with shard.clients_and_watch() as (ledger, watch):
        yield ledger, watch
        faults = Faults(shard)
        assert heal(shard, faults) == [], faults.told
        ledger.wait_more()
    watch.check()
    shard.check_everywhere(ledger)


def standbys_of(shard, primary):
    return [node for node in shard.nodes.values() if node is not primary]


def is_standby(node):
    return node.answers() and node.sql("SELECT pg_is_in_recovery()") == "t"


class LonelyClient(threading.Thread):
    """Inserts at one server, past its door, and waits for no standby. `accepted`: when each row that was accepted was sent."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.node, self.accepted, self._enough = node, [], threading.Event()

    def run(self):
        client = None
        while not self._enough.wait(0.02):
            begin = time.monotonic()
            try:
                if client is None:
                    client = Client(self.node.run_dir, self.node.port)
                    client.execute("SET synchronous_commit = local")
                client.execute("INSERT INTO alone VALUES (1)")
                self.accepted.append(begin)
            except psycopg2.Error:
                if client:
                    client.close()
                client = None
        if client:
            client.close()

    def __enter__(self):
        self.start()
        wait_for("it writes", lambda: self.accepted, 20)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._enough.set()
        self.join(60)
        assert not self.is_alive(), "the lonely client hangs"
        return self.accepted


@needs_network
def test_a_primary_that_is_cut_off_ends_with_its_lease(shard):
    """Also for clients that are cut off with it, of which one waits for no standby; and it is no primary again by itself when the
    network is back."""
    old = shard.primary()
    term = old.status()["node"]["term"]
    old.sql("CREATE TABLE IF NOT EXISTS alone (id int); GRANT INSERT ON alone TO ledger")
    with nothing_lost(shard) as (_, watch), LonelyClient(old) as lonely:
        with Orchestrator(shard) as orchestrator:
            wait_for("the lease is renewed", lambda: orchestrator.renewed > 1, 20)
            shard.network.isolate(old.name)
            cut_off = time.monotonic()
            end = cut_off + TTL
            wait_for("it writes on, cut off", lambda: lonely.accepted[-1:] > [cut_off], TTL)
        wait_for("it is a standby", lambda: is_standby(old), TTL + 30)
        shard.network.mend()
        old.wait_status("it knows", lambda status: any(each["fault_class"] == "lease_expired" for each in status["faults"]))
        assert old.status()["node"]["term"] == term, "nobody told it of another term"
        assert old.ctl("promote", "--term", term).code != 0
        old.ok("pg", "restart")
        assert is_standby(old)
        promised(all(begin < end for begin, _ in watch.writes(old.name)), "it took a write after its lease")
        last = lonely.stop()[-1]
        promised(last < end, f"it took a row that no standby has {last - end:.3f} s after its lease")


@needs_network
def test_a_primary_that_returns_is_rewound(shard):
    """It wrote on by itself while the others went on without it, and acknowledged nothing of it."""
    old = shard.primary()
    with nothing_lost(shard):
        shard.network.isolate(old.name)
        old.sql("SET synchronous_commit = local; CREATE TABLE only_here (a int)")
        assert shard.ok("failover")["left_behind"] == [old.name]
        old.sql("SET synchronous_commit = local; CREATE TABLE only_here_too (a int)")
        shard.network.mend()
        rejoined = [each["result"] for each in shard.ok("recover")["steps"] if each["name"] == "rejoin"]
        assert any("rewound" in each for each in rejoined), rejoined
    assert old.sql("SELECT to_regclass('only_here') IS NULL AND to_regclass('only_here_too') IS NULL") == "t"


def test_an_old_orchestrator_is_refused_everywhere(shard):
    shard.ok("reparent")
    for node in shard.nodes.values():
        for command in (("term", "begin", "1"), ("promote", "--term", "1"), ("demote", "--term", "1"),
                        ("fence", "--term", "1", "--reason", "x"), ("lease", "renew", "--term", "1", "--ttl", "4s")):
            answer = shard.remote(node, *command, "--orchestrator", "long-gone")
            assert answer.code == 5 and answer.reason in ("STALE_TERM", "TERM_HELD"), answer
    assert shard.ctl("check").code == 0


def test_a_slow_disk_of_a_standby_holds_nobody_up(shard):
    """ANY 1: the other one acknowledges. The slow one is no candidate while it is behind, and follows when it is fast again."""
    if shard.no_throttle:
        pytest.skip(shard.no_throttle)
    primary = shard.primary()
    slow, other = standbys_of(shard, primary)
    slow.ok("pg", "config", "set", "wal_writer_delay=10ms")
    try:
        with nothing_lost(shard) as (ledger, _):
            slow.disk.hang()
            primary.sql("SELECT count(pg_logical_emit_message(false, 'fill', repeat('x', 1 << 20))) FROM generate_series(1, 24)")
            ledger.wait_more(100)
            written = lsn_number(primary.lsn())
            primary.wait_status("the primary sees it fall behind", lambda status: int(
                status["postgres"]["current_lsn"]) >= written and any(
                    each["application_name"] == slow.name and written - int(each["flush_lsn"]) > 16 << 20
                    for each in status["followers"]), 30)
            assert ledger.longest_stall() < 3
            refused = shard.ctl("reparent", "--to", slow.name)
            assert refused.code == 5 and "bytes behind, max_lag is" in refused.error, refused
            slow.disk.work()
            assert shard.ok("reparent", "--to", other.name)["primary"] == other.name
    finally:
        slow.disk.work()
        slow.ctl("pg", "config", "set", "wal_writer_delay=200ms")


def recycle_wal(primary):
    """Until WAL of now is gone from pg_wal."""
    first = primary.sql("SELECT pg_walfile_name(pg_current_wal_lsn())")

    def gone():
        primary.sql("SELECT pg_logical_emit_message(true, 'x', 'x'); SELECT pg_switch_wal(); CHECKPOINT")
        return not os.path.exists(os.path.join(primary.data_dir, "pg_wal", first))
    wait_for("WAL is recycled", gone, 60)


def test_a_standby_that_missed_wal_becomes_a_copy(shard):
    """It does not receive until its slot is lost and the WAL that it needs recycled. Recover copies over it when its own agent has
    seen that it streams in vain and that the primary removed what it needs."""
    primary = shard.primary()
    behind = standbys_of(shard, primary)[0]
    with nothing_lost(shard):
        # Not cut off: PostgreSQL would wait for the sender to say its last word before the slot is lost.
        behind.ok("receiver", "stop")
        primary.ok("pg", "config", "set", "max_slot_wal_keep_size=64MB")
        recycle_wal(primary)
        assert primary.sql(f"SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'metal_{behind.name}'") == "lost"
        behind.ok("receiver", "start")
        wait_for("it is missed", lambda: ("not_streaming", behind.name) in shard.findings(), 30)
        node = behind.status()["node"]
        refused = shard.remote(behind, "rewind", "--from", f"{primary.host}:{primary.port}", "--dry-run", "--term", node["term"],
                               "--orchestrator", node["term_orchestrator_id"], timeout=30)
        assert refused.reason == "WAL_MISSING" and "has removed its WAL before" in refused.error, refused
        recovered = shard.ok("recover")
        assert ("clone", behind.name) in [(each["name"], each["nodes"]) for each in recovered["steps"]]
        assert recovered["left_behind"] == []
        primary.ok("pg", "config", "set", "--reset", "max_slot_wal_keep_size")


def test_clock_steps(shard):
    """An hour forth and back on the primary: it stays the primary, its lease counts time as it passes, holds of its door end."""
    if not shard.primary().clock:
        pytest.skip("a sanitizer has to be loaded before anything else")
    primary = shard.primary()
    with nothing_lost(shard) as (ledger, _):
        with Orchestrator(shard) as orchestrator:
            wait_for("the lease is renewed", lambda: orchestrator.renewed > 1, 20)
            node = primary.status()["node"]
            order = ("--term", node["term"], "--orchestrator", node["term_orchestrator_id"])
            for step in (3600, 0):
                primary.clock.step(step)
                primary.ok("gate", "hold", *order, "--for", "1s")
                ledger.wait_more()
                before = orchestrator.renewed
                wait_for("it is renewed", lambda before=before: orchestrator.renewed > before + 2, 20)
            assert shard.primary() is primary and primary.status()["node"]["term"] == node["term"]
            orchestrator.renew("60s")
        shard.ok("reparent")


# A reparent that is killed has a test in test_shard.py, at the steps that matter most.
@pytest.mark.parametrize("command", ["failover", "replace", "recover", *(["reparent"] if STRIDE == 1 else [])])
def test_metalctl_killed_at_each_step(shard, command):
    """What was begun is finished or undone by the same command once more, or by `recover`, in turns."""
    step = 0
    with nothing_lost(shard):
        while True:
            primary = shard.primary()
            standby = standbys_of(shard, primary)[step // STRIDE % 2]
            arguments = {"reparent": ["--to", standby.name], "failover": ["--to", standby.name], "replace": [standby.name],
                         "recover": []}[command]
            if command == "recover":
                standby.ctl("pg", "stop")
            if not shard.kill_at_step(step, command, *arguments):
                break
            finish = ("recover",) if step // STRIDE % 2 else (command, *arguments)
            wait_for(f"{finish[0]} finishes or undoes it", lambda finish=finish: shard.ctl(*finish).code == 0, 60)
            step += STRIDE
    assert step > 3


def test_a_full_disk_of_the_primary(shard):
    """The server ends when it can write no WAL; another one leads, and the old one follows once there is room. Its last record
    may be cut off at the end of a segment, also on the other standby."""
    if shard.no_disks:
        pytest.skip(shard.no_disks)
    old = shard.primary()
    with nothing_lost(shard) as (ledger, _):
        old.disk.fill()
        # What was recycled is used up first.
        wait_for("no WAL can be written", lambda: old.run(
            "psql", "-XqAt", "-c", "SET synchronous_commit = local", "-c",
            "SELECT count(pg_logical_emit_message(false, 'fill', repeat('x', 1 << 20))) FROM generate_series(1, 64)",
            code=None).code != 0, 60)
        answer = shard.ctl("failover", "--to", standbys_of(shard, old)[0].name)
        assert answer.code == 0, answer.json["steps"]
        ledger.wait_more()
        assert shard.primary() is not old
