"""How long clients wait while the primary of a shard of three changes: planned, planned with a failing archive, and after the
primary was killed. Beside it, in the same call and under the same load, the script that everybody writes first (tools/naive.py)."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import psycopg2

from tools.naive import NaivePair

from . import process, writers
from .failover_report import PARTS, report
from .process import CommandFailed, say
from .writers import Writers

SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "2GB", "checkpoint_timeout": "1h"}
CLIENTS = 6            # two at each door of Metal
PGBENCH_CLIENTS = 4
WARM_S, QUIET_S = 1.0, 0.3
HEALTHY_S = 90
WATCH_EVERY_S = 0.1


def measure(root, build_dir, bindir, version, runs, scale):
    """The report's figures. Uses the tests' harness: the same nodes and the same shard as in tests/integration."""
    os.environ["METAL_BUILD_DIR"] = str(build_dir)
    sys.path.insert(0, str(root / "tests"))
    from harness import postgres, workspace
    from harness.ledger import Violation
    place = workspace.Workspace()
    try:
        bench = Bench(place, postgres.Version(version, str(bindir)), scale)
        return bench.measure(runs)
    # Of the harness, of a client: something that a run needs did not happen.
    except (AssertionError, Violation, psycopg2.Error) as failure:
        raise CommandFailed(f"failover: {failure}") from failure
    finally:
        place.close()


class Bench:
    def __init__(self, place, version, scale):
        from harness import workspace
        from harness.three_nodes import Shard
        self._place, self._version, self._ids = place, version, 0
        self.shard = Shard(place, version)
        for node in self.shard.nodes.values():
            node.door = workspace.free_port()
            node.config["gate"] = {"enabled": True, "listen": f"127.0.0.1:{node.door}", "auth_type": "trust"}
            node.config["agent"]["log_level"] = "info"
            for section in ("backup", "disk"):  # as they are by default, not as tests want them
                del node.config[section]
        say("making the shard, and the two servers of the script")
        self.shard.start_agents()
        self.shard.ok("init", "--set", *(f"{name}={value}" for name, value in SETTINGS.items()))
        self.shard.wait_healthy(HEALTHY_S)
        self.naive = NaivePair(place.directory("naive"), pathlib.Path(version.bin_dir), "postgres",
                               [workspace.free_port() for _ in range(3)], {**SETTINGS, "fsync": "on"})
        place.at_end(self.naive.close)
        self.naive.start()
        from harness.ledger import PREPARE
        self.shard.primary().sql(PREPARE)  # for the watch
        for port in (self.shard.primary().door, self.naive.port):
            self._pgbench("-i", "-q", "-s", scale, port=port)
            writers.connect("127.0.0.1", port).cursor().execute(writers.PREPARE)

    def _pgbench(self, *words, port):
        return subprocess.run([self._version.program("pgbench"), *map(str, words), "-h", "127.0.0.1", "-p", str(port), "-U",
                               "postgres", "postgres"], check=True, capture_output=True, cwd="/")

    def measure(self, runs):
        planned, emergency = {}, []
        for part in PARTS[:2]:
            fails = part == "planned_failing_archive"
            self._fail_archive(fails)
            planned[part] = {"metal": [], "naive": []}
            for number in range(1, runs + 1):
                for who, body in (("metal", self._planned), ("naive", self._planned_naive)):
                    run = body(fails)
                    say(f"{part} {number} of {runs}: {who}: stall {run['stall_s']:.3f} s, {run['client_errors']} errors")
                    planned[part][who].append(run)
        self._fail_archive(False)
        for number in range(1, runs + 1):
            run = self._emergency()
            say(f"emergency {number} of {runs}: first write after {run['first_write_s']:.3f} s, "
                f"{run['lost_acknowledged']} lost; whole again in {run['recover_s']:.1f} s")
            emergency.append(run)
        return report(planned, emergency)

    def _fail_archive(self, fails):
        self.naive.fail_archive(fails)
        for node in self.shard.nodes.values():
            node.sql("ALTER SYSTEM SET archive_command = 'false'" if fails else "ALTER SYSTEM RESET archive_command")
            node.sql("SELECT pg_reload_conf()")

    def _writers(self, doors):
        self._ids += 1
        return Writers([("127.0.0.1", port) for port in doors], CLIENTS, self._ids << 32)

    def _load(self, door):
        return Load(self._version, os.path.join(self._place.path, "pgbench.log"), door)

    # ---- planned ----

    def _under_load(self, doors, change):
        """Runs `change` while writers and pgbench work; the run's figures."""
        clients, load = self._writers(doors), self._load(doors[0])
        try:
            clients.start()
            clients.wait_served(time.monotonic() + WARM_S)
            load.check()
            began = time.monotonic()
            steps = change()
            took = time.monotonic() - began
            clients.wait_served(time.monotonic() + QUIET_S)
        finally:
            load_errors = load.end()
            clients.stop()
        return clients, {"stall_s": clients.longest_stall(), "silence_s": clients.longest_silence(),
                         "client_errors": len(clients.errors) + len(load_errors), "errors": (clients.errors + load_errors)[:5],
                         "command_s": took, "acknowledged": len(clients.ids()), "steps": steps}

    def _planned(self, fails):
        shard = self.shard
        self._wait_whole(fails)
        if fails:
            shard.primary().sql("SELECT pg_switch_wal()")  # something to archive
        watch = self._watch()
        try:
            clients, run = self._under_load([node.door for node in shard.nodes.values()],
                                            lambda: _seconds_of_steps(shard.ok("reparent")))
        finally:
            watch.stop()
        return {**run, **self._judge(clients, watch)}

    def _planned_naive(self, fails):
        if fails:
            self.naive.sql("SELECT pg_switch_wal()")
        clients, run = self._under_load([self.naive.port], self.naive.switch_over)
        run["lost_acknowledged"] = len(writers.missing(clients.ids(), self.naive.sql))
        self.naive.rejoin()
        return run

    # ---- emergency ----

    def _emergency(self):
        """Postmaster and agent of the primary are killed; its host's door is lost with them, so clients use the others."""
        shard = self.shard
        self._wait_whole(False)
        lost = shard.primary()
        doors = [node.door for node in shard.nodes.values() if node is not lost]
        watch, clients = self._watch(), self._writers(doors)
        try:
            clients.start()
            clients.wait_served(time.monotonic() + WARM_S)
            lost.kill_agent()
            os.kill(lost.pid(), signal.SIGKILL)
            killed = time.monotonic()
            while time.monotonic() - clients.last() < QUIET_S:  # sessions of a killed postmaster end by themselves
                if time.monotonic() - killed > HEALTHY_S:
                    raise CommandFailed(f"failover: clients are still served {HEALTHY_S} s after the primary was killed")
                time.sleep(0.01)
            began = time.monotonic()
            answer = shard.ok("failover")
            took = time.monotonic() - began
            clients.wait_served(time.monotonic())
        finally:
            clients.stop()
            watch.stop()
        run = {"first_write_s": clients.first_after(began), "command_s": took, "acknowledged": len(clients.ids()),
               "client_errors": len(clients.errors), "steps": _seconds_of_steps(answer, [lost.name]), **self._judge(clients, watch)}
        return {**run, **self._make_whole(lost)}

    def _make_whole(self, lost):
        """The lost node comes back with its old order, and `shard recover` makes it follow, by a rewind where it must."""
        lost.start_agent()
        began, tries = time.monotonic(), []
        while True:
            answer = self.shard.ctl("recover")
            steps = (answer.json or {}).get("steps", [])
            tries.append({"code": answer.code, "rejoin": [step for step in steps if step["nodes"] == lost.name]})
            if answer.code == 0 and not answer.json["left_behind"]:
                break
            if time.monotonic() - began > HEALTHY_S:
                raise CommandFailed(f"failover: {lost.name} was not made to follow: {answer!r}")
        took = time.monotonic() - began
        rejoined = [step["result"] for step in tries[-1]["rejoin"] if step["name"] == "rejoin"]
        return {"recover_s": took, "rewound": any("rewound" in each for each in rejoined), "recover": tries}

    # ---- what all need ----

    def _wait_whole(self, fails):
        """As an operator would look before a change. That the archive fails is said, and is no obstacle."""
        from harness.process import wait_for
        found = {}

        def whole():
            found["last"] = {each for each in self.shard.findings() if not (fails and each[0] in ("archive_failing", "node_fault"))}
            return not found["last"]
        try:
            wait_for("the shard is whole", whole, HEALTHY_S, 0.1)
        except AssertionError as failure:
            raise CommandFailed(f"failover: the shard is not whole before a run: {found['last']}") from failure

    def _watch(self):
        from harness.ledger import WriteWatch
        return WriteWatch({node.name: ("127.0.0.1", node.port) for node in self.shard.nodes.values()}, WATCH_EVERY_S).start()

    def _judge(self, clients, watch):
        return {"double_primaries": double_primaries(watch),
                "lost_acknowledged": len(writers.missing(clients.ids(), self.shard.primary().sql))}


def double_primaries(watch):
    """1 when two servers took writes. A watch that saw nobody write is no figure but a run that failed."""
    from harness.ledger import Violation
    try:
        watch.check()
    except Violation as violation:
        say(f"failover: {violation}")
        return 1
    return 0


class Load:
    """pgbench through a door, as many transactions as go."""

    def __init__(self, version, log, door):
        self._log = log
        with open(log, "wb") as output:
            self._pgbench = subprocess.Popen(
                [version.program("pgbench"), "-n", "-c", str(PGBENCH_CLIENTS), "-T", "3600", "-h", "127.0.0.1", "-p",
                 str(door), "-U", "postgres", "postgres"], cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def check(self):
        if self._pgbench.poll() is not None:
            raise CommandFailed(f"pgbench ended early\n{process.tail(self._log)}")

    def end(self):
        """Stops it; the errors of its clients, of which each ends one."""
        ended = self._pgbench.poll() is not None
        process.stop(self._pgbench)
        said = process.tail(self._log, 100)
        errors = [line for line in said.splitlines() if re.search(r"abort|error|fatal", line, re.IGNORECASE)]
        return errors or (["pgbench ended"] if ended else [])


def _seconds_of_steps(answer, lost=()):
    """Seconds of each step; of one that several nodes took, the longest. Nobody but the `lost` may be left behind."""
    if set(answer["left_behind"]) - set(lost):
        raise CommandFailed(f"failover: {answer['procedure']} left {answer['left_behind']} behind")
    steps = {}
    for step in answer["steps"]:
        steps[step["name"]] = max(steps.get(step["name"], 0.0), step["seconds"])
    return steps
