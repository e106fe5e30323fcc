"""The fault matrix as a table: what is done to the drive from outside, what the agent must say, and within how many seconds."""
import dataclasses
from typing import Callable

from lab.faults import (EACH_SIDE, PROBE_FILE, come_back, come_back_fenced, crawl, cut_power, cut_power_at_each_mark, errors,
                        errors_in_other_file, fill, jitter, mapped, overwrite_probe_file, put_back_probe_file, remount_read_only,
                        remove, shut_down, slow, smart, stall, unreadable_table)

FAST_MS = 50  # some hundred of the 4096 blocks are written in a scenario's time, and one of them is read each second
# Half an hour of history before a drive is judged by it (agent/disk/slow/slow_detector.h), the last two minutes not counted.
LEARN_S = 1800.0 + 120.0 + 30.0
FENCE_S = 12  # from the fault to the fence of a primary, at most
# Classes after which a drive keeps nothing that it is told: their scenarios end with a confirmed fault (.fatal in
# agent/disk/faults/fault_table.cc, which tests/tidy/lab_test.py compares).
FATAL = frozenset({"write_error", "fsync_error", "read_only", "unreliable", "gone", "stalled", "corruption", "lost_write",
                   "filesystem_shutdown"})


@dataclasses.dataclass(frozen=True)
class Scenario:
    """`classes`: those that count as detected (agent/disk/faults/evidence.h), whichever comes first; none: nothing is expected.
    `inject(experiment)` calls experiment.begin() at the moment of the fault."""
    name: str
    fault: str  # one phrase, for the table
    how: str  # the same
    inject: Callable
    classes: frozenset
    bar_s: float
    patience_s: float = 20.0  # how long it is waited for: longer than the bar, to know by how much it is missed
    afterwards: Callable = None
    fs: str = "xfs"
    state: str = "memory"  # the agent's; "disk": on a second drive, "data": on the one that fails
    mount_options: str = "noatime"
    kernel_words: str = ""
    mapped: bool = False  # with the device mapper below the file system
    logged: bool = False  # with a log of what is written, from before the file system is mounted
    postgres: bool = False  # with a real server, whose clients are the workload
    probe_ms: int = 0  # between two probes; 0: as the agent does by itself. It checks what it wrote and reads again by chance
    loses: bool = False  # what was acknowledged: the drive, or the kernel, says that it is durable and does not write it
    debian: int = 0  # so many full guests in the place of a small one
    fence_bar_s: float = None  # a primary has to be fenced within so many seconds; None: it must not be, for these classes
    hangs: bool = False  # the drive answers nothing, not even that it failed: a server that waits for it ends with it
    suspected: str = ""  # why a class of FATAL is not confirmed here
    holds: str = ""  # why threads of the agent may be in D state
    status_judged: bool = True  # GetStatus' p99; not where machines share the cores of one
    learn_s: float = 0.0  # how long the agent sees the drive at work before the fault; such scenarios are played by name, or --long
    workload: int = 20  # milliseconds between two records of the workload; None: no workload

    def fatal(self):
        """Of its classes those that have to be confirmed."""
        return self.classes & FATAL


def classes(*names):
    return frozenset(names)


# ---- the table ----

DEAD_FS = classes("filesystem_shutdown", "write_error", "read_only")
SCENARIOS = [
    Scenario("gone", "drive removed", "device_del", remove, classes("gone"), 2),
    Scenario("gone-and-back", "drive removed, and there again", "device_del, device_add", remove, classes("gone"), 2,
             afterwards=come_back),
    Scenario("media-error", "read errors in the pages that are probed", "blkdebug read errors in the probe file",
             errors(PROBE_FILE, "read"), classes("media_error"), 2),
    Scenario("media-error-elsewhere", "a read error in a page that another process reads", "blkdebug, one direct read by dd",
             errors_in_other_file("read"), classes("media_error"), 2),
    Scenario("write-error", "write errors in the pages that are probed", "blkdebug write errors in the probe file",
             errors(PROBE_FILE, "write"), classes("write_error"), 2),
    Scenario("write-error-elsewhere", "a write error in a page that another process writes",
             "blkdebug, one write and fsync", errors_in_other_file("write"), classes("write_error", "fsync_error"), 2),
    Scenario("write-error-in-wal", "write errors in the file of the workload", "blkdebug write errors in the file",
             errors("/data/wal.dat", "write"), classes("write_error", "fsync_error"), 2),
    Scenario("dead-media", "every read and write fails", "blkdebug errors everywhere", errors(None, *EACH_SIDE),
             classes("media_error") | DEAD_FS, 2),
    Scenario("fsync-error", "the drive cannot empty its cache", "blkdebug flush errors", errors(None, "flush"),
             classes("fsync_error") | DEAD_FS, 2),
    Scenario("stall", "the drive answers no more", "throttle-group bps-total=1", stall, classes("stalled"), 5),
    Scenario("stall-ext4", "the same on ext4", "throttle-group bps-total=1", stall, classes("stalled"), 5, fs="ext4"),
    # The first requests come back: the oldest is 3 s old only once three wait before it.
    Scenario("crawl", "one request a second", "throttle-group iops-total=1", crawl, classes("stalled"), 8, patience_s=30),
    Scenario("command-timeout", "the kernel aborts commands and resets the controller",
             "one request a second, nvme_core.io_timeout=3", crawl, classes("controller_reset"), 10, patience_s=25,
             kernel_words="nvme_core.io_timeout=3 nvme_core.admin_timeout=5"),
    *[Scenario(f"slow-{factor}x", f"a {factor}th of the throughput" if factor > 2 else "half of the throughput",
               f"throttle-group iops-total: the workload's rate / {factor}", slow(factor), classes("slow"), 60, patience_s=120,
               workload=0, learn_s=LEARN_S)
      for factor in (2, 4, 10)],
    Scenario("slow-jitter", "a tenth to all of the throughput, changing", "throttle-group, another limit every 200 ms", jitter,
             classes("slow"), 60, patience_s=75, workload=0, learn_s=LEARN_S),
    *[Scenario(f"smart-{name}", f"SMART critical warning: {meaning}", f"smart_critical_warning = {1 << bit}", smart(1 << bit),
               classes(fault), 15, workload=None, suspected=alone)
      for bit, (name, meaning, fault, alone) in enumerate([
          ("spare", "available spare below threshold", "spare_low", ""),
          ("temperature", "temperature", "overheating", ""),
          ("reliability", "reliability degraded", "unreliable", ""),
          ("read-only", "media read-only", "read_only", "the emulated drive still writes: no second witness"),
          ("memory-backup", "volatile memory backup failed", "unreliable", ""),
          ("persistent-memory", "persistent memory region unreliable", "unreliable", "")])],
    *[Scenario(f"write-errors-{fs}", f"every write fails, on {fs}", "blkdebug write errors everywhere", errors(None, "write"),
               DEAD_FS, 2, fs=fs, mount_options=options) for fs, options in (("xfs", "noatime"), ("ext4", "errors=remount-ro"))],
    *[Scenario(f"shutdown-{fs}", f"{fs} shut down", "the file system's own ioctl", shut_down, classes("filesystem_shutdown"), 2,
               fs=fs) for fs in ("xfs", "ext4")],
    Scenario("read-only-ext4", "file system made read-only under its users", "sysrq u", remount_read_only,
             classes("filesystem_shutdown", "read_only"), 2, fs="ext4", loses=True),  # ext4's fsync then answers 0 and does nothing
    Scenario("full", "no space left", "dd fills the file system", fill, classes("full"), 5, patience_s=45),
    Scenario("corruption", "reads answer other bytes", "the image's pages of the probe file overwritten", overwrite_probe_file,
             classes("corruption"), 60, patience_s=90, probe_ms=FAST_MS),
    Scenario("lost-write", "reads answer what was there before", "the image's pages of the probe file put back",
             put_back_probe_file, classes("lost_write", "corruption"), 120, patience_s=120, probe_ms=FAST_MS),
    *[Scenario(f"mapped-{name}", fault, f"dm-{target} {more}", mapped(target, more), expected, bar, patience_s=patience,
               mapped=True, workload=100, learn_s=learn, probe_ms=FAST_MS if name == "drop-writes" else 0,
               loses=name == "drop-writes")
      for name, fault, target, more, expected, bar, patience, learn in [
          ("delay-20ms", "every request takes 20 ms longer", "delay", "20", classes("slow"), 60, 120, LEARN_S),
          ("delay-300ms", "every request takes 300 ms longer", "delay", "300", classes("slow"), 60, 60, 0),
          ("error-writes", "writes fail, reads do not", "flakey", "0 1 1 error_writes", DEAD_FS, 2, 20, 0),
          ("drop-writes", "writes are dropped and said to be done", "flakey", "0 1 1 drop_writes",
           classes("lost_write", "corruption"), 120, 120, 0)]],
    Scenario("mapped-log-writes", "power cut at many moments, with a cache that keeps what was flushed alone",
             "dm-log-writes, replayed up to each mark", cut_power_at_each_mark, classes(), 0, logged=True),
    Scenario("power-cut", "power cut, and boot", "QEMU killed; the agent's state on a second drive", cut_power, classes(), 0,
             state="disk"),
    *[Scenario(f"postgres-{name}", f"{fault}, under PostgreSQL", how, inject, expected, bar, state="disk", postgres=True,
               fence_bar_s=FENCE_S if expected & FATAL else None, hangs=name == "stall")
      for name, fault, how, inject, expected, bar in [
          ("media-error", "a page of a table that cannot be read", "blkdebug read errors in the table", unreadable_table,
           classes("media_error"), 2),
          ("fsync-error", "the drive cannot empty its cache", "blkdebug flush errors", errors(None, "flush"),
           classes("fsync_error") | DEAD_FS, 2),
          ("write-error", "every write fails", "blkdebug write errors everywhere", errors(None, "write"), DEAD_FS, 2),
          ("gone", "drive removed", "device_del", remove, classes("gone"), 2),
          ("stall", "the drive answers no more", "throttle-group bps-total=1", stall, classes("stalled"), 5),
          ("power-cut", "power cut, and boot", "QEMU killed", cut_power, classes(), 0)]],
    Scenario("postgres-gone-and-back", "drive of a primary removed, and there again", "device_del, device_add, mount", remove,
             classes("gone"), 2, state="disk", postgres=True, fence_bar_s=FENCE_S, afterwards=come_back_fenced),
    Scenario("state-on-sick-drive", "the drive answers no more, and the agent's state is on it", "throttle-group bps-total=1",
             stall, classes("stalled"), 5, state="data", postgres=True, fence_bar_s=FENCE_S,
             holds="they store events and the fence on it", hangs=True),
    Scenario("debian", "drive removed from a full host", "device_del; before it the agent restarted, killed, upgraded", remove,
             classes("gone"), 2, postgres=True, debian=1, fence_bar_s=FENCE_S),
    Scenario("debian-shard", "the primary's drive removed, in a shard of three full hosts", "device_del under load", remove,
             classes("gone"), 2, postgres=True, debian=3, fence_bar_s=FENCE_S, status_judged=False),
]


def named(name):
    return next((each for each in SCENARIOS if each.name == name), None)
