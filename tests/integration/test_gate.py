"""The gate: a real PgBouncer in front of PostgreSQL, held, led elsewhere, killed and frozen."""
import os
import re
import signal
import time

import pytest

from harness import process
from harness.certificates import Authority
from harness.node import Node, has_hint, seconds, template_of
from harness.postgres import PGBENCH_RATE, Database, PlainServer, Session
from harness.process import run, wait_for
from harness.workspace import free_port


class Door(Database):
    """SQL of a client through a door."""

    def __init__(self, node, port):
        super().__init__(node.version, "127.0.0.1", port, node.data_dir)
        self.node, self.terms = node, 1

    def where(self):
        return self.sql("SHOW data_directory")

    def state(self):
        return self.node.status()["gate"]["state"].removeprefix("GATE_STATE_").lower()

    def wait_state(self, state, timeout=20.0):
        wanted = f"GATE_STATE_{state.upper()}"
        return self.node.wait_status(f"the gate is {state}", lambda status: status["gate"]["state"] == wanted, timeout)["gate"]

    def term(self):
        """A new one for each order: nothing else moves the term here."""
        self.terms += 1
        return str(self.terms)

    def hold(self, *arguments, **options):
        return self.node.ctl("gate", "hold", "--term", self.term(), *arguments, **options)

    def release(self, *arguments, to=None, **options):
        to = to or self.node
        return self.node.ctl("gate", "release", "--term", self.term(), to.socket_dir, "--port", str(to.port), *arguments, **options)

    def pid(self):
        return self.node.pgbouncer_pid()

    def waiting_client(self):
        """A new client that has asked for something and got no answer, because the door is held."""
        client = Client(self)
        self.node.wait_status("a client waits", lambda status: int(status["gate"]["waiting_clients"]) > 0)
        assert client.running()
        return client


class Client:
    """One statement of a new client, sent at once; `answer` waits for what came of it."""

    def __init__(self, door):
        self.log = os.path.join(door.node.workspace.path, f"client-{time.monotonic_ns()}.log")
        self._process = process.spawn(door.psql_arguments("-c", "SELECT 'served'"), self.log, env=door.env)

    def running(self):
        return self._process.poll() is None

    def answer(self):
        self._process.wait(30)
        with open(self.log, encoding="utf-8") as file:
            return file.read().strip()


class Bench:
    """pgbench through a door until `finish`; no client may see an error."""

    def __init__(self, door, clients=8):
        self.log = os.path.join(door.node.workspace.path, f"pgbench-{time.monotonic_ns()}.log")
        self._process = door.start("pgbench", "-n", "-R", PGBENCH_RATE, "-P", "1", "-c", str(clients), "-j", "2", "-T", "3600",
                                   log=self.log)
        door.node.workspace.at_end(lambda: process.end(self._process, signal.SIGKILL))
        wait_for("pgbench works", lambda: int(door.node.status()["gate"]["clients"]) >= clients)
        self.wait_progress()

    def said(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def wait_progress(self):
        """Until it tells again what it did."""
        before = self.said().count("progress:")
        wait_for("pgbench goes on", lambda: self.said().count("progress:") > before, 30)

    def finish(self):
        self.wait_progress()
        assert self._process.poll() is None, self.said()
        process.end(self._process)
        said = self.said()
        assert "abort" not in said and "error" not in said.lower(), said
        assert not re.search(r"[1-9]\d* failed", said) and " 0.0 tps" not in said.splitlines()[-1], said
        return said


def make_door(workspace, pg, name, **gate):
    port = free_port()
    node = Node(workspace, pg, name=name, gate={"enabled": True, "listen": f"127.0.0.1:{port}", "auth_type": "trust", **gate})
    node.make_primary()
    door = Door(node, port)
    wait_for("clients are let in", door.answers, 20)
    return door


@pytest.fixture(scope="module")
def shared(module_workspace, pg):
    door = make_door(module_workspace, pg, "gate")
    door.node.pgbench_load(scale=2)
    return door


@pytest.fixture
def door(shared):
    """Open, and leading to its own server."""
    yield shared
    if shared.node.process.poll() is not None:
        shared.node.start_agent()
    shared.release(code=0)
    assert shared.where() == shared.node.data_dir


def test_holding_and_releasing_under_load_costs_no_client_an_error(door):
    bench = Bench(door)
    took = []
    for _ in range(20):
        held = door.hold(code=0).json
        assert held["host"] == door.node.socket_dir and held["transactions"] == "0"
        took.append(seconds(held["took"]) + seconds(door.release(code=0).json["took"]))
    said = bench.finish()
    took.sort()
    print(f"hold and release: median {took[10] * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms\n{said}")


def test_a_client_of_a_held_door_waits_while_the_server_is_switched_off(door):
    node = door.node
    idle = Session(door)
    door.hold(code=0)
    node.ok("pg", "stop")
    new = door.waiting_client()
    refused = door.release("--wait", "300ms")
    assert refused.code != 0 and refused.reason == "GATE_TARGET" and has_hint(refused.error), refused
    assert door.state() == "held"
    node.ok("pg", "start")
    node.promote(1000)
    door.terms = 1000
    door.release(code=0)
    assert new.answer() == "served"
    assert idle.ask("SELECT 'still there'") == "still there"
    idle.close()


def test_release_leads_to_another_server(door, module_workspace):
    other_dir = module_workspace.directory("other")
    run(["cp", "-a", os.path.join(template_of(door.version, door.node.name), "data") + "/.", other_dir], as_root=True)
    other = PlainServer(door.version, other_dir, module_workspace).start()
    other.pgbench_load(scale=2)
    bench = Bench(door)
    door.hold(code=0)
    door.release(to=other, code=0)
    assert door.where() == other_dir
    gate = door.node.status()["gate"]
    assert gate["host"] == other.socket_dir and gate["port"] == other.port
    wait_for("no connection to the former server is left", lambda: door.node.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'") == "0")
    door.release(code=0)  # without a hold
    assert door.where() == door.node.data_dir
    bench.finish()
    other.stop()


def test_a_hold_ends_at_its_deadline(door):
    after = door.node.last_event_id()
    door.hold("--for", "500ms", code=0)
    client = Client(door)
    door.node.wait_event("gate.hold_expired", after=after)
    assert client.answer() == "served"
    assert door.wait_state("open")["host"] == door.node.socket_dir
    too_long = door.hold("--for", "31s")
    assert too_long.code != 0 and has_hint(too_long.error), too_long


def test_transactions_that_do_not_end_give_the_hold_up_unless_it_is_kept(door):
    busy = Session(door)
    busy.send("BEGIN")
    busy.ask("SELECT 1")
    refused = door.hold("--wait", "300ms", code=5)
    assert refused.reason == "GATE_TRANSACTIONS" and has_hint(refused.error), refused
    assert door.sql("SELECT 'open'") == "open"

    kept = door.hold("--wait", "300ms", "--keep", code=0).json
    assert kept["transactions"] == "1"
    new = door.waiting_client()
    assert busy.ask("SELECT 'goes on'") == "goes on"
    busy.send("COMMIT")
    door.node.wait_status("it is drained", lambda status: status["gate"]["transactions"] == "0")
    assert new.running()
    door.release(code=0)
    assert new.answer() == "served"
    busy.close()


def test_orders_of_old_terms_are_refused(door):
    door.terms += 10
    term = str(door.terms)
    door.node.ok("gate", "hold", "--term", term, "--orchestrator", "new")
    for command in (["hold"], ["release", door.node.socket_dir, "--port", str(door.node.port)]):
        stale = door.node.ctl("gate", *command, "--term", str(door.terms - 1), "--orchestrator", "old", code=5)
        assert stale.reason == "STALE_TERM" and has_hint(stale.error), stale
        other = door.node.ctl("gate", *command, "--term", term, "--orchestrator", "old", code=5)
        assert other.reason == "TERM_HELD", other
    assert door.state() == "held"


def test_an_agent_that_dies_leaves_the_hold_and_its_deadline(door):
    door.hold("--for", "25s", code=0)
    until, pid = door.node.status()["gate"]["held_until_time"], door.pid()
    door.node.kill_agent()
    client = Client(door)
    door.node.start_agent()
    gate = door.wait_state("held")
    assert gate["held_until_time"] == until and gate["pid"] == pid == door.pid()
    assert client.running()
    door.release(code=0)
    assert client.answer() == "served"

    door.hold("--for", "1s", code=0)
    client = Client(door)
    door.node.kill_agent()
    time.sleep(1.2)  # the deadline passes while nobody is there
    assert client.running()
    after = 0
    door.node.start_agent()
    door.node.wait_event("gate.hold_expired", after=after)
    assert client.answer() == "served"


def test_a_pgbouncer_that_is_killed_comes_back_as_it_was(door):
    after, pid = door.node.last_event_id(), door.pid()
    os.kill(pid, signal.SIGKILL)
    door.node.wait_event("gate.restarted", after=after)
    wait_for("it lets clients through", door.answers)
    assert door.pid() != pid and door.where() == door.node.data_dir

    door.hold(code=0)
    after, pid = door.node.last_event_id(), door.pid()
    os.kill(pid, signal.SIGKILL)
    door.node.wait_event("gate.restarted", after=after)
    door.wait_state("held")
    client = door.waiting_client()
    door.release(code=0)
    assert client.answer() == "served"


def test_both_are_killed_while_the_door_is_held(door):
    door.hold(code=0)
    pid = door.pid()
    door.node.kill_agent()
    os.kill(pid, signal.SIGKILL)
    wait_for("it is dead", lambda: not process.is_alive(pid))
    door.node.start_agent()
    door.wait_state("held")
    client = door.waiting_client()
    door.release(code=0)
    assert client.answer() == "served"


@pytest.mark.parametrize("order, point", [("hold", "gate.order_stored"), ("hold", "gate.paused"), ("release", "gate.order_stored"),
                                          ("release", "gate.reloaded")])
def test_an_agent_that_dies_within_an_order_carries_it_out_when_it_is_back(door, order, point):
    if order == "release":
        door.hold(code=0)
        door.node.kill_agent()
        os.kill(door.pid(), signal.SIGKILL)  # so that a release has something to reload
    door.node.restart_agent(faults=f"{point}=crash")
    door.wait_state("held" if order == "release" else "open")
    assert (door.hold if order == "hold" else door.release)().code != 0
    door.node.process.wait(20)
    door.node.start_agent()
    door.wait_state("held" if order == "hold" else "open")
    if order == "hold":
        client = door.waiting_client()
        door.release(code=0)
    else:
        client = Client(door)
    assert client.answer() == "served"


def test_a_pgbouncer_whose_agent_died_before_it_was_paused_lets_nobody_through(door):
    door.hold(code=0)
    door.node.kill_agent()
    os.kill(door.pid(), signal.SIGKILL)
    wait_for("it is dead", lambda: not door.pid())
    door.node.launch(faults="gate.launched=crash")
    door.node.process.wait(20)
    wait_for("it runs", door.pid)
    early = Client(door)
    door.node.start_agent()
    door.wait_state("held")
    client = door.waiting_client()
    assert early.running() or early.answer() != "served"
    door.release(code=0)
    assert client.answer() == "served"


def test_a_frozen_pgbouncer_is_told_and_hangs_nobody(door):
    pid = door.pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        gate = door.wait_state("down")
        assert str(pid) in gate["reason"] and has_hint(gate["reason"]), gate
        assert any(fault["fault_class"] == "gate_down" for fault in door.node.status()["faults"])
        answer = door.hold("--wait", "1s")
        assert answer.code != 0 and answer.reason == "GATE_DOWN", answer
    finally:
        os.kill(pid, signal.SIGCONT)
    door.wait_state("open")
    assert door.pid() == pid and door.sql("SELECT 'open'") == "open"
    assert not door.node.status()["faults"]


def test_a_gate_that_is_off_says_so(node):
    answer = node.ctl("gate", "hold", "--term", "1", code=5)
    assert answer.reason == "GATE_OFF" and has_hint(answer.error), answer
    assert node.ctl("gate", "release", "--term", "1", "x").reason == "GATE_OFF"
    assert node.ok("gate", "status")["state"] == "GATE_STATE_OFF"


def test_passwords_pass_through_and_an_agent_without_a_gate_ends_its_pgbouncer(workspace, pg):
    port = free_port()
    certificate, key = Authority(workspace).issue("door", "IP:127.0.0.1")
    node = Node(workspace, pg, gate={"enabled": True, "listen": f"127.0.0.1:{port}", "client_tls": "allow",
                                     "certificate": certificate, "key": key}).make_primary()
    node.ctl("gate", "release", "--term", "2", "127.0.0.1", "--port", str(node.port), code=0)
    node.sql("CREATE ROLE app LOGIN PASSWORD 'secret'")
    door = Door(node, port)

    def login(password, user="app", tls="disable"):
        return run(door.psql_arguments("-c", "SELECT current_user"), code=None,
                   env={**door.env, "PGUSER": user, "PGPASSWORD": password, "PGSSLMODE": tls, "HOME": workspace.path})
    wait_for("the role is known", lambda: login("secret").stdout == "app\n")
    assert login("secret", tls="require").stdout == "app\n"
    assert login("wrong").code != 0
    assert login("", user="postgres").code != 0, "a role without a password does not get in"
    node.sql("ALTER ROLE app PASSWORD 'another'")
    wait_for("the new password counts", lambda: login("another").stdout == "app\n")

    pid = node.pgbouncer_pid()
    node.stop_agent()
    assert process.is_alive(pid), "it outlives the agent"
    node.config["gate"]["enabled"] = False
    node.start_agent()
    wait_for("it was ended", lambda: not process.is_alive(pid))


def test_the_read_only_door_leads_to_the_standby_while_it_is_fresh(shared, workspace, pg):
    port = free_port()
    standby = Node(workspace, pg, name="standby", gate={
        "enabled": True, "listen": f"127.0.0.1:{free_port()}", "read_only_listen": f"127.0.0.1:{port}",
        "auth_type": "trust", "read_only_max_lag": "1s"}).start_agent()
    primary = shared.node
    run([pg.program("pg_basebackup"), "-D", standby.data_dir, "-R", "-c", "fast", "-h", primary.socket_dir, "-p",
         str(primary.port), "-U", "postgres"])
    standby.ok("pg", "start")
    readers = Door(standby, port)

    def readers_are(state):
        return standby.wait_status(f"the door is {state}", lambda status: status["gate"].get("read_only", {}).get("state") ==
                                   f"READ_ONLY_DOOR_STATE_{state.upper()}", 30)["gate"]["read_only"]
    readers_are("open")
    wait_for("readers are let in", readers.answers)
    assert readers.sql("SELECT pg_is_in_recovery()") == "t"
    session = Session(readers)

    standby.sql("SELECT pg_wal_replay_pause()")
    stop = time.monotonic() + 60
    while time.monotonic() < stop:  # something to be behind of
        primary.sql("CREATE TABLE IF NOT EXISTS beat (a int); INSERT INTO beat VALUES (1)")
        if standby.status()["gate"]["read_only"]["state"] == "READ_ONLY_DOOR_STATE_CLOSED":
            break
    assert "limit" in readers_are("closed")["reason"]
    refused = readers.sql("SELECT 1", code=None)
    assert refused.code != 0 and "query_wait_timeout" in refused.stderr, refused
    assert "query_wait_timeout" in session.ask("SELECT 1")
    session.close()

    standby.sql("SELECT pg_wal_replay_resume()")
    readers_are("open")
    assert readers.sql("SELECT 1") == "1"
