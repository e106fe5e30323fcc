"""What the agent costs while nothing happens: CPU, memory and I/O beside an idle server, and how soon its status comes."""

import functools
import os
import statistics
import subprocess
import time

from . import process

SETTLE_S = 15
STATUS_CALLS = 200
# Fields of a block device's stat (kernel's Documentation/block/stat.rst): requests completed.
IOPS = {"reads": 0, "writes": 4, "flushes": 15}
BARS = {"agent_cpu_percent_of_one_core": 0.5, "agent_max_rss_mib": 64}


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

    figures = {name: median(name) for name in BARS}
    return {"bench": "idle", "rounds": runs, "seconds": seconds, **figures,
            "short": [{"figure": name, "measured": figures[name], "bar": bar} for name, bar in BARS.items() if figures[name] > bar],
            "device_iops": {name: median("device_iops", name) for name in IOPS},
            "metalctl_status_ms": {name: median("metalctl_status_ms", name) for name in ("median", "max")},
            "runs": measured}


def _once(metal, seconds, calls):
    pid = metal.pid
    before, started, peak = process.cpu_seconds([pid]), time.monotonic(), 0
    requests = _requests(metal.data)
    while time.monotonic() - started < seconds:
        peak = max(peak, sum(map(process.resident_bytes, process.tree(pid))))
        time.sleep(min(1, seconds))
    cpu_s, elapsed = process.cpu_seconds([pid]) - before, time.monotonic() - started
    requests = {name: each - requests[name] for name, each in _requests(metal.data).items()}
    taken = _status_milliseconds(metal, calls)
    return {"agent_cpu_percent_of_one_core": round(100 * cpu_s / elapsed, 3), "agent_max_rss_mib": round(peak / 2**20, 1),
            "device_iops": {name: round(each / elapsed, 2) for name, each in requests.items()},
            "metalctl_status_ms": {"median": round(statistics.median(taken), 2), "max": round(max(taken), 2)}}


def _requests(directory):
    """Of everybody on the device of `directory`: the agent's probes, the server's heartbeat, the rest of the machine."""
    number = os.stat(directory).st_dev
    with open(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat", encoding="utf-8") as file:
        fields = file.read().split()
    return {name: int(fields[place]) for name, place in IOPS.items()}


def _status_milliseconds(metal, calls):
    """Wall time of whole `metalctl status` calls, with process start and connection."""
    taken = []
    for _ in range(calls):
        started = time.monotonic()
        subprocess.run(metal.command("-o", "json", "status"), check=True, stdout=subprocess.DEVNULL)
        taken.append(1000 * (time.monotonic() - started))
    return taken
