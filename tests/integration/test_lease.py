"""The lease of a primary: renewed it stays one; not renewed it has no session and takes no write at the ttl, whatever happened
to the agent or to the postmaster, and never is a primary again by itself."""
import os
import signal
import time

import pytest

from harness import process
from harness.ledger import promised
from harness.node import has_hint
from harness.postgres import PGBENCH_RATE
from harness.process import wait_for


class Writers:
    """Clients that insert the server's time all the time, until their sessions end."""

    def __init__(self, node):
        self.node = node
        node.sql("CREATE TABLE written (at timestamptz)")
        script = node.workspace.file("insert.sql", "INSERT INTO written VALUES (clock_timestamp());\n")
        self._pgbench = node.start("pgbench", "-n", "-R", PGBENCH_RATE, "-c", "4", "-T", "600", "-f", script, "postgres",
                                   log=os.path.join(node.root, "pgbench.log"))
        node.workspace.at_end(lambda: process.end(self._pgbench))
        wait_for("rows are written", lambda: int(node.sql("SELECT count(*) FROM written")) > 0)

    def ended(self):
        return self._pgbench.poll() is not None

    def last(self):
        """Time of the last row, in seconds since the epoch. A row is stamped before it is acknowledged."""
        return float(self.node.sql("SELECT extract(epoch FROM max(at)) FROM written"))


def renew(node, ttl, term="1"):
    """When the lease ends at the latest: the renewal reached the node before it was answered."""
    node.ok("lease", "renew", "--term", term, "--ttl", f"{ttl}s")
    return time.time() + ttl


def is_standby(node):
    return node.answers() and node.sql("SELECT pg_is_in_recovery()") == "t"


def has_fault(status):
    return any(each["fault_class"] == "lease_expired" for each in status.get("faults", []))


def refused(node, *command, reason):
    answer = node.ctl(*command)
    assert answer.code == 5 and answer.reason == reason and has_hint(answer.error), answer


@pytest.mark.matrix
def test_primary_without_a_renewal_ends_in_time_and_for_good(primary):
    writers = Writers(primary)
    end = renew(primary, 4)
    lease = primary.status()["node"]["lease"]
    assert lease["ttl"] == "4s" and lease["term"] == "1" and not lease.get("expired")
    primary.wait_event("lease.expired")
    wait_for("every session has ended", writers.ended)
    wait_for("it is a standby", lambda: is_standby(primary), 30)
    promised(writers.last() <= end, "a write came after the lease")
    primary.wait_status("the fault shows", has_fault)

    refused(primary, "lease", "renew", "--term", "1", "--ttl", "10s", reason="LEASE_EXPIRED")
    refused(primary, "promote", "--term", "1", reason="LEASE_EXPIRED")
    primary.restart_agent()
    primary.wait_running()
    primary.ok("pg", "restart")
    assert is_standby(primary) and has_fault(primary.wait_status("the fault is there again", has_fault))

    primary.ok("term", "begin", "2")
    assert primary.ok("promote", "--term", "2", "--lease-ttl", "2m")
    primary.sql("INSERT INTO written VALUES (now())")
    status = primary.wait_status("the fault is over", lambda status: not has_fault(status))
    assert status["node"]["lease"]["ttl"] == "120s" and status["node"]["lease"]["term"] == "2"
    primary.ok("term", "begin", "3")
    assert "lease" not in primary.status()["node"]


def test_renewed_lease_outlives_a_killed_agent(primary):
    pid = primary.pid()
    ends = renew(primary, 5)
    primary.kill_agent()
    primary.start_agent()
    while time.time() < ends + 1:
        renew(primary, 5)
    assert primary.pid() == pid and not is_standby(primary), "the guard of the first lease did not act"
    assert not has_fault(primary.status())


@pytest.mark.parametrize("gone", ["dead", "frozen"])
def test_lease_ends_without_an_agent(primary, gone):
    writers = Writers(primary)
    pid = primary.pid()
    end = renew(primary, 3)
    agent = primary.process.pid
    os.kill(agent, signal.SIGKILL if gone == "dead" else signal.SIGSTOP)
    wait_for("the server is gone", lambda: not process.is_alive(pid))
    wait_for("every session has ended", writers.ended)
    if gone == "dead":
        primary.process.wait(10)
        primary.start_agent()
    else:
        os.kill(agent, signal.SIGCONT)
    wait_for("it is a standby", lambda: is_standby(primary), 30)
    promised(writers.last() <= end, "a write came after the lease")
    primary.wait_status("the fault shows", has_fault)
    refused(primary, "lease", "renew", "--term", "1", "--ttl", "10s", reason="LEASE_EXPIRED")


def test_frozen_postmaster_loses_its_lease_by_force(primary):
    writers = Writers(primary)
    end = renew(primary, 3)
    os.kill(primary.pid(), signal.SIGSTOP)
    primary.wait_event("lease.expired")
    wait_for("every session has ended", writers.ended)
    wait_for("it is a standby", lambda: is_standby(primary), 30)
    promised(writers.last() <= end, "a write came after the lease")


@pytest.mark.parametrize("point", ["lease.before_stop", "lease.stopped"])
def test_lease_whose_end_is_cut_off_is_ended_all_the_same(primary, point):
    """The agent dies while it ends the lease: the guard ends the server in time, the next agent makes it a standby."""
    writers = Writers(primary)
    primary.restart_agent(faults=f"{point}=crash")
    end = renew(primary, 3)
    wait_for(f"the agent died at {point}", lambda: primary.process.poll() is not None, 30)
    assert primary.process.returncode == -signal.SIGKILL
    wait_for("every session has ended", writers.ended)
    primary.start_agent()
    wait_for("it is a standby", lambda: is_standby(primary), 30)
    promised(writers.last() <= end, "a write came after the lease")
    primary.wait_status("the fault shows", has_fault)
    refused(primary, "promote", "--term", "1", reason="LEASE_EXPIRED")


def test_promote_that_is_frozen_past_its_lease_gives_none(primary):
    """The lease counts from the call's arrival: by the thaw its caller may have made another node the primary."""
    primary.ok("term", "begin", "2")
    pause, trace = primary.workspace.file("pause", ""), primary.workspace.file("trace", "")
    primary.restart_agent(faults="roles.before_order=pause", pause=pause, trace=trace)
    primary.wait_running()
    log = os.path.join(primary.root, "promote.log")
    call = process.spawn(primary.ctl_arguments("promote", "--term", "2", "--lease-ttl", "1s"), log, as_root=True)
    primary.workspace.at_end(lambda: process.end(call))

    def reached():
        with open(trace, encoding="utf-8") as file:
            return "roles.before_order" in file.read().splitlines()
    wait_for("the promotion is about to be ordered", reached, 30)
    os.kill(primary.process.pid, signal.SIGSTOP)
    frozen = time.monotonic()
    wait_for("the lease would be over", lambda: time.monotonic() > frozen + 1)
    os.unlink(pause)
    os.kill(primary.process.pid, signal.SIGCONT)
    assert call.wait(30) != 0
    with open(log, encoding="utf-8") as file:
        said = file.read()
    assert "is over already" in said and has_hint(said), said
    assert is_standby(primary) and "lease" not in primary.status()["node"], "nothing was changed"
    primary.ok("promote", "--term", "2", "--lease-ttl", "2m")


def test_bad_leases_are_refused(primary):
    assert primary.ctl("lease", "renew", "--term", "1", "--ttl", "900ms").code == 2
    assert primary.ctl("lease", "renew", "--term", "1", "--ttl", "6m").code == 2
    refused(primary, "lease", "renew", "--term", "2", "--ttl", "10s", reason="ROLE_TRANSITION")
    refused(primary, "lease", "renew", "--term", "1", "--orchestrator", "other", "--ttl", "10s", reason="TERM_HELD")
    assert "lease" not in primary.status()["node"]
    primary.ok("term", "begin", "2")
    refused(primary, "lease", "renew", "--term", "1", "--ttl", "10s", reason="STALE_TERM")
    refused(primary, "lease", "renew", "--term", "2", "--ttl", "10s", reason="ROLE_TRANSITION")
