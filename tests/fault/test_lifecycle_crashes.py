"""The agent killed with -9 at each step of init, start, stop, restart, restore and a change of settings: every operation is
resumed or reported, and the same request again completes what was begun."""
import os
import shutil
import signal

import pytest

from harness import database, process
from harness.node import Node
from harness.process import wait_for

JOURNAL = ["operations.journaled", "operations.before_finish"]


def crash_at(node, point, *command):
    """Starts the agent so that it dies at `point` of the command, lets it die, and starts it again."""
    node.restart_agent(faults=f"{point}=crash")
    node.ctl(*command)  # whether it hears of the operation before the agent dies does not matter
    wait_for(f"the agent died at {point}", lambda: node.process.poll() is not None, 30)
    assert node.process.returncode == -signal.SIGKILL
    node.start_agent()


def settled(node):
    """No operation is left hanging: all are final, and one that was cut off says why."""
    def final():
        return all(each["state"] not in ("OPERATION_STATE_PENDING", "OPERATION_STATE_RUNNING") for each in node.operations())
    wait_for("every operation is final", final, 60)
    for each in node.operations():
        if each["state"] == "OPERATION_STATE_FAILED":
            assert each["error"]["reason"], each


@pytest.mark.slow
@pytest.mark.parametrize("point", ["operations.before_journal", *JOURNAL, "operations.finished", "node.before_initdb",
                                   "pg.initdb_run", "pg.initdb_made", "pg.initdb_move", "pg.initdb_moved",
                                   "node.after_initdb"])
def test_init(workspace, pg, point):
    node = Node(workspace, pg).start_agent()
    crash_at(node, point, "pg", "init", "--detach")
    settled(node)
    done = node.ctl("pg", "control").code == 0 and not os.path.exists(os.path.join(node.data_dir, "metal.incomplete"))
    again = node.ctl("pg", "init")
    assert again.code == (5 if done else 0), again
    node.ok("pg", "start")
    assert node.sql("SELECT 1") == "1"


@pytest.mark.slow
@pytest.mark.parametrize("point", [*JOURNAL, "pg.before_launch", "pg.after_launch"])
def test_start(primary, point):
    primary.ok("pg", "stop")
    crash_at(primary, point, "pg", "start", "--detach")
    settled(primary)
    primary.ok("pg", "start")
    assert primary.sql("SELECT pg_is_in_recovery()") == "f", "the term still makes it the primary"


@pytest.mark.slow
@pytest.mark.parametrize("point", [*JOURNAL, "pg.before_stop"])
def test_stop(primary, point):
    crash_at(primary, point, "pg", "stop", "--detach")
    settled(primary)
    primary.ok("pg", "stop")
    assert primary.postgres_state() == "stopped"
    primary.restart_agent()
    assert primary.postgres_state() == "stopped", "what was stopped stays stopped"


@pytest.mark.slow
@pytest.mark.parametrize("point", ["pg.before_stop", "pg.before_launch", "pg.after_launch"])
def test_restart(primary, point):
    crash_at(primary, point, "pg", "restart", "--detach")
    primary.wait_running()
    settled(primary)
    assert primary.sql("SELECT pg_is_in_recovery()") == "f"


@pytest.mark.slow
def test_settings(primary):
    crash_at(primary, "pg.settings_written", "pg", "config", "set", "work_mem=5MB")
    assert primary.sql("SHOW work_mem") == "4MB", "written, not loaded"
    primary.ok("pg", "config", "set", "work_mem=5MB")
    assert primary.sql("SHOW work_mem") == "5MB", "the same call again completes what the first one began"
    primary.ok("pg", "config", "set", "work_mem=6MB")
    assert primary.sql("SHOW work_mem") == "6MB"


@pytest.mark.slow
@pytest.mark.parametrize("point", [*JOURNAL, "node.before_restore", "restore.locked", "restore.begun", "restore.frame",
                                   "restore.files_written", "restore.before_sync", "restore.synced", "restore.control_written"])
def test_restore_over_the_nodes_own_directory(primary, point):
    primary.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS a")
    primary.ok("backup", "create")
    primary.ok("pg", "stop")
    primary.ok("term", "begin", "5")
    shutil.rmtree(primary.data_dir)
    restore = ("backup", "restore", "--term", "5")
    crash_at(primary, point, *restore, "--detach")
    settled(primary)
    # The next agent takes it up again. When nothing was left to do, it finds a cluster and cannot know who made it.
    whole = point == "operations.before_finish"
    assert primary.operations("RestoreBackup")[0]["state"] == f"OPERATION_STATE_{'FAILED' if whole else 'SUCCEEDED'}"
    assert primary.ctl(*restore).code == 5, "it is a cluster now"
    database.verify_restored(primary, primary.data_dir, database.SETTINGS)
    primary.ok("pg", "start")
    assert primary.sql("SELECT pg_is_in_recovery()") == "t", "a restored copy is read-only until told otherwise"
    assert primary.sql("SELECT count(*) FROM kept") == "1000"
    primary.ok("promote", "--term", "5")
    database.prove_own(primary)
