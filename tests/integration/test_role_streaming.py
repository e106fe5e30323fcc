"""Roles of a standby that streams from a live primary."""
import os
import signal

from harness.ledger import promised
from harness.node import Node
from harness.postgres import postmaster_pid
from harness.process import run, wait_for


def test_frozen_standby_keeps_what_it_received_and_takes_no_more(primary, workspace, pg):
    standby = Node(workspace, pg, name="standby").start_agent()
    run([os.path.join(pg.bin_dir, "pg_basebackup"), "-D", standby.data_dir, "-R", "-c", "fast", "-h", primary.run_dir,
         "-p", str(primary.port), "-U", "postgres"])
    standby.ok("pg", "start")
    wait_for("it streams", lambda: standby.status().get("standby", {}).get("receiver_state") == "streaming", 20)
    primary.sql("CREATE TABLE t AS SELECT generate_series(1, 50000) AS a")
    standby.ok("wait-lsn", primary.sql("SELECT pg_current_wal_lsn()"))

    position = standby.ok("term", "begin", "9")["position"]
    assert position["received_lsn"] == position["replayed_lsn"] and position["timeline"] == 2
    assert standby.sql("SELECT count(*) FROM pg_stat_wal_receiver") == "0"
    primary.sql("INSERT INTO t SELECT generate_series(1, 50000)")
    assert standby.sql("SELECT count(*) FROM t") == "50000"

    assert standby.ok("promote", "--term", "9")["timeline"] == 3
    promised(standby.sql("SELECT count(*) FROM t") == "50000", "rows that it had are lost, or some came after it was frozen")
    standby.sql("INSERT INTO t VALUES (0)")


def test_frozen_postmaster_is_fenced_by_force(primary):
    os.kill(postmaster_pid(primary.data_dir), signal.SIGSTOP)
    assert "HINT: " in primary.ctl("term", "begin", "2", "--wait", "5").error
    assert primary.ok("fence", "--term", "3", "--reason", "frozen")["was_primary"] is True
    wait_for("it is a standby", lambda: primary.answers() and primary.sql("SELECT pg_is_in_recovery()") == "t", 30)
