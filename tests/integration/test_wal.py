"""The WAL archive: what PostgreSQL hands over arrives, is never overwritten, and waits for the agent when it is away."""
import os
import shutil

import pytest

from harness.node import BIN, has_hint
from harness.process import run, wait_for

ABSENT, TRY_AGAIN, REFUSED, STOP_SERVER = 1, 3, 4, 200


def wal(node, *arguments, code=0):
    command, *rest = arguments
    return run([f"{BIN}/metal-wal", command, "--socket", node.config["agent"]["wal_socket"], "--timeout", "5",
                "--cluster", node.system_identifier() if node.process.poll() is None else "1", *rest], code=code)


def archived(node, segment):
    return wait_for(f"{segment} is archived",
                    lambda: node.sql("SELECT last_archived_wal FROM pg_stat_archiver") >= segment, 30)


@pytest.mark.matrix
def test_segments_arrive_and_come_back_the_same(primary, workspace):
    segment = primary.switch_wal()
    with open(os.path.join(primary.data_dir, "pg_wal", segment), "rb") as file:
        original = file.read()
    archived(primary, segment)
    target = os.path.join(workspace.path, "fetched")
    wal(primary, "fetch", segment, target)
    with open(target, "rb") as file:
        assert file.read() == original
    status = primary.ok("backup", "archive")
    newest = status["timelines"][-1]
    assert newest["timeline"] == 2 and newest["first_segment"] <= segment <= newest["last_segment"]
    assert newest["missing_segments"] == []
    wal(primary, "fetch", "00000002.history", target)
    with open(target, encoding="utf-8") as file:
        assert file.read().startswith("1\t")
    stored = [each for each in primary.repository_files() if segment in each]
    assert len(stored) == 1
    assert os.path.getsize(os.path.join(primary.repository, stored[0])) < len(original) / 4, "it is compressed"
    primary.wait_status("the status shows it", lambda each: each["archive"]["last_archived_wal"] >= segment
                        and each["archive"]["ready_segments"] == "0")


def test_pushed_twice_is_stored_once(primary):
    segment = primary.switch_wal()
    archived(primary, segment)
    before = {each: os.stat(os.path.join(primary.repository, each)).st_ino for each in primary.repository_files()}
    path = os.path.join(primary.data_dir, "pg_wal", segment)
    wal(primary, "push", path, segment)
    after = {each: os.stat(os.path.join(primary.repository, each)).st_ino for each in primary.repository_files()}
    assert after == before


def test_other_contents_under_the_same_name_are_refused(primary, workspace):
    segment = primary.switch_wal()
    archived(primary, segment)
    with open(os.path.join(primary.data_dir, "pg_wal", segment), "rb") as file:
        changed = bytearray(file.read())
    changed[5000] ^= 0xFF
    other = os.path.join(workspace.path, segment)
    with open(other, "wb") as file:
        file.write(changed)
    workspace.give(other)
    after = primary.last_event_id()
    refused = wal(primary, "push", other, segment, code=REFUSED)
    assert segment in refused.stderr and has_hint(refused.stderr)
    assert primary.wait_event("wal.conflict", after)["severity"] in ("SEVERITY_ERROR", "SEVERITY_CRITICAL")
    fetched = os.path.join(workspace.path, "fetched")
    wal(primary, "fetch", segment, fetched)
    with open(fetched, "rb") as file:
        assert file.read() != bytes(changed), "nothing is overwritten"


def test_wal_of_another_cluster_is_refused(primary, workspace):
    segment = primary.switch_wal()
    archived(primary, segment)
    path = os.path.join(primary.data_dir, "pg_wal", segment)
    refused = run([f"{BIN}/metal-wal", "push", "--socket", primary.config["agent"]["wal_socket"], "--cluster", "4711", path,
                   segment], code=REFUSED)
    assert has_hint(refused.stderr)


def test_what_is_not_there_is_told_from_an_agent_that_is_away(primary, workspace):
    target = os.path.join(workspace.path, "fetched")
    wal(primary, "fetch", "0000000200000000000000FF", target, code=ABSENT)
    wal(primary, "fetch", "--strict", "0000000200000000000000FF", target, code=ABSENT)
    primary.stop_agent()
    wal(primary, "fetch", "0000000200000000000000FF", target, code=TRY_AGAIN)
    wal(primary, "fetch", "--strict", "0000000200000000000000FF", target, code=STOP_SERVER)
    assert not os.path.exists(target)
    assert run([f"{BIN}/metal-wal", "push"], code=2).stderr


def test_postgres_keeps_wal_while_the_agent_is_away_and_catches_up(primary):
    primary.kill_agent()
    failed = int(primary.sql("SELECT failed_count FROM pg_stat_archiver"))
    segments = [primary.switch_wal() for _ in range(4)]
    wait_for("the archiver noticed", lambda: int(primary.sql("SELECT failed_count FROM pg_stat_archiver")) > failed, 30)
    kept = os.listdir(os.path.join(primary.data_dir, "pg_wal/archive_status"))
    assert {f"{each}.ready" for each in segments} <= set(kept)
    primary.start_agent()
    archived(primary, segments[-1])
    primary.wait_status("the backlog is gone", lambda each: each["archive"]["ready_segments"] == "0", 40)
    assert primary.ok("backup", "archive")["timelines"][-1]["missing_segments"] == []


@pytest.mark.parametrize("point", ["wal.begin", "wal.file_created", "wal.frames_written", "wal.file_synced",
                                   "wal.published", "wal.directory_synced"])
def test_agent_killed_while_it_stores_a_segment(primary, workspace, point):
    """Each step of a push: afterwards the segment is whole or absent, and PostgreSQL hands it over again."""
    primary.restart_agent(faults=f"{point}=crash")
    segment = primary.switch_wal()
    wait_for(f"the agent dies at {point}", lambda: primary.process.poll() is not None, 60)
    primary.start_agent()
    archived(primary, segment)
    target = os.path.join(workspace.path, "fetched")
    wal(primary, "fetch", segment, target)
    with open(target, "rb") as ours, open(os.path.join(primary.data_dir, "pg_wal", segment), "rb") as theirs:
        assert ours.read() == theirs.read()
    assert [each for each in primary.repository_files() if segment in each and not each.endswith(".wal")] == []


def test_agent_killed_while_it_reads_ahead(primary, workspace):
    """The segments after the one that was fetched are read before they are asked for; who asks later gets them all the same."""
    segments = [primary.switch_wal() for _ in range(3)]
    archived(primary, segments[-1])
    primary.restart_agent(faults="wal.prefetch=crash")
    run([f"{BIN}/metal-wal", "fetch", "--socket", primary.config["agent"]["wal_socket"], "--cluster",
         primary.system_identifier(), segments[0], os.path.join(workspace.path, "first")], code=None)
    wait_for("the agent dies while it reads ahead", lambda: primary.process.poll() is not None, 20)
    primary.start_agent()
    for segment in segments:
        wal(primary, "fetch", segment, os.path.join(workspace.path, segment))
        with open(os.path.join(workspace.path, segment), "rb") as ours, \
                open(os.path.join(primary.data_dir, "pg_wal", segment), "rb") as theirs:
            assert ours.read() == theirs.read()


def test_repository_that_is_not_mounted_takes_no_wal(primary):
    """An empty directory where the repository was is no new repository, also to an agent that was restarted."""
    archived(primary, primary.switch_wal())
    primary.stop_agent()
    aside = primary.repository + ".aside"
    os.rename(primary.repository, aside)
    try:
        primary.workspace.give(primary.workspace.directory(os.path.basename(primary.repository)))
        primary.start_agent()
        segment = primary.switch_wal()
        event = primary.wait_event("wal.push_failed", 0)
        assert "repository" in event["message"] and has_hint(event["message"])
        refused = primary.ctl("backup", "create")
        assert refused.code != 0 and refused.reason == "REPOSITORY", refused
        assert [each for each in os.listdir(primary.repository) if not each.startswith(".metal-probe")] == []
    finally:
        shutil.rmtree(primary.repository)
        os.rename(aside, primary.repository)
    archived(primary, segment)


def test_failing_archive_shows_in_the_status(primary):
    primary.restart_agent(faults="wal.begin=error")
    primary.switch_wal()
    wait_for("PostgreSQL tries again", lambda: int(primary.sql("SELECT failed_count FROM pg_stat_archiver")) >= 1, 30)
    status = primary.wait_status("the failure is counted", lambda each: int(each["archive"]["failed_count"]) >= 1)
    assert status["archive"]["last_failed_wal"]
    primary.wait_status("and made good", lambda each: each["archive"]["ready_segments"] == "0", 90)
