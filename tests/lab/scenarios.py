"""The fault matrix as a table: what is done to the drive from outside, what the agent must say, and within how many seconds."""
import dataclasses
import random
import time
from typing import Callable

from harness.process import wait_for

PROBE_FILE = "/data/pg/.metal-probe"
EACH_SIDE = ("read", "write")
FAST_MS = 50  # some hundred of the 4096 blocks are written in a scenario's time, and one of them is read each second
# Half an hour of history before a drive is judged by it (agent/disk/slow/slow_detector.h), the last two minutes not counted.
LEARN_S = 1800.0 + 120.0 + 30.0


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
    state: str = "memory"
    mount_options: str = "noatime"
    kernel_words: str = ""
    mapped: bool = False  # with the device mapper below the file system
    postgres: bool = False  # with a real server, whose clients are the workload
    probe_ms: int = 0  # between two probes; 0: as the agent does by itself. It checks what it wrote and reads again by chance
    loses: bool = False  # what was acknowledged: the drive, or the kernel, says that it is durable and does not write it
    debian: int = 0  # so many full guests in the place of a small one
    learn_s: float = 0.0  # how long the agent sees the drive at work before the fault; such scenarios are played by name, or --long
    workload: int = 20  # milliseconds between two records of the workload; None: no workload


# ---- what is done to the drive ----

def smart(bits):
    def inject(lab):
        lab.begin()
        lab.guest.smart_warning(bits)
    return inject


def errors(where, *kinds):
    """I/O errors of these kinds (read, write, flush) in every page of a file; where None: everywhere."""
    def inject(lab):
        sectors = [None] if where is None else lab.guest.sectors_of(where)
        lab.guest.inject_errors([{"iotype": kind, **({} if sector is None else {"sector": sector})}
                                 for kind in kinds for sector in sectors], lab.begin)
    return inject


def errors_in_other_file(kind):
    """In a file that only a command of the guest reads or writes."""
    command = {"read": "dd if=/data/other of=/dev/null bs=4096 count=1 iflag=direct",
               "write": "dd if=/dev/zero of=/data/other bs=4096 count=1 conv=notrunc,fsync"}[kind]

    def inject(lab):
        lab.guest.shell("dd if=/dev/zero of=/data/other bs=65536 count=1 conv=fsync 2> /dev/null")
        errors("/data/other", kind)(lab)
        lab.begin()
        said = lab.guest.shell(command + " 2>&1")
        lab.outcome.notes.append("the command: " + said.splitlines()[0])
    return inject


def stall(lab):
    """For good: QEMU lets a request that waits go only when its time has come, whatever the limit is by then."""
    lab.begin()
    lab.guest.throttle(bytes_a_second=1)


def crawl(lab):
    lab.begin()
    lab.guest.throttle(requests_a_second=1)


def work(lab):
    lab.guest.throttle()


def workload_rate(lab, seconds=3.0):
    """Requests a second that the workload makes: two for each record, the data and the flush of the drive's cache, of which the
    throttle counts one."""
    first, begin = lab.acknowledged(), time.monotonic()
    wait_for("the rate was measured", lambda: time.monotonic() - begin > seconds, seconds + 10, 0.05)
    return (lab.acknowledged() - first) / (time.monotonic() - begin)


def slow(factor):
    def inject(lab):
        rate = workload_rate(lab)
        lab.outcome.notes.append(f"{rate:.0f} records a second before")
        lab.begin()
        lab.guest.throttle(requests_a_second=max(1, round(rate / factor)))
    return inject


def jitter(lab):
    """Between a tenth of the rate and all of it, another one every 200 ms."""
    rate, chance = workload_rate(lab), random.Random(1)
    lab.begin()
    while time.monotonic() - lab.injected < 45:
        until = time.monotonic() + 0.2
        lab.guest.throttle(requests_a_second=max(1, round(rate * chance.uniform(0.1, 1.0))))
        wait_for("a moment", lambda: time.monotonic() >= until, 5, 0.02)


def mapped(target, more):
    def inject(lab):
        lab.begin()
        lab.guest.map_drive(target, more)
    return inject


def remove(lab):
    lab.begin()
    lab.guest.remove_drive()


def come_back(lab):
    """It came back, and the file system of before is dead all the same: the agent may not say that all is well."""
    lab.guest.return_drive()
    back = time.monotonic()
    wait_for("the drive is back for some seconds", lambda: time.monotonic() - back > 15, 30, 0.1)
    lab.outcome.notes.append(f"15 s after its return: {sorted(lab.status.faults())}")
    if not lab.status.faults():
        lab.outcome.broken.append("no fault 15 s after the drive came back, though its file system is dead")


def shut_down(lab):
    lab.begin()
    lab.guest.shell("guest_tool shutdown /data")


def remount_read_only(lab):
    lab.begin()
    lab.guest.shell("echo u > /proc/sysrq-trigger")


def fill(lab):
    lab.begin()
    lab.guest.shell("dd if=/dev/zero of=/data/ballast bs=1048576 2> /dev/null", timeout=60)


def await_probes(seconds=10.0):
    """Some blocks of the probe file are written, and known to the agent."""
    begin = time.monotonic()
    wait_for("some blocks are written", lambda: time.monotonic() - begin > seconds, seconds + 20, 0.1)


def overwrite_probe_file(lab):
    """Other bytes than were written, in the image itself, behind the stamps: the drive answers reads well, with the wrong data."""
    sectors = lab.guest.sectors_of(PROBE_FILE)
    await_probes()
    lab.begin()
    with open(f"{lab.guest.directory}/data.img", "r+b") as image:
        for sector in sectors:
            image.seek(sector * 512 + 2048)
            image.write(b"\xa5" * 512)


def put_back_probe_file(lab):
    """What the file held some seconds before: writes that were acknowledged and are lost."""
    sectors = lab.guest.sectors_of(PROBE_FILE)
    with open(f"{lab.guest.directory}/data.img", "r+b") as image:
        def pages():
            for sector in sectors:
                image.seek(sector * 512)
                yield sector, image.read(4096)
        before = list(pages())
        await_probes()
        lab.begin()
        for sector, page in before:
            image.seek(sector * 512)
            image.write(page)


def cut_power(lab):
    """The agent starts again, with its events and its journal, and nothing that was acknowledged is gone."""
    before, acknowledged = lab.event_ids(), lab.acknowledged()
    lab.begin()
    lab.stop_watching()
    lab.outcome.lost = lab.lost(acknowledged)
    lab.outcome.acknowledged = acknowledged
    lab.guest.cut_power()
    lab.guest.boot()
    after = lab.event_ids()
    missing = {number: kind for number, kind in before.items() if after.get(number) != kind}
    if missing:
        lab.outcome.broken.append(f"events are gone: {missing}")
    if any("corrupt" in kind for kind in after.values()):
        lab.outcome.broken.append(f"the store of events was found corrupt: {after}")
    lab.operations()
    wait_for("the probes are healthy again", lab.probes_healthy, 60, 0.1)
    lab.outcome.notes.append(f"{len(before)} events before, {len(after)} after; boots in {lab.guest.boot_s:.1f} s")
    lab.watch()


def unreadable_table(lab):
    """A page of a table that the server has to read from the drive."""
    lab.server.sql("CREATE TABLE sick AS SELECT g FROM generate_series(1, 10000) g; CHECKPOINT")
    path = lab.server.sql("SELECT pg_relation_filepath('sick')")[0][0]
    lab.ctl("pg", "restart")  # what it has in its buffers it does not read
    wait_for("PostgreSQL runs", lab.running, 120, 0.2)
    lab.guest.shell("echo 3 > /proc/sys/vm/drop_caches")
    errors(f"/data/pg/{path}", "read")(lab)
    lab.begin()
    lab.outcome.notes.append("the query: " + lab.failure_of("SELECT sum(g) FROM sick"))


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
               classes(fault), 15, workload=None)
      for bit, (name, meaning, fault) in enumerate([
          ("spare", "available spare below threshold", "spare_low"),
          ("temperature", "temperature", "overheating"),
          ("reliability", "reliability degraded", "unreliable"),
          ("read-only", "media read-only", "read_only"),
          ("memory-backup", "volatile memory backup failed", "unreliable"),
          ("persistent-memory", "persistent memory region unreliable", "unreliable")])],
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
    Scenario("power-cut", "power cut, and boot", "QEMU killed; the agent's state on a second drive", cut_power, classes(), 0,
             state="disk"),
    *[Scenario(f"postgres-{name}", f"{fault}, under PostgreSQL", how, inject, expected, bar, state="disk", postgres=True)
      for name, fault, how, inject, expected, bar in [
          ("media-error", "a page of a table that cannot be read", "blkdebug read errors in the table", unreadable_table,
           classes("media_error"), 2),
          ("fsync-error", "the drive cannot empty its cache", "blkdebug flush errors", errors(None, "flush"),
           classes("fsync_error") | DEAD_FS, 2),
          ("gone", "drive removed", "device_del", remove, classes("gone"), 2),
          ("stall", "the drive answers no more", "throttle-group bps-total=1", stall, classes("stalled"), 5),
          ("power-cut", "power cut, and boot", "QEMU killed", cut_power, classes(), 0)]],
    Scenario("debian", "drive removed from a full host", "device_del; before it the agent restarted, killed, upgraded", remove,
             classes("gone"), 2, postgres=True, debian=1),
    Scenario("debian-shard", "the primary's drive removed, in a shard of three full hosts", "device_del under load", remove,
             classes("gone"), 2, postgres=True, debian=3),
]


def named(name):
    return next((each for each in SCENARIOS if each.name == name), None)
