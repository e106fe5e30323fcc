"""A primary whose disk refuses writes fences itself where the configuration lets it; `metalctl shard watch --auto` fails over."""
import os
import signal
import subprocess

import pytest

from harness import process
from harness.diagnostics import Capture
from harness.loop_disk import LoopDisk, Unavailable
from harness.node import Node
from harness.process import run, wait_for
from harness.three_nodes import Shard

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices need root")


class RefusingDisk:
    """A disk whose image lies on a small file system in memory: once that is full, writes to places never written fail."""

    def __init__(self, workspace):
        self.under = os.path.join(workspace.path, "under")
        os.makedirs(self.under)
        run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", self.under], as_root=True)
        workspace.at_end(lambda: run(["umount", "-l", self.under], as_root=True))
        self.disk = LoopDisk(workspace, os.path.join(workspace.path, "mount"), image_dir=self.under)
        self.mount = self.disk.mount

    def refuse(self):
        free = os.statvfs(self.under)
        with open(os.path.join(self.under, "ballast"), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)


def disk_that_refuses(workspace):
    try:
        return RefusingDisk(workspace)
    except Unavailable as why:
        return pytest.skip(str(why))


def options(reaction):
    return {"probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms", "reaction": reaction}


def write_much(node):
    """More than the disk has places that were ever written."""
    node.run("psql", "-XqAt", "-c", "SET synchronous_commit = local",
             "-c", "CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1, 400000)", "-c", "CHECKPOINT", code=None)


@pytest.fixture(params=["demote", "drain"])
def node(workspace, pg, request):
    disk = disk_that_refuses(workspace)
    made = Node(workspace, pg, data_dir=disk.mount, disk=options(request.param))
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
    write_much(node)
    status = node.wait_status("the write error is confirmed", lambda each: (
        fault_of(each, "write_error") or {}).get("disk", {}).get("confidence") == "FAULT_CONFIDENCE_CONFIRMED", 60)
    fault = fault_of(status, "write_error")
    assert fault["disk"]["fatal"] and "data" in fault["disk"]["roles"] and fault["severity"] == "SEVERITY_CRITICAL"
    assert fault["disk"]["reaction"] == f"FAULT_REACTION_{node.reaction.upper()}"
    seen = fault["disk"]["evidence"]
    assert [each for each in seen if each.get("kernel_line") or each["witness"] == "FAULT_WITNESS_PROBE"], fault
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
    own = Capture(node.wait_event("diagnostics.captured", after, 40)["attributes"]["path"])
    assert own.manifest["reason"].startswith("write_error of "), "the agent took one by itself, with what the fault led to"
    assert own.of_kind("event", type="disk.fenced") and own.of_kind("control", moment="at postgres.stopped")


class ShardOnRefusingDisk(Shard):
    """Node a has its data on such a disk."""

    def make_node(self, name):
        if name != "a":
            return super().make_node(name)
        disk = disk_that_refuses(self.workspace)
        own, self.config = self.config, {"data_dir": disk.mount, "disk": options("demote")}
        node = super().make_node(name)
        self.config, node.disk = own, disk
        return node


def test_a_watched_shard_moves_its_lead_by_itself(workspace, pg):
    shard = ShardOnRefusingDisk(workspace, pg).start_agents()
    shard.init()
    shard.wait_healthy()
    old = shard["a"]
    arguments = old.ctl_arguments("shard", "--config", shard.file, "watch", "--auto")
    with open(workspace.file("watch.log", ""), "w+", encoding="utf-8") as log, \
            subprocess.Popen(arguments, stdout=log, stderr=log) as watch, shard.clients() as ledger:
        try:
            assert shard.primary() is old
            old.disk.refuse()
            write_much(old)
            wait_for("another node leads", lambda: shard.ok("status")["primary"] in ("b", "c"), 90)
            ledger.wait_more()
            status = old.status()
            assert status["node"]["fence_reason"].startswith("disk: ") or status["node"]["term"] != "1", status["node"]
        finally:
            watch.send_signal(signal.SIGINT)
            assert watch.wait(20) == 130
        log.seek(0)
        told = log.read()
    assert "failover to " in told and "promote" in told, told[-3000:]
    shard.check(ledger)
