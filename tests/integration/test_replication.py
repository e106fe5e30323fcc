"""Two agents: a primary steps down and comes back, a standby follows, who must acknowledge, slots, replay and receiver."""
import os
import signal

import pytest

from harness.ledger import Ledger, WriteWatch, promised
from harness.node import Node, elapsed, lsn_number
from harness.postgres import postmaster_pid
from harness.process import run, wait_for
from harness.wire import Connection, fields_of, message


def standby_of(primary, workspace, *arguments, name="standby"):
    """A copy of the primary without a word about what it follows. `arguments`: more of pg_basebackup."""
    node = Node(workspace, primary.version, name=name).start_agent()
    run([os.path.join(primary.version.bin_dir, "pg_basebackup"), "-D", node.data_dir, "-c", "fast", "-h", primary.run_dir,
         "-p", str(primary.port), "-U", "postgres", *arguments])
    return node


def address(node):
    return f"{node.run_dir}:{node.port}"


def wait_streaming(node):
    return node.wait_status("it streams", lambda status: status.get("standby", {}).get("receiver_state") == "streaming", 30)


@pytest.fixture
def pair(primary, workspace):
    standby = standby_of(primary, workspace)
    primary.ok("slots", "metal_standby", "--term", "1")
    standby.ok("follow", address(primary), "--term", "1")
    standby.ok("pg", "start")
    wait_streaming(standby)
    return primary, standby


def test_follow_while_down_and_up_and_the_guards(pair, workspace):
    primary, standby = pair
    status = standby.status()["standby"]
    assert (status["source"], status["source_slot"]) == (address(primary), "metal_standby")
    assert primary.sql("SELECT application_name FROM pg_stat_replication") == "standby"
    assert primary.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'metal_standby'") == "t"

    standby.ok("term", "begin", "2")  # freezes it: what it followed is forgotten
    assert standby.sql("SHOW primary_conninfo") == ""
    refused = standby.ctl("receiver", "start", code=5)
    assert refused.reason == "NO_SOURCE" and "HINT" in refused.error
    assert standby.ctl("follow", address(primary), "--term", "1", code=5).reason == "STALE_TERM"
    answer = standby.ok("follow", address(primary), "--term", "2")
    assert answer["checked"] and answer["source"] == address(primary)
    wait_streaming(standby)

    other = Node(workspace, primary.version, name="other").start_agent()
    other.create_primary()
    assert standby.ctl("follow", address(other), "--term", "2", code=5).reason == "WRONG_SYSTEM"
    assert primary.ctl("follow", address(standby), "--term", "3", code=5).reason == "ROLE_TRANSITION"
    assert primary.status()["node"]["term"] == "1", "a refused request changes nothing"
    nobody = standby.ok("follow", "/nonexistent:5432", "--term", "2")
    assert not nobody.get("checked") and nobody["unchecked_reason"], "the link may be down just now"
    standby.ok("follow", address(primary), "--term", "2")
    wait_streaming(standby)


def test_a_node_that_cannot_reach_consistency_follows(primary, workspace):
    """A copy without the WAL that makes it whole takes no session: what it is told reaches it by a reload."""
    standby = standby_of(primary, workspace, "-X", "none")
    started = standby.detach("pg", "start")
    pid = wait_for("it waits for WAL", lambda: postmaster_pid(standby.data_dir))
    standby.wait_status("the agent sees it", lambda status: status["postgres"]["state"] == "POSTGRES_STATE_STARTING")
    standby.ok("op", "cancel", started)  # nothing else changes the node while it waits; the server goes on
    assert standby.wait_operation(started)["state"] == "OPERATION_STATE_CANCELLED" and not standby.answers()
    answer = standby.ok("follow", address(primary), "--term", "1", "--without-slot")
    assert answer["checked"] and answer["source"] == address(primary)
    wait_streaming(standby)
    standby.ok("wait-lsn", primary.lsn())
    assert postmaster_pid(standby.data_dir) == pid, "it was not restarted for it"


def test_replay_and_receiver(pair):
    primary, standby = pair
    primary.sql("CREATE TABLE t (a int)")
    standby.ok("wait-lsn", primary.lsn())
    standby.ok("replay", "pause")
    assert standby.status()["standby"].get("pause_state") in ("paused", "not paused"), "published within a second"
    primary.sql("INSERT INTO t VALUES (1)")
    for mode in ("received", "flushed"):
        standby.ok("wait-lsn", primary.lsn(), "--mode", mode)
    assert standby.sql("SELECT count(*) FROM t") == "0"
    standby.ok("replay", "resume")
    standby.ok("wait-lsn", primary.lsn())
    promised(standby.sql("SELECT count(*) FROM t") == "1", "a row that was replayed is not there")

    standby.ok("receiver", "stop")
    assert standby.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0"
    assert primary.sql("SELECT count(*) FROM pg_stat_replication") == "0"
    standby.ok("receiver", "start")
    wait_streaming(standby)
    assert primary.ctl("replay", "pause", code=5).reason == "ROLE_TRANSITION"


def test_synchronous_standbys_are_compared_and_set(pair):
    primary, standby = pair
    done = primary.ok("synchronous", "standby", "--term", "1")
    assert done["acknowledged"] and done["after"] == 'ANY 1 ("standby")'
    primary.wait_status("published", lambda status: status["postgres"].get("synchronous_standby_names") == done["after"])
    assert primary.sql("SELECT sync_state FROM pg_stat_replication") == "quorum"
    refused = primary.ctl("synchronous", "--term", "1", "--expected", "", code=5)
    assert refused.reason == "SYNCHRONOUS_CHANGED"
    assert primary.sql("SHOW synchronous_standby_names") == done["after"]
    assert primary.ctl("pg", "config", "set", "synchronous_standby_names=", code=5).reason == "SETTING_OWNED"

    late = primary.ctl("synchronous", "nobody-there", "--term", "1", "--wait", "1s", code=7)
    assert "old ones are in force" in late.error
    assert primary.sql("SHOW synchronous_standby_names") == done["after"], "nobody acknowledged: as before"
    assert primary.ok("synchronous", "--term", "1", "--expected", done["after"])["before"] == done["after"]
    assert primary.sql("SHOW synchronous_standby_names") == ""
    assert primary.ctl("synchronous", "a", "--count", "2", "--term", "1", code=2)


def test_slots_of_others_are_left_alone(pair):
    primary, _ = pair
    primary.sql("SELECT pg_create_physical_replication_slot('by_hand')")
    done = primary.ok("slots", "metal_standby", "metal_third", "--term", "1")
    assert done["created"] == ["metal_third"] and done["kept"] == ["metal_standby"] and done["foreign"] == ["by_hand"]
    done = primary.ok("slots", "--term", "1")
    assert done["dropped"] == ["metal_third"] and done["active"] == ["metal_standby"], "one in use waits for the next call"
    assert primary.sql("SELECT slot_name FROM pg_replication_slots ORDER BY 1").split() == ["by_hand", "metal_standby"]
    assert primary.ctl("slots", "Bad-Name", "--term", "1", code=2)


def test_a_slot_that_a_clone_made_is_dropped_once_nobody_wants_it(pair):
    primary, _ = pair
    for name in ("metal_cloned", "metal_never_wanted"):
        primary.sql(f"SELECT pg_create_physical_replication_slot('{name}', true)")
    done = primary.ok("slots", "metal_standby", "metal_cloned", "--term", "1")
    assert set(done["kept"]) == {"metal_standby", "metal_cloned"} and done["foreign"] == ["metal_never_wanted"]
    done = primary.ok("slots", "metal_standby", "--term", "1")
    assert done["dropped"] == ["metal_cloned"] and done["foreign"] == ["metal_never_wanted"]


def test_standby_logs_in_with_the_replication_password(workspace, pg):
    """Over TCP: the primary's agent makes the role, the standby's writes a passfile; nobody sees the password."""
    password = workspace.file("replication.password", "se:cr\\et\n")
    replication = {"password_file": password, "networks": "127.0.0.1/32", "user": "metal-rep"}
    primary = Node(workspace, pg, name="first", replication=replication).start_agent()
    primary.create_primary()
    verifier = primary.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'metal-rep' AND rolreplication AND NOT rolsuper")
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    standby = Node(workspace, pg, name="second", replication=replication).start_agent()
    run([os.path.join(pg.bin_dir, "pg_basebackup"), "-D", standby.data_dir, "-c", "fast", "-h", primary.run_dir,
         "-p", str(primary.port), "-U", "postgres"])
    assert standby.ok("follow", f"127.0.0.1:{primary.port}", "--term", "1", "--without-slot")["checked"]
    standby.ok("pg", "start")
    wait_streaming(standby)
    assert primary.sql("SELECT usename, client_addr FROM pg_stat_replication") == "metal-rep|127.0.0.1"
    for node in (primary, standby):
        assert "se:cr" not in node.log_text()
    os.truncate(password, 0)
    assert "no password" in standby.ctl("follow", f"127.0.0.1:{primary.port}", "--term", "1").error


def check_steps(events, names, took):
    """Their durations are parts of the whole: together no longer, and with a restart or a promotion in it, not nothing."""
    assert [event["attributes"]["step"] for event in events] == names
    milliseconds = [int(event["attributes"]["duration_ms"]) for event in events]
    assert all(each >= 0 for each in milliseconds) and 0 < sum(milliseconds) <= took * 1000, (milliseconds, took)


@pytest.mark.matrix
def test_planned_change_of_the_primary(pair):
    primary, standby = pair
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a")
    assert primary.ok("demote", "--term", "2", "--prepare")["result"]["prepared"] == "true"
    assert primary.sql("SELECT pg_is_in_recovery()") == "f" and primary.status()["node"]["term"] == "1"

    took, operation = elapsed(lambda: primary.ok("demote", "--term", "2"))
    lsn = operation["result"]["shutdown_lsn"]
    assert primary.sql("SELECT pg_is_in_recovery()") == "t"
    assert lsn_number(primary.lsn()) == lsn_number(lsn), "the end of the last record that it wrote"
    prepared, *demoted = primary.events("demotion.step")
    assert prepared["attributes"]["step"] == "checkpoint"
    check_steps(demoted, ["checkpoint", "term stored", "shutdown", "start as a standby"], took)
    standby.ok("wait-lsn", lsn, "--mode", "flushed")
    standby.ok("term", "begin", "2")
    took, _ = elapsed(lambda: standby.ok("promote", "--term", "2"))
    check_steps(standby.events("promotion.step"), ["order stored", "server promoted", "term noted"], took)
    answer = primary.ok("follow", address(standby), "--term", "2", "--without-slot")
    assert answer["checked"]
    wait_streaming(primary)
    standby.sql("INSERT INTO t VALUES (0)")
    primary.ok("wait-lsn", standby.lsn())
    promised(primary.sql("SELECT count(*) FROM t") == "1001", "rows are lost")
    assert primary.ctl("undo-demote", "--term", "2", code=5).reason == "ROLE_TRANSITION", "it follows another one"


def test_demotion_is_taken_back(primary):
    primary.sql("CREATE TABLE t (a int)")
    assert primary.ctl("undo-demote", "--term", "1", code=5).reason == "ROLE_TRANSITION"
    primary.ok("demote", "--term", "2")
    primary.ok("undo-demote", "--term", "2")
    primary.sql("INSERT INTO t VALUES (1)")
    status = primary.wait_running()
    assert status["node"]["role_wanted"] == "ROLE_PRIMARY" and status["node"]["term"] == "2"


DEADLINE_EXCEEDED = 4


def demote_within(primary, term, checkpoint_ms=0, shutdown_ms=60_000):
    """The operation as it ended; metalctl gives the checkpoint no time of its own."""
    times = [{1: each // 1000, 2: each % 1000 * 1_000_000} for each in (checkpoint_ms, shutdown_ms)]
    header = {1: term, 2: "metalctl", 3: f"{term}-{checkpoint_ms}-{shutdown_ms}"}
    connection = Connection(primary.config["agent"]["socket"])
    answer = connection.call("ReplicationService/Demote", message({1: header, 3: times[0], 4: times[1]}), deadline=30)
    connection.close()
    return primary.wait_operation(fields_of(fields_of(answer)[1][0])[1][0].decode())


def failed_steps(node, kind):
    """Those with an error; each has taken its time."""
    failed = [each["attributes"] for each in node.events(kind) if "error" in each["attributes"]]
    assert all(int(each["duration_ms"]) >= 400 for each in failed), failed
    return [each["step"] for each in failed]


@pytest.mark.parametrize("taken_up", ["demote", "undo-demote"])
def test_demotion_that_is_late_says_where_it_stands_and_is_taken_up(primary, taken_up):
    checkpointer = int(primary.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
    os.kill(checkpointer, signal.SIGSTOP)
    try:
        late = demote_within(primary, 2, checkpoint_ms=500)
        assert late["state"] == "OPERATION_STATE_FAILED" and late["error"]["code"] == DEADLINE_EXCEEDED, late
        assert "nothing has changed, this node is the primary" in late["error"]["message"]
        assert failed_steps(primary, "demotion.step") == ["checkpoint"]
        status = primary.status()["node"]
        assert status["term"] == "1" and status["role_wanted"] == "ROLE_PRIMARY", "the checkpoint comes before all else"
        assert primary.sql("SELECT pg_is_in_recovery()") == "f"

        late = demote_within(primary, 2, shutdown_ms=500)
        assert late["error"]["code"] == DEADLINE_EXCEEDED and late["error"]["reason"] == "STOP_TIMEOUT", late
        for said in ("term 2 is stored, this node is not the primary any more", "the shutdown stays requested", "HINT: "):
            assert said in late["error"]["message"], late
        assert failed_steps(primary, "demotion.step") == ["checkpoint", "shutdown"]
        status = primary.status()
        assert status["node"]["term"] == "2" and status["node"]["role_wanted"] == "ROLE_STANDBY", status
        assert not primary.answers() and postmaster_pid(primary.data_dir), "it takes nobody and still runs"
    finally:
        os.kill(checkpointer, signal.SIGCONT)
    # Once the shutdown is through, the agent goes on with what is stored.
    primary.wait_status("it is a standby", lambda status: status["postgres"]["state"] == "POSTGRES_STATE_RUNNING" and
                        status["postgres"].get("role_observed") == "ROLE_STANDBY", 30)
    result = primary.ok(taken_up, "--term", "2")
    if taken_up == "demote":
        assert result["result"]["was_primary"] == "false" and lsn_number(result["result"]["shutdown_lsn"]) > 0, result
        assert primary.sql("SELECT pg_is_in_recovery()") == "t"
    else:
        primary.sql("CREATE TABLE goes_on (a int)")
        assert primary.wait_running()["node"]["role_wanted"] == "ROLE_PRIMARY"


def test_failing_archive_does_not_delay_the_demotion(primary):
    """The archiver keeps the postmaster alive long after pg_control says "shut down"."""
    primary.sql("ALTER SYSTEM SET archive_command = 'sleep 60'; SELECT pg_reload_conf(); SELECT pg_switch_wal()")
    wait_for("it archives", lambda: primary.sql("SHOW archive_command") == "sleep 60")
    name = primary.detach("demote", "--term", "2")
    done = primary.wait_operation(name, 45)
    assert done["state"] == "OPERATION_STATE_SUCCEEDED", done
    assert primary.sql("SELECT pg_is_in_recovery()") == "t"


def test_writers_never_see_two_primaries(pair):
    """Acknowledged rows of writers that never stop are on the next primary, and nobody wrote at both."""
    primary, standby = pair
    ledger = Ledger([("127.0.0.1", primary.port)])
    watch = WriteWatch({node.name: ("127.0.0.1", node.port) for node in pair})
    primary.ok("synchronous", "standby", "--term", "1")
    ledger.start(primary)
    watch.start()
    try:
        wait_for("rows come", lambda: len(ledger.acknowledged) > 50, 30)
        lsn = primary.ok("demote", "--term", "2")["result"]["shutdown_lsn"]
        standby.ok("wait-lsn", lsn, "--mode", "flushed")
        standby.ok("term", "begin", "2")
        standby.ok("promote", "--term", "2")
    finally:
        ledger.stop()
        watch.stop()
    assert ledger.check("127.0.0.1", standby.port) >= 50
    assert watch.check() == ["node", "standby"]
