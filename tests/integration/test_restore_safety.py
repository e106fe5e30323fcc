"""Restore never overwrites anything, never leaves half a copy that starts, and brings a lost node back."""
import os
import shutil

import pytest

from harness import database, process
from harness.node import has_hint
from harness.postgres import PlainServer
from harness.process import wait_for


@pytest.fixture
def backed_up(primary):
    primary.pgbench_load(1)
    primary.backup()
    primary.switch_wal()
    return primary


def names(directory):
    return sorted(os.path.join(parent, each) for parent, folders, files in os.walk(directory) for each in folders + files)


def sizes(directory):
    return {each: os.path.getsize(each) for each in names(directory) if os.path.isfile(each)}


def refused(node, target, *arguments, in_use=False):
    before = names(target)
    answer = node.ctl("backup", "restore", "--target", target, *arguments)
    assert answer.code == 5 and has_hint(answer.error) and target in answer.error, answer
    assert in_use or names(target) == before
    return answer


def test_directory_that_is_not_empty_is_refused(backed_up, workspace):
    target = workspace.directory("full")
    workspace.file("full/letter.txt", "not yours")
    refused(backed_up, target)
    refused(backed_up, target, "--dry-run")


def test_directory_in_use_is_refused(backed_up, workspace):
    target = os.path.join(workspace.path, "copy")
    backed_up.restore(target)
    server = PlainServer(backed_up.version, target, workspace).start()
    refused(backed_up, target, in_use=True)
    assert server.sql("SELECT count(*) FROM pgbench_branches") == "1"


def test_own_directory_needs_a_term_and_a_stopped_server(backed_up):
    answer = backed_up.ctl("backup", "restore")
    assert answer.code in (2, 5) and has_hint(answer.error), answer
    link = os.path.join(backed_up.workspace.path, "link")
    os.symlink(backed_up.root, link)
    for spelling in (backed_up.data_dir + "/", os.path.join(link, os.path.relpath(backed_up.data_dir, backed_up.root))):
        answer = backed_up.ctl("backup", "restore", "--target", spelling)
        assert answer.code in (2, 5) and "term is 0" in answer.error and has_hint(answer.error), answer
    answer = backed_up.ctl("backup", "restore", "--term", "2")
    assert answer.code == 5 and has_hint(answer.error), answer
    assert backed_up.sql("SELECT count(*) FROM pgbench_branches") == "1"


def test_dry_run_changes_nothing(backed_up, workspace):
    target = os.path.join(workspace.path, "copy")
    assert backed_up.ctl("backup", "restore", "--target", target, "--dry-run").code == 0
    assert not os.path.exists(target)
    assert backed_up.ctl("backup", "restore", "no-such-backup", "--target", target).code == 4
    assert not os.path.exists(target)


def test_half_a_restore_cannot_be_started(backed_up, workspace):
    """Whatever step it stopped at. The agent's own start refuses it too."""
    target = os.path.join(workspace.path, "copy")
    trace = workspace.file("points.trace", "")
    backed_up.restart_agent(trace=trace)
    backed_up.restore(target)
    shutil.rmtree(target)
    with open(trace, encoding="utf-8") as file:
        points = [each for each in file.read().splitlines() if each.startswith("restore.")]
    assert points
    middle = points[len(points) // 2]
    backed_up.restart_agent(faults=f"{middle}=error")
    answer = backed_up.ctl("backup", "restore", "--target", target)
    assert answer.code != 0, answer
    assert os.path.exists(os.path.join(target, "metal.incomplete"))
    started = process.run([backed_up.version.program("postgres"), "-D", target], code=None, timeout=20)
    assert started.code != 0
    backed_up.restore(target)
    database.prove_restored(backed_up, target)


def test_space_is_checked_before_anything_is_written(backed_up, workspace):
    if not process.IS_ROOT:
        pytest.skip("only root can mount a small file system")
    target = workspace.small_disk("small", 10)
    answer = backed_up.ctl("backup", "restore", "--target", target)
    assert answer.code == 1 and answer.reason == "NO_SPACE" and has_hint(answer.error), answer
    assert os.listdir(target) == []


@pytest.mark.skipif(not process.IS_ROOT, reason="only root can mount a small file system")
def test_space_that_a_dead_restore_holds_is_no_reason_to_refuse(backed_up, workspace):
    """The same order again removes it first."""
    size = int(backed_up.ok("backup", "show")["summary"]["size_bytes"])
    target = workspace.small_disk("target", (size + (64 << 20)) // (1 << 20) + 12)
    backed_up.restart_agent(faults="restore.before_sync=error")
    assert backed_up.ctl("backup", "restore", "--target", target).code == 1
    assert size > 30 << 20, "what is left holds more than the room to spare"
    backed_up.restart_agent()
    backed_up.ctl("backup", "restore", "--target", target, code=0)
    database.verify_restored(backed_up, target)


def test_tablespace_in_place_of_the_source_is_refused(primary, workspace):
    """Without a mapping the tablespace would go where the source's still is."""
    location = workspace.directory("space")
    primary.sql(f"CREATE TABLESPACE space LOCATION '{location}'; CREATE TABLE t TABLESPACE space AS SELECT 1 AS a")
    primary.backup()
    before = names(location)
    target = os.path.join(workspace.path, "copy")
    answer = primary.ctl("backup", "restore", "--target", target)
    assert answer.code == 5 and location in answer.error and has_hint(answer.error), answer
    assert names(location) == before
    assert primary.sql("SELECT a FROM t") == "1"


@pytest.mark.matrix
def test_tablespace_of_the_time_of_the_backup_stays_the_live_servers(primary, workspace):
    """Replay of the backup's WAL creates it where the source has it: neither a rehearsal nor a copy on this host may."""
    primary.sql("CREATE TABLE big AS SELECT g AS a FROM generate_series(1, 200000) g")
    pause = workspace.file("pause", "", 0o644)
    primary.restart_agent(faults="backup.frame=pause@3", pause=pause)
    name = primary.detach("backup", "create")
    wait_for("it copies", lambda: "copy" in primary.operation(name)["progress"]["phase"])
    location = workspace.directory("space")
    primary.sql(f"CREATE TABLESPACE space LOCATION '{location}'")
    insert = "INSERT INTO t SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 5000) g"
    primary.sql("CREATE TABLE t (a int, b text) WITH (autovacuum_enabled = off) TABLESPACE space")
    primary.sql(f"{insert}; DELETE FROM t WHERE a > 100")
    primary.sql("VACUUM t")  # a copy that replays it cuts the file at once
    os.unlink(pause)
    assert primary.wait_operation(name)["state"] == "OPERATION_STATE_SUCCEEDED"
    primary.sql(f"{insert}; CHECKPOINT")
    rows, files = database.tables(primary), sizes(location)
    assert any(size > 200000 for size in files.values())
    assert any(each["message"].find(location) > 0 for each in primary.events("backup.creates_tablespace"))

    answer = primary.ctl("backup", "verify", "--restore")
    assert answer.code != 0 and location in answer.error and has_hint(answer.error), answer
    target = os.path.join(workspace.path, "copy")
    for recover in ("latest", "immediate", "standby"):
        answer = primary.ctl("backup", "restore", "--target", target, "--recover", recover)
        assert answer.code == 5 and location in answer.error and has_hint(answer.error), answer
        assert not os.path.exists(target)
    primary.ok("backup", "verify")
    assert sizes(location) == files
    # Read from the disk.
    primary.ok("pg", "stop", "--mode", "immediate")
    primary.ok("pg", "start")
    assert database.tables(primary) == rows
    database.check_relations(primary)
    # A backup that began later has it, and is rehearsed and restored elsewhere.
    primary.backup()
    primary.ok("backup", "verify", "--restore", timeout=300)
    oid = primary.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")
    primary.restore(target, "--tablespace", f"{oid}={os.path.join(workspace.path, 'moved')}")
    database.prove_restored(primary, target)
    assert sizes(location).items() >= files.items()
    assert database.tables(primary) == rows


@pytest.mark.parametrize("recover,rows", [("latest", "2"), ("immediate", "1")])
def test_recovery_settings_of_the_source_do_not_steer_a_copy(primary, workspace, recover, rows):
    """They stand in a file that postgresql.conf includes, as they do after somebody's recovery to a point in time."""
    ran = os.path.join(workspace.directory("ran"), "command")
    workspace.file(os.path.join(primary.data_dir, "old.conf"),
                   "recovery_target_time = '2001-01-01 00:00:00+00'\nrecovery_target_action = 'shutdown'\n"
                   f"recovery_min_apply_delay = '1h'\nrecovery_end_command = 'touch {ran}'\n"
                   f"archive_cleanup_command = 'touch {ran}'\n")
    with open(os.path.join(primary.data_dir, "postgresql.conf"), "a", encoding="utf-8") as file:
        file.write("include_if_exists 'old.conf'\n")
    primary.sql("CREATE TABLE t AS SELECT 1 AS a")
    primary.backup()
    primary.sql("INSERT INTO t SELECT 2")
    primary.switch_wal()
    copy = os.path.join(workspace.path, "copy")
    primary.restore(copy, "--recover", recover)
    database.verify_restored(primary, copy)
    server = PlainServer(primary.version, copy, workspace).start()
    wait_for("it is open for writes", lambda: server.sql("SELECT pg_is_in_recovery()") == "f", 60)
    assert server.sql("SELECT count(*) FROM t") == rows
    assert not os.path.exists(ran), "a command of the source ran"


@pytest.mark.matrix
def test_lost_node_comes_back(backed_up):
    """The data directory is gone: restore into it under a term, start, promote, and every row is there."""
    node = backed_up
    node.sql("CREATE TABLE later AS SELECT 5 AS a")
    segment = node.switch_wal()
    wait_for("the last WAL is archived", lambda: node.sql("SELECT last_archived_wal FROM pg_stat_archiver") >= segment, 30)
    rows = database.tables(node)
    node.ok("pg", "stop", "--mode", "immediate")
    shutil.rmtree(node.data_dir)
    node.wait_status("the loss is seen", lambda each: each["postgres"]["state"] in (
        "POSTGRES_STATE_NO_DATA_DIRECTORY", "POSTGRES_STATE_STOPPED"))
    assert node.ctl("pg", "start").code == 5

    assert node.ctl("backup", "restore", "--term", "2").code == 5, "the term has not begun"
    node.ok("term", "begin", "2")
    node.ok("backup", "restore", "--term", "2")
    database.verify_restored(node, node.data_dir, database.SETTINGS)
    assert node.ok("pg", "start")["result"]["role"] == "standby"
    wait_for("all WAL is replayed", lambda: node.sql("SELECT count(*) FROM pg_class WHERE relname = 'later'") == "1", 60)
    node.ok("promote", "--term", "2")
    assert database.tables(node) == rows
    database.prove_own(node)
    node.sql("CREATE TABLE writable (a int)")
    node.backup()
    assert len(node.backups()) == 2
