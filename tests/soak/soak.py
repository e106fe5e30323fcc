"""One node at full load, and what its agent says about its disk meanwhile."""
import glob
import json
import os
import shutil
import statistics
import threading
import time

from harness import process
from harness.node import Node
from harness.status_latency import percentile
from harness.wire import Connection, fields_of

CLIENTS, SEGMENT_S = 4, 60
CHECKPOINT_EVERY_S, VACUUM_FULL_EVERY = 2, 5
LOOK_EVERY_S, STATUS_RATE = 1.0, 10
KEPT_BACKUPS = 2
REST_S = 20  # without any load, before and after it: the memory that the agent keeps
BACKUP_MEMORY_MIB = 64  # backup.memory: buffers of all backups and restores, beside what the agent always has
# What the agent promises under any load. Its CPU time is only told: a backup's own work is in it.
STATUS_P99_MS, RSS_MIB, PROBES_PER_SECOND = 20.0, 80.0, 5.0
TICKS = os.sysconf("SC_CLK_TCK")


class _Loop(threading.Thread):
    """Something done again and again until the end. What fails is noted, and tried again."""

    def __init__(self, name, soak, step, pause=0.0):
        super().__init__(name=name, daemon=True)
        self._soak, self._step, self._pause = soak, step, pause
        self.rounds, self.errors = 0, []

    def run(self):
        while not self._soak.over.is_set():
            try:
                self._step(self.rounds)
                self.rounds += 1
            except Exception as error:  # the load goes on; the report names it
                if not self._soak.over.is_set():
                    self.errors.append(f"{type(error).__name__}: {error}"[:500])
                    self._soak.over.wait(1)
            self._soak.over.wait(self._pause)

    def report(self):
        return {"rounds": self.rounds, "errors": len(self.errors), "first_errors": self.errors[:3]}


def probe_requests(disk):
    """Requests of the probes on a disk, in their windows. Roles on one file system share a prober and show the same figures: its
    requests count once."""
    probers = {json.dumps([probe.get("read", {}), probe.get("write", {})], sort_keys=True) for probe in disk.get("probes", [])}
    return sum(int(kind.get("count", 0)) for each in probers for kind in json.loads(each))


class ProbeRate:
    """Requests of the probes on one device. The status counts those of its windows: what is added there counts, and a look after
    which an old window was dropped does not."""

    def __init__(self):
        self._last = None
        self._requests, self._seconds = 0, 0.0

    def add(self, count, now):
        if self._last is not None and count >= self._last[0]:
            self._requests += count - self._last[0]
            self._seconds += now - self._last[1]
        self._last = count, now

    def per_second(self):
        """None when there was nothing to count."""
        return self._requests / self._seconds if self._seconds else None


class Soak:
    def __init__(self, workspace, version, scale):
        self.over = threading.Event()
        self._workspace, self._scale = workspace, scale
        # As a new installation has them: only the memory of a backup and the recorder's size are the tests' own.
        self._node = Node(workspace, version, disk={"probe_enabled": True}, backup={"memory": f"{BACKUP_MEMORY_MIB}MiB"})
        self._faults = {}  # (class, subject): what was worst
        self._status_s, self._peak_mib = [], 0.0
        self._probes = {}  # device: ProbeRate

    def run(self, seconds):
        """The figures after `seconds`, or when it is interrupted."""
        self._prepare()
        loops = [_Loop("pgbench", self, self._pgbench), _Loop("backup", self, self._backup),
                 _Loop("restore", self, self._restore, 1), _Loop("vacuum", self, self._vacuum),
                 _Loop("checkpoint", self, self._checkpoint, CHECKPOINT_EVERY_S),
                 _Loop("look", self, self._look, LOOK_EVERY_S), _Loop("status", self, self._status, 1 / STATUS_RATE)]
        rss_before = self._rest()
        before, started, next_word = self._cpu_s(), time.monotonic(), 60
        for each in loops:
            each.start()
        try:
            while time.monotonic() - started < seconds:
                time.sleep(min(1.0, seconds))
                if time.monotonic() - started > next_word:
                    next_word += 600
                    print(f"{(next_word - 600) // 60} min: " + ", ".join(f"{each.name} {each.rounds}" for each in loops) +
                          f"; faults {sorted(self._faults.values(), key=str)}", flush=True)
        except KeyboardInterrupt:
            pass
        elapsed, cpu_s = time.monotonic() - started, self._cpu_s() - before
        self._look(0)
        self.over.set()
        for each in loops:
            each.join(180)
        figures = self._figures(loops, elapsed, cpu_s)
        figures["agent_rss_mib"].update(before_load=rss_before, after_load=self._rest())
        figures["broken_promises"] = broken_promises(figures)
        figures["as_promised"] = not figures["broken_promises"]
        return figures

    def _rest(self):
        """MiB that the agent has at the end of some seconds without load."""
        time.sleep(REST_S)
        return self._resident_mib()

    def _resident_mib(self):
        return round(sum(map(_resident_kib, self._agents())) / 1024, 1)

    # ---- the load ----

    def _prepare(self):
        node = self._node
        node.start_agent()
        node.init("--set", "shared_buffers=256MB", "max_wal_size=2GB", "checkpoint_timeout=5min")
        node.ok("pg", "start")
        node.promote(1)
        node.pgbench_load(self._scale)
        node.wait_status("the disk is known", lambda status: [each for each in status["disks"] if "data" in each["roles"]], 60)

    def _pgbench(self, _):
        self._node.run("pgbench", "-n", "-c", str(CLIENTS), "-j", "2", "-T", str(SEGMENT_S), timeout=SEGMENT_S + 300)

    def _backup(self, _):
        self._node.ok("backup", "create", timeout=1800)
        self._drop_old()

    def _restore(self, number):
        if not self._node.backups():
            self.over.wait(2)
            return
        target = os.path.join(self._node.root, f"restored-{number}")
        try:
            self._node.ok("backup", "restore", "latest", "--target", target, timeout=1800)
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def _vacuum(self, number):
        self._node.sql("VACUUM (FREEZE, ANALYZE)", timeout=1800)
        if number % VACUUM_FULL_EVERY == 0:
            self._node.sql("DROP TABLE IF EXISTS soak; CREATE TABLE soak AS SELECT * FROM pgbench_accounts", timeout=1800)
            self._node.sql("VACUUM FULL soak", timeout=1800)

    def _checkpoint(self, _):
        self._node.sql("CHECKPOINT", timeout=600)

    def _drop_old(self):
        """The disk must not fill: backups but the newest, and the WAL that they alone needed."""
        names = [each.rpartition("/")[2] for each in self._node.backups()]  # newest first
        if len(names) <= KEPT_BACKUPS:
            return
        place = glob.glob(os.path.join(self._node.repository, "[0-9]*"))[0]
        since = os.stat(os.path.join(place, "packs", names[KEPT_BACKUPS - 1])).st_ctime - 600
        for name in names[KEPT_BACKUPS:]:
            for folder in ("backups", "packs"):
                shutil.rmtree(os.path.join(place, folder, name), ignore_errors=True)
        for directory, _, files in os.walk(os.path.join(place, "wal")):
            for each in (os.path.join(directory, name) for name in files if ".history" not in name):
                try:
                    if os.stat(each).st_mtime < since:
                        os.unlink(each)
                except FileNotFoundError:  # it was just moved to its place
                    pass

    # ---- what the agent says ----

    def _look(self, _):
        status, now = self._node.status(), time.monotonic()
        for disk in status.get("disks", []):
            self._probes.setdefault(disk["device"], ProbeRate()).add(probe_requests(disk), now)
        for fault in status.get("faults", []):
            disk = fault.get("disk")
            if not disk:
                continue
            confirmed = disk["confidence"] == "FAULT_CONFIDENCE_CONFIRMED"
            seen = self._faults.setdefault((fault["fault_class"], fault["subject"]), {
                "class": fault["fault_class"], "subject": fault["subject"], "confirmed": False, "first": fault["message"]})
            seen["confirmed"] = seen["confirmed"] or confirmed
        self._peak_mib = max(self._peak_mib, self._resident_mib())

    def _status(self, _):
        connection = Connection(self._node.config["agent"]["socket"])
        while not self.over.is_set():
            begin = time.monotonic()
            assert 1 in fields_of(connection.call("HostService/GetStatus"))
            self._status_s.append(time.monotonic() - begin)
            self.over.wait(1 / STATUS_RATE)
        connection.close()

    def _agents(self):
        """The agent and its helper, by name."""
        pid = self._node.process.pid
        children = process.run(["ps", "-o", "pid=", "--ppid", str(pid)], as_root=True, code=None).stdout.split()
        return [pid, *[int(each) for each in children if _name(each).startswith("metal-agent")]]

    def _cpu_s(self):
        total = 0
        for pid in self._agents():
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                fields = file.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def _figures(self, loops, elapsed, cpu_s):
        # The look's own view may miss what came and went between two of them: the events do not.
        events = self._node.events("disk.")
        confirmed = [each for each in events if each["type"] == "disk.fault_confirmed"]
        load = {each.name: each.report() for each in loops}
        rates = {device: each.per_second() for device, each in self._probes.items()}
        return {"soak_minutes": round(elapsed / 60, 1), "load": load,
                "failed": [name for name, each in load.items() if each["errors"] > 0 or (each["rounds"] == 0 and name != "status")],
                "faults": sorted(self._faults.values(), key=str),
                "confirmed": [f"{each['subject']}: {each['message']}" for each in confirmed],
                "events": {name: sum(each["type"] == name for each in events) for name in {each["type"] for each in events}},
                "get_status_ms": {"calls": len(self._status_s), "median": round(1e3 * statistics.median(self._status_s), 3),
                                  "p99": round(1e3 * percentile(self._status_s, 99), 3)} if len(self._status_s) > 1 else {},
                "agent_rss_mib": {"peak": self._peak_mib},
                "probes_per_second": {device: round(each, 2) for device, each in rates.items() if each is not None},
                "agent_cpu_percent_of_one_core": round(100 * cpu_s / elapsed, 2)}


def broken_promises(figures):
    """What of the figures is not as promised, in words."""
    broken = [f"confirmed: {each}" for each in figures["confirmed"]]
    broken += [f"confirmed: {each['class']} of {each['subject']}" for each in figures["faults"] if each["confirmed"]]
    broken += [f"part of the load failed: {each}" for each in figures["failed"]]
    p99 = figures["get_status_ms"].get("p99")
    if p99 is None or p99 >= STATUS_P99_MS:
        broken.append(f"GetStatus p99 {p99} ms, not below {STATUS_P99_MS:g}")
    limits = {"before_load": RSS_MIB, "peak": RSS_MIB + BACKUP_MEMORY_MIB, "after_load": RSS_MIB}
    broken += [f"resident memory {name} {figures['agent_rss_mib'][name]} MiB, more than {limit:g}"
               for name, limit in limits.items() if figures["agent_rss_mib"][name] > limit]
    broken += [f"{each} probes a second on {device}, more than {PROBES_PER_SECOND:g}"
               for device, each in figures["probes_per_second"].items() if each > PROBES_PER_SECOND]
    return broken


def _name(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _resident_kib(pid):
    with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
