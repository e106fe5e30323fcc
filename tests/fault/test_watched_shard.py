"""A disk that asks for less than a failover, under `metalctl shard watch --auto`."""
import os

import pytest
from test_full_disk import MIB, full_fault, loop_disk

from harness import process
from harness.process import wait_for
from harness.shard_watch import ShardWatch
from harness.three_nodes import Shard

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices need root")


class ShardOnDisks(Shard):
    """`disks`: for some nodes the disk of their data and the configuration [disk]."""

    def __init__(self, workspace, pg, disks):
        self._disks = disks
        super().__init__(workspace, pg)

    def make_node(self, name):
        if name not in self._disks:
            return super().make_node(name)
        disk, more = self._disks[name]
        directory = os.path.join(disk.mount, "data")
        os.makedirs(directory, 0o700)
        self.workspace.give(directory)
        own, self.config = self.config, {"data_dir": directory, "disk": more}
        node = super().make_node(name)
        self.config, node.disk = own, disk
        return node


def test_a_primary_that_asks_for_a_drain_hands_its_lead_over(workspace, pg):
    """A class that [disk.reactions] lets ask for it: the lead moves in good order, and nothing is fenced."""
    disk = loop_disk(workspace)
    shard = ShardOnDisks(workspace, pg, {"a": (disk, {"probe_enabled": True, "reserve": "64MiB",
                                                      "reactions": {"full": "drain"}})}).start_agents()
    shard.init()
    shard.wait_healthy()
    old = shard["a"]
    after = old.last_event_id()
    with ShardWatch(workspace, shard) as watch, shard.clients() as ledger:
        assert shard.primary() is old
        disk.fill(left=50 * MIB)
        wait_for("another node leads", lambda: shard.ok("status")["primary"] in ("b", "c"), 90)
        ledger.wait_more()
        said = watch.said()
        assert "reparent to " in said and "failover to " not in said, said[-3000:]
        assert not old.events("disk.fenced", after) and not old.status()["node"].get("fenced")
        old.wait_status("it follows", lambda each: each["postgres"]["role_observed"] == "ROLE_STANDBY" and full_fault(each), 60)
        disk.empty()
        old.wait_status("there is room", lambda each: not full_fault(each), 60)
    shard.check(ledger)
