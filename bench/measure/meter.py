"""One measured run of one tool: wall time, CPU time, peak memory, with a cold page cache.

What is counted, for every tool alike:
  wall_s       from the command's start to its end; each tool ends with its result durable on disk
  cpu_s        user + system time of the tool's processes (command, daemon, archive helpers) and of the PostgreSQL
               server during the run, because some tools do their work inside the server and others outside
  max_rss_mib  largest sum, sampled every 50 ms, of the resident memory of the tool's processes; for pg_basebackup also
               the anonymous memory of the server's walsenders, where its compression runs
"""

import os
import stat
import time
from dataclasses import dataclass

from . import process


@dataclass
class Run:
    """A finished run; the names are those of the JSON report."""
    tool: str
    codec: str
    wall_s: float
    cpu_s: float
    max_rss_mib: float
    bytes: int = 0         # of the database: what the tool read or wrote, uncompressed
    stored_bytes: int = 0  # of the backup in the tool's repository
    compared_files: int = 0  # of a restore: equal to the source, byte by byte
    compared_bytes: int = 0


def drop_caches():
    """Writes dirty pages back and empties the page cache, so that the next read comes from the disk."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as file:
        file.write("3\n")


def tree_bytes(directory, skip=()):
    """Sum of the sizes of the regular files below `directory`, leaving out directories named in `skip` and the
    files with which the agent probes its disks."""
    total = 0
    for parent, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name not in skip]
        for name in files:
            status = os.lstat(os.path.join(parent, name))
            if stat.S_ISREG(status.st_mode) and not name.startswith(".metal-probe"):
                total += status.st_size
    return total


class Meter:
    """Measures a command. `daemons`: pids of the tool's long-running processes; `postmaster`: pid of the server."""

    def __init__(self, daemons=(), postmaster=None, count_walsenders=False):
        self._daemons = list(daemons)
        self._postmaster = postmaster
        self._count_walsenders = count_walsenders

    def _roots(self):
        return self._daemons + ([self._postmaster] if self._postmaster else [])

    def _memory(self):
        # The command itself is a child of ours, as daemons that we started are.
        pids = process.tree(os.getpid()) - {os.getpid()}
        for daemon in self._daemons:
            pids |= process.tree(daemon)
        total = 0
        if self._postmaster:
            pids -= process.tree(self._postmaster)
            if self._count_walsenders:
                total = process.walsender_bytes(self._postmaster)
        return total + sum(map(process.resident_bytes, pids))

    def run(self, tool, command, user, cwd, log):
        """Runs `command` with a cold cache and returns its Run."""
        drop_caches()
        peak = process.PeakMemory(self._memory)
        cpu_before = process.cpu_seconds(self._roots())
        peak.start()
        started = time.monotonic()
        try:
            usage = process.check(command, user, cwd, log)
            wall_s = time.monotonic() - started
        finally:
            peak.stop()
        cpu_s = process.cpu_seconds(self._roots()) - cpu_before + usage.ru_utime + usage.ru_stime
        return Run(tool.name, tool.codec, wall_s, cpu_s, peak.peak / 2**20)
