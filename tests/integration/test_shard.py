"""metalctl shard: a shard of three agents seen and operated as one."""
import json
import os
import re
import shutil
import signal
import threading

import psycopg2
import pytest

from harness.ledger import promised
from harness.node import elapsed
from harness.postgres import postmaster_pid
from harness.process import run, wait_for
from harness.shard_watch import ShardWatch
from harness.terminal import Terminal
from harness.three_nodes import QUICK_SERVER, Shard
from harness.workspace import free_port


def test_status_and_check_name_what_is_wrong(workspace, pg):
    shard = Shard(workspace, pg)
    assert shard.ctl("status").code == 3  # nobody answers
    shard["a"].make_primary()
    shard["b"].start_agent()
    shard.wait_findings({("agent_unreachable", "c"), ("no_data", "b"), ("too_few_synchronous", "a")})
    status = shard.ok("status")
    assert status["primary"] == "a" and status["term"] == "1" and status["policy"] == "ANY 1"
    roles = {each["id"]: each.get("role") for each in status["nodes"]}
    assert roles == {"a": "primary", "b": "no data", "c": None}

    answer = shard.ctl("check")
    assert answer.code == 1 and len(answer.json["findings"]) == 3
    shard["b"].config["agent"]["cluster_id"] = "another"
    shard["b"].restart_agent()
    shard.wait_findings({("agent_unreachable", "c"), ("no_data", "b"), ("wrong_shard", "b"), ("too_few_synchronous", "a")})


def test_bad_files_are_refused_with_a_hint(workspace, primary):
    missing = primary.ctl("shard", "--config", "/nowhere/shard.toml", "status", code=4)
    assert "HINT: " in missing.error
    wrong = workspace.file("wrong.toml", '[shard]\nname = "x"\nnodes = "a"\n')
    said = primary.ctl("shard", "--config", wrong, "check", code=2).error
    assert f"{wrong}:3: shard.nodes: unknown key" in said and "HINT: " in said


@pytest.fixture(scope="module")
def orders(module_workspace, pg):
    """Three nodes; the tests leave it whole."""
    shard = Shard(module_workspace, pg)
    for node in shard.nodes.values():
        node.door = free_port()
        node.config["gate"] = {"enabled": True, "listen": f"127.0.0.1:{node.door}", "auth_type": "trust"}
    made = shard.start_agents().init()
    assert made["primary"] == "a" and made["term"] == "1" and made["left_behind"] == []
    assert len(what_it_made(made)) == 4, made
    shard.wait_healthy()
    assert what_it_made(shard.init()) == [], "nothing is left to do"
    return shard


class DoorClient(threading.Thread):
    """Inserts one row after the other through a door, as one connection, until it is stopped."""

    def __init__(self, node, first, table="through_doors"):
        super().__init__(daemon=True)
        self.node, self.first, self.done, self.error, self._enough = node, first, 0, None, threading.Event()
        self._insert = f"INSERT INTO {table} VALUES (%s)"

    def run(self):
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=self.node.door, dbname="postgres", user="postgres")
            connection.autocommit = True
            with connection.cursor() as cursor:
                while not self._enough.is_set():
                    cursor.execute(self._insert, (self.first + self.done,))
                    self.done += 1
        except psycopg2.Error as error:
            self.error = error

    def stop(self):
        self._enough.set()
        self.join(60)
        return self


@pytest.mark.slow
def test_init_that_is_killed_is_finished(workspace, pg):
    """By the same command, which is killed once more at each later step, and at last by `recover`."""
    shard = Shard(workspace, pg).start_agents()
    for step in ("look", "initdb", "start", "begin_term", "promote", "slots", "rejoin", "policy", "verify"):
        wait_for(f"it is killed at {step}", lambda step=step: shard.kill_at_step(step, "init", *QUICK_SERVER), 20, 0.1)
    wait_for("it is finished", lambda: shard.ok("recover")["left_behind"] == [], 20, 0.1)
    with shard.clients() as ledger:
        ledger.wait_more()
    shard.wait_healthy()
    shard.check(ledger)
    assert what_it_made(shard.init()) == [], "nothing is left to do"


def test_a_standby_is_replaced(orders):
    assert "it is the primary" in orders.ctl("replace", orders.primary().name, code=5).error
    with orders.clients() as ledger:
        result = orders.ok("replace", "c")
        assert ("clone", "c") in steps(result) and result["left_behind"] == []
    orders.wait_healthy()
    orders.check(ledger)


def steps(result):
    return [(each["name"], each["nodes"]) for each in result["steps"]]


def what_it_made(result):
    """Steps of an init that found something missing."""
    return [each for each in result["steps"] if each["name"] in ("initdb", "promote", "clone") or "cloned" in each["result"]]


@pytest.mark.matrix
def test_reparent_loses_nothing_and_can_be_repeated(orders):
    with orders.clients() as ledger:
        for to in ("b", "c", "a"):
            before = len(ledger.acknowledged)
            result = orders.ok("reparent", "--to", to)
            assert result["primary"] == to and result["left_behind"] == [], json.dumps(result, indent=1)
            assert ("promote", to) in steps(result)
            wait_for("the client writes on", lambda: len(ledger.acknowledged) > before + 5, 20)
        assert ("promote", "a") not in steps(orders.ok("reparent", "--to", "a"))
    orders.wait_healthy()
    orders.check(ledger)


def test_clients_at_a_door_see_no_error_while_the_lead_changes(orders):
    orders.primary().sql("CREATE TABLE through_doors (id int PRIMARY KEY)")
    clients = [DoorClient(node, number * 1_000_000) for number, node in enumerate(orders.nodes.values())]
    for client in clients:
        client.start()
    for to in ("b", "a"):
        wait_for("all clients write", lambda: all(client.done > 5 or client.error for client in clients), 30)
        result = orders.ok("reparent", "--to", to)
        assert {("hold", "a"), ("hold", "b"), ("hold", "c"), ("release", "a")} <= set(steps(result))
        before = [client.done for client in clients]
        wait_for("they write on", lambda: all(client.done > was + 5 or client.error for client, was in zip(clients, before)), 30)
    for client in clients:
        assert client.stop().error is None
    written = set(map(int, orders.primary().sql("SELECT id FROM through_doors").split()))
    acknowledged = {client.first + number for client in clients for number in range(client.done)}
    promised(acknowledged <= written, f"rows are lost: {sorted(acknowledged - written)[:10]}")
    orders.wait_healthy()


def test_people_see_the_shard_live_and_how_long_each_step_took(orders):
    primary = orders.primary()
    standby = next(node for node in orders.nodes.values() if node is not primary)
    words = primary.ctl_arguments("shard", "--config", orders.file)
    with Terminal([*words, "watch"], columns=160) as terminal:
        terminal.expect(f"primary {primary.name}, term ")
        terminal.expect("no inconsistencies")
        standby.ok("pg", "stop")
        terminal.expect("server_down", 20)
        whole, done = elapsed(lambda: run([*words, "recover"], as_root=True))
        terminal.expect("no inconsistencies", 30)
        terminal.press("\x03")
        assert terminal.wait() == 130
    took = {(name, nodes): float(seconds) for name, nodes, seconds in
            re.findall(r"^(\w+) +(\w*) +(\d+\.\d{3}) s  ", done.stdout, re.MULTILINE)}
    assert ("rejoin", standby.name) in took and 0 < took["rejoin", standby.name] <= whole, done
    assert all(0 <= each <= whole for each in took.values()), done
    orders.wait_healthy()


def test_refusals_change_nothing(orders):
    before = orders.ok("status")["term"]
    unknown = orders.ctl("reparent", "--to", "d", code=4)
    assert "there are a, b, c" in unknown.error
    term = orders["b"].status()["node"]
    orders["b"].ok("fence", "--term", term["term"], "--orchestrator", term["term_orchestrator_id"], "--reason", "test")
    try:
        refused = orders.ctl("reparent", "--to", "b", code=5)
        assert "b is not fit to lead: it is fenced" in refused.error
        assert orders.ctl("check").code == 1
    finally:
        orders["b"].ok("unfence", "--term", term["term"], "--orchestrator", term["term_orchestrator_id"])
    assert orders.ok("status")["term"] == before and orders.ok("status")["primary"] == "a"
    assert orders.ok("recover")["left_behind"] == []
    orders.wait_healthy()


@pytest.mark.slow
@pytest.mark.parametrize("step, again", [("checkpoint", "reparent"), ("demote", "recover"), ("receive", "reparent"),
                                         ("begin_term", "recover"), ("promote", "reparent"), ("slots", "recover")])
def test_reparent_that_is_killed_is_finished_or_undone(orders, step, again):
    """By `recover`, or by the same command once more."""
    with orders.clients() as ledger:
        to = "b" if orders.primary().name != "b" else "c"
        assert orders.kill_at_step(step, "reparent", "--to", to), f"no step of that name: {step}"
        if again == "reparent":
            assert orders.ok("reparent", "--to", to)["primary"] == to
        else:
            assert orders.ok("recover")["left_behind"] == []
        ledger.wait_more()
    orders.wait_healthy()
    orders.check(ledger)


def restart_standby(node, **options):
    """Until the new agent has seen what its server is."""
    node.restart_agent(**options)
    node.wait_status("it knows its role", lambda status: status["postgres"].get("role_observed") == "ROLE_STANDBY", 30)


def test_reparent_whose_candidate_fails_before_its_promotion_is_undone(orders):
    """The old primary is a standby of the new term by then, and leads again in it; clients at doors wait, and see no error."""
    old = orders.primary()
    candidate = next(node for node in orders.nodes.values() if node is not old)
    term = int(old.status()["node"]["term"])
    old.sql("CREATE TABLE IF NOT EXISTS undone (id int PRIMARY KEY)")
    restart_standby(candidate, faults="roles.frozen=error")
    orders.wait_healthy()
    door = DoorClient(old, 0, "undone")
    with orders.clients() as ledger:
        door.start()
        wait_for("the client of the door writes", lambda: door.done > 5 or door.error, 20)
        answer = orders.ctl("reparent", "--to", candidate.name)
        assert answer.code != 0 and f"{old.name} leads, as before: {candidate.name} was not promoted" in answer.error, answer
        assert "fault point roles.frozen" in answer.error and ("undo_demote", old.name) in steps(answer.json), answer
        ledger.wait_more()
        before = door.done
        wait_for("the client of the door writes on", lambda: door.done > before + 5 or door.error, 20)
    assert door.stop().error is None
    assert orders.primary() is old and int(old.status()["node"]["term"]) == term + 1
    orders.wait_healthy()
    orders.check(ledger)
    promised(old.sql("SELECT count(*) FROM undone") == str(door.done), "rows of the client of the door are lost")
    restart_standby(candidate)
    assert orders.ok("reparent", "--to", candidate.name)["primary"] == candidate.name
    orders.wait_healthy()


def test_what_a_demoted_primary_had_not_archived_is_archived_by_it_as_a_standby(orders):
    old = orders.primary()
    new = next(node for node in orders.nodes.values() if node is not old)
    pause = orders.workspace.file("pause", "")
    old.restart_agent(faults="wal.begin=pause", pause=pause)
    old.wait_status("it knows its role", lambda status: status["postgres"].get("role_observed") == "ROLE_PRIMARY", 30)
    orders.wait_healthy()
    segments = [old.switch_wal() for _ in range(3)]

    def stored():
        return {segment for segment in segments if any(file.endswith(f"/{segment}.wal") for file in old.repository_files())}
    try:
        assert orders.ok("reparent", "--to", new.name)["primary"] == new.name
        assert stored() == set(), "the new primary takes them for archived"
    finally:
        os.unlink(pause)
    wait_for("they are archived", lambda: stored() == set(segments), 60)
    notes = os.path.join(old.data_dir, "pg_wal", "archive_status")
    wait_for("they are noted as done", lambda: not {f"{segment}.ready" for segment in segments} & set(os.listdir(notes)), 30)
    old.restart_agent()
    orders.wait_healthy()


def test_failover_counts_with_what_was_in_force_and_not_with_the_file(orders):
    lost = orders.primary()
    away, alone = [node for node in orders.nodes.values() if node is not lost]
    assert lost.sql("SELECT rules FROM metal.durability") == 'ANY 2 ("a", "b", "c")'
    alone.wait_status("the record is replayed", lambda status: status.get("durability") == [
        {"copies": 2, "members": ["a", "b", "c"]}])
    with orders.clients() as ledger:
        pass
    orders.policy = "ANY 2"  # with which each node would have every commit; nobody has put it in force
    orders.write_file()
    lost.kill_agent()
    os.kill(postmaster_pid(lost.data_dir), signal.SIGKILL)
    away.kill_agent()
    refused = orders.ctl("failover", code=5)
    assert "with what was in force, 2 of a, b, c" in refused.error and "1 of 3 answered, 2 needed" in refused.error
    assert alone.status()["node"].get("role_wanted") != "ROLE_PRIMARY", "nothing was changed"
    orders.policy = "ANY 1"
    orders.write_file()
    away.start_agent()
    assert orders.ok("failover")["primary"] in (away.name, alone.name)
    orders.check(ledger)
    lost.start_agent()
    assert orders.ok("recover")["left_behind"] == []
    orders.wait_healthy()


@pytest.mark.matrix
def test_failover_when_the_primary_is_lost(orders):
    lost = orders.primary()
    others = [node for node in orders.nodes.values() if node is not lost]
    with orders.clients() as ledger:
        pass
    for node in others:
        node.ok("receiver", "stop")
    lost.sql("SET synchronous_commit = local; CREATE TABLE of_its_own ()")
    lost.kill_agent()
    os.kill(postmaster_pid(lost.data_dir), signal.SIGKILL)
    others[0].kill_agent()
    refused = orders.ctl("failover", code=5)
    assert f"missing: {', '.join(sorted([lost.name, others[0].name]))}" in refused.error and "--accept-data-loss" in refused.error
    others[0].start_agent()
    result = orders.ok("failover")
    assert result["left_behind"] == [lost.name] and result["primary"] in (others[0].name, others[1].name)
    orders.check(ledger)
    wait_for("commits are acknowledged", lambda: orders.primary().sql("INSERT INTO ledger VALUES (0, 0) RETURNING id") == "0", 20)

    # It comes back with its old order and WAL of its own, and as a standby: nobody reads old rows there as if it led. Its rewind
    # fails half way, and the notes of that are lost: only a copy helps.
    lost.start_agent(faults="rewind.rewound=error")
    wait_for("it comes back", lambda: lost.answers() and lost.sql("SELECT pg_is_in_recovery()") == "t", 30)
    assert "postgres.back_as_standby" in [event["type"] for event in lost.events()]
    assert orders.ctl("recover", code=1).json["left_behind"] == [lost.name]
    lost.restart_agent()
    shutil.rmtree(f"{lost.state}/rewind")
    result = orders.ok("recover")
    assert ("clone", lost.name) in steps(result) and result["left_behind"] == []
    assert orders.primary() is not lost
    orders.wait_healthy()
    orders.check(ledger)


@pytest.mark.parametrize("wanted", ["nobody", "the one behind"])
def test_failover_keeps_what_one_survivor_alone_has(orders, wanted):
    """One standby acknowledged what the other never got. It leads; or the other one does, who takes that over from it first."""
    lost = orders.primary()
    behind, ahead = [node for node in orders.nodes.values() if node is not lost]
    lost.sql("CREATE TABLE IF NOT EXISTS of_one (way text)")
    behind.ok("wait-lsn", lost.lsn())
    behind.ok("receiver", "stop")
    with orders.clients() as ledger:
        lost.sql(f"INSERT INTO of_one VALUES ('{wanted}')")
        ledger.wait_more()
    lost.kill_agent()
    os.kill(postmaster_pid(lost.data_dir), signal.SIGKILL)
    there = f"SELECT count(*) FROM of_one WHERE way = '{wanted}'"
    assert behind.sql(there) == "0"
    result = orders.ok("failover", *([] if wanted == "nobody" else ["--to", behind.name]))
    leads = ahead if wanted == "nobody" else behind
    assert result["primary"] == leads.name and result["left_behind"] == [lost.name], result
    assert (("take_over", behind.name) in steps(result)) == (leads is behind), steps(result)
    assert leads.sql(there) == "1"
    orders.check(ledger)
    lost.start_agent()
    wait_for("it is up again", lost.answers, 30)
    assert orders.ok("recover")["left_behind"] == []
    orders.wait_healthy()


def test_primary_whose_host_restarts_waits_to_be_told(orders):
    """Nobody led meanwhile: it leads again when an operator, or the watch, says so. Before that it takes no writes."""
    primary = orders.primary()
    with orders.clients() as ledger:
        primary.kill_agent()
        os.kill(postmaster_pid(primary.data_dir), signal.SIGKILL)
        primary.start_agent()
        wait_for("it comes back", lambda: primary.answers() and primary.sql("SELECT pg_is_in_recovery()") == "t", 30)
        with ShardWatch(orders.workspace, orders) as watch:
            wait_for("it leads again", lambda: primary.sql("SELECT pg_is_in_recovery()") == "f", 30)
            orders.wait_healthy()
            assert f"recover: nobody leads, and {primary.name} is ordered to" in watch.said()
    assert orders.primary() is primary
    orders.check(ledger)


def test_failover_that_accepts_data_loss_leads_on_without_it(orders):
    """The only node that answers never received the last commit. Whoever has it returns as a standby without it."""
    lost = orders.primary()
    keeps, behind = [node for node in orders.nodes.values() if node is not lost]
    lost.sql("CREATE TABLE IF NOT EXISTS at_stake (id int)")
    behind.ok("wait-lsn", lost.lsn())
    behind.ok("receiver", "stop")
    lost.sql("INSERT INTO at_stake VALUES (1)")  # acknowledged by the other one
    for node in (lost, keeps):
        node.kill_agent()
        os.kill(postmaster_pid(node.data_dir), signal.SIGKILL)
    refused = orders.ctl("failover", code=5)
    assert f"missing: {', '.join(sorted([lost.name, keeps.name]))}" in refused.error, refused
    result = orders.ok("failover", "--accept-data-loss")
    assert result["primary"] == behind.name and sorted(result["left_behind"]) == sorted([lost.name, keeps.name])
    for node in (lost, keeps):
        node.start_agent()
        wait_for("it is up again", node.answers, 30)
    assert orders.ok("recover")["left_behind"] == []
    orders.wait_healthy()
    assert orders.primary() is behind
    behind.sql("INSERT INTO at_stake VALUES (2)")
    for node in (lost, keeps):
        node.ok("wait-lsn", behind.lsn())
        assert node.sql("SELECT id FROM at_stake") == "2"
