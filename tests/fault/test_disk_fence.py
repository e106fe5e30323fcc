"""A primary whose disk refuses writes fences itself where the configuration lets it, and says so to the orchestrator."""
import os

import pytest

from harness import process
from harness.loop_disk import LoopDisk, Unavailable
from harness.node import Node
from harness.process import run, wait_for

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices need root")


class RefusingDisk:
    """A disk whose image lies on a small file system in memory: once that is full, writes to places never written fail."""

    def __init__(self, workspace):
        self.under = os.path.join(workspace.path, "under")
        os.makedirs(self.under)
        run(["mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", self.under], as_root=True)
        workspace.at_end(lambda: run(["umount", "-l", self.under], as_root=True))
        self.disk = LoopDisk(workspace, os.path.join(workspace.path, "mount"), image_dir=self.under)
        self.mount = self.disk.mount

    def refuse(self):
        free = os.statvfs(self.under)
        with open(os.path.join(self.under, "ballast"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)


@pytest.fixture(params=["demote", "drain"])
def node(workspace, pg, request):
    try:
        disk = RefusingDisk(workspace)
    except Unavailable as why:
        pytest.skip(str(why))
    made = Node(workspace, pg, data_dir=disk.mount, disk={
        "probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms", "reaction": request.param})
    made.disk, made.reaction = disk, request.param
    made.launch()
    wait_for("the agent answers", lambda: made.ctl("status", timeout=2).code == 0)
    made.make_primary()
    made.ok("promote", "--term", "1")
    made.wait_status("the disk is known", lambda status: [disk for disk in status["disks"] if "data" in disk["roles"]], 40)
    return made


def fault_of(status, fault_class):
    return next((each for each in status.get("faults", []) if each["fault_class"] == fault_class), None)


def test_a_disk_that_refuses_writes(node):
    after = node.last_event_id()
    node.disk.refuse()
    node.run("psql", "-XqAt", "-c", "CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1, 400000) i",
             "-c", "CHECKPOINT", code=None)
    status = node.wait_status("the write error is confirmed", lambda each: (
        fault_of(each, "write_error") or {}).get("disk", {}).get("confidence") == "FAULT_CONFIDENCE_CONFIRMED", 60)
    fault = fault_of(status, "write_error")
    assert fault["disk"]["fatal"] and "data" in fault["disk"]["roles"] and fault["severity"] == "SEVERITY_CRITICAL"
    assert fault["disk"]["reaction"] == f"FAULT_REACTION_{node.reaction.upper()}"
    assert [each for each in fault["disk"]["evidence"] if each.get("kernel_line") or each["witness"] == "FAULT_WITNESS_PROBE"], fault
    if node.reaction == "drain":
        assert not node.events("disk.fenced", after) and not node.status()["node"]["fenced"]
        return
    status = node.wait_status("it is fenced and down", lambda each: (
        each["node"]["fenced"] and each["postgres"]["state"] == "POSTGRES_STATE_STOPPED"), 30)
    assert status["node"]["fence_reason"].startswith("disk: ")
    fenced = node.events("disk.fenced", after)
    assert fenced and "HINT: " in fenced[0]["message"]
    done = [action for each in status["faults"] for action in each.get("disk", {}).get("actions", [])]
    assert "fenced the primary of term 1" in done and "stopped PostgreSQL" in done
    assert node.ctl("promote", "--term", "1").reason == "FENCED"
