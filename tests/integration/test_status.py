"""The published status: what it says, that it is right about lag, and that it answers while everything else hangs."""
import os
import signal
import time

import pytest

from harness import process
from harness.node import Node, lsn_number, seconds
from harness.postgres import PlainServer
from harness.process import wait_for
from harness.status_latency import check_promise


def base_backup(node, target):
    node.run("pg_basebackup", "-D", target, "-R", "--checkpoint=fast", "-X", "stream")


@pytest.fixture
def standby(primary, workspace):
    """A second node whose directory is a streaming copy of the first."""
    second = Node(workspace, primary.version, "second")
    base_backup(primary, second.data_dir)
    second.start_agent()
    second.ok("pg", "start")
    primary.sql("CREATE TABLE streamed AS SELECT 1 AS a")
    second.wait_status("it streams", lambda each: each.get("standby", {}).get("lag_source") == "caught_up")
    return second


@pytest.mark.matrix
def test_status_of_a_primary(primary):
    status = primary.wait_status("the monitor has looked", lambda each: each["postgres"]["current_lsn"] != "0")
    node, postgres = status["node"], status["postgres"]
    assert (node["node_id"], node["cluster_id"], node["os_user"]) == ("node", "test", process.USER)
    assert node["io_engine"] in ("io_uring", "threads", "pread") and node["io_engine_reason"]
    assert node["grpc_address"].startswith("127.0.0.1:")
    assert postgres["pid"] == primary.pid() and postgres["port"] == primary.port
    assert postgres["version"].startswith(primary.version.name)
    assert postgres["version_num"] == int(primary.sql("SHOW server_version_num"))
    assert postgres["data_directory"] == primary.data_dir and postgres["data_checksums"] is True
    assert postgres["system_identifier"] == primary.sql("SELECT system_identifier FROM pg_control_system()")
    assert postgres["timeline"] == 2 and postgres["in_recovery"] is False
    assert int(postgres["redo_lsn"]) > 0
    primary.wait_status("pg_control is read again", lambda each: each["postgres"]["control_state"] == "in production")
    assert postgres["max_connections"] == 100 and postgres["checksum_failures"] == "0"
    assert seconds(postgres["observe_age"]) < 10
    assert "standby" not in status or status["standby"] is None
    assert status["archive"]["enabled"] is True and status["archive"]["mode"] == "on"
    assert status["faults"] == []
    primary.sql("SELECT pg_logical_emit_message(false, 'a', 'b')")
    written = lsn_number(primary.lsn())
    primary.wait_status("the LSN follows", lambda each: int(each["postgres"]["current_lsn"]) >= written)


def test_disks_under_the_node_are_named(primary):
    status = primary.wait_status("disks were found", lambda each: each["disks"])
    roles = {role for disk in status["disks"] for role in disk["roles"]}
    assert roles == {"data", "repository"}, "pg_wal lies in the data directory"
    for disk in status["disks"]:
        assert int(disk["filesystem_size_bytes"]) > int(disk["filesystem_free_bytes"]) > 0
        assert disk["mount_point"].startswith("/") and disk["filesystem"]
        assert disk["smart"]["supported"] or disk["smart"]["unsupported_reason"]
    listed = primary.ok("disk", "list")["disks"]
    assert {each["name"] for each in listed} == {each["name"] for each in status["disks"]}
    health = primary.ok("disk", "health", listed[0]["device"])
    assert health["disk"]["device"] == listed[0]["device"]
    assert primary.ctl("disk", "health", "no-such-disk").code == 4
    said = primary.ok("disk", "logs", listed[0]["device"])
    assert said["logs"] or said["unavailable_reason"]
    assert primary.ctl("disk", "logs", "no-such-disk").code == 4


def test_tablespace_is_watched_too(primary, workspace):
    location = workspace.directory("space")
    primary.sql(f"CREATE TABLESPACE space LOCATION '{location}'")
    oid = primary.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")

    def watched(status):
        return any(f"tablespace:{oid}" in disk["roles"] for disk in status["disks"])
    primary.wait_status("the tablespace shows", watched, 15)  # long before the look of every minute
    primary.sql("DROP TABLESPACE space")
    primary.wait_status("it shows no more", lambda each: not watched(each), 15)


def test_probes_measure(workspace, pg):
    node = Node(workspace, pg, disk={"probe_enabled": True, "probe_read_interval": "50ms", "probe_write_interval": "50ms"})
    node.make_primary()

    def healthy(status):
        probes = {probe["role"]: probe for disk in status["disks"] for probe in disk["probes"]}
        data = probes.get("data", {})
        return data.get("state") == "PROBE_STATE_HEALTHY" and int(data["read"]["count"]) > 10 and probes
    probes = healthy(node.wait_status("probes are healthy", healthy, 40))
    assert 0 < seconds(probes["data"]["read"]["p50"]) <= seconds(probes["data"]["read"]["max"])
    assert int(probes["data"]["write"]["count"]) > 0
    result = node.ok("disk", "probe", "data", "--reads", "50", "--writes", "10")["result"]
    assert (result["reads"], result["writes"], result["errors"]) == ("50", "10", "0")
    assert 0 < float(result["read_p50_us"]) <= float(result["read_max_us"])
    assert node.ctl("disk", "probe", "nothing").code in (2, 4)


def test_a_probe_file_that_somebody_cuts_is_no_fault_of_the_drive(workspace, pg):
    node = Node(workspace, pg, disk={"probe_enabled": True, "probe_read_interval": "50ms", "probe_write_interval": "50ms"})
    node.make_primary()
    path = os.path.join(node.data_dir, ".metal-probe")

    def probe(status):
        return next((each for disk in status["disks"] for each in disk["probes"] if each["role"] == "data"), {})
    node.wait_status("it is probed", lambda each: int(probe(each).get("read", {}).get("count", 0)) > 20, 40)
    whole = os.path.getsize(path)
    after = node.last_event_id()
    for size in (0, whole // 2):
        said = node.log_text().count("event=disk.probe_file_cut")
        os.truncate(path, size)
        wait_for("the prober notices", lambda: node.log_text().count("event=disk.probe_file_cut") > said, 20)
        wait_for("the file is whole again", lambda: os.path.getsize(path) == whole, 30)
        node.wait_status("it is probed", lambda each: probe(each).get("state") == "PROBE_STATE_HEALTHY", 30)
    assert not [each for each in node.events(after=after) if each["type"].startswith("disk.")]
    status = node.status()
    assert not status.get("faults") and not status["node"].get("fenced"), status


def test_revision_grows_and_watch_streams_it(primary):
    first = int(primary.status()["revision"])
    primary.sql("SELECT pg_logical_emit_message(false, 'a', 'b')")
    primary.wait_status("a later revision", lambda each: int(each["revision"]) > first)
    log = os.path.join(primary.root, "watch.log")
    watcher = process.spawn(primary.ctl_arguments("-o", "json", "watch"), log, as_root=True)
    try:
        def lines():
            with open(log, encoding="utf-8") as file:
                return len(file.read().splitlines()) >= 2
        wait_for("two snapshots", lines)
    finally:
        process.end(watcher, signal.SIGINT)


# ---- lag ----

def test_idle_standby_is_caught_up_and_stays_it(primary, standby):
    primary.sql("CREATE TABLE t AS SELECT 1 AS a")

    def caught_up(status):
        section = status["standby"]
        return section["lag_source"] == "caught_up" and section["lag_bytes"] == "0" and seconds(section["lag"]) == 0
    standby.wait_status("it caught up", caught_up)
    # now() − last replayed commit would grow meanwhile.
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert caught_up(standby.status())
    follower = primary.status()["followers"][0]
    assert follower["state"] == "streaming" and follower["lag_bytes"] == "0" and seconds(follower["lag"]) == 0
    assert standby.status()["node"]["role_wanted"] != "ROLE_PRIMARY"
    assert standby.status()["postgres"]["role_observed"] == "ROLE_STANDBY"


def test_paused_standby_falls_behind_and_says_so(primary, standby):
    standby.sql("SELECT pg_wal_replay_pause()")
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 100000) AS a")
    status = standby.wait_status("the lag shows", lambda each: int(each["standby"].get("lag_bytes") or 0) > 1 << 20)
    assert status["standby"]["replay_paused"] is True and status["standby"]["lag_source"] == "paused"
    primary.wait_status("the primary sees it", lambda each: int(each["followers"][0]["lag_bytes"]) > 1 << 20)
    first = seconds(standby.status()["standby"]["lag"])
    standby.wait_status("it grows", lambda each: seconds(each["standby"]["lag"]) > first)
    standby.sql("SELECT pg_wal_replay_resume()")
    standby.wait_status("it caught up", lambda each: each["standby"].get("lag_bytes") == "0")


def test_dead_link_is_no_lag_of_zero(primary, standby):
    """received = replayed on both sides of a dead link; a standby that is cut off must not call itself caught up."""
    standby.wait_status("it caught up", lambda each: each["standby"]["lag_source"] == "caught_up")
    os.kill(primary.pid(), signal.SIGSTOP)  # no new walsender can be forked
    os.kill(int(standby.sql("SELECT pid FROM pg_stat_wal_receiver")), signal.SIGTERM)
    status = standby.wait_status("the link is dead", lambda each: each["standby"]["lag_source"] == "link_dead")
    first = seconds(status["standby"]["lag"])
    assert first is not None and first >= 0
    status = standby.wait_status("it grows", lambda each: seconds(each["standby"]["lag"]) > first + 2)
    assert status["standby"]["lag_source"] == "link_dead"
    os.kill(primary.pid(), signal.SIGCONT)
    standby.wait_status("it streams again", lambda each: each["standby"]["lag_source"] == "caught_up", 60)


def test_plain_standby_shows_as_follower(primary, workspace):
    target = os.path.join(workspace.path, "plain")
    base_backup(primary, target)
    plain = PlainServer(primary.version, target, workspace, cluster_name="plain").start()

    # pg_basebackup's own stream of WAL was a follower, too: the last snapshot may still show it.
    def names(status):
        return [follower["application_name"] for follower in status["followers"]]
    status = primary.wait_status("only the standby follows", lambda each: names(each) and "pg_basebackup" not in names(each))
    assert names(status) in (["plain"], ["walreceiver"])
    wait_for("it caught up", lambda: primary.status()["followers"][0]["lag_bytes"] == "0")
    plain.stop()
    primary.wait_status("it is gone", lambda each: not each["followers"])


# ---- nothing can hang it ----

def test_status_answers_while_the_postmaster_is_frozen(primary):
    pid = primary.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        status = primary.wait_status("it is seen", lambda each: each["postgres"]["state"].endswith("UNRESPONSIVE"), 40)
        assert status["postgres"]["pid"] == pid
        check_promise(primary)
    finally:
        os.kill(pid, signal.SIGCONT)
    primary.wait_running()
    assert primary.pid() == pid, "frozen is not dead"


def test_events_tell_the_story_in_order(primary):
    events = primary.events()
    types = [each["type"] for each in events]
    assert [int(each["id"]) for each in events] == sorted({int(each["id"]) for each in events})
    assert types.index("agent.started") < types.index("postgres.started")
    assert primary.events("postgres.") == [each for each in events if each["type"].startswith("postgres.")]
    last = int(events[-1]["id"])
    primary.restart_agent()
    assert int(primary.events()[-1]["id"]) > last
    assert primary.events()[:len(events)] == events, "events outlive the agent"
