"""What the agent costs while nothing happens: CPU and memory beside an idle server, and the latency of its status."""

import statistics
import subprocess
import time

from . import process

SETTLE_S = 15
STATUS_CALLS = 200


def measure(bench, metal, seconds):
    """Runs agent and server idle for `seconds`; answers the report's figures. Nothing is compared with peers."""
    metal.start()
    try:
        pid = metal.pid
        pids = process.tree(pid)
        time.sleep(SETTLE_S)
        before, started = process.cpu_seconds([pid]), time.monotonic()
        peak = 0
        while time.monotonic() - started < seconds:
            peak = max(peak, sum(map(process.resident_bytes, pids)))
            time.sleep(1)
        elapsed = time.monotonic() - started
        cpu_s = process.cpu_seconds([pid]) - before
        calls = status_milliseconds(metal)
    finally:
        metal.stop()
    return {
        "bench": "idle",
        "seconds": round(elapsed, 1),
        "agent_cpu_percent_of_one_core": round(100 * cpu_s / elapsed, 3),
        "agent_max_rss_mib": round(peak / 2**20, 1),
        "metalctl_status_ms": {"median": round(statistics.median(calls), 2), "max": round(max(calls), 2)},
    }


def status_milliseconds(metal):
    """Wall time of whole `metalctl status` calls, with process start and connection."""
    taken = []
    for _ in range(STATUS_CALLS):
        started = time.monotonic()
        subprocess.run(metal.command("-o", "json", "status"), check=True, stdout=subprocess.DEVNULL)
        taken.append(1000 * (time.monotonic() - started))
    return taken
