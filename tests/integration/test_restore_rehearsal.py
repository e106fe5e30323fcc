"""A rehearsal reaches nobody and leaves nothing, also when the agent dies in the middle of it."""
import glob
import os

import pytest

from harness import process
from harness.postgres import postmaster_pid
from harness.process import wait_for


@pytest.fixture(scope="module")
def source(module_workspace, pg):
    """With settings that must not act in a copy: they stand in its files too."""
    from harness.node import Node
    node = Node(module_workspace, pg).make_primary()
    node.ran = os.path.join(module_workspace.directory("ran"), "command")
    with open(os.path.join(node.data_dir, "postgresql.conf"), "a", encoding="utf-8") as file:
        file.write(f"data_directory = '{node.data_dir}'\n"
                   f"recovery_end_command = 'touch {node.ran}'\narchive_cleanup_command = 'touch {node.ran}'\n"
                   "primary_conninfo = 'host=/nowhere'\nshared_preload_libraries = 'no_such_library'\n"
                   "listen_addresses = '203.0.113.1'\nexternal_pid_file = '/nowhere/pid'\n")
    node.sql("CREATE TABLE t AS SELECT 1 AS a; CREATE SUBSCRIPTION s CONNECTION 'host=/nowhere' PUBLICATION p "
             "WITH (connect = false, slot_name = 's'); ALTER SUBSCRIPTION s ENABLE; "
             "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'fired'; END$$; "
             "CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse()")
    # These outrank the command line.
    node.sql("CREATE DATABASE odd")
    node.sql("ALTER DATABASE odd SET session_preload_libraries = 'no_such_library'; "
             "ALTER DATABASE odd SET default_transaction_read_only = on")
    node.backup()
    return node


def leftovers(node):
    return [each for each in os.listdir(node.state) if each.startswith("rehearsal")]


def test_settings_of_the_source_do_not_act_in_the_copy(source):
    pid, sockets = source.pid(), set(glob.glob("/tmp/metal-rehearsal-*"))
    source.ok("backup", "verify", "--restore")
    assert not os.path.exists(source.ran), "a command of the source ran"
    assert leftovers(source) == [] and set(glob.glob("/tmp/metal-rehearsal-*")) <= sockets
    assert source.pid() == pid and source.sql("SELECT a FROM t") == "1"


def test_next_agent_removes_what_a_killed_rehearsal_left(source):
    source.restart_agent(faults="verify.rehearsal_started=crash")
    source.ctl("backup", "verify", "--restore", "--detach")
    wait_for("the agent died", lambda: source.process.poll() is not None, 30)
    roots = [each for each in leftovers(source) if each.startswith("rehearsal-")]
    assert len(roots) == 1
    server = postmaster_pid(os.path.join(source.state, roots[0], "data"))
    assert server and process.is_alive(server), "the scratch server outlives the agent"
    source.start_agent()
    source.wait_event("rehearsal.leftovers_removed")
    assert not process.is_alive(server)
    # The operation was resumed with a scratch of its own, and ends well.
    final = source.wait_operation(source.operations("VerifyBackup")[0]["name"])
    assert final["state"] == "OPERATION_STATE_SUCCEEDED", final
    assert leftovers(source) == []
    assert source.sql("SELECT a FROM t") == "1"
