"""Terms, promotion and fences: who may make this node a primary, and what keeps it from being one."""
import os

import pytest

from harness import process
from harness.ledger import promised
from harness.node import has_hint
from harness.process import wait_for


def refused(node, *command, says=""):
    answer = node.ctl(*command)
    assert answer.code == 5 and has_hint(answer.error) and says in answer.error, answer
    return answer


def test_lower_term_is_refused_also_after_a_restart(primary):
    primary.ok("term", "begin", "5")
    refused(primary, "term", "begin", "4", says="5")
    primary.kill_agent()
    primary.start_agent()
    refused(primary, "term", "begin", "4", says="5")
    assert primary.status()["node"]["term"] == "5"


def test_term_has_one_holder(primary):
    primary.ok("term", "begin", "5", "--orchestrator", "a")
    refused(primary, "term", "begin", "5", "--orchestrator", "b", says="a")
    refused(primary, "promote", "--term", "5", "--orchestrator", "b")
    primary.ok("term", "begin", "5", "--orchestrator", "a")
    primary.ok("promote", "--term", "5", "--orchestrator", "a")


def test_only_the_stored_term_promotes(primary):
    primary.ok("term", "begin", "5")
    refused(primary, "promote", "--term", "4")
    refused(primary, "promote", "--term", "6")
    assert primary.sql("SELECT pg_is_in_recovery()") == "t"


def test_higher_term_makes_a_primary_a_standby(primary):
    primary.sql("CREATE TABLE kept AS SELECT 1 AS a")
    answer = primary.ok("term", "begin", "2")
    assert answer["was_primary"] is True
    assert primary.sql("SELECT pg_is_in_recovery()") == "t"
    assert primary.sql("SELECT a FROM kept") == "1"
    assert answer["position"]["timeline"] == 2
    assert [each["timeline"] for each in answer["position"]["history"]] == [1]
    assert primary.ok("promote", "--term", "2")["timeline"] == 3
    assert primary.ok("promote", "--term", "2")["timeline"] == 3, "asked again it answers the same"


def test_term_is_stored_while_postgres_is_down(primary):
    primary.ok("pg", "stop")
    assert primary.ok("term", "begin", "9")["postgres_down"] is True
    assert primary.ok("pg", "start")["result"]["role"] == "standby", "the term is not this node's any more"
    assert primary.sql("SELECT pg_is_in_recovery()") == "t"


def test_a_restore_command_that_hangs_does_not_hold_up_a_term(primary):
    def running():
        return [pid for pid in os.listdir("/proc") if pid.isdigit() and process.arguments(pid) == ["sleep", "617"]]
    primary.ok("term", "begin", "5")
    primary.sql("ALTER SYSTEM SET restore_command TO 'sleep 617'")
    primary.sql("SELECT pg_reload_conf()")
    wait_for("restore_command runs", running, 30)
    answer = primary.ok("term", "begin", "6")
    assert answer["position"]["timeline"] == 2 and not running()
    assert primary.sql("SHOW restore_command") == "" and primary.sql("SELECT pg_is_in_recovery()") == "t"


def test_fence_makes_read_only_and_outlives_everything(primary):
    session = primary.session()
    answer = primary.ok("fence", "--term", "2", "--reason", "split brain feared")
    assert answer["was_primary"] is True
    session.close()
    assert "read-only" in primary.sql("CREATE TABLE t (a int)", code=3).stderr
    refused(primary, "promote", "--term", "2", says="fenced")
    primary.kill_agent()
    primary.start_agent()
    primary.wait_running()
    node = primary.status()["node"]
    assert node["fenced"] is True and node["fence_reason"] == "split brain feared" and node["fence_term"] == "2"
    primary.ok("pg", "restart")
    assert primary.sql("SELECT pg_is_in_recovery()") == "t"
    refused(primary, "unfence", "--term", "1")
    primary.ok("unfence", "--term", "2")
    assert primary.sql("SELECT pg_is_in_recovery()") == "t", "the node stays a standby"
    primary.ok("term", "begin", "3")
    primary.ok("promote", "--term", "3")
    primary.sql("CREATE TABLE t (a int)")


def test_fence_during_a_slow_restart_makes_it_a_standby(primary):
    session = primary.session()
    restart = primary.detach("pg", "restart", "--mode", "smart")
    primary.wait_status("it waits for the session", lambda status: status["postgres"]["state"] == "POSTGRES_STATE_STOPPING")
    assert "fence is stored" in primary.ctl("fence", "--term", "2", "--reason", "test").error
    session.close()
    done = primary.wait_operation(restart)
    assert done["result"]["role"] == "standby", done
    assert primary.sql("SELECT pg_is_in_recovery()") == "t"


def test_primary_opened_behind_the_agents_back_is_fenced_again(primary):
    primary.ok("fence", "--term", "2", "--reason", "test")
    assert primary.sql("SELECT pg_promote(true, 20)") == "t"
    wait_for("it is a standby again", lambda: primary.answers() and primary.sql("SELECT pg_is_in_recovery()") == "t", 40)


def test_wait_for_lsn(primary):
    now = primary.sql("SELECT pg_current_wal_flush_lsn()")
    assert int(primary.ok("wait-lsn", now)["lsn"]) > 0
    late = primary.ctl("wait-lsn", "FF/0", "--wait", "1")
    assert late.code == 7 and has_hint(late.error), late
    assert primary.ctl("wait-lsn", "nonsense").code == 2


@pytest.mark.matrix
def test_standby_with_received_wal_is_promoted_with_all_of_it(primary):
    """The rows are in the WAL of the old timeline; the new primary has them."""
    primary.sql("CREATE TABLE many AS SELECT generate_series(1, 50000) AS a")
    primary.ok("pg", "stop", "--mode", "immediate")
    primary.ok("term", "begin", "2")
    primary.ok("pg", "start")
    primary.promote(2)
    promised(primary.sql("SELECT count(*) FROM many") == "50000", "rows are lost")
