"""Backups and clones of a node share what the data disk can give, and leave the server its part: a common limit, and on a disk that
is slower than they would read, one that keeps its probes within `backup.latency_max`."""
import time

import pytest

from harness import process
from harness.loop_disk import Unavailable, primary_on_loop_disk
from harness.node import Node
from harness.process import wait_for
from harness.transfer import transfer_address, with_transfer

MIB = 1 << 20


def fill(node, mib):
    """A table of so many MiB that are hard to compress, on the disk."""
    node.sql(f"CREATE TABLE filler AS SELECT g, sha512(g::text::bytea) || sha512((-g)::text::bytea) AS b "
             f"FROM generate_series(1, {mib * 6000}) g; CHECKPOINT")


def test_a_backup_and_a_clone_keep_one_limit_together(workspace, pg):
    """Each by itself would take half the time; and neither waits for the other's end."""
    source = with_transfer(Node(workspace, pg, backup={"rate_limit": "8MiB"})).make_primary()
    fill(source, 32)
    target = with_transfer(Node(workspace, pg, name="replica")).start_agent()
    target.ok("term", "begin", "1")
    begin = time.monotonic()
    clone = target.detach("clone", "--from", transfer_address(source), "--primary", f"{source.run_dir}:{source.port}",
                          "--term", "1")
    backup = source.detach("backup", "create")

    def copied(node, name):
        return int(node.operation(name).get("progress", {}).get("done_bytes", 0))
    wait_for("both copy", lambda: copied(source, backup) > 4 * MIB and copied(target, clone) > 4 * MIB, 30)
    ended = [source.wait_operation(backup), target.wait_operation(clone)]
    elapsed = time.monotonic() - begin
    assert [each["state"] for each in ended] == ["OPERATION_STATE_SUCCEEDED"] * 2, ended
    moved = sum(int(each["result"]["bytes"]) for each in ended)
    assert moved > 96 * MIB
    # But for a first burst of 200 ms.
    assert moved / elapsed < 8 * MIB * 1.1, f"{moved / MIB:.0f} MiB in {elapsed:.1f} s"


@pytest.mark.skipif(not process.IS_ROOT, reason="loop devices and cgroups need root")
def test_a_backup_leaves_a_slow_disk_room(workspace, pg):
    """The disk gives 16 MiB a second, and who else reads it waits behind the 8 MiB that the backup has asked for, until that is
    held back."""
    try:
        node = primary_on_loop_disk(workspace, pg, backup={"latency_max": "60ms"})
    except Unavailable as why:
        pytest.skip(str(why))
    fill(node, 160)
    node.wait_status("the probe is healthy", lambda status: probe(status)["state"] == "PROBE_STATE_HEALTHY", 40)
    node.disk.slow(16 * MIB)
    name = node.detach("backup", "create")
    node.wait_event("backup.slowed")
    told = node.events("backup.slowed")[-1]["message"]
    assert "backup.latency_max is 60ms" in told and "MiB/s, after " in told, told

    def quick():
        seen = node.ok("disk", "probe", "data", "--reads", "4", "--writes", "1")["result"]
        return float(seen["read_p50_us"]) < 60_000 and node.operation(name)["state"] == "OPERATION_STATE_RUNNING"
    wait_for("reads are quick again, while it copies", quick, 20)
    ended = node.wait_operation(name)
    assert ended["state"] == "OPERATION_STATE_SUCCEEDED" and int(ended["result"]["bytes"]) > 160 * MIB, ended
    node.disk.work()
    node.wait_event("backup.let_go")


def probe(status):
    return next(each for disk in status["disks"] for each in disk["probes"] if each["role"] == "data")
