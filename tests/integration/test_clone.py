"""A node is cloned from another one, host to host: the copy is right and streams at once, nothing is lost when it is refused,
cut, or killed, and nobody clones who may not."""
import os
import signal

import pytest

from harness import certificates, compare, process
from harness.ledger import promised
from harness.node import Node, elapsed, has_hint, lsn_number
from harness.postgres import PGBENCH_RATE, find_versions
from harness.process import wait_for
from harness.relay import Relay
from harness.transfer import transfer_address, with_transfer


def clone_arguments(source, primary, *extra, address=None, term="1"):
    return ("clone", "--from", address or transfer_address(source), "--primary", f"{primary.run_dir}:{primary.port}",
            "--term", term, *extra)


def replica_of(workspace, pg, name="replica", **config):
    """An agent without a data directory, in term 1."""
    node = with_transfer(Node(workspace, pg, name=name, **config)).start_agent()
    node.ok("term", "begin", "1")
    return node


def wait_caught_up(primary, replica):
    lsn = lsn_number(primary.sql("SELECT pg_current_wal_lsn()"))
    wait_for("the replica has it", lambda: lsn_number(replica.sql("SELECT pg_last_wal_replay_lsn()")) >= lsn, 60)


def receiver(node):
    return node.sql("SELECT status || ' ' || slot_name FROM pg_stat_wal_receiver")


@pytest.fixture(scope="module")
def source(module_workspace, pg):
    """A primary that may be cloned."""
    node = with_transfer(Node(module_workspace, pg)).make_primary()
    node.sql("CREATE TABLE t AS SELECT g AS a, repeat('x', 200) AS b FROM generate_series(1, 20000) g; CHECKPOINT")
    return node


def assert_same_table(source, target):
    wait_caught_up(source, target)
    question = "SELECT count(*), sum(a) FROM t"
    wanted, there = source.sql(question), target.sql(question)
    promised(there == wanted, f"the copy has {there}, its source {wanted}")


def refused(node, source, primary, *extra, code=5, **options):
    answer = node.ctl(*clone_arguments(source, primary, *extra, **options))
    assert answer.code == code and has_hint(answer.error), answer
    return answer


@pytest.mark.slow
def test_another_major_version_is_refused_before_anything_is_written(source, workspace):
    other = next(each for each in find_versions(["17"]))
    target = replica_of(workspace, other)
    answer = refused(target, source, source)
    assert "17" in answer.error and source.version.name in answer.error, answer
    assert not os.path.exists(target.data_dir) or os.listdir(target.data_dir) == [], "nothing is there"
    assert target.status()["postgres"].get("role_observed") != "ROLE_STANDBY"


@pytest.mark.matrix
def test_clone_under_load_over_tls_is_the_same_and_streams(workspace, pg):
    authority = certificates.Authority(workspace)
    source = with_transfer(Node(workspace, pg))
    target = with_transfer(Node(workspace, pg, name="Replica-1"))
    for node in (source, target):
        certificate, key = authority.issue(node.name, "IP:127.0.0.1", f"DNS:{node.name.lower()}.test")
        node.config["tls"] = {"certificate": certificate, "key": key, "client_ca": authority.certificate}
        node.roles = [{"san": "replica-1.test", "role": "peer"}]
    source.make_primary()
    source.pgbench_load(5)
    target.start_agent()
    target.ok("term", "begin", "1")
    load = source.start("pgbench", "-n", "-R", PGBENCH_RATE, "-c", "2", "-T", "600",
                        log=os.path.join(workspace.path, "pgbench.log"))
    operation = target.ok(*clone_arguments(source, source))
    assert load.poll() is None
    process.end(load, signal.SIGTERM)
    facts = operation["result"]["values"] if "values" in operation["result"] else operation["result"]
    assert facts["source_node"] == "node" and int(facts["bytes"]) > 70 << 20 and facts["reconnects"] == "0", facts
    assert receiver(target) == "streaming metal_replica_1"
    source.sql("CREATE TABLE after_clone (a int); CHECKPOINT")
    wait_caught_up(source, target)
    assert target.sql("SELECT count(*) FROM after_clone") == "0"
    source.ok("pg", "stop")
    target.ok("pg", "stop")
    lines, pages = compare.differences(source.data_dir, target.data_dir)
    assert lines == [] and pages > 8000
    if target.version.has("pg_checksums"):
        target.run("pg_checksums", "--check", "-D", target.data_dir)


def test_caller_without_the_role_is_refused(workspace, pg):
    authority = certificates.Authority(workspace)
    source, target = with_transfer(Node(workspace, pg)), with_transfer(Node(workspace, pg, name="replica"))
    for node in (source, target):
        certificate, key = authority.issue(node.name, "IP:127.0.0.1", f"DNS:{node.name}.test")
        node.config["tls"] = {"certificate": certificate, "key": key, "client_ca": authority.certificate}
    source.roles = [{"san": "replica.test", "role": "viewer"}, {"san": "x.replica.test", "role": "peer"}]
    source.make_primary()
    target.start_agent()
    target.ok("term", "begin", "1")
    answer = refused(target, source, source)
    assert answer.reason == "PERMISSION_DENIED" and "replica.test" in answer.error
    foreign = certificates.Authority(workspace, "foreign")
    target.config["tls"]["certificate"], target.config["tls"]["key"] = foreign.issue("replica", "DNS:replica.test")
    target.restart_agent()
    assert target.ctl(*clone_arguments(source, source)).code != 0
    assert not os.path.exists(os.path.join(target.data_dir, "PG_VERSION"))


def test_second_replica_from_the_first(source, workspace, pg):
    first = replica_of(workspace, pg)
    first.ok(*clone_arguments(source, source))
    source.sql("INSERT INTO t SELECT g, 'new' FROM generate_series(1, 20000) g")
    second = replica_of(workspace, pg, "second")
    first.ok("replay", "pause")
    refused = second.ctl(*clone_arguments(first, source))
    assert refused.code == 5 and "replay" in refused.error and "paused" in refused.error, refused
    first.ok("replay", "resume")
    facts = second.ok(*clone_arguments(first, source))
    assert "replica" in str(facts)
    assert_same_table(source, second)
    assert receiver(second) == "streaming metal_second"
    assert source.sql("SELECT string_agg(slot_name, ' ' ORDER BY slot_name) FROM pg_replication_slots WHERE active") \
        == "metal_replica metal_second"
    # It follows the primary: a standby is refused before anything changes.
    answer = second.ctl(*clone_arguments(first, first, "--replace"))
    assert answer.code == 5 and "standby" in answer.error, answer
    wait_for("the old server goes on", lambda: second.answers() and receiver(second) == "streaming metal_second", 30)


def test_what_may_not_be_cloned_stays_as_it_is(source, workspace, pg):
    target = replica_of(workspace, pg)
    # Who asks, and for what.
    refused(target, source, source, term="2")
    assert target.ctl(*clone_arguments(source, source, address="nowhere")).code == 2
    answer = target.ctl(*clone_arguments(source, source, address="127.0.0.1:1"))
    assert answer.code != 0 and "127.0.0.1:1" in answer.error, answer
    refused(source, source, source)  # is the primary
    answer = refused(target, target, source)
    assert "this node itself" in answer.error or "no complete cluster" in answer.error, answer
    # Another shard's primary to follow.
    other = with_transfer(Node(workspace, pg, name="other"))
    other.start_agent()
    other.create_primary()
    assert refused(target, source, other).reason == "WRONG_SYSTEM"
    assert not os.path.exists(os.path.join(target.data_dir, "PG_VERSION"))
    # What is there.
    target.ok(*clone_arguments(source, source))
    pid = target.pid()
    assert refused(target, source, source).reason == "DATA_DIRECTORY_NOT_EMPTY"
    assert refused(target, other, other, "--replace").reason == "CLONE_SOURCE"
    assert target.pid() == pid, "nothing was stopped"
    with open(os.path.join(target.data_dir, "base", "old"), "w", encoding="utf-8"):
        pass
    target.restart_agent(faults="node.before_clone_start=error")
    target.wait_status("the agent has seen the terms", lambda each: each.get("term_history"))
    assert target.ctl(*clone_arguments(source, source, "--replace")).code != 0
    assert not os.path.exists(os.path.join(target.data_dir, "base", "old"))
    assert not target.status().get("term_history"), "they went with the old directory"
    target.ok("pg", "start")
    source.sql("INSERT INTO t VALUES (0, 'x')")
    assert_same_table(source, target)


def test_clone_does_not_begin_without_room(source, workspace, pg):
    if not process.IS_ROOT:
        pytest.skip("needs root: mounts a small file system")
    disk = workspace.small_disk("small", 40)
    target = replica_of(workspace, pg, data_dir=os.path.join(disk, "data"))
    answer = target.ctl(*clone_arguments(source, source))
    assert answer.code != 0 and answer.reason == "NO_SPACE" and has_hint(answer.error), answer
    assert os.listdir(disk) == [] or os.listdir(os.path.join(disk, "data")) == []


def test_tablespace_goes_where_it_is_mapped(source, workspace, pg):
    location = workspace.directory("space")
    source.sql(f"CREATE TABLESPACE fast LOCATION '{location}'")
    source.sql("CREATE TABLE in_space TABLESPACE fast AS SELECT generate_series(1, 50000) a")
    oid = source.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")
    target = replica_of(workspace, pg)
    refused(target, source, source)  # the source's own directory
    moved = os.path.join(workspace.path, "moved")
    target.ok(*clone_arguments(source, source, "--tablespace", f"{oid}={moved}"))
    assert target.sql("SELECT count(*) FROM in_space") == "50000"
    assert os.readlink(os.path.join(target.data_dir, "pg_tblspc", oid)) == moved
    source.sql("DROP TABLE in_space; DROP TABLESPACE fast")


def test_broken_connections_are_taken_up_again(source, workspace, pg):
    relay = Relay(transfer_address(source))
    workspace.at_end(relay.close)
    target = replica_of(workspace, pg)
    name = target.detach(*clone_arguments(source, source, "--rate", "8MiB", address=relay.address))
    cut = 0
    for share in (2 << 20, 8 << 20, 16 << 20):
        wait_for("more has passed", lambda: relay.passed > share, 60, 0.02)
        cut += relay.cut()
    ended = target.wait_operation(name)
    assert ended["state"] == "OPERATION_STATE_SUCCEEDED", ended
    assert cut >= 3
    assert "'reconnects': '0'" not in str(ended)
    assert_same_table(source, target)


def test_cancelled_clone_leaves_nothing_running(source, workspace, pg):
    target = replica_of(workspace, pg)
    name = target.detach(*clone_arguments(source, source, "--rate", "1MiB"))
    wait_for("it copies", lambda: target.operation(name).get("progress", {}).get("phase") == "copying files", 60)
    took, _ = elapsed(lambda: (target.ok("op", "cancel", name), target.wait_operation(name, 20)))
    assert target.operation(name)["state"] == "OPERATION_STATE_CANCELLED" and took < 15
    source.wait_event("clone.source_failed")
    wait_for("no backup is open", lambda: source.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'metal-agent backup'") == "0", 20)
    assert target.ctl("pg", "start").code == 5
    target.ok(*clone_arguments(source, source))  # without --replace: what is here is no cluster


def test_source_agent_that_dies_is_a_clear_error(source, workspace, pg):
    target = replica_of(workspace, pg)
    name = target.detach(*clone_arguments(source, source, "--rate", "1MiB"))
    wait_for("it copies", lambda: target.operation(name).get("progress", {}).get("phase") == "copying files", 60)
    address = transfer_address(source)
    source.kill_agent()
    source.config["transfer"]["listen"] = address
    source.start_agent()
    ended = target.wait_operation(name, 60)
    assert ended["state"] == "OPERATION_STATE_FAILED" and "HINT: clone again" in str(ended), ended
    target.ok(*clone_arguments(source, source))
    assert_same_table(source, target)


def clone_killed_at(source, target, point, *extra):
    """The target's agent dies at `point`, and its next one ends the clone: the source gives up the session of the first."""
    arguments = clone_arguments(source, source, *extra)
    target.restart_agent(faults=f"{point}=crash")
    target.detach(*arguments)
    wait_for(f"the agent died at {point}", lambda: target.process.poll() is not None, 60)
    assert target.process.returncode == -signal.SIGKILL
    target.start_agent()
    return target.wait_operation(target.operations("Clone")[0]["name"])


@pytest.mark.slow
@pytest.mark.parametrize("point", ["node.before_clone", "node.clone_reserved", "clone.begun", "clone.target_frame",
                                   "clone.received", "clone.before_sync", "clone.synced", "clone.control_written",
                                   "node.before_clone_start"])
def test_target_agent_that_dies_begins_anew(source, workspace, pg, point):
    target = replica_of(workspace, pg)
    ended = clone_killed_at(source, target, point)
    if ended["state"] != "OPERATION_STATE_SUCCEEDED":  # the copy was complete: what is here is a cluster
        assert point == "node.before_clone_start" and has_hint(str(ended)), ended
        target.ok("pg", "start")
    assert_same_table(source, target)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["clone.before_removal", "clone.marked"])
def test_target_agent_that_dies_while_it_replaces(source, workspace, pg, point):
    target = replica_of(workspace, pg)
    target.ok(*clone_arguments(source, source))
    ended = clone_killed_at(source, target, point, "--replace")
    assert ended["state"] == "OPERATION_STATE_SUCCEEDED", ended
    assert_same_table(source, target)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["clone.source_started", "clone.source_frame", "clone.source_copied"])
def test_source_agent_that_dies_at_a_step(source, workspace, pg, point):
    target = replica_of(workspace, pg)
    source.config["transfer"]["listen"] = transfer_address(source)
    source.restart_agent(faults=f"{point}=crash")
    name = target.detach(*clone_arguments(source, source))
    wait_for(f"the agent died at {point}", lambda: source.process.poll() is not None, 60)
    source.start_agent()
    ended = target.wait_operation(name, 90)
    assert ended["state"] == "OPERATION_STATE_FAILED" and has_hint(str(ended["error"])), ended
    target.ok(*clone_arguments(source, source))
    assert_same_table(source, target)


def test_corrupt_page_of_the_source_ends_the_clone(source, workspace, pg):
    source.sql("CREATE TABLE damaged AS SELECT * FROM t; CHECKPOINT")
    path = os.path.join(source.data_dir, source.sql("SELECT pg_relation_filepath('damaged')"))
    with open(path, "r+b") as file:
        file.seek(7 * 8192 + 5000)
        file.write(b"broken")
    target = replica_of(workspace, pg)
    answer = target.ctl(*clone_arguments(source, source))
    assert answer.code == 6 and "block 7" in answer.error and os.path.basename(path) in answer.error, answer
    assert target.ctl("pg", "start").code == 5
    source.sql("DROP TABLE damaged; CHECKPOINT")
