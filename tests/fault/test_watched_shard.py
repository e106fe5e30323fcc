"""Disks of a shard's members that are sick in other ways than one dead primary's, under `metalctl shard watch --auto`."""
import os

import pytest
from test_disk_fence import disk_that_refuses, options, own_network, write_much  # noqa: F401  the network is a fixture
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


def test_a_second_sick_member_takes_nothing_acknowledged_with_it(workspace, pg):
    """First a standby, then the primary: one of them is fenced, the watch leaves the rest to an operator, the third node leads."""
    disks = {name: (disk_that_refuses(workspace, name), options("demote")) for name in "ab"}
    shard = ShardOnDisks(workspace, pg, disks).start_agents()
    shard.init()
    shard.wait_healthy()
    first, second, third = (shard[name] for name in "bac")
    with ShardWatch(workspace, shard) as watch, shard.clients() as ledger:
        assert shard.primary() is second
        first.disk.refuse()
        second.run("psql", "-XqAt", "-c", "SET synchronous_commit = local",
                   "-c", "CREATE TABLE more AS SELECT repeat('x', 500) FROM generate_series(1, 200000)", code=None)
        second.wait_status("every commit waits for the other standby", lambda status: (
            status["postgres"].get("synchronous_standby_names") == 'ANY 1 ("c")'), 90)
        ledger.wait_more()
        second.disk.refuse()
        write_much(second)
        second.wait_status("the primary is fenced", lambda each: each["node"].get("fenced"), 60)
        # Whether it looks before the primary is fenced (two sick members) or after (an election that proves too little).
        wait_for("the watch says why nobody is promoted", lambda: any(why in watch.said() for why in (
            "more than one member, so nothing is changed", "may be on the missing nodes alone")), 60)
        assert not first.status()["node"].get("fenced"), "one member is fenced, not two"
        # The operator hears what cannot be proved by one node of three, and decides.
        refused = shard.ctl("failover", code=5)
        assert "may be on the missing nodes alone" in refused.error and "--accept-data-loss" in refused.error, refused
        shard.ok("failover", "--accept-data-loss")
        assert shard.ok("status")["primary"] == "c"
    shard.check(ledger)
    assert third.sql("SELECT pg_is_in_recovery()") == "f"
