"""A standby whose disk refuses writes leaves the synchronous set under `shard watch --auto`, until an operator knows its fault."""
import os

import pytest
from test_disk_fence import RefusingDisk, options

from harness import process
from harness.loop_disk import Unavailable
from harness.process import wait_for
from harness.shard_watch import ShardWatch
from harness.three_nodes import Shard

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices need root")

BOTH, ALONE = 'ANY 1 ("b", "c")', 'ANY 1 ("c")'


class ShardWithRefusingStandby(Shard):
    """Node b has its data on a disk that can refuse writes."""

    def make_node(self, name):
        if name != "b":
            return super().make_node(name)
        try:
            disk = RefusingDisk(self.workspace)
        except Unavailable as why:
            return pytest.skip(str(why))
        own, self.config = self.config, {"data_dir": disk.mount, "disk": options("drain")}
        node = super().make_node(name)
        self.config, node.disk = own, disk
        return node


def in_force(shard, expected):
    shard["a"].wait_status(f"the set is {expected}",
                           lambda status: status["postgres"].get("synchronous_standby_names") == expected, 60)


def fill(shard):
    """More WAL and pages than the standby's disk has places for that were ever written."""
    shard["a"].run("psql", "-XqAt", "-c", "SET synchronous_commit = local",
                   "-c", "CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1, 200000)", code=None)


def test_a_sick_standby_leaves_the_synchronous_set(workspace, pg):
    shard = ShardWithRefusingStandby(workspace, pg).start_agents()
    shard.init()
    shard.wait_healthy()
    sick = shard["b"]
    after, before = shard["a"].last_event_id(), sick.last_event_id()
    with ShardWatch(workspace, shard) as watch, shard.clients() as ledger:
        assert shard.primary() is shard["a"]
        in_force(shard, BOTH)
        sick.disk.refuse()
        fill(shard)
        in_force(shard, ALONE)
        ledger.wait_more()
        told = shard["a"].wait_event("replication.synchronous", after, 20)
        assert "b is sick: write_error" in told["message"] and "every commit waits for c now" in told["message"], told
        assert sick.wait_event("disk.rebuild_wanted", before, 20)["message"].endswith(
            "metalctl shard replace b once the drive is changed")
        assert {("rebuild_wanted", "b"), ("left_out", "b")} <= shard.findings()
        wait_for("the watch asks for the rebuild", lambda: "rebuild wanted: metalctl shard replace b" in watch.said(), 20)

        refused = sick.ctl("disk", "acknowledge", "write_error")
        assert refused.code == 5 and refused.reason == "FAULT_LIVE", refused
        os.unlink(os.path.join(sick.disk.under, "ballast"))
        known = sick.ok("disk", "acknowledge", "write_error", "--force", "--reason", "the ballast is gone")["faults"]
        assert known[0]["disk"]["acknowledgement"]["reason"] == "the ballast is gone"
        assert ("rebuild_wanted", "b") not in shard.findings()
    shard.check(ledger)
