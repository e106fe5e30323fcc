"""What the agent costs while nothing happens: CPU and memory beside an idle server, and how soon its status comes."""

import functools
import statistics
import subprocess
import time

from . import process

SETTLE_S = 15
STATUS_CALLS = 200


def measure(metal, runs, *, seconds, settle_s=SETTLE_S, calls=STATUS_CALLS):
    """The report's figures: medians of `runs`, in each of which agent and server idle for `seconds`. No peers."""
    measured = []
    metal.start()
    try:
        time.sleep(settle_s)
        for number in range(1, runs + 1):
            process.say(f"round {number} of {runs}: idle for {seconds} s")
            measured.append(_once(metal, seconds, calls))
    finally:
        metal.stop()
    def median(*names):
        return round(statistics.median(functools.reduce(dict.__getitem__, names, run) for run in measured), 3)

    return {"bench": "idle", "rounds": runs, "seconds": seconds,
            "agent_cpu_percent_of_one_core": median("agent_cpu_percent_of_one_core"),
            "agent_max_rss_mib": median("agent_max_rss_mib"),
            "metalctl_status_ms": {name: median("metalctl_status_ms", name) for name in ("median", "max")},
            "runs": measured}


def _once(metal, seconds, calls):
    pid = metal.pid
    before, started, peak = process.cpu_seconds([pid]), time.monotonic(), 0
    while time.monotonic() - started < seconds:
        peak = max(peak, sum(map(process.resident_bytes, process.tree(pid))))
        time.sleep(min(1, seconds))
    cpu_s, elapsed = process.cpu_seconds([pid]) - before, time.monotonic() - started
    taken = _status_milliseconds(metal, calls)
    return {"agent_cpu_percent_of_one_core": round(100 * cpu_s / elapsed, 3), "agent_max_rss_mib": round(peak / 2**20, 1),
            "metalctl_status_ms": {"median": round(statistics.median(taken), 2), "max": round(max(taken), 2)}}


def _status_milliseconds(metal, calls):
    """Wall time of whole `metalctl status` calls, with process start and connection."""
    taken = []
    for _ in range(calls):
        started = time.monotonic()
        subprocess.run(metal.command("-o", "json", "status"), check=True, stdout=subprocess.DEVNULL)
        taken.append(1000 * (time.monotonic() - started))
    return taken
