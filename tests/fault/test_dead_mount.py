"""The agent starts while a mount does not answer, serves, and says which one; PostgreSQL's other disk is of use meanwhile."""
import os
import time

import pytest

from harness import process
from harness.diagnostics import capture
from harness.hung_mount import HungMount, Unavailable
from harness.node import Node
from harness.status_latency import check_promise

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="only root can mount")
DISK = {"probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms", "probe_stall_after": "2s"}


def hung(workspace, path):
    try:
        return HungMount(workspace, path)
    except Unavailable as why:
        return pytest.skip(str(why))


def stalled_roles(status):
    return [probe["role"] for disk in status["disks"] for probe in disk["probes"] if probe["state"] == "PROBE_STATE_STALLED"]


@pytest.mark.parametrize("role", ["repository", "data"])
def test_agent_starts_beside_a_mount_that_does_not_answer(workspace, pg, role):
    place = workspace.directory("mount")
    node = Node(workspace, pg, data_dir=os.path.join(place, "data") if role == "data" else None, disk=DISK)
    if role == "repository":
        node.config["repository"]["path"] = os.path.join(place, "repository")
    mount = hung(workspace, place)
    begin = time.monotonic()
    node.start_agent()
    assert time.monotonic() - begin < 15
    assert f"the disk of {place if role == 'data' else place + '/repository'} does not answer" in node.log_text()
    status = node.wait_status("the stall shows", lambda each: role in stalled_roles(each), 20)
    assert any(fault["fault_class"] == "stalled" for fault in status["faults"]), status["faults"]
    check_promise(node)
    if role == "repository":
        node.ok("pg", "init")
        node.ok("pg", "start")
        assert node.sql("SELECT 1") == "1"
    assert process.end(node.process, patience=8.5) in (0, 70), "it ends by itself: orderly, or at its deadline"
    mount.end()
    node.start_agent()
    node.wait_status("nothing hangs", lambda each: not each["faults"], 30)


def test_recorder_on_a_mount_that_does_not_answer_keeps_nothing_waiting(workspace, pg):
    place = workspace.directory("mount")
    node = Node(workspace, pg, disk=DISK, recorder={"directory": os.path.join(place, "recorder")})
    mount = hung(workspace, place)
    node.start_agent()
    check_promise(node)
    found = capture(node)
    assert "did not answer" in found.manifest["missing"]["records"], found.manifest
    assert found.manifest["recorder"]["behind_us"] > 0
    assert found.of_kind("start") and found.of_kind("rpc"), "what waits for the disk is in it"
    assert all(each["sequence"] is None for each in found.records)
    begin = time.monotonic()
    assert process.end(node.process, patience=8.5) == 0
    assert time.monotonic() - begin < 5
    mount.end()
