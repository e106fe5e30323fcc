"""How soon GetStatus answers while PostgreSQL runs, while its postmaster is frozen, and while the data disk hangs."""

import os
import signal
import statistics
import sys

from .process import CommandFailed, say

CALLS = 3000


def measure(source, build_dir, postgres_bindir, version, calls, runs):
    """The report's figures: medians of `runs`. One agent with a primary on a loop device that can be made to hang; nothing
    is compared with peers. Uses the tests' harness: the same node and the same disk as in tests/fault."""
    os.environ["METAL_BUILD_DIR"] = str(build_dir)
    sys.path.insert(0, str(source / "tests"))
    from harness import postgres, workspace
    from harness.loop_disk import Unavailable, primary_on_loop_disk
    from harness.status_latency import seconds_of_calls
    place = workspace.Workspace()
    try:
        try:
            node = primary_on_loop_disk(place, postgres.Version(version, str(postgres_bindir)))
        except Unavailable as why:
            raise CommandFailed(f"status: {why}") from why
        measured = []
        for number in range(1, runs + 1):
            say(f"round {number} of {runs}: {calls} calls in each of three states")
            measured.append(_once(node, calls, seconds_of_calls))
        return {"bench": "status", "rounds": runs, "calls": calls, "get_status_ms": _medians(measured), "runs": measured}
    finally:
        place.close()


def _once(node, calls, seconds_of_calls):
    socket = node.config["agent"]["socket"]
    figures = {"running": _describe(seconds_of_calls(socket, calls))}
    os.kill(node.pid(), signal.SIGSTOP)
    node.wait_status("the freeze shows", lambda each: each["postgres"]["state"].endswith("UNRESPONSIVE"), 40)
    figures["postmaster_stopped"] = _describe(seconds_of_calls(socket, calls))
    os.kill(node.pid(), signal.SIGCONT)
    node.wait_running()
    node.disk.hang()
    node.wait_status("the stall shows", lambda each: _stalled(each), 10)
    figures["data_disk_hung"] = _describe(seconds_of_calls(socket, calls))
    node.disk.work()
    node.wait_status("the stall is over", lambda each: not _stalled(each), 60)
    node.wait_running()
    return figures


def _stalled(status):
    return any(fault["fault_class"] == "stalled" for fault in status["faults"])


def _describe(taken):
    cuts = statistics.quantiles(taken, n=1000, method="inclusive")
    return {"median": round(1e3 * statistics.median(taken), 3), "p99": round(1e3 * cuts[989], 3),
            "p99_9": round(1e3 * cuts[998], 3), "max": round(1e3 * max(taken), 3)}


def _medians(measured):
    return {state: {name: round(statistics.median(run[state][name] for run in measured), 3) for name in figures}
            for state, figures in measured[0].items()}
