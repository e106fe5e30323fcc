"""Backup and restore on real PostgreSQL: the copy is the same database, whatever happens to the source meanwhile."""
import os
import signal

import pytest

from harness import compare, database
from harness.node import Node, has_hint
from harness.postgres import PGBENCH_RATE, PlainServer
from harness.process import is_alive, wait_for
from harness.workspace import Workspace


@pytest.fixture(scope="module")
def source(pg, module_workspace):
    """A primary with contents, shared by the tests of one version."""
    node = Node(module_workspace, pg).make_primary()
    node.location = database.fill(node, module_workspace)
    return node


@pytest.fixture
def small(primary):
    """A fresh primary with little in it."""
    primary.pgbench_load(1)
    return primary


def settled_lsn(node):
    """A position that both copies replay to. A checkpoint lies before it, so that what a copy replayed is also written by
    its restartpoint at shutdown, and its WAL is archived."""
    node.sql("CHECKPOINT")
    lsn = node.lsn()
    node.switch_wal()
    wait_for("the WAL is archived", lambda: node.sql("SELECT last_archived_wal >= pg_walfile_name("
             f"'{lsn}') FROM pg_stat_archiver") == "t", 30)
    return lsn


def restore_command(node):
    from harness.node import BIN
    return f"{BIN}/metal-wal fetch --socket={node.config['agent']['wal_socket']} %f %p"


def replay(node, directory, lsn, action):
    """Replays the directory up to `lsn`; then it is shut down, or promoted and left running."""
    server = PlainServer(node.version, directory, node.workspace, restore_command=restore_command(node),
                         recovery_target_lsn=lsn, recovery_target_timeline="current", recovery_target_action=action,
                         primary_conninfo="", hot_standby="on" if action == "promote" else "off", max_connections="100")
    server.start(wait="answers" if action == "promote" else "end")
    assert f"recovery stopping after WAL location (LSN) \"{lsn}\"" in server.log_text() or action == "promote"
    return server


def tablespace_oid(node):
    return node.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")


def moved_tablespace(node, name):
    path = os.path.join(node.workspace.path, name)
    node.workspace.at_end(lambda: __import__("shutil").rmtree(path, ignore_errors=True))
    return path


def backup_in_a_storm(node):
    """A backup that is held up in the middle of its copy while pgbench and DDL run. The agent is restarted for it."""
    pause = node.workspace.file("pause", "", 0o644)
    node.restart_agent(faults="backup.frame=pause@3", pause=pause)
    load = node.start("pgbench", "-n", "-R", PGBENCH_RATE, "-c", "2", "-T", "300", log=os.path.join(node.root, "pgbench.log"))
    try:
        with database.Storm(node) as storm:
            wait_for("the storm blows", lambda: storm.rounds >= 1 or storm.error, 60)
            name = node.detach("backup", "create")
            wait_for("the copy is under way", lambda: "copy" in node.operation(name)["progress"]["phase"], 60)
            rounds = storm.rounds
            wait_for("the storm blows on during the copy", lambda: storm.rounds >= rounds + 3 or storm.error, 90)
            os.unlink(pause)
            done = node.wait_operation(name)
        assert storm.error is None, storm.error
        assert load.poll() is None, "pgbench ended early"
    finally:
        load.send_signal(signal.SIGINT)
        load.wait(20)
    assert done["state"] == "OPERATION_STATE_SUCCEEDED", done
    return done


@pytest.mark.matrix
def test_backup_in_a_storm_is_byte_for_byte_what_pg_basebackup_takes(source):
    node = source
    done = backup_in_a_storm(node)
    assert done["result"]["state"] == "complete" and done["result"]["corrupt_pages"] == "0", done

    reference, space = (os.path.join(node.workspace.path, name) for name in ("reference", "reference-space"))
    node.run("pg_basebackup", "-D", reference, "-T", f"{node.location}={space}", "--checkpoint=fast", "-X", "none")
    lsn = settled_lsn(node)
    rows, dump = database.tables(node), database.dump_digest(node)

    copy = os.path.join(node.workspace.path, "copy")
    oid = tablespace_oid(node)
    restored = node.restore(copy, "--recover", "standby", "--tablespace", f"{oid}={moved_tablespace(node, 'copy-space')}")
    assert restored["result"]["target_directory"] == copy and int(restored["result"]["files"]) > 500
    assert not os.path.exists(os.path.join(copy, "metal.incomplete"))
    assert os.readlink(os.path.join(copy, "pg_tblspc", oid)) == os.path.join(node.workspace.path, "copy-space")
    database.verify_restored(node, copy)

    node.workspace.file("reference/standby.signal", "")
    for directory in (copy, reference):
        replay(node, directory, lsn, "shutdown")
    found, pages = compare.differences(copy, reference)
    assert found == [], "\n".join(found[:40])
    assert pages > 3000

    # Opened for writes at that position it is the source's contents, sound in every page and index.
    server = replay(node, copy, lsn, "promote")
    wait_for("it is promoted", lambda: server.sql("SELECT pg_is_in_recovery()") == "f", 60)
    assert database.tables(server) == rows
    assert database.dump_digest(server) == dump
    assert server.sql("SELECT count(*) FROM unlogged") == "0", "an unlogged table is empty in a copy, and usable"
    server.sql("INSERT INTO unlogged SELECT 1")
    database.check_relations(server)
    server.stop()
    database.check_checksums(node.version, copy)


@pytest.mark.matrix
def test_restored_copy_opens_by_itself(source):
    """Without any setting of the test: what the restore wrote fetches the WAL, on the port that was asked for."""
    from harness.workspace import free_port
    node = source
    node.restart_agent()
    node.backup("--note", "why=test")
    node.sql("CREATE TABLE after_backup AS SELECT 5 AS a")
    node.switch_wal()
    for recover, expected in (("latest", "1"), ("immediate", "0")):
        copy, port = os.path.join(node.workspace.path, f"copy-{recover}"), free_port()
        node.restore(copy, "--recover", recover, "--port", str(port), "--tablespace",
                     f"{tablespace_oid(node)}={moved_tablespace(node, f'space-{recover}')}")
        database.verify_restored(node, copy)
        server = PlainServer(node.version, copy, node.workspace)
        server.settings = {"unix_socket_directories": server.socket_dir, "fsync": "off", "archive_mode": "off"}
        server.port = port
        server.start()
        wait_for("it is open for writes", lambda: server.sql("SELECT pg_is_in_recovery()") == "f", 60)
        assert server.sql("SELECT count(*) FROM pg_class WHERE relname = 'after_backup'") == expected
        database.check_relations(server)
        server.stop()
        database.check_checksums(node.version, copy)
    node.sql("DROP TABLE after_backup")


@pytest.mark.matrix
def test_backup_says_what_it_is(source):
    done = source.backup("--note", "why=test")
    name, facts = done["result_name"], done["result"]
    shown = source.ok("backup", "show", name)
    summary = shown["summary"]
    assert summary["name"] == name and summary["state"] == "BACKUP_STATE_COMPLETE"
    assert summary["codec"] == "zstd" and shown["level"] == 1
    assert int(summary["size_bytes"]) == int(facts["bytes"]) > int(summary["stored_bytes"]) > 0
    assert int(summary["start_lsn"]) < int(summary["stop_lsn"])
    assert shown["annotations"] == {"why": "test"} and shown["from_standby"] is False
    assert shown["system_identifier"] == source.system_identifier()
    assert list(shown["tablespaces"]) == [tablespace_oid(source)]
    assert int(shown["file_count"]) == int(facts["files"])
    assert source.ok("backup", "show")["summary"]["name"] == name, "it is the latest"
    source.wait_status("the status lists it", lambda each: name in [one["name"] for one in each["backups"]["latest"]], 40)
    verified = source.ok("backup", "verify", name)["result"]
    assert int(verified["frames"]) == int(shown["frame_count"]) and int(verified["wal_segments"]) >= 1


@pytest.mark.matrix
def test_rehearsal_boots_the_backup_and_checks_it(source):
    if not source.backups():
        source.backup()
    answer = source.ok("backup", "verify", "--restore", timeout=300)
    assert "amcheck found nothing" in answer["result"]["rehearsal"], answer
    scratch = [each for each in os.listdir(source.state) if "rehears" in each or "scratch" in each]
    assert scratch == [], "the scratch directory is gone"


@pytest.mark.matrix
def test_rehearsal_finds_an_index_that_does_not_fit_its_table(primary):
    """The pages are sound: only comparing each index with its table shows it."""
    primary.sql("CREATE TABLE t AS SELECT g AS a FROM generate_series(1, 1000) g; CREATE INDEX broken ON t (a) WHERE a > 500; "
                "UPDATE pg_index SET indpred = NULL WHERE indexrelid = 'broken'::regclass")
    primary.backup()
    primary.ok("backup", "verify")
    answer = primary.ctl("backup", "verify", "--restore", timeout=300)
    assert answer.code == 6 and "broken" in answer.error, answer


@pytest.mark.parametrize("codec,level", [("zstd", "3"), ("lz4", "1"), ("none", None)])
def test_every_codec_restores_the_same(source, codec, level):
    done = source.backup("--codec", codec, *(["--level", level] if level else []))
    assert done["result"]["codec"].startswith(codec)
    assert source.ok("backup", "show")["summary"]["codec"] == codec
    ratio = int(done["result"]["bytes"]) / int(done["result"]["stored_bytes"])
    assert ratio > 2 if codec != "none" else 0.9 < ratio < 1.2
    source.ok("backup", "verify")
    copy = os.path.join(source.workspace.path, f"copy-{codec}")
    source.restore(copy, "--tablespace", f"{tablespace_oid(source)}={moved_tablespace(source, f'space-{codec}')}")
    database.prove_restored(source, copy)


@pytest.mark.parametrize("engine", ["io_uring", "threads", "pread"])
def test_every_io_engine_gives_the_same(source, engine):
    source.config["backup"]["io_engine"] = engine
    source.restart_agent()
    try:
        if engine not in source.ok("capabilities")["io_engines"]:
            pytest.skip(f"{engine} does not work on this kernel")
        assert source.status()["node"]["io_engine"] == engine
        done = source.backup()
        assert done["result"]["io_engine"] == engine and done["result"]["state"] == "complete"
        copy = os.path.join(source.workspace.path, f"copy-{engine}")
        source.restore(copy, "--tablespace", f"{tablespace_oid(source)}={moved_tablespace(source, f'space-{engine}')}")
        database.prove_restored(source, copy)
    finally:
        source.config["backup"].pop("io_engine")
        source.restart_agent()


@pytest.mark.matrix
def test_standby_as_the_source(small, workspace):
    primary = small
    standby = Node(workspace, primary.version, "standby")
    primary.run("pg_basebackup", "-D", standby.data_dir, "-R", "--checkpoint=fast", "-X", "stream")
    standby.start_agent()
    standby.ok("pg", "start")
    # A backup from a standby ends in a segment that only the primary can end.
    load = primary.start("pgbench", "-n", "-R", PGBENCH_RATE, "-T", "300", log=os.path.join(primary.root, "pgbench.log"))
    try:
        name = standby.detach("backup", "create")

        def ended():
            primary.switch_wal()
            found = standby.operation(name)
            return found if found["state"] not in ("OPERATION_STATE_PENDING", "OPERATION_STATE_RUNNING") else None
        done = wait_for("the backup ends", ended, 90, 0.5)
    finally:
        load.send_signal(signal.SIGINT)
        load.wait(20)
    assert done["state"] == "OPERATION_STATE_SUCCEEDED", done
    assert standby.ok("backup", "show")["from_standby"] is True
    assert standby.ok("backup", "verify")["result"]["wal_segments"] != "0", "segments that were switched are whole too"
    reference = os.path.join(workspace.path, "reference")
    primary.run("pg_basebackup", "-D", reference, "--checkpoint=fast", "-X", "none")
    lsn = settled_lsn(primary)
    rows = database.tables(primary)
    copy = os.path.join(workspace.path, "copy")
    standby.restore(copy, "--recover", "standby")
    database.verify_restored(standby, copy)
    workspace.file("reference/standby.signal", "")
    for directory in (copy, reference):
        replay(primary, directory, lsn, "shutdown")
    found, pages = compare.differences(copy, reference)
    assert found == [], "\n".join(found[:40])
    assert pages > 1000
    server = replay(primary, copy, lsn, "promote")
    wait_for("it is promoted", lambda: server.sql("SELECT pg_is_in_recovery()") == "f", 60)
    assert database.tables(server) == rows
    database.check_relations(server)
    server.stop()
    database.check_checksums(primary.version, copy)


def test_wal_directory_elsewhere(workspace, pg):
    wal = os.path.join(workspace.path, "elsewhere")
    node = Node(workspace, pg, postgres={"wal_dir": wal}).make_primary()
    assert os.path.realpath(os.path.join(node.data_dir, "pg_wal")) == wal
    node.pgbench_load(1)
    node.backup()
    rows = database.tables(node)
    node.switch_wal()
    copy = os.path.join(workspace.path, "copy")
    node.restore(copy)
    assert os.path.isdir(os.path.join(copy, "pg_wal")) and os.path.realpath(os.path.join(copy, "pg_wal")) != wal
    database.prove_restored(node, copy)
    server = PlainServer(pg, copy, workspace).start()
    assert database.tables(server) == rows


def test_small_segments_and_a_relation_of_more_than_one_file(workspace, pg):
    """1 MiB segments of WAL, and a sparse relation of two 1 GiB files that costs no disk."""
    node = Node(workspace, pg).start_agent()
    node.init("--wal-segment-bytes", str(1 << 20), "--set", "fsync=off", "max_wal_size=64MB", "min_wal_size=4MB")
    node.ok("pg", "start")
    node.promote(1)
    node.sql("CREATE TABLE big AS SELECT g AS a FROM generate_series(1, 1000) g")
    path = os.path.join(node.data_dir, node.sql("SELECT pg_relation_filepath('big')"))
    node.sql("CHECKPOINT")
    node.ok("pg", "stop")
    # Zero pages are valid pages: new and not used yet.
    os.truncate(path, 1 << 30)
    node.workspace.give(_touch(path + ".1", 3 << 20))
    node.ok("pg", "start")
    assert node.sql("SELECT count(*), pg_relation_size('big') FROM big") == f"1000|{(1 << 30) + (3 << 20)}"
    node.backup("--codec", "lz4")
    node.ok("backup", "verify")
    copy = os.path.join(workspace.path, "copy")
    node.restore(copy)
    relative = os.path.relpath(path, node.data_dir)
    assert os.path.getsize(os.path.join(copy, relative)) == 1 << 30
    assert os.path.getsize(os.path.join(copy, relative + ".1")) == 3 << 20
    database.prove_restored(node, copy)


def _touch(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    os.chmod(path, 0o600)
    return path


def peak_memory(node):
    """The largest RSS of the agent so far, in MiB."""
    with open(f"/proc/{node.process.pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024


def test_memory_is_bounded_however_many_operations_run(small):
    """The agent's own peak: far below the 256 MiB that all of them together may take."""
    small.config["backup"].pop("memory")
    small.restart_agent()
    small.pgbench_load(20)
    small.backup()
    print(f"peak RSS of the agent after a backup: {peak_memory(small)} MiB")
    copy = os.path.join(small.workspace.path, "copy")
    names = [small.detach("backup", "verify") for _ in range(3)]
    names += [small.detach("backup", "restore", "--target", copy), small.detach("backup", "create")]
    for name in names:
        done = small.wait_operation(name)
        assert done["state"] == "OPERATION_STATE_SUCCEEDED", done
    print(f"peak RSS of the agent after five at once: {peak_memory(small)} MiB")
    assert peak_memory(small) < 256
    assert is_alive(small.pid())


def test_a_backup_keeps_its_rate(small):
    result = small.backup("--rate", "8MiB")["result"]
    assert float(result["copy_seconds"]) > 0.9 * int(result["bytes"]) / (8 << 20) - 0.5, result
    small.ok("backup", "verify")
    assert has_hint(small.ctl("backup", "create", "--rate", "1KiB", code=2).error)
    assert "is no size" in small.ctl("backup", "create", "--rate", "fast", code=2).stderr


def test_an_operation_waits_for_the_memory_of_another(small):
    first = small.backup()["result_name"]
    small.config["backup"]["memory"] = "16MiB"
    pause = small.workspace.file("pause", "")
    small.restart_agent(faults="backup.frame=pause", pause=pause)
    backup = small.detach("backup", "create")
    wait_for("it copies", lambda: "copy" in small.operation(backup)["progress"]["phase"])
    verification = small.detach("backup", "verify", first)
    wait_for("the other one waits", lambda: "memory" in small.operation(verification)["progress"]["phase"], 60)
    cancelled = small.detach("backup", "verify", first)
    wait_for("another one waits", lambda: "memory" in small.operation(cancelled)["progress"]["phase"], 60)
    small.ok("op", "cancel", cancelled)
    assert small.wait_operation(cancelled)["state"] == "OPERATION_STATE_CANCELLED"
    os.unlink(pause)
    for name in (backup, verification):
        assert small.wait_operation(name)["state"] == "OPERATION_STATE_SUCCEEDED", small.operation(name)
