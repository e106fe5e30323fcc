"""deploy/quickstart does the main job, and an interruption, a second caller, dead agents and stale files do no harm.
It runs the programs under test: nothing is built here."""
import os
import shutil
import signal
import subprocess

import pytest

from harness import process
from harness.node import BIN
from harness.process import run, spawn, wait_for
from harness.workspace import ROOT

QUICKSTART = os.path.join(ROOT, "deploy/quickstart")


class Demo:
    """A directory of quickstart."""

    def __init__(self, workspace, script=QUICKSTART, as_root=True):
        self.script, self.as_root = script, as_root
        self.path = os.path.join(workspace.path, "demo")
        self.log = os.path.join(workspace.path, "quickstart.log")
        workspace.at_end(lambda: self.call("--clean", code=None))

    def arguments(self, *options):
        return [self.script, "--dir", self.path, *options]

    def call(self, *options, code=0):
        result = run(self.arguments(*options), code=code, as_root=self.as_root, timeout=120)
        return result.stdout + result.stderr

    def run_all(self, **options):
        return self.call("--size", "tiny", "--build", BIN, **options)

    def begin(self):
        return spawn(self.arguments("--size", "tiny", "--build", BIN), self.log, as_root=True)

    def said(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read()

    def processes(self, name):
        """Pids of programs of this name that were started with this directory in their arguments."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            if os.path.basename(words[0]) == name and self.path in " ".join(words):
                found.append(int(pid))
        return found

    def number(self, name):
        with open(os.path.join(self.path, name), encoding="utf-8") as file:
            return int(file.readline())


@pytest.fixture
def demo(workspace):
    return Demo(workspace)


def interrupted_during_the_backup(demo):
    """A first run that Ctrl-C ends while pgbench runs; meanwhile a second one is refused."""
    first = demo.begin()
    wait_for("pgbench runs", lambda: "Backup while" in demo.said() and demo.processes("pgbench"), 60)
    refused = demo.run_all(code=1)
    assert f"another quickstart, pid {first.pid}, works in {demo.path}" in refused and "HINT: " in refused
    os.killpg(first.pid, signal.SIGINT)
    assert first.wait(30) == 130, demo.said()
    wait_for("pgbench ended", lambda: not demo.processes("pgbench"), 5)
    assert "interrupted" in demo.said() and "run on" in demo.said()
    assert process.is_alive(demo.number("agent.pid"))


def test_quickstart_proves_the_copy_and_is_harmless_to_repeat(demo, pg):
    interrupted_during_the_backup(demo)
    psql = [pg.program("psql"), "-Xq", "-h", f"{demo.path}/run", "-p", str(demo.number("port")), "-U", "postgres", "-c"]
    run([*psql, "create database bench_loading"])  # as an interrupted load leaves it
    run([*psql, "drop database bench"])

    output = demo.run_all()
    assert "all 6 tables are equal" in output and "backup successfully verified" in output, output
    assert "is there already" not in output
    assert "does not exist" in run([*psql, "drop database bench_loading"], code=1).stderr
    assert not demo.processes("pgbench") and process.is_alive(demo.number("data/postmaster.pid"))

    # An agent that died leaves a server; --stop finds it.
    os.kill(demo.number("agent.pid"), signal.SIGKILL)
    postmaster = demo.number("data/postmaster.pid")
    assert "no agent was running" in demo.call("--stop")
    assert not process.is_alive(postmaster)

    # Files that name a living stranger do not make it a server of ours.
    for name in ("data/postmaster.pid", "agent.pid"):
        with open(os.path.join(demo.path, name), "w", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n{demo.path}/data\n")
    assert "nothing is running" in demo.call("--stop")

    # Nothing is removed under a program that works in the directory, whatever its files say.
    shutil.copy("/usr/bin/sleep", f"{demo.path}/bin/metal-sleep")
    sleeper = subprocess.Popen([f"{demo.path}/bin/metal-sleep", "60"], start_new_session=True)
    try:
        assert f"{sleeper.pid} metal-sleep" in demo.call("--clean", code=1)
        assert os.path.exists(f"{demo.path}/data/PG_VERSION")
    finally:
        process.end(sleeper, signal.SIGKILL)
    assert f"removed {demo.path}" in demo.call("--clean")
    assert not os.path.exists(demo.path)


def test_quickstart_leaves_directories_of_others_alone(demo):
    os.mkdir(demo.path)
    with open(os.path.join(demo.path, "precious"), "w", encoding="utf-8") as file:
        file.write("mine")
    assert "was not made by quickstart" in demo.run_all(code=1)
    assert "was not made by quickstart" in demo.call("--clean", code=1)
    assert os.listdir(demo.path) == ["precious"]
    os.unlink(os.path.join(demo.path, "precious"))


@pytest.mark.skipif(not process.IS_ROOT, reason="the other tests run as an ordinary user then")
def test_quickstart_as_an_ordinary_user(workspace):
    """With the packages there; the checkout itself may be one that the user cannot enter."""
    shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(workspace.path, "tree/deploy"))
    demo = Demo(workspace, os.path.join(workspace.path, "tree/deploy/quickstart"), as_root=False)
    output = demo.run_all()
    assert "all 6 tables are equal" in output and f"runs as {process.USER}" in output, output
    for said in ("WAL", "archive", "DISK", "RATIO", "RATE", "ENGINE", "METAL_ENDPOINT="):
        assert said in output, (said, output)
    agent, server = demo.number("agent.pid"), demo.number("data/postmaster.pid")
    again = demo.run_all()
    assert f"is running already, pid {agent}" in again and "is there already: scale" in again, again
    assert "all 6 tables are equal" in again and demo.number("data/postmaster.pid") == server, again
    assert f"removed {demo.path}" in demo.call("--clean")
    assert not demo.processes("metal-agent") and not os.path.exists(demo.path)
