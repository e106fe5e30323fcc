"""What a primary's agent keeps inside PostgreSQL: the terms, the heartbeat, and a user's own things left alone."""
import os

import pytest

from harness.node import Node, lsn_number
from harness.process import run, wait_for

HEARTBEAT = "SELECT term, node_id, extract(epoch FROM at) FROM metal.heartbeat"


def terms(node):
    return node.sql("SELECT term, timeline, node_id, orchestrator_id FROM metal.term_history ORDER BY term").splitlines()


def beat(node):
    """Time of the heartbeat; 0 while there is none."""
    found = node.sql(HEARTBEAT)
    return float(found.split("|")[2]) if found else 0.0


@pytest.mark.matrix
def test_terms_and_heartbeat_are_kept_by_the_primary(primary):
    wait_for("the first heartbeat", lambda: primary.sql("SELECT to_regclass('metal.heartbeat')") and primary.sql(HEARTBEAT))
    assert terms(primary) == ["1|2|node|metalctl"]
    first = beat(primary)
    wait_for("it goes on", lambda: beat(primary) > first)
    primary.ok("term", "begin", "3")
    assert primary.ok("promote", "--term", "3")["timeline"] == 3
    assert terms(primary) == ["1|2|node|metalctl", "3|3|node|metalctl"], "written before the promotion was answered"
    wait_for("the heartbeat is of the new term", lambda: primary.sql(HEARTBEAT).startswith("3|node|"))
    status = primary.wait_status("the status shows both", lambda each: len(each.get("term_history", [])) == 2)
    shown = status["term_history"][1]
    assert (shown["term"], shown["timeline"], shown["node_id"]) == ("3", 3, "node")
    answer = primary.ok("term", "begin", "4")
    assert [each["term"] for each in answer["term_history"]] == ["1", "3"]

    # Nobody but the superuser changes anything, everybody may look.
    primary.ok("promote", "--term", "4")
    primary.sql("CREATE ROLE app LOGIN; CREATE DATABASE app")
    assert primary.sql("SET ROLE app; SELECT count(*) FROM metal.term_history").endswith("3")
    for statement in ("DELETE FROM metal.heartbeat", "INSERT INTO metal.term_history VALUES (9, 9, '0/0', now(), 'x', 'x')",
                      "CREATE TABLE metal.mine (a int)"):
        assert "permission denied" in primary.sql(f"SET ROLE app; {statement}", code=3).stderr
    assert primary.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'metal'", database="app") == "0"


def test_heartbeat_writes_little(primary):
    wait_for("the heartbeat is there", lambda: primary.sql("SELECT to_regclass('metal.heartbeat')") and beat(primary))
    first = beat(primary)
    primary.sql("CHECKPOINT")
    wait_for("one after the checkpoint", lambda: beat(primary) > first + 1)
    seen, start = beat(primary), lsn_number(primary.sql("SELECT pg_current_wal_lsn()"))
    wait_for("some more", lambda: beat(primary) > seen + 4)
    beats = round(beat(primary) - seen) + 1
    # A running server logs its transactions every 15 s, too.
    assert lsn_number(primary.sql("SELECT pg_current_wal_lsn()")) - start < beats * 400 + 2000
    hot, all_updates = map(int, primary.sql(
        "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_all_tables WHERE schemaname = 'metal' AND relname = 'heartbeat'").split("|"))
    assert hot == all_updates
    assert primary.sql("SELECT pg_relation_size('metal.heartbeat')") == "8192"


def test_users_own_schema_is_left_alone_and_reported(workspace, pg):
    node = Node(workspace, pg)
    node.start_agent()
    node.init("--set", "fsync=off")
    node.ok("pg", "start")
    node.stop_agent()
    node.sql("SELECT pg_promote(true, 30)")
    node.sql("CREATE SCHEMA metal; CREATE TABLE metal.heartbeat (mine text); INSERT INTO metal.heartbeat VALUES ('kept')")
    node.start_agent()
    node.ok("term", "begin", "1")
    node.ok("promote", "--term", "1")
    status = node.wait_status("it is reported", lambda each: any(f["fault_class"] == "metal_schema" for f in each["faults"]))
    assert "HINT: rename" in next(f for f in status["faults"] if f["fault_class"] == "metal_schema")["message"]
    assert node.sql("SELECT * FROM metal.heartbeat") == "kept"
    assert node.sql("SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'metal' "
                    "AND relkind = 'r'") == "1"


def test_standby_shows_the_heartbeat_and_takes_no_term_of_another(primary, workspace, pg):
    standby = Node(workspace, pg, name="standby").start_agent()
    run([os.path.join(pg.bin_dir, "pg_basebackup"), "-D", standby.data_dir, "-R", "-c", "fast", "-h", primary.run_dir,
         "-p", str(primary.port), "-U", "postgres"])
    standby.ok("pg", "start")
    status = standby.wait_status("the heartbeat shows", lambda each: each.get("standby", {}).get("heartbeat"))
    first = status["standby"]["heartbeat"]
    assert first["node_id"] == "node" and first["term"] == "1"
    standby.wait_status("it moves", lambda each: each["standby"]["heartbeat"]["time"] != first["time"])
    standby.wait_status("the terms show", lambda each: [row["term"] for row in each.get("term_history", [])] == ["1"])

    primary.ok("term", "begin", "6")
    primary.ok("promote", "--term", "6")
    standby.ok("wait-lsn", primary.sql("SELECT pg_current_wal_flush_lsn()"))
    standby.ok("term", "begin", "6", "--orchestrator", "late")
    refused = standby.ctl("promote", "--term", "6", "--orchestrator", "late")
    assert refused.code == 5 and refused.reason == "HISTORY_DIVERGED", refused
    assert standby.sql("SELECT pg_is_in_recovery()") == "t"


def test_heartbeat_can_be_turned_off(workspace, pg):
    # Not a copy of a cluster that had its heart beat.
    node = Node(workspace, pg, postgres={"heartbeat_interval": "0s"}).start_agent().make_primary()
    wait_for("the term is written", lambda: node.sql("SELECT to_regclass('metal.term_history')") and terms(node))
    first = node.sql("SELECT count(*) FROM metal.heartbeat")
    assert first == "0"
