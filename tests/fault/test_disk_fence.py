"""A primary whose disk refuses writes fences itself where the configuration lets it; `metalctl shard watch --auto` fails over."""
import errno
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from harness import process
from harness.diagnostics import Capture
from harness.loop_disk import LoopDisk, Unavailable
from harness.node import Node
from harness.own_network import OwnNetwork
from harness.own_network import Unavailable as NoNetwork
from harness.postgres import postmaster_pid
from harness.process import run, wait_for
from harness.three_nodes import Shard

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices need root")


class RefusingDisk:
    """A disk whose image lies on a small file system in memory: once that is full, writes to places never written fail."""

    def __init__(self, workspace, name=""):
        self.under = os.path.join(workspace.path, f"under{name}")
        os.makedirs(self.under)
        run(["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", self.under], as_root=True)
        workspace.at_end(lambda: run(["umount", "-l", self.under], as_root=True))
        self.disk = LoopDisk(workspace, os.path.join(workspace.path, f"mount{name}"), image_dir=self.under)
        self.mount = self.disk.mount

    def refuse(self):
        with open(os.path.join(self.under, "ballast"), "wb") as file:
            def full():
                free = os.statvfs(self.under)
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free.f_bavail * free.f_frsize)
                except OSError as why:  # the disk's own writes take room meanwhile
                    if why.errno not in (errno.ENOSPC, errno.EINVAL):
                        raise
                return os.statvfs(self.under).f_bavail == 0
            wait_for("its image has no room left", full)


def disk_that_refuses(workspace, name=""):
    try:
        return RefusingDisk(workspace, name)
    except Unavailable as why:
        return pytest.skip(str(why))


@pytest.fixture(autouse=True)
def own_network(workspace):
    """Rules that keep clients away are made here, and not in the machine's network."""
    try:
        network = OwnNetwork(workspace)
    except NoNetwork as why:
        return pytest.skip(str(why))
    if not shutil.which("nft") or run(["nft", "list", "ruleset"], as_root=True, code=None).code != 0:
        pytest.skip("no nftables here")
    return network


def options(reaction):
    return {"probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms", "reaction": reaction,
            "cut_clients": True}


@pytest.fixture(name="watchdog")
def file_as_watchdog(workspace):
    """A file in a watchdog's place: it keeps what is written to one. It takes no ioctl, as a device that has one time only."""
    names = (f"/dev/watchdog{number}" for number in range(100 + os.getpid() % 800, 1000))
    path = next(each for each in names if not os.path.exists(each))
    with open(path, "xb"):
        workspace.at_end(lambda: os.remove(path))
    return path


def dial(port):
    """A connection to the port, or None when it is refused."""
    try:
        return socket.create_connection(("127.0.0.1", port), 5)
    except ConnectionRefusedError:
        return None


def check_clients_are_away(node):
    """Also where something else listens on PostgreSQL's port; until the node is unfenced."""
    with socket.create_server(("127.0.0.1", node.port)):
        assert dial(node.port) is None
        node.ok("unfence", "--term", "1")
        assert not os.path.exists(f"{node.run_dir}/agent.sock.fence")
        dial(node.port).close()


def write_much(node):
    """More than the disk has places that were ever written."""
    node.run("psql", "-XqAt", "-c", "SET synchronous_commit = local",
             "-c", "CREATE TABLE filler AS SELECT repeat('x', 500) FROM generate_series(1, 400000)", "-c", "CHECKPOINT", code=None)


def hanging_disk(workspace, name):
    try:
        disk = LoopDisk(workspace, os.path.join(workspace.path, f"mount-{name}"), name)
        assert disk.throttle  # made now, for a machine may have none
        return disk
    except Unavailable as why:
        return pytest.skip(str(why))


def primary_on_refusing_disk(workspace, pg, disk_options, state_disk=None, wal_disk=None):
    """`state_disk`, `wal_disk`: where the agent's state and pg_wal lie; they can be made to hang."""
    disk = disk_that_refuses(workspace)
    made = Node(workspace, pg, data_dir=disk.mount, disk=disk_options)
    made.disk = disk
    if state_disk:
        made.state = made.config["agent"]["state_dir"] = state_disk.mount
    if wal_disk:
        made.config["postgres"]["wal_dir"] = os.path.join(wal_disk.mount, "wal")
    made.launch()
    for each in filter(None, (state_disk, wal_disk)):
        each.capture(made.process.pid)
    wait_for("the agent answers", lambda: made.ctl("status", timeout=2).code == 0)
    made.make_primary()
    made.ok("promote", "--term", "1")
    made.wait_status("the disk is known", lambda status: [disk for disk in status["disks"] if "data" in disk["roles"]], 40)
    return made


@pytest.fixture(params=["demote", "drain"])
def node(workspace, pg, request, watchdog):
    made = primary_on_refusing_disk(workspace, pg, options(request.param) | {"watchdog": watchdog})
    made.reaction, made.watchdog = request.param, watchdog
    return made


def fault_of(status, fault_class):
    return next((each for each in status.get("faults", []) if each["fault_class"] == fault_class), None)


def actions(status):
    """What was done about the faults of disks."""
    return [action for each in status.get("faults", []) for action in each.get("disk", {}).get("actions", [])]


def fed(watchdog):
    with open(watchdog, "rb") as file:
        return file.read()


def test_a_disk_that_refuses_writes(node):
    wait_for("the watchdog is fed", lambda: set(fed(node.watchdog)) == {0}, 20)
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
    done = actions(node.wait_status("what was done is shown", lambda each: [
        done for done in actions(each) if done.startswith("stopped PostgreSQL within ")]))
    steps = {each["attributes"]["step"]: int(each["attributes"]["duration_ms"]) for each in node.events("disk_fence.step", after)}
    assert list(steps) == ["fence", "cut clients", "tell the server to stop"] and sum(steps.values()) < 4000, steps
    assert int(node.wait_event("disk.server_down", after)["attributes"]["duration_ms"]) < 4000
    assert "fenced the primary of term 1" in done
    assert any(each.startswith(f"refuses new connections to port {node.port}; destroyed ") for each in done), done
    assert "no standby was seen" in fenced[0]["message"]
    assert os.path.exists(f"{node.run_dir}/agent.sock.fence")
    assert node.ctl("promote", "--term", "1").reason == "FENCED"
    for verb in "start", "restart":
        refused = node.ctl("pg", verb)
        assert refused.reason == "FENCED" and "on a failed disk" in refused.error and "HINT: " in refused.error, refused
    own = Capture(node.wait_event("diagnostics.captured", after, 40)["attributes"]["path"])
    assert own.manifest["reason"].startswith("write_error of "), "the agent took one by itself, with what the fault led to"
    assert own.of_kind("event", type="disk.fenced") and own.of_kind("control", moment="at postgres.stopped")

    check_clients_are_away(node)
    wait_for("the watchdog was told that it ends", lambda: fed(node.watchdog).endswith(b"V"), 20)


def test_a_fence_waits_for_no_disk(workspace, pg):
    """The disk of the agent's state stands still: the fence is in memory and the server ends; both are stored once it works."""
    state = hanging_disk(workspace, "state")
    # The ceiling lets nothing be demoted; the classes say otherwise.
    node = primary_on_refusing_disk(workspace, pg, options("observe") | {
        "reactions": {"write_error": "demote", "read_only": "demote", "filesystem_shutdown": "demote", "fsync_error": "demote"}},
        state_disk=state)
    after, pid = node.last_event_id(), postmaster_pid(node.data_dir)
    state.hang()
    try:
        node.disk.refuse()
        write_much(node)
        status = node.wait_status("it is fenced", lambda each: each["node"]["fenced"], 60)
        begin = time.monotonic()
        assert status["node"]["fence_reason"].startswith("disk: ")
        with open(f"{node.run_dir}/agent.sock.fence", encoding="utf-8") as file:
            assert "fence_active=1" in file.read()
        wait_for("PostgreSQL has ended", lambda: not process.is_alive(pid), 30)
        assert time.monotonic() - begin < 5
        node.wait_status("it is known to be down", lambda each: each["postgres"]["state"] == "POSTGRES_STATE_STOPPED", 10)
    finally:
        state.work()
    stored = os.path.join(node.state, "term")
    wait_for("the fence is stored", lambda: "fence_active=1" in open(stored, encoding="utf-8").read(), 30)
    wait_for("so is the operation", lambda: node.operations("FenceSickDisk"), 30)
    assert node.wait_event("disk.fenced", after) and not node.events("postgres.restarted", after)


def test_what_hangs_in_a_disk_loses_its_client_and_is_named(workspace, pg):
    """No signal ends a session that waits for the disk of pg_wal; its client gets an error all the same, an operator its pid."""
    wal = hanging_disk(workspace, "wal")
    node = primary_on_refusing_disk(workspace, pg, options("demote"), wal_disk=wal)
    node.sql("ALTER ROLE postgres PASSWORD 'secret'; CREATE TABLE t (a int)")
    node.sql("ALTER SYSTEM SET fsync = on")
    node.sql("SELECT pg_reload_conf()")
    after, pid = node.last_event_id(), postmaster_pid(node.data_dir)
    client = subprocess.Popen(
        [f"{pg.bin_dir}/psql", "-XqAt", "-h", "127.0.0.1", "-p", str(node.port), "-d", "postgres"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=process.environment({"PGPASSWORD": "secret"}),
        **process.identity())
    try:
        client.stdin.write("SELECT pg_backend_pid();\n")
        client.stdin.flush()
        session = int(client.stdout.readline())
        wal.hang()
        client.stdin.write("INSERT INTO t VALUES (1);\n")
        client.stdin.flush()
        wait_for("the commit hangs in the disk", lambda: process.state(session) == "D")
        node.disk.refuse()
        run(["dd", "if=/dev/zero", f"of={node.disk.mount}/filler", "bs=1M", "count=600", "conv=fsync"], as_root=True, code=1)
        begin = time.monotonic()
        fenced = node.wait_event("disk.fenced", after)
        said = client.communicate(timeout=20)[0]
        assert time.monotonic() - begin < 12
        assert "server closed the connection" in said or "could not receive data from server" in said, said
        told = node.wait_event("disk.survivors", after)
        assert f"{session} (D)" in told["message"] and process.state(session) == "D", told
        assert "; destroyed 1 " in fenced["attributes"]["clients"], fenced
        node.wait_status("that is among what was done", lambda each: [
            done for done in actions(each) if done.startswith("killed PostgreSQL; ") and "have not ended" in done])
    finally:
        client.kill()
        client.wait(20)
        wal.work()
    wait_for("what hung has ended", lambda: not process.is_alive(pid) and not process.is_alive(session), 30)
    held = node.wait_status("it is down", lambda each: each["postgres"]["state"] == "POSTGRES_STATE_STOPPED")
    assert held["node"]["fenced"] and not node.events("postgres.restarted", after)


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
            fenced = old.events("disk.fenced")[0]
            assert fenced["attributes"]["flushed_by"] in ("b", "c") and "standbys had flushed " in fenced["message"]
            status = old.status()
            assert status["node"]["fence_reason"].startswith("disk: ") or status["node"]["term"] != "1", status["node"]
        finally:
            watch.send_signal(signal.SIGINT)
            assert watch.wait(20) == 130
        log.seek(0)
        told = log.read()
    assert "failover to " in told and "promote" in told, told[-3000:]
    shard.check(ledger)


def fence(node, reason):
    """In the name of whoever holds the term."""
    holder = node.status()["node"]
    node.ok("fence", "--term", holder["term"], "--orchestrator", holder["term_orchestrator_id"], "--reason", reason)


def test_a_node_that_is_rebuilt_serves_and_leads_again(workspace, pg):
    """As with a drive that was changed: the fault is gone, the fence stays until the node is a copy."""
    shard = Shard(workspace, pg, disk={"cut_clients": True}).start_agents()
    shard.init()
    shard.wait_healthy()
    old = shard["a"]
    with shard.clients() as ledger:
        assert shard.primary() is old
        fence(old, "disk: write_error nvme9n1")
        shard.ok("failover")
        ledger.wait_more()
        fence(old, "not to be trusted")
        assert old.status()["node"]["fence_reason"] == "disk: write_error nvme9n1; also: not to be trusted"
        left = shard.ctl("recover", code=1)
        assert "metalctl shard replace a once its drive is changed" in left.stdout + left.stderr, left
        wait_for("clients are kept away", lambda: dial(old.port) is None, 20)

        shard.ok("replace", "a")
        assert not old.status()["node"].get("fenced")
        dial(old.port).close()
        shard.wait_healthy()
        shard.ok("reparent", "--to", "a")
        assert shard.primary() is old
        ledger.wait_more()
    shard.check(ledger)
