"""A disk that becomes full: read-only before the server ends for it, and, when that came too late, back again with the reserve."""
import os
import re
import signal

import pytest

from harness import process
from harness.ledger import promised
from harness.loop_disk import LoopDisk, Unavailable
from harness.node import Node
from harness.postgres import postmaster_pid
from harness.process import wait_for

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices need root")

MIB = 1 << 20
WAL = "SELECT count(pg_logical_emit_message(false, 'fill', repeat('x', 1 << 20))) FROM generate_series(1, 16)"


def loop_disk(workspace, **options):
    try:
        return LoopDisk(workspace, os.path.join(workspace.path, "mount"), **options)
    except Unavailable as why:
        return pytest.skip(str(why))


def primary_on(workspace, pg, disk, role="data"):
    """A primary that has its data, or its WAL, on the disk."""
    directory = os.path.join(disk.mount, role)
    if role == "data":
        os.makedirs(directory, 0o700)
        workspace.give(directory)
        made = Node(workspace, pg, data_dir=directory, disk={"reserve": "64MiB"})
    else:
        made = Node(workspace, pg, disk={"reserve": "64MiB"})
        made.config["postgres"]["wal_dir"] = directory
    made.disk = disk
    made.make_primary()
    if made.process is None:
        made.start_agent()
    made.wait_status("the reserve is made", lambda status: reserve_of(status) >= 64 * MIB, 40)
    made.sql("CREATE TABLE kept (n int PRIMARY KEY)")
    return made


@pytest.fixture
def node(workspace, pg):
    return primary_on(workspace, pg, loop_disk(workspace))


def reserve_of(status):
    return sum(int(each.get("size_bytes", 0)) for each in status.get("room", {}).get("reserves", []))


def is_read_only(status):
    return status.get("room", {}).get("read_only", False)


def insert(node, number, before=""):
    """`before`: a statement of its own."""
    return node.run("psql", "-XqAt", *(["-c", before] if before else []), "-c", f"INSERT INTO kept VALUES ({number})", code=None)


def full_fault(status):
    return next((each for each in status.get("faults", []) if each["fault_class"] == "full"), None)


def test_read_only_before_it_is_full(node):
    after = node.last_event_id()
    assert insert(node, 1).code == 0
    node.disk.fill(left=50 * MIB)
    status = node.wait_status("it is read-only and says so", lambda each: is_read_only(each) and full_fault(each), 40)
    assert status["room"]["read_only_reason"] and full_fault(status)["severity"] == "SEVERITY_CRITICAL"
    assert "HINT: " in node.wait_event("node.read_only", after)["message"]
    assert node.wait_event("disk.space_level", after)["attributes"]["level"] in ("90", "95")
    refused = wait_for("writes are refused", lambda: insert(node, 2).code and insert(node, 2), 20)
    assert "read-only transaction" in refused.stderr
    assert insert(node, 3, "SET default_transaction_read_only = off").code == 0, "who deletes can"
    beat = node.sql("SELECT at FROM metal.heartbeat")
    wait_for("the agent's own writes go on", lambda: node.sql("SELECT at FROM metal.heartbeat") != beat, 20)
    refused = node.ctl("backup", "create", code=None)
    assert refused.code == 0, "the repository is on another disk"
    node.restart_agent()
    node.wait_status("the next agent knows", is_read_only)
    node.disk.empty()
    node.wait_status("there is room", lambda each: not is_read_only(each) and not full_fault(each), 40)
    node.wait_event("node.writable", after)
    wait_for("writes are let in", lambda: insert(node, 4).code == 0, 20)
    assert node.sql("SELECT string_agg(n::text, ',' ORDER BY n) FROM kept") == "1,3,4"


@pytest.mark.parametrize("make, role, fill", [
    (("mkfs.xfs", "-q", "-f"), "data", lambda disk: disk.fill(left=50 * MIB)),
    (("mkfs.ext4", "-q", "-F"), "wal", lambda disk: disk.fill(left=50 * MIB)),
    (("mkfs.ext4", "-q", "-F", "-N", "4096"), "data", lambda disk: disk.fill_inodes(left=20)),
], ids=["xfs", "wal", "inodes"])
def test_whatever_is_full_it_is_read_only_and_recovers(workspace, pg, make, role, fill):
    node = primary_on(workspace, pg, loop_disk(workspace, make=make), role)
    after = node.last_event_id()
    fill(node.disk)
    status = node.wait_status("it is read-only and says so", lambda each: is_read_only(each) and full_fault(each), 40)
    assert role in full_fault(status)["disk"]["roles"], full_fault(status)
    wait_for("writes are refused", lambda: "read-only transaction" in insert(node, 1).stderr, 20)
    assert node.sql("SELECT 1") == "1"
    node.disk.empty()
    node.wait_status("there is room", lambda each: not is_read_only(each) and not full_fault(each), 40)
    wait_for("writes are let in", lambda: insert(node, 2).code == 0, 20)
    assert not node.events("postgres.restarted", after)


def test_a_server_that_ended_for_want_of_room_comes_back(node):
    """The agent is asleep while it happens."""
    node.sql("ALTER SYSTEM SET restart_after_crash = off")  # else the server may end and begin again by itself for a while
    node.sql("SELECT pg_reload_conf()")
    after = node.last_event_id()
    server = postmaster_pid(node.data_dir)
    assert insert(node, 0).code == 0  # the next ones find room on its page
    acknowledged = [0]
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        node.disk.fill()

        def ended():
            if insert(node, len(acknowledged)).code == 0:
                acknowledged.append(len(acknowledged))
            node.run("psql", "-XqAt", "-c", WAL, code=None)
            return not process.is_alive(server)
        wait_for("the server ends itself", ended, 60, 0)
    finally:
        os.kill(node.process.pid, signal.SIGCONT)
    assert len(acknowledged) > 1
    status = node.wait_status("it serves again, read-only", lambda each: is_read_only(each) and (
        each["postgres"]["state"] == "POSTGRES_STATE_RUNNING" and int(each["postgres"]["pid"]) != server), 60)
    assert reserve_of(status) == 0
    with open(os.path.join(node.state, "postgres.log"), encoding="utf-8", errors="replace") as log:
        assert re.search("PANIC: .*No space left on device", log.read())
    node.wait_event("disk.reserve_given", after)
    kept = node.sql(f"SELECT count(*) FROM kept WHERE n < {len(acknowledged)}")
    promised(kept == str(len(acknowledged)), f"{kept} of {len(acknowledged)} acknowledged rows are there")
    wait_for("writes are refused", lambda: "read-only transaction" in insert(node, -1).stderr, 20)
    node.disk.empty()
    node.wait_status("as before", lambda each: not is_read_only(each) and reserve_of(each) >= 64 * MIB, 40)
    wait_for("writes are let in", lambda: insert(node, -1).code == 0, 20)


def test_a_backup_that_would_fill_its_repository_is_refused(workspace, pg):
    disk = loop_disk(workspace)
    node = Node(workspace, pg)
    node.config["repository"]["path"] = node.repository = os.path.join(disk.mount, "repository")
    node.make_primary()
    disk.fill(left=66 * MIB)
    refused = node.ctl("backup", "create")
    assert refused.code and refused.reason == "NO_SPACE" and "--ignore-free-space" in refused.error, refused
    assert not node.ok("backup", "list").get("backups")
    assert node.ctl("backup", "create", "--ignore-free-space").code == 0
    assert node.ctl("backup", "create").reason == "NO_SPACE", "by what the last one took"


def test_a_backup_ends_before_it_takes_the_room_of_its_server(workspace, pg):
    """Both on one disk, which something else fills while the backup runs."""
    disk = loop_disk(workspace)
    data_dir = os.path.join(disk.mount, "data")
    os.makedirs(data_dir, 0o700)
    workspace.give(data_dir)
    node = Node(workspace, pg, data_dir=data_dir)
    node.config["repository"]["path"] = node.repository = os.path.join(disk.mount, "repository")
    node.make_primary()
    name = node.detach("backup", "create", "--rate", "2MiB")
    wait_for("it copies", lambda: "copy" in node.operation(name)["progress"]["phase"], 30)
    disk.fill(left=50 * MIB)
    ended = node.ctl("op", "wait", name, "--wait", "1m")
    assert ended.reason == "NO_SPACE" and "HINT: " in ended.error, ended
    assert not node.ok("backup", "list").get("backups"), "nothing is left of it"
    assert node.sql("SELECT 1") == "1"
