"""Node: one agent with its configuration, its PostgreSQL and its repository, and metalctl to talk to it."""
import atexit
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import socket
import time

from harness import process
from harness.postgres import Database, postmaster_pid
from harness.process import run, wait_for
from harness.workspace import ROOT, Workspace, free_port

BIN = os.path.join(os.environ.get("METAL_BUILD_DIR", os.path.join(ROOT, "build/dev")), "bin")


class Answer:
    """What one metalctl call gave: exit code, parsed JSON (None when there is none), both outputs."""

    def __init__(self, result):
        self.code, self.stdout, self.stderr = result.code, result.stdout, result.stderr
        try:
            self.json = json.loads(result.stdout)
        except ValueError:
            self.json = None
        self._command = " ".join(map(str, result.arguments[1:]))

    def __repr__(self):
        said = self.error.strip() or self.stdout[-1500:]
        return f"metalctl {self._command}\nexit {self.code} {self.reason}\n{said}"

    @property
    def error(self):
        """The error's text with its hint: of the call, or of the operation that it followed. Other words as they came."""
        said = []
        for line in self.stderr.splitlines():
            found = _error_in(line)
            if found is None:
                said += [] if line.startswith(('{"progress"', '{"note"', '{"step"')) else [line]
            else:
                said.append(found["message"] + (f"\nHINT: {found['hint']}" if found["hint"] else ""))
        return "\n".join(said)

    @property
    def reason(self):
        """Reason of the error; empty when it has none."""
        return next((found["reason"] for found in map(_error_in, self.stderr.splitlines()) if found), "")


def _error_in(line):
    """The error that a line of standard error holds, or None."""
    if not line.startswith('{"error":'):
        return None
    return json.loads(line)["error"]


class Node(Database):
    """Directories below the workspace: NAME/data, NAME/state, NAME/run, and `repository` shared by all nodes of it."""

    def __init__(self, workspace, version, name="node", data_dir=None, **config):
        self.workspace, self.name = workspace, name
        self.root = workspace.directory(name, 0o755)
        self.state = workspace.directory(f"{name}/state")
        self.run_dir = workspace.directory(f"{name}/run", 0o755)
        self.repository = workspace.directory("repository")
        super().__init__(version, self.run_dir, free_port(), data_dir or os.path.join(self.root, "data"))
        self.endpoint = f"unix:{self.run_dir}/agent.sock"
        self.log = os.path.join(self.root, "agent.log")
        self.port_file = os.path.join(self.run_dir, "address")
        self.config = {
            "agent": {"node_id": name, "cluster_id": "test", "state_dir": self.state, "os_user": process.USER,
                      "socket": f"{self.run_dir}/agent.sock", "wal_socket": f"{self.run_dir}/wal.sock",
                      "listen": "127.0.0.1:0", "port_file": self.port_file, "log_level": "debug"},
            "postgres": {"bin_dir": version.bin_dir, "data_dir": self.data_dir, "socket_dir": self.run_dir, "port": self.port},
            "repository": {"path": self.repository},
            "backup": {"memory": "64MiB"},
            # The machine's rules are not ours.
            "disk": {"probe_enabled": False, "reserve": "0B", "cut_clients": False},
            "recorder": {"size": "2MiB"},
        }
        for section, options in config.items():
            self.config.setdefault(section, {}).update(options)
        self.roles = []  # [[tls.role]] tables
        self.process = None
        self.enter = []  # words before the agent's command: where it is to run
        self.agent_env = {}
        workspace.at_end(self.close)

    # ---- the agent ----

    def write_config(self):
        lines = []
        for section, options in self.config.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in options.items() if not isinstance(value, dict)]
            for key, table in options.items():
                if isinstance(table, dict):
                    lines += [f"[{section}.{key}]", *[f"{name} = {json.dumps(value)}" for name, value in table.items()]]
        for role in self.roles:
            lines += ["[[tls.role]]", *[f"{key} = {json.dumps(value)}" for key, value in role.items()]]
        return self.workspace.file(f"{self.name}/agent.toml", "\n".join(lines) + "\n")

    def launch(self, faults="", trace="", pause="", env=None):
        """Starts the agent without waiting for it."""
        faulty = {"METAL_FAULT_POINTS": faults, "METAL_FAULT_TRACE": trace, "METAL_FAULT_PAUSE_FILE": pause}
        self.process = process.spawn([*self.enter, f"{BIN}/metal-agent", "--config", self.write_config()], self.log, as_root=True,
                                     env={**self.agent_env, **{key: value for key, value in faulty.items() if value},
                                          **(env or {})})

    def start_agent(self, **options):
        self.launch(**options)

        def ready():
            if self.process.poll() is not None:
                raise process.CommandFailed(f"the agent ended with {self.process.returncode}:\n{self.log_text()[-3000:]}")
            return listens(self.config["agent"]["socket"]) and self.ctl("status", timeout=2).code == 0
        wait_for("the agent answers", ready, 20)
        return self

    def agent_start_fails(self, **options):
        """Expects the agent to refuse to run; returns what it said."""
        before = len(self.log_text()) if os.path.exists(self.log) else 0
        self.launch(**options)
        code = self.process.wait(20)
        said = self.log_text()[before:]
        assert code != 0, said
        return said

    def stop_agent(self):
        code = process.end(self.process, signal.SIGTERM, 30)
        assert code == 0, f"the agent ended with {code} after SIGTERM:\n{self.log_text()[-3000:]}"

    def kill_agent(self):
        process.end(self.process, signal.SIGKILL)

    def restart_agent(self, **options):
        if self.process.poll() is None:
            self.stop_agent()
        return self.start_agent(**options)

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def pgbouncer_pid(self, door=""):
        """Of the door for clients, or with "read-only" that for readers; 0 when it does not run."""
        place = os.path.join(self.state, "gate", door)
        try:
            with open(os.path.join(place, "pgbouncer.pid"), encoding="utf-8") as file:
                pid = int(file.read())
            with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
                ours = os.path.join(place, "pgbouncer.ini") in file.read().split("\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return 0
        return pid if ours else 0

    def close(self):
        """Ends the agent, PgBouncer and PostgreSQL, all by pid."""
        if self.process:
            process.end(self.process, signal.SIGTERM, 10)
        for door in filter(None, map(self.pgbouncer_pid, ("", "read-only"))):
            os.kill(door, signal.SIGKILL)
        pid = postmaster_pid(self.data_dir)
        if pid:
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGQUIT)
            try:
                wait_for("PostgreSQL ended", lambda: not process.is_alive(pid), 15)
            except AssertionError:
                os.kill(pid, signal.SIGKILL)
        for group in glob.glob(f"/sys/fs/cgroup/metal-postgres-{self.port}-*") + glob.glob(
                f"/sys/fs/cgroup/unified/metal-postgres-{self.port}-*"):
            with contextlib.suppress(OSError):  # the next server of the port takes it away
                os.rmdir(group)

    # ---- metalctl ----

    def ctl_arguments(self, *arguments, endpoint=None):
        return [f"{BIN}/metalctl", "--endpoint", endpoint or self.endpoint, *arguments]

    def ctl(self, *arguments, code=None, timeout=180, endpoint=None):
        """metalctl -o json as the tests' own user. `code`: the exit code that must come."""
        command = self.ctl_arguments("-o", "json", *arguments, endpoint=endpoint)
        result = run(command, code=None, as_root=True, timeout=timeout)
        answer = Answer(result)
        if code is not None and answer.code != code:
            raise process.CommandFailed(f"expected exit {code}: {answer!r}")
        return answer

    def ok(self, *arguments, **options):
        """metalctl that must succeed; its JSON."""
        return self.ctl(*arguments, code=0, **options).json

    def status(self):
        return self.ok("status")

    def postgres_state(self):
        return self.status()["postgres"]["state"].removeprefix("POSTGRES_STATE_").lower()

    def wait_status(self, what, condition, timeout=20.0):
        """Waits until `condition(status)` holds; returns that status."""
        found = {}

        def check():
            found["status"] = self.status()
            return condition(found["status"])
        wait_for(what, check, timeout, 0.1)
        return found["status"]

    def wait_running(self, timeout=30.0):
        return self.wait_status("PostgreSQL runs", lambda status: status["postgres"]["state"] == "POSTGRES_STATE_RUNNING", timeout)

    def events(self, type_prefix="", after=0):
        """Events as a list of dictionaries, oldest first."""
        answer = self.ctl("events", "-n", "10000", "--after", str(after), *(["--type", type_prefix] if type_prefix else []), code=0)
        return [json.loads(line) for line in answer.stdout.splitlines() if line.strip()]

    def last_event_id(self):
        return max((int(each["id"]) for each in self.events()), default=0)

    def wait_event(self, event_type, after=0, timeout=20.0):
        def find():
            return [each for each in self.events(after=after) if each["type"] == event_type]
        return wait_for(f"event {event_type}", find, timeout, 0.1)[-1]

    def operations(self, kind=""):
        """Newest first."""
        return [each for each in self.ok("op", "list", "-n", "200").get("operations", []) if not kind or each["kind"] == kind]

    def detach(self, *arguments):
        """Starts a long operation and returns its name."""
        return self.ok(*arguments, "--detach")["name"]

    def operation(self, name):
        return self.ok("op", "show", name)

    def wait_operation(self, name, timeout=120.0):
        def final():
            found = self.operation(name)
            return found if found["state"] not in ("OPERATION_STATE_PENDING", "OPERATION_STATE_RUNNING") else None
        return wait_for(f"{name} ends", final, timeout, 0.1)

    # ---- the life of a node ----

    def init(self, *arguments, **options):
        return self.ok("pg", "init", *arguments, **options)

    def make_primary(self):
        """Starts the agent and has a cluster that accepts writes under term 1. Without a wal_dir it is a copy of one that
        was made the same way before: initdb and its syncs are the slowest part of most tests."""
        if self.process:
            self.create_primary()
            return self
        if "wal_dir" in self.config["postgres"]:
            self.start_agent().create_primary()
            return self
        template = template_of(self.version, self.name)
        for source, target in ((f"{template}/data", self.data_dir), (f"{template}/../repository", self.repository)):
            os.makedirs(target, exist_ok=True)
            run(["cp", "-a", f"{source}/.", target], as_root=True)
        run(["cp", "-a", f"{template}/term", os.path.join(self.state, "term")], as_root=True)
        self.start_agent()
        self.ok("pg", "start")
        return self

    def create_primary(self):
        """With initdb, by the agent that runs."""
        self.init("--set", "shared_buffers=32MB", "max_wal_size=256MB", "fsync=off")
        self.ok("pg", "start")
        self.promote(1)

    def promote(self, term):
        self.ok("term", "begin", str(term))
        self.ok("promote", "--term", str(term))

    def backup(self, *arguments, **options):
        return self.ok("backup", "create", *arguments, **options)

    def restore(self, target, *arguments, name="latest", code=0):
        self.workspace.at_end(lambda: shutil.rmtree(target, ignore_errors=True))
        return self.ctl("backup", "restore", name, "--target", target, *arguments, code=code).json

    def system_identifier(self):
        return self.ok("pg", "control")["system_identifier"]

    def repository_files(self):
        """Relative paths of all files in the repository."""
        found = set()
        for directory, _, files in os.walk(self.repository):
            found.update(os.path.relpath(os.path.join(directory, each), self.repository) for each in files)
        return found

    def backups(self):
        return [each["summary"]["name"] for each in self.ok("backup", "list").get("backups", [])]

    def switch_wal(self):
        """Ends the present WAL segment with at least one record in it; returns that segment's name."""
        return self.sql("SELECT pg_logical_emit_message(false, 'test', 'x') IS NULL; "
                        "SELECT pg_walfile_name(pg_current_wal_lsn()); SELECT pg_switch_wal() IS NULL").splitlines()[1]


_templates = {}


def listens(path):
    """Whether somebody accepts connections at the Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def template_of(version, name):
    """A directory with the data and the term of a primary that was stopped; made once for each version and name of a node: whose
    term 1 was is part of the cluster."""
    key = version.name, name
    if key not in _templates:
        workspace = Workspace()
        atexit.register(workspace.close)
        node = Node(workspace, version, name=name).start_agent()
        node.create_primary()
        node.ok("pg", "stop")
        node.stop_agent()
        os.rename(os.path.join(node.state, "term"), os.path.join(node.root, "term"))
        _templates[key] = node.root
    return _templates[key]


def seconds(duration):
    """"1.500s" of protobuf JSON → 1.5; None when unset."""
    return None if duration is None else float(duration.rstrip("s"))


def lsn_number(text):
    """"0/16B3748" → number."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def elapsed(action):
    """Seconds that `action` took, and its value."""
    begin = time.monotonic()
    value = action()
    return time.monotonic() - begin, value


def has_hint(text):
    return re.search(r"HINT: \S", text) is not None
