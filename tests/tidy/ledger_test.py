"""The ledger and the watch can fail: each breach that they are there for is one, and what is in order is none."""
import os
import sys

import pytest

from harness.ledger import Ledger, Violation, WriteWatch

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench")


def ledger_of(*ids):
    ledger = Ledger([("nowhere", 1)], clients=1)
    for each in ids:
        ledger.acknowledge(each)
    return ledger


def watch_of(*writes):
    """`writes`: (begin, end, timeline, name)."""
    watch = WriteWatch({"a": ("nowhere", 1), "b": ("nowhere", 2)})
    for write in writes:
        watch.accept(*write)
    return watch


def test_all_there_once_is_in_order():
    assert ledger_of(1, 2).compare({1: 1, 2: 1, 3: 1}) == 3, "what was not acknowledged may be there"


def test_a_lost_row_is_found():
    with pytest.raises(Violation, match=r"1 acknowledged rows are lost, the first ones: \[2\]"):
        ledger_of(1, 2).compare({1: 1, 3: 1})


def test_a_row_that_is_there_twice_is_found():
    with pytest.raises(Violation, match=r"there twice: \[3\]"):
        ledger_of(1).compare({1: 1, 3: 2})


def test_one_writer_after_the_other_is_in_order():
    """Also when the old primary's last answer comes after the new one's first: it was begun before."""
    assert watch_of((0, 1, 1, "a"), (2, 5, 1, "a"), (3, 4, 2, "b"), (6, 7, 3, "a")).check() == ["a", "b", "a"]


def test_two_writers_of_one_timeline_are_found():
    with pytest.raises(Violation, match="a and b both accepted writes on timeline 1: two primaries"):
        watch_of((0, 1, 1, "a"), (2, 3, 1, "b")).check()


def test_a_write_of_an_older_timeline_after_one_of_a_newer_is_found():
    with pytest.raises(Violation, match="a accepted a write on timeline 1 2.000 s after b had acknowledged one on 2"):
        watch_of((0, 1, 1, "a"), (2, 3, 2, "b"), (5, 6, 1, "a")).check()


def test_a_watch_that_saw_no_write_proves_nothing():
    with pytest.raises(AssertionError, match="none of a, b accept a write"):
        watch_of().check()


@pytest.fixture
def bench(monkeypatch):
    """The module that `bench/run failover` measures with."""
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    from measure import failover, failover_report
    return failover, failover_report


def test_the_bench_counts_two_primaries_and_calls_them_a_broken_promise(bench):
    failover, report = bench
    assert failover.double_primaries(watch_of((0, 1, 1, "a"))) == 0
    assert failover.double_primaries(watch_of((0, 1, 1, "a"), (2, 3, 1, "b"))) == 1
    with pytest.raises(AssertionError):
        failover.double_primaries(watch_of())
    whole = {part: {"lost_acknowledged": 0, "double_primaries": 0} for part in report.PARTS}
    assert report.broken_promises(whole) == []
    assert report.broken_promises({**whole, "emergency": {"lost_acknowledged": 2, "double_primaries": 1}}) == [
        "emergency.lost_acknowledged is 2", "emergency.double_primaries is 1"]
