"""The agent killed with -9 at each step of a change of role: what was promised holds, and repeating the call completes it."""
import os
import signal

import pytest

from harness import process
from harness.postgres import postmaster_pid
from harness.process import wait_for

OPERATION = ["operations.journaled", "operations.before_finish"]


def crash_at(node, point, *command):
    """Restarts the agent so that it dies at `point`, lets it die during the command, and starts it again."""
    node.restart_agent(faults=f"{point}=crash")
    node.wait_running()
    assert node.ctl(*command).code != 0, f"{point} was not passed"
    wait_for("the agent died", lambda: node.process.poll() is not None, 20)
    assert node.process.returncode == -signal.SIGKILL
    node.start_agent()


def in_recovery(node):
    return node.answers() and node.sql("SELECT pg_is_in_recovery()") == "t"


def kill_postgres(node):
    pid = postmaster_pid(node.data_dir)
    os.kill(pid, signal.SIGKILL)
    wait_for("the server is gone", lambda: postmaster_pid(node.data_dir) != pid or not node.answers(), 20)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["term.written", "roles.term_stored", *OPERATION, "roles.before_demotion", "pg.before_stop",
                                   "pg.before_launch", "pg.after_launch", "roles.demoted", "roles.frozen"])
def test_begin_term_on_a_primary(primary, point):
    crash_at(primary, point, "term", "begin", "7")
    assert primary.status()["node"]["term"] == "7", "the term was stored before anything else"
    primary.ok("term", "begin", "7")
    primary.wait_running()
    assert in_recovery(primary)
    primary.ok("promote", "--term", "7")
    primary.sql("CREATE TABLE t (a int)")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["roles.sources_cleared", "roles.receiver_stopped", "roles.frozen"])
def test_begin_term_on_a_standby(primary, point):
    primary.ok("term", "begin", "6")
    primary.sql("ALTER SYSTEM SET primary_conninfo TO 'host=127.0.0.1 port=1'")
    primary.sql("SELECT pg_reload_conf()")
    crash_at(primary, point, "term", "begin", "7")
    assert in_recovery(primary)
    primary.ok("term", "begin", "7")
    assert primary.sql("SHOW primary_conninfo") == ""
    assert primary.sql("SHOW restore_command") == ""


@pytest.mark.slow
@pytest.mark.parametrize("server_dies", [False, True], ids=["server-lives", "server-dies"])
@pytest.mark.parametrize("point", ["roles.before_order", "term.written", "roles.ordered", "roles.promoted", *OPERATION])
def test_promote(primary, point, server_dies):
    primary.ok("term", "begin", "7")
    before = int(primary.ok("pg", "control")["timeline"])
    primary.restart_agent(faults=f"{point}=crash")
    primary.wait_running()
    assert primary.ctl("promote", "--term", "7").code != 0
    wait_for("the agent died", lambda: primary.process.poll() is not None, 20)
    promoted = primary.sql("SELECT pg_is_in_recovery()") == "f"
    if server_dies:
        kill_postgres(primary)
    primary.start_agent()
    primary.wait_running()
    if not promoted:
        assert in_recovery(primary), "an order that was not carried out makes no primary of the same timeline"
    answer = primary.ok("promote", "--term", "7")
    assert answer["timeline"] > before
    primary.sql("CREATE TABLE t (a int)")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["roles.fence_stored", *OPERATION, "roles.before_demotion", "pg.before_launch",
                                   "roles.demoted"])
def test_fence(primary, point):
    crash_at(primary, point, "fence", "--term", "7", "--reason", "test")
    node = primary.status()["node"]
    assert node["fenced"] is True and node["fence_term"] == "7"
    wait_for("the fence is enforced", lambda: in_recovery(primary), 40)
    primary.ok("unfence", "--term", "7")
    assert in_recovery(primary)


@pytest.mark.slow
def test_fence_of_a_frozen_server(primary):
    """Stored, not enforced, and then the agent died: whether the server runs on or not, its writers are ended."""
    frozen = postmaster_pid(primary.data_dir)
    writer = primary.session()
    os.kill(frozen, signal.SIGSTOP)
    try:
        primary.restart_agent(faults="roles.fence_stored=crash")
        assert primary.ctl("fence", "--term", "7", "--reason", "test").code != 0
        wait_for("the agent died", lambda: primary.process.poll() is not None, 20)
        primary.start_agent()
        assert primary.status()["node"]["fenced"] is True
    finally:
        os.kill(frozen, signal.SIGCONT)
    wait_for("the fence is enforced", lambda: in_recovery(primary), 40)
    assert not process.is_alive(writer.backend)
    writer.close()


@pytest.mark.slow
@pytest.mark.parametrize("point", ["term.before_write", "term.written", "roles.unfenced", "operations.finished"])
def test_unfence(primary, point):
    primary.ok("fence", "--term", "7", "--reason", "test")
    crash_at(primary, point, "unfence", "--term", "7")
    primary.ok("unfence", "--term", "7")
    assert primary.status()["node"].get("fenced", False) is False
    assert in_recovery(primary)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["roles.before_step_down", "roles.step_down_stored", "pg.before_demotion", "pg.demoted",
                                   "pg.before_launch", *OPERATION])
def test_demote(primary, point):
    primary.sql("CREATE TABLE t (a int)")
    primary.restart_agent(faults=f"{point}=crash")
    primary.wait_running()
    primary.ctl("demote", "--term", "7", "--detach")  # whether it hears of the operation does not matter
    wait_for("the agent died", lambda: primary.process.poll() is not None, 20)
    primary.start_agent()
    primary.wait_running()
    done = primary.ok("demote", "--term", "7")
    assert done["result"]["shutdown_lsn"] and in_recovery(primary)
    assert primary.status()["node"]["term"] == "7"
    primary.ok("undo-demote", "--term", "7")
    primary.sql("INSERT INTO t VALUES (1)")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["term.written", "roles.demotion_undone", "operations.before_finish"])
def test_undo_demote(primary, point):
    primary.ok("demote", "--term", "7")
    crash_at(primary, point, "undo-demote", "--term", "7")
    primary.wait_running()
    primary.ok("undo-demote", "--term", "7")
    primary.sql("CREATE TABLE t (a int)")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["roles.before_follow", "roles.source_written", "operations.before_finish"])
def test_follow(primary, point):
    primary.ok("term", "begin", "6")
    crash_at(primary, point, "follow", "/nonexistent:5432", "--term", "7")
    primary.wait_running()
    assert in_recovery(primary)
    primary.ok("follow", "/nonexistent:5432", "--term", "7")
    assert "/nonexistent" in primary.sql("SHOW primary_conninfo")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["roles.synchronous_written", "roles.synchronous_acknowledged"])
def test_set_synchronous_standbys(primary, point):
    receiver = primary.start("pg_receivewal", "-D", primary.workspace.directory("received"), "-d", "application_name=a",
                             "--synchronous", log=primary.workspace.file("receivewal.log", ""))
    try:
        wait_for("it streams", lambda: primary.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1", 20)
        crash_at(primary, point, "synchronous", "a", "--term", "1")
        primary.wait_running()
        assert primary.ok("synchronous", "a", "--term", "1", "--expected", "")["acknowledged"]
        primary.sql("CREATE TABLE t (a int)")
        primary.ok("synchronous", "--term", "1", "--expected", 'ANY 1 ("a")')
    finally:
        process.end(receiver, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["roles.slot_recorded", "roles.slot_dropped"])
def test_slots(primary, point):
    primary.ok("slots", "metal_a", "--term", "1")
    crash_at(primary, point, "slots", "metal_b", "--term", "1")
    primary.wait_running()
    primary.ok("slots", "metal_b", "--term", "1")
    assert primary.sql("SELECT slot_name FROM pg_replication_slots") == "metal_b"
    primary.ok("slots", "--term", "1")
    assert primary.sql("SELECT count(*) FROM pg_replication_slots") == "0"
