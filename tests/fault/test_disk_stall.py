"""A data disk that hangs: PGDATA on a loop device whose I/O is held back by the kernel's block throttle.

The stall must show in the status within 5 s and clear when it ends, and nothing else in the agent may notice.
"""
import os
import statistics
import time

import pytest

from harness import process
from harness.node import Node
from harness.process import run
from harness.wire import Connection

BLKIO = "/sys/fs/cgroup/blkio"
pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices and cgroups need root")


class LoopDisk:
    """A file system on a loop device, and a cgroup in which I/O to that device can be stopped."""

    def __init__(self, workspace, mount):
        if not os.path.exists(f"{BLKIO}/blkio.throttle.write_bps_device"):
            pytest.skip("this kernel has no blkio throttle (cgroup v1)")
        image = os.path.join(workspace.path, "disk.img")
        with open(image, "wb") as file:
            file.truncate(1 << 30)
        made = run(["losetup", "--find", "--show", "--direct-io=on", image], as_root=True, code=None)
        if made.code != 0:
            pytest.skip(f"no loop device: {made.stderr.strip()}")
        self.device = made.stdout.strip()
        workspace.at_end(lambda: run(["losetup", "-d", self.device], as_root=True))
        run(["mkfs.ext4", "-q", "-F", self.device], as_root=True)
        self.mount = mount
        os.makedirs(mount)
        run(["mount", self.device, mount], as_root=True)
        workspace.at_end(lambda: run(["umount", mount], as_root=True))
        os.rmdir(os.path.join(mount, "lost+found"))
        os.chown(mount, process.UID, process.GID)
        os.chmod(mount, 0o700)
        with open(f"/sys/class/block/{os.path.basename(self.device)}/dev", encoding="utf-8") as file:
            self.number = file.read().strip()
        self.cgroup = f"{BLKIO}/metal-test-{os.getpid()}"
        os.makedirs(self.cgroup)
        workspace.at_end(self._leave)

    def _set(self, bytes_per_second):
        for what in ("read_bps_device", "write_bps_device"):
            with open(f"{self.cgroup}/blkio.throttle.{what}", "w", encoding="utf-8") as file:
                file.write(f"{self.number} {bytes_per_second}")

    def capture(self, pid):
        """The process and its children to come."""
        with open(f"{self.cgroup}/cgroup.procs", "w", encoding="utf-8") as file:
            file.write(str(pid))

    def hang(self):
        self._set(1)

    def work(self):
        self._set(0)  # no limit; what waits is let through

    def _leave(self):
        self.work()
        process.wait_for("the cgroup is empty", lambda: not self._members(), 20)
        os.rmdir(self.cgroup)

    def _members(self):
        with open(f"{self.cgroup}/cgroup.procs", encoding="utf-8") as file:
            members = file.read().split()
        for pid in members:
            try:
                with open(f"{BLKIO}/cgroup.procs", "w", encoding="utf-8") as file:
                    file.write(pid)
            except ProcessLookupError:
                pass
        return members


@pytest.fixture
def hanging(workspace, pg):
    """A primary on a disk that can be made to hang, with the agent in the cgroup."""
    disk = LoopDisk(workspace, os.path.join(workspace.path, "mount"))
    node = Node(workspace, pg, data_dir=disk.mount, disk={
        "probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms", "probe_stall_after": "2s"})
    node.disk = disk
    node.launch()
    node.disk.capture(node.process.pid)
    process.wait_for("the agent answers", lambda: node.ctl("status", timeout=2).code == 0)
    node.make_primary()
    node.wait_status("the probe is healthy", lambda status: probe_state(status) == "HEALTHY", 40)
    return node


def probe_state(status):
    states = [probe["state"] for disk in status["disks"] for probe in disk["probes"] if probe["role"] == "data"]
    return states[0].removeprefix("PROBE_STATE_") if states else ""


def get_status_times(node, count):
    connection = Connection(node.config["agent"]["socket"])
    taken = []
    for _ in range(count):
        begin = time.monotonic()
        connection.call("HostService/GetStatus")
        taken.append(time.monotonic() - begin)
    connection.close()
    return taken


def test_stalled_disk_shows_within_five_seconds_and_clears(hanging):
    node, after = hanging, hanging.last_event_id()
    node.disk.hang()
    begin = time.monotonic()
    status = node.wait_status("the stall shows", lambda each: probe_state(each) == "STALLED", 10)
    assert time.monotonic() - begin < 5.0
    fault = next(each for each in status["faults"] if each["fault_class"] == "stalled")
    assert fault["severity"] in ("SEVERITY_ERROR", "SEVERITY_CRITICAL") and fault["message"]

    # Nothing else in the agent notices.
    taken = get_status_times(node, 300)
    p99 = statistics.quantiles(taken, n=100)[98]
    print(f"GetStatus with a hung disk: p50 {statistics.median(taken) * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")
    assert p99 < 0.05, "the promise is 10 ms; a busy test machine gets five times that"
    assert node.events("disk.", after), "events are written: they live on another disk"
    assert node.operations(), "so does the journal"
    assert node.ok("disk", "list")["disks"]

    node.disk.work()
    node.wait_status("it clears", lambda each: probe_state(each) == "HEALTHY" and not each["faults"], 20)
    node.sql("CREATE TABLE t AS SELECT 1 AS a; CHECKPOINT")
    assert node.sql("SELECT a FROM t") == "1"


def test_agent_ends_and_starts_while_the_disk_hangs(hanging):
    """A hung probe cannot keep the agent from ending, and PostgreSQL is not touched by either."""
    node, pid = hanging, hanging.pid()
    node.disk.hang()
    node.wait_status("the stall shows", lambda each: probe_state(each) == "STALLED", 10)
    process.end(node.process, patience=15)
    assert process.is_alive(pid)
    node.disk.work()
    node.start_agent()
    assert node.wait_running()["postgres"]["pid"] == pid
