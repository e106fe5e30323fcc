"""What goes wrong in the middle: cancel, kill -9 at every named step, corrupt pages, a full repository."""
import os
import re
import shutil
import struct

import pytest

from harness import compare, database, process
from harness.node import Node, has_hint
from harness.process import wait_for
from harness.workspace import ROOT


def points_of_sources(*prefixes):
    """Names of all fault points of the agent that begin so, read off its sources: a new one is tested without being listed."""
    found = set()
    for directory, _, files in os.walk(os.path.join(ROOT, "agent")):
        for each in files:
            with open(os.path.join(directory, each), encoding="utf-8") as file:
                found.update(re.findall(r'base::FaultPoint\("([^"]+)"\)', file.read()))
    return {each for each in found if each.startswith(prefixes)}


def traced(node, action):
    """Runs `action` and returns the names of the fault points that the agent passed meanwhile, in order."""
    trace = node.workspace.file("points.trace", "")
    node.restart_agent(trace=trace)
    with open(trace, encoding="utf-8") as file:
        before = file.read().splitlines()
    action()
    with open(trace, encoding="utf-8") as file:
        points = [each for each in file.read().splitlines() if each not in before]
    node.restart_agent()
    return points


# Steps of storing a segment: the server hands one over when it pleases, so an order during which that happened once may do without
# the next time, unless it waits for it (ARCHIVING). test_wal.py kills the agent at each of them too.
PUSH = "wal."
ARCHIVING = ("CreateBackup", "StopPostgres", "RestartPostgres")  # the WAL up to its end; a server that ends archives all it has


def steps_of(kind, points):
    """Those of the traced points at which an agent is to be killed that carries out such an operation."""
    return [each for each in points if kind in ARCHIVING or not each.startswith(PUSH)]


def crash_at(node, point, *command):
    """Runs metalctl against an agent that must die at `point`, brings the agent back and returns the operation, or None when
    it was not journaled yet."""
    known = {each["name"] for each in node.operations()}
    node.stop_agent()
    node.start_agent(faults=f"{point}=crash")
    node.ctl(*command, "--detach")  # which may fail: the agent is dead before it answers
    wait_for(f"the agent dies at {point}", lambda: node.process.poll() is not None, 60)
    node.start_agent()
    new = [each for each in node.operations() if each["name"] not in known]
    assert len(new) <= 1, new
    assert new or point == "operations.before_journal", f"{point}: an order that was journaled is known to the next agent"
    return new[0] if new else None


def assert_settled(node, operation, kind):
    """After the crash the operation is over, or goes on and ends well; it never hangs and never claims what is not so."""
    if operation is None:
        return None
    assert operation["kind"] == kind
    final = node.wait_operation(operation["name"], 60)
    if final["state"] == "OPERATION_STATE_FAILED":
        assert final["error"]["reason"] == "AGENT_RESTARTED", final
        assert has_hint(final["error"]["message"]), final
    else:
        assert final["state"] == "OPERATION_STATE_SUCCEEDED", final
    return final


def listed_backups_are_whole(node):
    for name in node.backups():
        node.ok("backup", "verify", name)


def names_in_repository(node):
    """The repository without WAL, which grows by itself."""
    return {each for each in node.repository_files() if "/wal/" not in each}


# ---- kill -9 at every step ----

@pytest.mark.slow
def test_backup_killed_at_every_step(primary):
    primary.sql("CREATE TABLE plain AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 5000) g")
    points = traced(primary, primary.backup)
    assert points_of_sources("backup.") <= set(points)
    print("steps of a backup:", *points)
    for point in steps_of("CreateBackup", points):
        before = primary.backups()
        operation = crash_at(primary, point, "backup", "create")
        final = assert_settled(primary, operation, "CreateBackup")
        added = [each for each in primary.backups() if each not in before]
        # A published backup may outlive a crash that comes after the publication; it is then whole.
        assert len(added) <= 1, f"{point}: {added}"
        if final and final["state"] == "OPERATION_STATE_SUCCEEDED":
            assert added == [final["result_name"]], point
        for each in added:
            primary.ok("backup", "verify", each)
        assert primary.sql("SELECT count(*) FROM plain") == "5000"
        # The next run succeeds and removes what the dead one left.
        done = primary.backup()
        kept = primary.backups()
        labels = {each.removeprefix("backups/") for each in kept}
        for path in names_in_repository(primary):
            found = re.search(r"\d{8}T\d{6}Z-F\d*", path)
            assert not found or found.group(0) in labels, f"{point}: garbage {path}"
        assert done["result_name"] in kept, point
        assert not [each for each in names_in_repository(primary) if ".tmp" in each], point
    listed_backups_are_whole(primary)
    in_backup = "SELECT query FROM pg_stat_activity WHERE query ILIKE '%backup_start%' AND pid <> pg_backend_pid()"
    assert primary.sql(in_backup) == "", "no session is left in backup mode"
    database.check_relations(primary)


@pytest.mark.slow
def test_restore_killed_at_every_step(primary, workspace):
    primary.sql("CREATE TABLE plain AS SELECT g AS a FROM generate_series(1, 5000) g")
    primary.backup()
    primary.switch_wal()
    first = os.path.join(workspace.path, "first")
    points = traced(primary, lambda: primary.restore(first))
    assert points_of_sources("restore.") <= set(points)
    print("steps of a restore:", *points)
    target = os.path.join(workspace.path, "copy")
    for point in steps_of("RestoreBackup", points):
        operation = crash_at(primary, point, "backup", "restore", "--target", target)
        final = assert_settled(primary, operation, "RestoreBackup")
        complete = bool(final) and final["state"] == "OPERATION_STATE_SUCCEEDED"
        if not complete and os.path.exists(target) and os.listdir(target):
            finished = os.path.exists(os.path.join(target, "global/pg_control")) and \
                not os.path.exists(os.path.join(target, "metal.incomplete"))
            if not finished:
                started = process.run([primary.version.program("postgres"), "-D", target, "-p", "1"], code=None, timeout=20)
                assert started.code != 0, f"{point}: PostgreSQL started on half a restore"
                assert os.path.exists(os.path.join(target, "metal.incomplete")) or \
                    os.listdir(target) == ["metal.incomplete.lock"], point
                primary.restore(target)  # the same order again goes through
        if os.path.exists(target) and os.listdir(target):
            database.prove_restored(primary, target)
        shutil.rmtree(target, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind,command", [
    ("StartPostgres", ("pg", "start")), ("StopPostgres", ("pg", "stop")), ("RestartPostgres", ("pg", "restart"))])
def test_control_of_postgres_killed_at_every_step(primary, kind, command):
    node = primary

    def prepare():
        """The situation in which the order makes sense."""
        node.ok("pg", "stop" if kind == "StartPostgres" else "start")

    prepare()
    points = traced(node, lambda: node.ok(*command))
    assert points
    print(f"steps of {kind}:", *points)
    for point in steps_of(kind, points):
        prepare()
        pid = node.pid()
        operation = crash_at(node, point, *command)
        assert_settled(node, operation, kind)
        if pid and kind == "StopPostgres" and point == "operations.before_journal":
            assert node.pid() == pid, "nothing happens before it is journaled"
        # Ordered again it goes through, wherever the dead one stopped.
        node.ok(*command)
        if kind == "StopPostgres":
            assert node.pid() == 0, point
        else:
            assert node.sql("SELECT pg_is_in_recovery()") == "f", point


def servers_of(node):
    """Directories of all PostgreSQL processes that run below the node's workspace."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            place = os.readlink(f"/proc/{pid}/cwd")
            if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "postgres" and place.startswith(node.workspace.path):
                found.add(place)
        except OSError:
            pass  # it ended meanwhile
    return found


def left_by_rehearsals(node):
    """Scratch directories, their notes, and servers."""
    return {each for each in os.listdir(node.state) if each.startswith("rehearsal")} | (servers_of(node) - {node.data_dir})


@pytest.mark.slow
def test_verification_killed_at_every_step(primary):
    """A verification changes nothing, and a rehearsal leaves neither its directory nor its server behind."""
    name = primary.backup()["result_name"]
    before = names_in_repository(primary)
    points = traced(primary, lambda: primary.ok("backup", "verify", name, "--restore"))
    assert points_of_sources("verify.", "restore.") <= set(points)
    for point in steps_of("VerifyBackup", points):
        operation = crash_at(primary, point, "backup", "verify", name, "--restore")
        assert_settled(primary, operation, "VerifyBackup")
        assert names_in_repository(primary) == before, point
        wait_for(f"{point}: nothing is left", lambda: not left_by_rehearsals(primary), 30)
    primary.ok("backup", "verify", name, "--restore")
    assert servers_of(primary) == {primary.data_dir}, "no server of a rehearsal is left"


def test_storage_probe_killed_at_every_step(workspace, pg):
    primary = Node(workspace, pg, disk={"probe_enabled": True}).make_primary()
    probe = ("disk", "probe", "data", "--reads", "20", "--writes", "5")
    points = traced(primary, lambda: primary.ok(*probe))
    assert points
    for point in steps_of("RunStorageProbe", points):
        operation = crash_at(primary, point, *probe)
        assert_settled(primary, operation, "RunStorageProbe")
        assert primary.sql("SELECT 1") == "1"
    assert primary.ok(*probe)["state"] == "OPERATION_STATE_SUCCEEDED"


def test_every_fault_point_is_tested():
    """Each is either passed by a run that is traced (of this file; of wal_faults_test.cc for a push), or named in a test."""
    texts = []
    for directory, _, files in os.walk(os.path.join(ROOT, "tests")):
        for each in files:
            if each.endswith((".py", ".cc", ".h")):
                with open(os.path.join(directory, each), encoding="utf-8") as file:
                    texts.append(file.read())
    everything = "\n".join(texts)
    points = points_of_sources("")
    traced_points = points_of_sources("backup.", "restore.", "verify.", "wal.") - {"wal.prefetch"}
    assert len(points) > 40
    assert not [each for each in points - traced_points if not re.search(f'"{re.escape(each)}["=@]', everything)]


def test_promotion_killed_at_every_step(primary):
    points = ["term.before_write", "term.written"]
    for term, point in enumerate(points, 2):
        primary.ok("term", "begin", str(term))
        primary.stop_agent()
        primary.start_agent(faults=f"{point}=crash")
        assert primary.ctl("promote", "--term", str(term)).code != 0
        wait_for("the agent died", lambda: primary.process.poll() is not None)
        assert primary.sql("SELECT pg_is_in_recovery()") == "t", "nothing is promoted before the order is stored"
        primary.start_agent()
        primary.ok("promote", "--term", str(term))
        assert primary.sql("SELECT pg_is_in_recovery()") == "f"


# ---- cancel, errors ----

def test_cancelled_backup_leaves_nothing(primary):
    pause = primary.workspace.file("pause", "")
    primary.restart_agent(faults="backup.frame=pause", pause=pause)
    before = names_in_repository(primary)
    name = primary.detach("backup", "create")
    wait_for("it copies", lambda: "copy" in primary.operation(name)["progress"]["phase"])
    primary.ok("op", "cancel", name)
    os.unlink(pause)
    final = primary.wait_operation(name, 30)
    assert final["state"] == "OPERATION_STATE_CANCELLED", final
    assert primary.backups() == []
    assert not [each for each in names_in_repository(primary) - before if re.search(r"\d{8}T\d{6}Z", each)]
    primary.backup()
    assert len(primary.backups()) == 1


def cancel_at(node, point, *command):
    """Runs metalctl against an agent that stops at `point`, cancels the operation there and lets it go on. The operation."""
    pause = node.workspace.file("pause", "")
    trace = node.workspace.file("cancel.trace", "")
    node.restart_agent(faults=f"{point}=pause", pause=pause, trace=trace)
    name = node.detach(*command)

    def reached():
        with open(trace, encoding="utf-8") as file:
            return point in file.read().splitlines()
    wait_for(f"it is at {point}", reached, 60)
    node.ok("op", "cancel", name)
    os.unlink(pause)
    return node.wait_operation(name, 60)


@pytest.mark.slow
def test_backup_cancelled_at_every_step_leaves_nothing(primary):
    primary.backup()
    before, kept = names_in_repository(primary), primary.backups()
    for point in sorted(points_of_sources("backup.")):
        final = cancel_at(primary, point, "backup", "create")
        if point in ("backup.before_publish", "backup.manifest_written", "backup.manifest_renamed", "backup.completed"):
            # It is being published: too late to be cancelled.
            assert final["state"] == "OPERATION_STATE_SUCCEEDED" and final["result_name"] in primary.backups(), point
            primary.ok("backup", "verify", final["result_name"])
            before, kept = names_in_repository(primary), primary.backups()
            continue
        assert final["state"] == "OPERATION_STATE_CANCELLED", f"{point}: {final}"
        assert names_in_repository(primary) == before and primary.backups() == kept, point


@pytest.mark.slow
def test_restore_cancelled_at_every_step_is_half_or_whole(primary, workspace):
    """What a cancelled restore leaves cannot be started, and the same order again goes through."""
    primary.backup()
    target = os.path.join(workspace.path, "copy")
    for point in sorted(points_of_sources("restore.")):
        final = cancel_at(primary, point, "backup", "restore", "--target", target)
        whole = final["state"] == "OPERATION_STATE_SUCCEEDED"
        assert whole or final["state"] == "OPERATION_STATE_CANCELLED", f"{point}: {final}"
        assert os.path.exists(os.path.join(target, "metal.incomplete")) != whole, point
        assert whole == (point in ("restore.before_sync", "restore.synced", "restore.control_written")), point
        if whole:
            shutil.rmtree(target)

    primary.restart_agent()
    primary.restore(target)
    database.prove_restored(primary, target)


def test_cancelled_rehearsal_leaves_neither_server_nor_scratch(primary):
    primary.backup()
    for point in ("restore.frame", "verify.rehearsal_started"):
        final = cancel_at(primary, point, "backup", "verify", "--restore")
        assert final["state"] == "OPERATION_STATE_CANCELLED", f"{point}: {final}"
        assert not left_by_rehearsals(primary), point


def test_backup_cancelled_while_it_waits_for_wal(workspace, pg):
    """The archive does not take WAL: the backup waits, is told to stop, and stops."""
    node = Node(workspace, pg).make_primary()
    pause = workspace.file("pause", "")
    node.restart_agent(faults="wal.begin=pause", pause=pause)
    name = node.detach("backup", "create")
    wait_for("it waits for WAL", lambda: "WAL" in node.operation(name)["progress"]["phase"], 30)
    node.ok("op", "cancel", name)
    assert node.wait_operation(name, 20)["state"] == "OPERATION_STATE_CANCELLED"
    os.unlink(pause)
    assert node.backups() == []
    node.backup()


def test_failed_step_fails_the_backup_and_the_next_one_works(primary):
    primary.restart_agent(faults="backup.before_publish=error")
    answer = primary.ctl("backup", "create")
    assert answer.code == 1 and answer.json["state"] == "OPERATION_STATE_FAILED", answer
    assert primary.backups() == []
    assert not [each for each in names_in_repository(primary) if re.search(r"\d{8}T\d{6}Z", each)]
    primary.backup()
    listed_backups_are_whole(primary)


def test_backup_needs_a_running_postgres(primary):
    primary.ok("pg", "stop")
    answer = primary.ctl("backup", "create")
    assert answer.code in (3, 5) and has_hint(answer.error), answer


def test_backup_goes_on_beside_a_change_of_role(primary):
    """A backup never stands in the way of a fence; it fails, because its source was restarted."""
    pause = primary.workspace.file("pause", "")
    primary.restart_agent(faults="backup.frame=pause", pause=pause)
    name = primary.detach("backup", "create")
    wait_for("it copies", lambda: "copy" in primary.operation(name)["progress"]["phase"])
    assert primary.ok("fence", "--term", "2", "--reason", "test")["was_primary"] is True
    os.unlink(pause)
    assert primary.wait_operation(name)["state"] == "OPERATION_STATE_FAILED"
    assert primary.backups() == []


@pytest.mark.skipif(not process.IS_ROOT, reason="only root can mount a small file system")
def test_full_repository(workspace, pg):
    workspace.small_disk("repository", 24)
    node = Node(workspace, pg)
    node.make_primary()
    node.sql("CREATE TABLE noise AS SELECT g AS a, gen_random_uuid() AS b, gen_random_uuid() AS c, gen_random_uuid() AS d "
             "FROM generate_series(1, 400000) g; CHECKPOINT")
    answer = node.ctl("backup", "create", "--codec", "none")
    assert answer.code == 1 and answer.reason == "NO_SPACE" and has_hint(answer.error), answer
    assert node.backups() == []
    assert node.sql("SELECT count(*) FROM noise") == "400000", "the server is not harmed"


# ---- corrupt pages ----

def flip_byte(node, table, block):
    """Damages one byte of a tuple in a page of a table, on a server that is stopped meanwhile."""
    path = node.sql(f"SELECT pg_relation_filepath('{table}')")
    node.ok("pg", "stop")
    with open(os.path.join(node.data_dir, path), "r+b") as file:
        file.seek(block * compare.PAGE)
        page = file.read(compare.PAGE)
        assert struct.unpack_from("<H", page, 8)[0] != 0, "the page carries a checksum"
        file.seek(block * compare.PAGE + compare.PAGE - 40)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))
    node.ok("pg", "start")
    return path


@pytest.mark.matrix
def test_corrupt_page_makes_the_backup_suspect(primary, workspace):
    primary.sql("CREATE TABLE cold AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 5000) g; CHECKPOINT")
    clean = primary.backup()["result_name"]
    path, after = flip_byte(primary, "cold", 7), primary.last_event_id()
    answer = primary.ctl("backup", "create")
    assert answer.code == 6, answer
    assert answer.json["state"] == "OPERATION_STATE_SUCCEEDED"
    assert answer.json["result"]["state"] == "suspect" and answer.json["result"]["corrupt_pages"] == "1"
    shown = primary.ok("backup", "show", answer.json["result_name"])
    assert shown["summary"]["state"] == "BACKUP_STATE_SUSPECT"
    assert len(shown["corrupt_pages"]) == 1 and shown["corrupt_pages"][0].startswith(f"{path} block 7")
    events = [each for each in primary.events("backup.corrupt_page", after)]
    assert events and any(path in each["message"] for each in events)
    # One such page speaks for a sick disk, and is no proof.
    fault = next(each for each in primary.status()["faults"] if each["fault_class"] == "corruption")
    assert fault["disk"]["confidence"] == "FAULT_CONFIDENCE_SUSPECTED" and "checksum" in fault["message"], fault
    assert primary.ok("backup", "show", clean)["summary"]["state"] == "BACKUP_STATE_COMPLETE"
    assert primary.ok("backup", "list")["backups"][0]["summary"]["state"] == "BACKUP_STATE_SUSPECT"

    # The damage is kept as it was found, not hidden and not spread.
    copy = os.path.join(workspace.path, "copy")
    primary.restore(copy, "--recover", "immediate", code=6)
    primary.run("pg_verifybackup", "-n", copy)
    with open(os.path.join(copy, path), "rb") as ours, open(os.path.join(primary.data_dir, path), "rb") as theirs:
        assert ours.read() == theirs.read()


def flip_middle(path):
    """Damages one bit in the middle of a file; a second call mends it."""
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))


def test_damaged_repository_is_found_and_never_restored(primary, workspace):
    name = primary.backup()["result_name"]
    label = name.removeprefix("backups/")
    assert primary.ok("backup", "verify")["result"]["wal_segments"] != "0"
    segment = primary.sql(f"SELECT pg_walfile_name('{primary.operations('CreateBackup')[0]['result']['start_lsn']}')")
    wal, = (os.path.join(primary.repository, each) for each in primary.repository_files() if each.endswith(f"{segment}.wal"))
    flip_middle(wal)
    verified = primary.ctl("backup", "verify")
    assert verified.code == 6 and segment in verified.error and has_hint(verified.error), verified
    flip_middle(wal)

    # A damaged manifest is shown, and no older backup is taken in its place.
    newest = primary.backup()["result_name"]
    manifest = os.path.join(primary.repository, primary.system_identifier(), newest, "manifest")
    flip_middle(manifest)
    assert [each["summary"]["state"] for each in primary.ok("backup", "list")["backups"]] == [
        "BACKUP_STATE_DAMAGED", "BACKUP_STATE_COMPLETE"]
    refused = primary.ctl("backup", "verify")
    assert refused.code == 6 and newest.removeprefix("backups/") in refused.error and has_hint(refused.error), refused
    primary.ok("backup", "verify", name)
    os.unlink(manifest)  # garbage from now on

    packs = [each for each in primary.repository_files() if f"/packs/{label}/" in each]
    flip_middle(max((os.path.join(primary.repository, each) for each in packs), key=os.path.getsize))
    verified = primary.ctl("backup", "verify")
    assert verified.code == 6 and has_hint(verified.error), verified
    target = os.path.join(workspace.path, "copy")
    restored = primary.ctl("backup", "restore", "--target", target)
    assert restored.code == 6, restored
    assert not os.path.exists(os.path.join(target, "global/pg_control"))
    assert os.path.exists(os.path.join(target, "metal.incomplete"))


def test_server_that_archives_elsewhere_is_refused_before_the_copy(primary):
    primary.sql("ALTER SYSTEM SET archive_command = '/bin/true'")
    primary.sql("SELECT pg_reload_conf()")
    wait_for("the setting counts", lambda: primary.sql("SHOW archive_command") == "/bin/true")
    answer = primary.ctl("backup", "create")
    assert answer.code != 0 and answer.reason == "WAL_MISSING" and "/bin/true" in answer.error and has_hint(answer.error), answer
    assert primary.backups() == []
