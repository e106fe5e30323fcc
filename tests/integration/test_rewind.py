"""A former primary whose WAL went its own way becomes a standby of the new one."""
import contextlib
import os
import re
import signal
import struct

import pytest

from format.read_repository import crc32c
from harness import process
from harness.node import elapsed, lsn_number
from harness.pair import Pair
from harness.postgres import postmaster_pid
from harness.process import wait_for
from harness.wal import append_cut_record, fork, segment_name
from harness.workspace import Workspace


def faults(node):
    return {each["fault_class"]: each["message"] for each in node.status().get("faults", [])}


def server_log(node):
    with open(f"{node.state}/postgres.log", encoding="utf-8", errors="replace") as file:
        return file.read()


@pytest.fixture(scope="module")
def pairs():
    """The last pair that was made."""
    return []


@pytest.fixture
def pair(pairs, module_workspace, pg):
    """One for all tests, each of which ends with a pair that is together again; a new one after a test that failed. It has an
    archive of its own: two pairs are one cluster, and write other WAL under the same names."""
    usable = [each for each in pairs if each.whole and each.primary.version is pg]
    if not usable:
        workspace = Workspace()
        module_workspace.at_end(workspace.close)
        pairs.append(Pair(workspace, pg))
    return (usable or pairs)[-1]


@pytest.mark.matrix
def test_a_diverged_primary_is_rewound_and_streams(pair):
    old, new, shared, lost, kept = pair.part()
    old.ok("pg", "config", "set", "work_mem=7MB")
    with open(f"{old.data_dir}/own.conf", "w", encoding="utf-8") as file:
        file.write("# ours\n")
    pair.begin_term(old)
    slot = f"metal_{old.name}"
    new.ok("slots", slot, "--term", str(pair.term))

    planned = old.ok(*pair.rewind_arguments("--dry-run"))["result"]
    assert (planned["rewound"], planned["pg_rewind_tried"]) == ("true", "false")
    assert postmaster_pid(old.data_dir), "a dry run leaves the server alone"

    done = old.ok(*pair.rewind_arguments())["result"]
    assert done["rewound"] == "true" and int(done["timeline"]) == int(new.ok("pg", "control")["timeline"])
    assert int(done["diverged_timeline"]) == int(done["timeline"]) - 1
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost

    assert old.sql("SHOW work_mem") == "7MB" and old.sql("SHOW port") == str(old.port)
    assert os.path.exists(f"{old.data_dir}/own.conf")
    assert old.sql("SELECT slot_name FROM pg_stat_wal_receiver") == slot
    assert new.sql("SELECT slot_name FROM pg_replication_slots WHERE active") == slot
    assert new.sql("SELECT application_name FROM pg_stat_replication") == old.name, "it counts again"
    assert not os.path.exists(f"{old.state}/rewind") and not faults(old)
    steps = [each["attributes"]["step"] for each in old.events("rewind.step")]
    assert steps[-6:] == ["trying pg_rewind", "keeping files", "rewinding", "becoming a standby", "starting", "verifying"]
    # Nothing to do any more: it only follows.
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "false"


def test_a_crashed_primary_is_recovered_first(pair):
    old, _, shared, lost, kept = pair.part()
    old.kill_agent()
    pid = postmaster_pid(old.data_dir)
    os.kill(pid, signal.SIGKILL)
    wait_for("the server is gone", lambda: not process.is_alive(pid), 20)
    old.start_agent()
    pair.begin_term(old)
    old.ok("pg", "stop")
    done = old.ok(*pair.rewind_arguments())["result"]
    assert done["rewound"] == "true"
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost


def stopped_in_crash_recovery(node):
    """Changes pg_control of a primary that is down without a shutdown to what a fast stop during its crash recovery makes of it."""
    with open(f"{node.data_dir}/global/pg_control", "r+b") as file:
        control = file.read(288)
        control = control[:16] + struct.pack("<I", 2) + control[20:]
        file.seek(0)
        file.write(control + struct.pack("<I", crc32c(control)))
    said = node.run("pg_controldata", node.data_dir).stdout
    assert "shut down in recovery" in said and re.search("Minimum recovery ending location: +0/0\n", said), said


def test_a_crash_recovery_that_was_stopped_is_finished_first(pair):
    """How far it got is not known, and pages on the disk may be of WAL that the source has never had."""
    old, _, shared, lost, kept = pair.part()
    old.ok("pg", "stop", "--mode", "immediate")
    stopped_in_crash_recovery(old)
    pair.begin_term(old)
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "true"
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost


def test_a_node_that_has_not_diverged_only_follows(pair):
    old, new = pair.hand_over()
    shared = pair.rows(new)
    pair.begin_term(old)
    after = old.last_event_id()
    assert old.ok(*pair.rewind_arguments("--dry-run"))["result"]["rewound"] == "false"
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "false"
    pair.settled(old, shared, set())
    assert "rewinding" not in [each["attributes"]["step"] for each in old.events("rewind.step", after)]


@pytest.mark.matrix
@pytest.mark.parametrize("found", ["down", "waiting", "asking"])
def test_a_record_that_was_cut_off_does_not_keep_a_node_from_the_stream(pair, found):
    """It lies behind the fork, and goes on in a segment of which the source knows nothing."""
    old, new = pair.hand_over()
    shared = pair.rows(new)
    timeline, at = fork(new)
    end = append_cut_record(old, timeline, at, int(old.ok("pg", "control")["checkpoint_lsn"]))
    pair.begin_term(old)
    if found != "down":
        old.ok("pg", "start")
    if found == "asking":
        old.ok("follow", pair.address(new), "--term", str(pair.term), "--without-slot")
        wait_for("it asks for WAL that is not there", lambda: "is ahead of the" in server_log(old), 60)
        # The server counts all before the segment that it asks for as received on the new timeline.
        pair.write(new, 10)
        shared = pair.rows(new)
        written = new.sql("SELECT pg_current_wal_lsn()")
        wait = old.ctl("wait-lsn", written, "--timeline", str(timeline + 1), "--mode", "flushed", "--wait", "1s")
        assert wait.code != 0, "it has nothing of that timeline"
        position = pair.begin_term(old)["position"]
        assert int(position["timeline"]) <= timeline, position
    assert lsn_number(new.sql("SELECT pg_current_wal_lsn()")) < end
    after = old.last_event_id()
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "false"
    cut = [each["attributes"] for each in old.events("rewind.wal_cut", after)]
    assert [(int(each["timeline"]), lsn_number(each["lsn"])) for each in cut] == [(timeline, at)]
    pair.settled(old, shared, set())
    assert lsn_number(new.sql("SELECT pg_current_wal_lsn()")) < end, "nothing helped but the cut"


def test_refusals_change_nothing(pair):
    old, new, shared, lost, kept = pair.part()
    # A term that is not this node's.
    assert old.ctl(*pair.rewind_arguments()).reason in ("ROLE_TRANSITION", "STALE_TERM")
    pair.begin_term(old)
    term = ("--term", str(pair.term))
    pid = postmaster_pid(old.data_dir)

    assert old.ctl("rewind", "--from", "nonsense", *term).code == 2
    nobody = old.ctl("rewind", "--from", f"{old.run_dir}:1", *term)
    assert nobody.code != 0 and "No such file" in nobody.error
    itself = old.ctl("rewind", "--from", pair.address(old), *term)
    assert itself.reason == "REWIND_SOURCE" and "is a standby" in itself.error and "HINT: " in itself.error
    assert old.ctl("rewind", "--from", pair.address(new), "--term", "1").reason == "STALE_TERM"
    assert new.ctl(*pair.rewind_arguments()).reason == "ROLE_TRANSITION"
    assert postmaster_pid(old.data_dir) == pid, "it was never stopped"
    assert pair.rows(old) >= lost
    assert not os.path.exists(f"{old.state}/rewind")
    old.ok(*pair.rewind_arguments())
    pair.settled(old, shared, kept)


def test_missing_wal_comes_from_the_archive_or_is_named(pair):
    """The segment in which the two parted is one that pg_rewind always reads, unlike others in pg_wal: the pair may have been
    parted before, and a segment of an earlier timeline lie there still."""
    old, new, shared, _, kept = pair.part()
    needed = segment_name(*fork(new))
    last = [old.switch_wal() for _ in range(3)][-1]
    wait_for("WAL is archived", lambda: old.sql("SELECT last_archived_wal FROM pg_stat_archiver") >= last, 30)
    pair.begin_term(old)
    old.ok("pg", "stop")
    with contextlib.suppress(FileNotFoundError):  # the server's last checkpoint may have removed it already
        os.unlink(f"{old.data_dir}/pg_wal/{needed}")
    hidden = f"{old.repository}.hidden"
    os.rename(old.repository, hidden)
    refused = old.ctl(*pair.rewind_arguments())
    os.rename(hidden, old.repository)
    assert refused.reason == "WAL_MISSING" and f"pg_wal/{needed}" in refused.error, refused
    assert old.status()["postgres"]["state"] == "POSTGRES_STATE_STOPPED" and not faults(old)
    done = old.ok(*pair.rewind_arguments())["result"]
    assert done["rewound"] == "true" and int(done["fetched_segments"]) >= 1
    pair.settled(old, shared, kept)


def test_a_rewind_that_fails_half_way_is_kept_and_can_be_repeated(pair):
    old, new, shared, lost, kept = pair.part()
    pair.begin_term(old)
    old.restart_agent(faults="rewind.rewound=error")
    old.wait_status("the agent has seen the terms", lambda each: each.get("term_history"))
    failed = old.ctl(*pair.rewind_arguments())
    assert failed.code != 0 and "fault point" in failed.error
    *_, last = old.events("rewind.step")
    assert "fault point" in last["attributes"]["error"] and float(last["attributes"]["seconds"]) >= 0, last
    assert "half rewound" in faults(old)["rewind_failed"]
    assert not old.status().get("term_history"), "they are not this directory's any more"
    refused = old.ctl("pg", "start")
    assert refused.reason == "DATA_DIRECTORY_INCOMPLETE" and "metalctl rewind again" in refused.error
    assert old.ok("term", "begin", str(pair.term))["position"].get("received_lsn", "0") in ("0", 0), "it has no vote"
    assert old.ctl("pg", "init").code != 0
    old.restart_agent()
    wait_for("the fault is there again", lambda: "rewind_failed" in faults(old), 20)
    assert old.ok(*pair.rewind_arguments("--dry-run"))["result"]["rewound"] == "true"
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "true"
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost and "rewind_failed" not in faults(old)


def test_the_floor_is_a_fault_until_it_is_replayed(pair):
    """The agent dies as soon as the directory is whole: the next one says what is missing, and stops saying so by itself."""
    old, new, shared, _, kept = pair.part()
    pair.begin_term(old)
    old.restart_agent(faults="rewind.whole=crash")
    old.detach(*pair.rewind_arguments())
    wait_for("the agent died", lambda: old.process.poll() is not None, 60)
    old.start_agent()
    assert "does not count as a synchronous standby" in faults(old)["rewind_floor"]
    with open(f"{old.data_dir}/metal.conf", encoding="utf-8") as file:
        assert f"rewound:{old.name}" in file.read(), "it streams under a name that no policy has"
    old.ok("pg", "start")
    pair.settled(old, shared, kept)
    wait_for("the fault is gone", lambda: not faults(old), 20)
    wait_for("the notes are gone", lambda: not os.path.exists(f"{old.state}/rewind"), 90)
    assert old.wait_event("rewind.floor_passed")
    wait_for("it counts again", lambda: new.sql("SELECT application_name FROM pg_stat_replication") == old.name)


def test_two_histories_on_one_timeline_are_told_apart_by_their_terms(pair):
    old, new, shared, lost = pair.promote_twice()
    kept = set(pair.write(new, 2000))
    assert old.sql("SELECT timeline_id FROM pg_control_checkpoint()") == new.sql("SELECT timeline_id FROM pg_control_checkpoint()")
    pair.begin_term(old)
    refused = old.ctl("follow", pair.address(new), "--term", str(pair.term), "--without-slot")
    assert refused.reason == "HISTORY_DIVERGED" and "HINT: Clone" in refused.error, refused
    for arguments in (pair.rewind_arguments("--dry-run"), pair.rewind_arguments()):
        refused = old.ctl(*arguments)
        assert refused.reason == "HISTORY_DIVERGED" and refused.code == 5, refused
    assert pair.rows(old) >= lost, "nothing was changed"
    last = old.sql("SELECT max(term) FROM metal.term_history")
    old.wait_status("the agent has seen the terms",
                    lambda each: [row["term"] for row in each.get("term_history", [])][-1:] == [last])
    old.ok("pg", "stop")
    refused = old.ctl("follow", pair.address(new), "--term", str(pair.term), "--without-slot")
    assert refused.reason == "HISTORY_DIVERGED", refused
    old.ok("pg", "start")
    done = old.ok(*pair.rewind_arguments(*pair.or_clone()))["result"]
    assert done["cloned"] == "true" and old.events("rewind.cloning")
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost


def test_a_rewind_that_fails_half_way_may_go_over_to_a_clone(pair):
    old, _, shared, lost, kept = pair.part()
    pair.begin_term(old)
    old.restart_agent(faults="rewind.rewound=error")
    took, operation = elapsed(lambda: old.ok(*pair.rewind_arguments(*pair.or_clone()), "--rate", "16MiB"))
    done = operation["result"]
    assert done["cloned"] == "true" and "fault point" in done["rewind_failed"]
    assert took > int(done["bytes"]) / (16 << 20) * 0.7 > 0.5, (took, done)
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost
    assert "rewind_failed" not in faults(old) and not os.path.exists(f"{old.state}/rewind")


def test_missing_prerequisites_are_named(pair):
    pair.whole = False
    pair.primary.ok("pg", "config", "set", "wal_log_hints=off")
    pair.primary.ok("pg", "stop")
    pair.primary.run("pg_checksums", "--disable", "-D", pair.primary.data_dir)
    pair.primary.ok("pg", "start")
    old, _, shared, lost, kept = pair.part()
    pair.begin_term(old)
    pid = postmaster_pid(old.data_dir)
    for arguments in (pair.rewind_arguments("--dry-run"), pair.rewind_arguments()):
        refused = old.ctl(*arguments)
        assert refused.reason == "REWIND_REFUSED" and "wal_log_hints" in refused.error and "HINT: " in refused.error
    assert postmaster_pid(old.data_dir) == pid and pair.rows(old) >= lost, "it runs as before"
    assert old.ctl(*pair.rewind_arguments("--on-failure", "clone")).code == 2
    assert old.ctl(*pair.rewind_arguments("--on-failure", "clone", "--clone-from", "nowhere")).code == 2
    done = old.ok(*pair.rewind_arguments(*pair.or_clone()))["result"]
    assert (done["rewound"], done["cloned"]) == ("false", "true") and "wal_log_hints" in done["rewind_failed"]
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost
    pair.whole = False


def test_the_replication_role_may_do_it_over_the_network(workspace, pg):
    password = workspace.file("replication.password", "secret\n")
    pair = Pair(workspace, pg, tcp=True, replication={"password_file": password, "networks": "127.0.0.1/32"})
    old, _, shared, lost, kept = pair.part()
    pair.begin_term(old)
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "true"
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost
    assert "user='metal_replication'" in old.sql("SHOW primary_conninfo")
