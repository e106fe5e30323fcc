"""The life of PostgreSQL under the agent: start, stop, crash, adoption, and what refuses to start."""
import os
import shutil
import signal
import socket
import time

import pytest

from harness import process
from harness.node import BIN, Node, elapsed, has_hint
from harness.postgres import postmaster_pid
from harness.process import wait_for
from harness.wire import CallRefused, Connection, fields_of, message


def entries(directory):
    """Every path below with its mode, owner, size and time of change: equal means untouched."""
    found = {}
    for parent, folders, files in os.walk(directory):
        for name in folders + files:
            path = os.path.join(parent, name)
            info = os.lstat(path)
            found[path] = (info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns)
    return found


def event_time(event):
    """Seconds since the epoch of "2026-11-22T02:15:00.123456Z"."""
    text, _, fraction = event["time"].rstrip("Z").partition(".")
    import calendar
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


@pytest.fixture
def client(primary):
    session = primary.session()
    yield session
    session.close()


# ---- start, stop, roles ----

@pytest.mark.matrix
def test_new_cluster_starts_as_standby_and_is_promoted(node):
    made = node.init()
    assert made["result"]["data_directory"] == node.data_dir
    assert made["result"]["version"].startswith(node.version.name)
    assert made["result"]["system_identifier"] == node.system_identifier()
    assert node.postgres_state() == "stopped"

    started = node.ok("pg", "start")
    assert started["result"]["role"] == "standby"
    assert int(started["result"]["pid"]) == node.pid()
    assert node.sql("SELECT pg_is_in_recovery()") == "t"

    node.ok("term", "begin", "7", "--orchestrator", "me")
    promoted = node.ok("promote", "--term", "7", "--orchestrator", "me")
    assert promoted["timeline"] == 2
    assert node.sql("SELECT pg_is_in_recovery()") == "f"
    node.sql("CREATE TABLE written (a int)")

    status = node.wait_status("the monitor saw the promotion", lambda each: each["postgres"]["role_observed"] == "ROLE_PRIMARY")
    assert status["node"]["term"] == "7" and status["node"]["term_orchestrator_id"] == "me"
    assert status["node"]["role_wanted"] == "ROLE_PRIMARY"
    assert status["postgres"]["data_checksums"] is True
    assert node.sql("SHOW data_checksums") == "on"
    assert node.sql("SHOW password_encryption") == "scram-sha-256"

    # Stopped and started under the same term it is the primary again.
    assert node.ok("pg", "restart")["result"]["role"] == "primary"
    assert node.sql("SELECT pg_is_in_recovery()") == "f"
    assert node.sql("SELECT count(*) FROM written") == "0"


def test_start_and_stop_are_idempotent(primary):
    pid = primary.pid()
    assert primary.ok("pg", "start")["result"]["pid"] == str(pid)
    assert primary.pid() == pid
    stopped = primary.ok("pg", "stop")
    assert stopped["result"]["mode"] == "fast"
    assert stopped["result"]["control_state"] == "shut down"
    assert not process.is_alive(pid)
    primary.ok("pg", "stop")
    assert primary.postgres_state() == "stopped"


def test_immediate_stop_leaves_crash_recovery_to_the_next_start(primary):
    primary.sql("CREATE TABLE kept AS SELECT 1 AS a")
    stopped = primary.ok("pg", "stop", "--mode", "immediate")
    assert stopped["result"] == {"mode": "immediate", "control_state": "in production"}
    primary.ok("pg", "start")
    assert primary.sql("SELECT a FROM kept") == "1"


def test_smart_stop_honours_its_timeout(primary, client):
    took, answer = elapsed(lambda: primary.ctl("pg", "stop", "--mode", "smart", "--stop-timeout", "2"))
    assert answer.code != 0 and has_hint(answer.error), answer
    assert 1.9 < took < 8
    assert client.ask("SELECT 41 + 1") == "42", "the client of a smart stop is left alone"
    client.close()
    wait_for("the server ends once its clients have left", lambda: primary.pid() == 0)


def test_smart_stop_escalates_when_asked_to(primary, client):
    took, answer = elapsed(lambda: primary.ok("pg", "stop", "--mode", "smart", "--stop-timeout", "1", "--escalate"))
    assert answer["result"] == {"mode": "fast", "control_state": "shut down"}
    assert took < 10


# ---- operations ----

def test_second_action_is_refused_and_names_the_first(primary, client):
    name = primary.detach("pg", "stop", "--mode", "smart", "--stop-timeout", "60")
    wait_for("the stop runs", lambda: primary.operation(name)["state"] == "OPERATION_STATE_RUNNING")
    refused = primary.ctl("pg", "restart", code=5)
    assert "StopPostgres" in refused.error
    assert primary.operations("StopPostgres")[0]["name"] == name
    assert primary.status()["operation"]["kind"] == "StopPostgres"
    primary.ok("op", "cancel", name)
    assert primary.wait_operation(name)["state"] == "OPERATION_STATE_CANCELLED"
    assert client.ask("SELECT 1") == "1"


def test_same_request_id_gives_the_same_operation(primary):
    connection = Connection(primary.config["agent"]["socket"])
    start = {1: "a-request-of-the-test"}
    first = fields_of(connection.call("PostgresService/StartPostgres", message(start)))[1][0]
    again = fields_of(connection.call("PostgresService/StartPostgres", message(start)))[1][0]
    assert fields_of(first)[1] == fields_of(again)[1]
    assert len(primary.operations("StartPostgres")) == 2, "make_primary's and this one"
    with pytest.raises(CallRefused):
        connection.call("PostgresService/StartPostgres", message({**start, 2: {1: 7}}))
    connection.close()


def test_operations_survive_a_restart_of_the_agent(primary):
    wait_for("nothing runs", lambda: not primary.ok("op", "list", "--running").get("operations"))

    def kept():
        return [[each[key] for key in ("name", "kind", "state", "result", "request_id")] for each in primary.operations()]
    before = kept()
    primary.restart_agent()
    assert kept() == before
    assert primary.ctl("op", "show", "no-such-operation").code == 4


# ---- the agent's own end ----

@pytest.mark.matrix
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_end_of_the_agent_leaves_postgres_and_clients_alone(primary, client, how):
    pid, started = primary.pid(), process.start_ticks(primary.pid())
    client.ask("CREATE TEMP TABLE mine AS SELECT 5 AS a; SELECT 1")
    primary.stop_agent() if how == "SIGTERM" else primary.kill_agent()
    assert client.ask("SELECT a FROM mine") == "5"
    primary.start_agent()
    status = primary.wait_running()
    assert status["postgres"]["pid"] == pid == primary.pid()
    assert process.start_ticks(pid) == started
    assert client.ask("SELECT a FROM mine") == "5"
    assert primary.wait_event("postgres.adopted")["attributes"]["pid"] == str(pid)
    assert status["node"]["term"] == "1"
    primary.ok("pg", "stop")
    assert not process.is_alive(pid)


def test_agent_restarts_a_server_that_died_in_its_absence(primary):
    pid = primary.pid()
    primary.kill_agent()
    os.kill(pid, signal.SIGKILL)
    wait_for("the postmaster is dead", lambda: not process.is_alive(pid))
    # What would lead a server or its clients elsewhere is not handed on.
    primary.start_agent(env={"PGDATA": "/elsewhere", "PGOPTIONS": "-c work_mem=1MB", "PGPORT": "1", "STRANGE": "1"})
    assert primary.wait_running()["postgres"]["pid"] != pid
    with open(f"/proc/{primary.pid()}/environ", encoding="utf-8", errors="replace") as file:
        names = {entry.partition("=")[0] for entry in file.read().split("\0") if entry}
    assert not names & {"PGOPTIONS", "PGPORT", "STRANGE"}, names
    assert primary.sql("SELECT pg_is_in_recovery()") == "f"


def test_agent_leaves_a_stopped_server_stopped(primary):
    primary.ok("pg", "stop")
    primary.restart_agent()
    time.sleep(1)  # nothing may happen: only the passing of time can show it
    assert primary.pid() == 0 and primary.postgres_state() == "stopped"


def test_two_agents_on_one_data_directory_are_refused(workspace, primary):
    second = Node(workspace, primary.version, "second", data_dir=primary.data_dir)
    assert has_hint(second.agent_start_fails())
    assert primary.sql("SELECT 1") == "1"


def oom_adjustment(pid):
    with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as file:
        return int(file.read())


def test_postmaster_is_protected_when_memory_is_short(primary, client):
    """Where the agent may lower its OOM score the postmaster has it and the backends do not; elsewhere an event says so."""
    own = oom_adjustment(primary.process.pid)
    assert oom_adjustment(primary.pid()) == own and oom_adjustment(client.backend) == max(own, 0)
    warned = primary.events("agent.oom_unprotected")
    if own == -900:
        assert warned == []
    else:
        assert has_hint(warned[-1]["message"]) and warned[-1]["severity"] == "SEVERITY_WARNING"


def test_log_level_is_obeyed(workspace, pg):
    node = Node(workspace, pg, agent={"log_level": "error"}).start_agent()
    assert node.ctl("pg", "control").code != 0
    assert "event=" not in node.log_text(), "a refusal is logged at the level info"
    node.config["agent"]["log_level"] = "trace"
    node.restart_agent()
    assert "event=rpc.done rpc=HostService/GetStatus" in node.log_text()
    node.stop_agent()
    node.config["agent"]["log_level"] = "loud"
    said = node.agent_start_fails()
    assert "agent.log_level" in said and "trace, debug, info, warning, error" in said


# ---- crashes ----

@pytest.mark.matrix
def test_killed_postmaster_is_seen_within_a_second_and_restarted(primary):
    pid, after = primary.pid(), primary.last_event_id()
    primary.sql("CREATE TABLE kept AS SELECT 1 AS a")
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    crashed = primary.wait_event("postgres.crashed", after)
    assert 0 <= event_time(crashed) - killed < 1.0
    primary.wait_event("postgres.restarted", after, timeout=40)
    assert primary.wait_running()["postgres"]["pid"] not in (0, pid)
    assert primary.sql("SELECT a FROM kept") == "1", "it is the primary again"
    assert primary.status()["postgres"]["restarts"] == 1


def test_server_that_crashes_too_often_is_quarantined(workspace, pg):
    node = Node(workspace, pg, postgres={"restart_max": 1}).make_primary()
    after = node.last_event_id()
    os.kill(node.pid(), signal.SIGKILL)
    node.wait_event("postgres.restarted", after, timeout=40)
    node.wait_running()
    second = node.pid()
    os.kill(second, signal.SIGKILL)
    event = node.wait_event("postgres.quarantined", after, timeout=40)
    assert event["severity"] in ("SEVERITY_ERROR", "SEVERITY_CRITICAL")
    status = node.wait_status("the status says so", lambda each: each["postgres"]["state"] == "POSTGRES_STATE_QUARANTINED")
    assert any("quarantine" in each["fault_class"] for each in status["faults"])
    assert node.pid() == 0

    # Quarantine outlives the agent and ends with an order.
    node.restart_agent()
    assert node.postgres_state() == "quarantined"
    node.ok("pg", "start")
    assert node.sql("SELECT pg_is_in_recovery()") == "f"
    assert node.wait_running()["faults"] == []


# ---- what refuses to start: a clear error with the object and a hint, and nothing is changed ----

def refused(node, *command, says, code=5):
    before = entries(node.data_dir)
    answer = node.ctl(*command)
    assert answer.code == code, answer
    assert has_hint(answer.error), answer
    for part in says:
        assert part in answer.error, answer
    assert entries(node.data_dir) == before, "nothing may change"
    assert node.pid() == 0
    return answer


@pytest.fixture
def stopped(node):
    node.init()
    return node


def test_port_held_by_another_process(stopped):
    stopped.config["agent"]["cluster_id"] = "renamed"  # metal.conf is to say so, but not before a start may happen
    stopped.restart_agent()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", stopped.port))
        holder.listen()
        refused(stopped, "pg", "start", says=[str(stopped.port)])
    stopped.ok("pg", "start")
    assert stopped.sql("SHOW cluster_name") == "renamed"


@pytest.mark.skipif(not process.IS_ROOT, reason="only root can give a directory away")
def test_data_directory_of_another_owner(stopped):
    os.chown(stopped.data_dir, 0, 0)
    refused(stopped, "pg", "start", says=[stopped.data_dir])
    os.chown(stopped.data_dir, process.UID, process.GID)
    stopped.ok("pg", "start")


def test_data_directory_open_to_others(stopped):
    os.chmod(stopped.data_dir, 0o777)
    refused(stopped, "pg", "start", says=[stopped.data_dir])
    os.chmod(stopped.data_dir, 0o700)
    stopped.ok("pg", "start")


@pytest.mark.parametrize("command", ["init", "start"])
def test_foreign_directory(node, command):
    directory = node.workspace.directory("node/data")
    node.workspace.file("node/data/letter.txt", "not yours")
    refused(node, "pg", command, says=[directory])


def test_directory_that_has_a_cluster_already(stopped):
    refused(stopped, "pg", "init", says=[stopped.data_dir])


def test_no_data_directory(node):
    refused(node, "pg", "start", says=[node.data_dir])
    assert not os.path.exists(node.data_dir)


def test_data_directory_of_another_version(stopped):
    stopped.workspace.file("node/data/PG_VERSION", "12\n", 0o600)
    refused(stopped, "pg", "start", says=["12", stopped.version.name])


@pytest.mark.parametrize("command", ["init", "start"])
def test_missing_programs(workspace, pg, command):
    empty = workspace.directory("empty", 0o755)
    node = Node(workspace, pg, postgres={"bin_dir": empty}).start_agent()
    refused(node, "pg", command, says=[empty], code=4)


@pytest.mark.skipif(not process.IS_ROOT, reason="only root can mount a small file system")
def test_full_disk(workspace, pg):
    mount = workspace.small_disk("mount", 20)
    node = Node(workspace, pg, data_dir=mount)
    node.start_agent()
    answer = node.ctl("pg", "init")
    assert answer.code == 1 and answer.reason == "NO_SPACE" and has_hint(answer.error), answer
    assert os.listdir(mount) == [], "the directory is empty as before"


def test_start_on_a_full_disk_is_refused_and_changes_nothing(workspace, pg):
    mount = workspace.small_disk("mount", 300)
    node = Node(workspace, pg, data_dir=os.path.join(mount, "data"))
    node.start_agent()
    node.init("--set", "shared_buffers=16MB", "max_wal_size=64MB")
    free = shutil.disk_usage(mount).free
    ballast = os.path.join(mount, "ballast")
    with open(ballast, "wb") as file:
        file.write(bytes(free - (4 << 20)))
    before = sorted(os.listdir(node.data_dir))
    answer = node.ctl("pg", "start")
    assert answer.code != 0 and answer.reason == "NO_SPACE" and has_hint(answer.error) and node.data_dir in answer.error, answer
    assert sorted(os.listdir(node.data_dir)) == before and not node.answers()
    os.remove(ballast)
    node.ok("pg", "start")
    assert node.sql("SELECT 1") == "1"


@pytest.mark.matrix
@pytest.mark.parametrize("whose", ["a thread of the agent's", "another process's"])
def test_a_left_over_pid_that_is_somebody_elses_now_holds_no_start_up(primary, workspace, whose):
    """As after a power cut: the server's number of before is given to who starts first at the next boot, under the same user."""
    path = os.path.join(primary.data_dir, "postmaster.pid")
    with open(path, encoding="utf-8") as file:
        left = file.read().split("\n", 1)[1]
    primary.ok("pg", "stop", "--mode", "immediate")
    stranger = process.spawn(["sleep", "600"], os.path.join(workspace.path, "sleep.log"))
    try:
        threads = [int(each) for each in os.listdir(f"/proc/{primary.process.pid}/task")]
        pid = stranger.pid if whose.startswith("another") else max(threads)
        assert pid != primary.process.pid
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"{pid}\n{left}")
        process.IS_ROOT and os.chown(path, process.UID, process.GID)
        primary.ok("pg", "start")
        assert stranger.poll() is None and primary.sql("SELECT 1") == "1"
        assert postmaster_pid(primary.data_dir) != pid
    finally:
        process.end(stranger)


def test_start_without_progress_is_given_up(primary):
    """A standby of a server whose restore never ends: nothing moves, so the start fails, and the server is left as it is."""
    primary.ok("pg", "stop")
    with open(os.path.join(primary.data_dir, "postgresql.auto.conf"), "a", encoding="utf-8") as file:
        file.write("restore_command = 'sleep 600'\n")
    with open(os.path.join(primary.data_dir, "recovery.signal"), "w", encoding="utf-8"):
        pass
    process.IS_ROOT and os.chown(os.path.join(primary.data_dir, "recovery.signal"), process.UID, process.GID)
    took, answer = elapsed(lambda: primary.ctl("pg", "start", "--no-progress-timeout", "3"))
    assert answer.code != 0 and has_hint(answer.error), answer
    assert 2.5 < took < 20
    assert postmaster_pid(primary.data_dir) != 0
    primary.ok("pg", "stop", "--mode", "immediate")


def test_start_that_makes_progress_may_last_longer_than_the_limit(primary, workspace):
    """A copy that is consistent only after several segments, each of which takes a while to come from the archive."""
    limit_s, segment_s, segments = 3, 0.9, 5
    pause = workspace.file("pause", "")
    primary.restart_agent(faults="backup.frame=pause", pause=pause)
    backup = primary.detach("backup", "create")
    wait_for("it copies", lambda: "copy" in primary.operation(backup)["progress"]["phase"])
    for _ in range(segments):
        primary.switch_wal()
    os.unlink(pause)
    assert primary.wait_operation(backup)["state"] == "OPERATION_STATE_SUCCEEDED"

    copy = Node(workspace, primary.version, "copy").start_agent()
    copy.ok("term", "begin", "1")
    copy.restore(copy.data_dir, "--recover", "standby", "--term", "1")
    fetch = f"{BIN}/metal-wal fetch --socket={copy.config['agent']['wal_socket']} %f %p"
    with open(os.path.join(copy.data_dir, "postgresql.auto.conf"), "a", encoding="utf-8") as file:
        file.write(f"restore_command = 'case %f in *.history) ;; *) sleep {segment_s} ;; esac; exec {fetch}'\n")
    took, started = elapsed(lambda: copy.ok("pg", "start", "--no-progress-timeout", str(limit_s)))
    assert limit_s < segments * segment_s < took and started["result"]["role"] == "standby"
