"""What the soak makes of its figures: each promise that it judges can be broken."""
import copy

import pytest

from soak.soak import ProbeRate, broken_promises, probe_requests

AS_PROMISED = {"confirmed": [], "faults": [{"class": "slow", "subject": "vda", "confirmed": False}], "failed": [],
               "get_status_ms": {"calls": 100, "median": 1.0, "p99": 19.9},
               "agent_rss_mib": {"before_load": 80.0, "peak": 144.0, "after_load": 80.0}, "probes_per_second": {"vda": 5.0}}


def test_all_as_promised():
    assert broken_promises(AS_PROMISED) == []


@pytest.mark.parametrize("path, value, said", [
    (("confirmed",), ["vda: Drive is slow"], "confirmed: vda: Drive is slow"),
    (("faults", 0, "confirmed"), True, "confirmed: slow of vda"),
    (("failed",), ["backup"], "part of the load failed: backup"),
    (("get_status_ms", "p99"), 20.0, "GetStatus p99 20.0 ms, not below 20"),
    (("get_status_ms",), {}, "GetStatus p99 None ms, not below 20"),
    (("agent_rss_mib", "before_load"), 80.1, "resident memory before_load 80.1 MiB, more than 80"),
    (("agent_rss_mib", "peak"), 144.1, "resident memory peak 144.1 MiB, more than 144"),
    (("agent_rss_mib", "after_load"), 80.1, "resident memory after_load 80.1 MiB, more than 80"),
    (("probes_per_second", "vda"), 5.1, "5.1 probes a second on vda, more than 5")])
def test_a_broken_promise_is_named(path, value, said):
    figures = copy.deepcopy(AS_PROMISED)
    place = figures
    for each in path[:-1]:
        place = place[each]
    place[path[-1]] = value
    assert broken_promises(figures) == [said]


def test_probes_are_counted_across_the_windows_of_the_status():
    rate = ProbeRate()
    assert rate.per_second() is None
    for count, now in ((100, 0.0), (103, 1.0), (50, 2.0), (53, 3.0)):  # between the third and the one before a window was dropped
        rate.add(count, now)
    assert rate.per_second() == 3.0


def test_a_prober_that_roles_share_is_counted_once():
    def probe(role, reads, writes):
        return {"role": role, "read": {"count": str(reads), "p50": "0.001s"}, "write": {"count": str(writes), "p50": "0.002s"}}
    assert probe_requests({}) == 0
    assert probe_requests({"probes": [probe("data", 30, 15), probe("repository", 30, 15)]}) == 45
    assert probe_requests({"probes": [probe("data", 30, 15), probe("wal", 31, 15)]}) == 91
