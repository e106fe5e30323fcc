"""What the lab makes of what it measured: each promise that it judges can be missed, and what was not played is not passed."""
import io
import os
import re
import subprocess
import threading

import pytest

from lab import report
from lab.experiment import Outcome
from lab.scenarios import FATAL, SCENARIOS, named
from lab.watch import StatusCalls
from lab.write_log import ENTRY, FLUSH, MAGIC, MARK, SUPER, NoLog, lost_records, read_log, replay

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WAITED_S = 3.0
SECTORS = list(range(8, 8 * 4097, 8))  # where the records of the workload are on a device


def outcome(name, **fields):
    """As all is well, but for some fields."""
    well = {"detected_as": "stalled", "seconds": 4.0, "confirmed_s": 4.5, "fenced_s": 6.0 if named(name).fence_bar_s else None,
            "idle_p99_ms": 5.0, "p99_ms": 6.0, "longest_ms": 8.0, "watched": True, "exit_ms": 200.0, "lost": 0, "acknowledged": 9,
            **({"down_s": 6.5, "cut": "refuses new connections to port 5432"} if named(name).fence_bar_s else {})}
    return Outcome(name, **{**well, **fields})


def misses(name, **fields):
    return outcome(name, **fields).misses(named(name))


def test_all_that_was_promised_is_no_miss():
    assert misses("postgres-stall") == [] and misses("stall") == []


@pytest.mark.parametrize("name", ["postgres-stall", "postgres-gone", "postgres-fsync-error"])
def test_a_primary_that_is_fenced_late_or_never_is_a_miss(name):
    assert misses(name, seconds=1.0, fenced_s=12.1) == ["fenced after 12.1 s, not 12 s"]
    assert misses(name, seconds=1.0, fenced_s=None) == ["not fenced within 12 s"]


def test_a_fence_that_cuts_nobody_off_or_leaves_the_server_is_a_miss():
    assert misses("postgres-gone", seconds=1.0, cut="") == ["clients were not cut off: nothing is said of it"]
    unable = "could not refuse new connections: nft is not installed"
    assert misses("postgres-stall", cut=unable) == [f"clients were not cut off: {unable}"]
    assert misses("postgres-gone", seconds=1.0, down_s=None, server="process 7, state 5") == \
        ["PostgreSQL has not ended: process 7, state 5"]
    assert misses("postgres-stall", down_s=None) == [], "the drive holds it"


def test_a_fence_that_nothing_calls_for_is_a_miss():
    assert misses("postgres-media-error", seconds=1.0, fenced_s=3.0) == ["fenced, which nothing calls for"]


def test_a_fatal_fault_that_stays_a_suspicion_is_a_miss():
    assert misses("stall", confirmed_s=None) == ["never confirmed"]
    assert misses("full", confirmed_s=None) == [], "of a class that is not fatal"
    for each in (each for each in SCENARIOS if each.suspected):
        assert each.fatal() and outcome(each.name, seconds=1.0, confirmed_s=None).misses(each) == []


def test_the_fatal_classes_are_those_of_the_fault_table():
    with open(os.path.join(ROOT, "agent/disk/faults/fault_table.cc"), encoding="utf-8") as file:
        rows = file.read().split(".fault_class = FaultClass::k")[1:]
    names = {re.sub(r"(?<!^)(?=[A-Z])", "_", each.partition(",")[0]).lower() for each in rows if ".fatal = true" in each}
    assert names == FATAL


def test_a_status_that_is_not_answered_is_a_miss():
    assert misses("stall", p99_ms=None, longest_ms=None) == ["GetStatus did not answer"]
    assert misses("stall", p99_ms=21.0) == ["GetStatus p99 21 ms"]
    assert misses("stall", unanswered_ms=5000.0) == ["GetStatus had not answered for 5.0 s"]
    assert misses("debian-shard", seconds=1.0, p99_ms=400.0) == []


def test_threads_that_the_drive_holds_are_a_miss_where_nothing_of_the_agent_is_on_it():
    assert misses("stall", held="held") == ["the drive holds threads of the dead agent"]
    assert misses("stall", stuck={"events": 5.0}) == ["threads in D state: events 5 s"]
    assert misses("state-on-sick-drive", held="held", stuck={"events": 5.0}) == []
    assert misses("state-on-sick-drive", exit_ms=float("inf")) == ["exit took inf ms"]


class _Silent:
    """An agent that answers some calls, and then none."""

    def __init__(self, answers):
        self.left, self.asked, self.closed = answers, threading.Event(), threading.Event()

    def connect(self, timeout=None):
        return self

    def call(self, _):
        if self.left == 0:
            self.asked.set()
            self.closed.wait(30)
            raise ConnectionError("closed")
        self.left -= 1
        return b"\x0a\x04\x1a\x00\x22\x00"  # a status with an empty identity, and an empty section of PostgreSQL

    def close(self):
        self.closed.set()


@pytest.mark.parametrize("answers", [0, 5])
def test_a_call_that_never_came_back_counts_with_its_age(answers, monkeypatch):
    agent = _Silent(answers)
    calls = StatusCalls(agent)
    assert agent.asked.wait(10) and len(calls.calls) == answers
    now = calls._asked + WAITED_S
    monkeypatch.setattr("lab.watch.time.monotonic", lambda: now)
    assert calls.waiting_s() == pytest.approx(WAITED_S)
    assert calls.longest_ms(0) == pytest.approx(WAITED_S * 1e3)
    assert calls.p99_ms(0) >= WAITED_S * 1e3
    monkeypatch.undo()
    calls.stop()


def test_what_was_not_played_is_neither_kept_nor_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PATH", str(tmp_path / "matrix.md"))
    monkeypatch.setattr(report, "said_by", lambda *_: "")
    kernel = type("Kernel", (), {"version": "6.1"})
    report.write([named("stall"), named("crawl"), named("slow-4x")],
                 {"stall": outcome("stall"), "crawl": outcome("crawl", detected_as="")}, kernel, "tests/run lab --report")
    text = (tmp_path / "matrix.md").read_text(encoding="utf-8")
    row = next(each for each in text.splitlines() if each.startswith("| `slow-4x`"))
    assert row.count("not played") == 2 and row.count("|") == report.COLUMNS + 1
    assert "1 of 2 rows that were played are as the table expects. 1 were not played." in text


def test_a_report_of_some_scenarios_is_refused():
    done = subprocess.run([os.path.join(ROOT, "tests/lab/run"), "--report", "stall"], capture_output=True, text=True)
    assert done.returncode == 1 and "--report writes the whole table" in done.stderr and "HINT" in done.stderr


def log_of(*steps):
    """As dm-log-writes keeps it. A step is the number of a record that a flush made durable, or the text of a mark."""
    def padded(data):
        return data + bytes(-len(data) % 512)
    entries = b""
    for each in steps:
        if isinstance(each, str):
            entries += padded(ENTRY.pack(0, 0, MARK, len(each)) + each.encode())
        else:
            entries += padded(ENTRY.pack(SECTORS[each % 4096], 8, FLUSH, 0)) + each.to_bytes(8, "little") * 512
    return io.BytesIO(padded(SUPER.pack(MAGIC, 1, len(steps), 512)) + entries)


def lost_at_marks(*steps):
    log, image = log_of(*steps), io.BytesIO(bytes(4096 * 4098))
    return [(mark, lost_records(image, SECTORS, int(mark))) for mark in replay(log, read_log(log), image)]


def test_what_was_durable_at_a_mark_is_told_from_what_was_not():
    assert lost_at_marks(1, 2, "2", 3, "3") == [("2", 0), ("3", 0)]
    assert lost_at_marks(1, "2", 2, "2") == [("2", 1), ("2", 0)], "the second record came after the mark that counts it"
    assert lost_at_marks(1, 2, 3, 4097, "3") == [("3", 0)], "a lap later is not lost"
    assert lost_at_marks(4097, 2, 1, "4097") == [("4097", 4094 + 1)], "an older record in the place of a newer one is"


def test_a_log_that_is_none_or_ends_early_is_refused():
    with pytest.raises(NoLog, match="magic"):
        read_log(io.BytesIO(bytes(4096)))
    with pytest.raises(NoLog, match="ends in entry 1 of 2"):
        read_log(io.BytesIO(log_of(1, "1").getvalue()[:512 + 512 + 4096]))
