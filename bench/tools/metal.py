"""Metal: the agent with its own server over the benchmark's data directory, driven by metalctl."""

import json
import shutil
import subprocess
import time

from measure import process
from measure.meter import Meter, tree_bytes

START_TIMEOUT_S = 60


class Metal:
    """One codec of Metal: "zstd" or "lz4", level 1. The agent runs during a run and not between runs."""

    name = "metal"

    def __init__(self, bench, codec):
        self.codec = codec
        self._bench = bench
        self._dir = bench.scratch(f"metal-{codec}")
        self._repository = self._dir / "repository"
        self._socket = f"{bench.server.socket_dir}/agent-{codec}.sock"
        self._config = self._dir / "agent.toml"
        self._agent = None
        self._backup_name = None
        state = self._dir / "state"
        state.mkdir()
        shutil.chown(state, bench.user)
        self._config.write_text(f"""[agent]
state_dir = "{state}"
socket = "{self._socket}"
wal_socket = "{bench.server.socket_dir}/wal-{codec}.sock"
os_user = "{bench.user}"

[postgres]
data_dir = "{bench.server.data}"
bin_dir = "{bench.bindir}"
socket_dir = "{bench.server.socket_dir}"
port = 5432

[repository]
path = "{self._repository}"

[backup]
codec = "{codec}"
level = 1
""")
        self._config.chmod(0o644)

    @staticmethod
    def version(bench):
        return process.output_of([bench.metal_bindir / "metalctl", "--version"], bench.user, "/").split()[-1]

    def _ctl(self, *words):
        return [self._bench.metal_bindir / "metalctl", "--endpoint", f"unix:{self._socket}", *words]

    def _call(self, *words):
        process.check(self._ctl(*words), self._bench.user, self._dir, self._bench.log)

    def _status(self):
        return process.output_of(self._ctl("-o", "json", "pg", "status"), self._bench.user, self._dir)

    def _start_agent(self):
        with open(self._bench.log, "ab") as log:
            self._agent = subprocess.Popen([self._bench.metal_bindir / "metal-agent", "--config", self._config],
                                           cwd=self._dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return self._status()
            except process.CommandFailed as failure:
                if self._agent.poll() is not None:
                    raise process.CommandFailed(f"metal-agent ended\n{process.tail(self._bench.log)}") from failure
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _stop_agent(self):
        if self._agent:
            process.stop(self._agent)
            self._agent = None

    def _become_primary(self):
        """The agent starts an existing data directory as a standby until a term makes it the primary."""
        self._bench.server.configure()
        first = not (self._dir / "promoted").exists()
        if first:
            self._call("term", "begin", "1")
        self._call("pg", "start")
        if first:
            self._call("promote", "--term", "1")
            (self._dir / "promoted").touch()
        self._bench.server.check_settings()

    @property
    def pid(self):
        return self._agent.pid

    def command(self, *words):
        return self._ctl(*words)

    def start(self):
        """The agent with its server as the primary, left running."""
        self._prepare_repository()
        self._start_agent()
        self._become_primary()

    def stop(self):
        """Ends what start() started."""
        try:
            self._call("pg", "stop")
        finally:
            self._stop_agent()
            self._bench.server.stop()

    def _prepare_repository(self):
        """An empty one; the agent must not expect the old one."""
        shutil.rmtree(self._repository, ignore_errors=True)
        (self._dir / "state/repository.id").unlink(missing_ok=True)
        self._repository.mkdir()
        shutil.chown(self._repository, self._bench.user)

    def backup(self):
        """A full backup into an empty repository."""
        bench, server = self._bench, self._bench.server
        self._prepare_repository()
        self._start_agent()
        try:
            self._become_primary()
            run = Meter(daemons=[self._agent.pid], postmaster=server.postmaster()).run(
                self, self._ctl("backup", "create", "--codec", self.codec, "--level", "1"), bench.user, self._dir,
                bench.log)
            self._backup_name = self._last_backup()
            self._call("pg", "stop")
        finally:
            self._stop_agent()
            server.stop()
        run.bytes, run.stored_bytes = bench.database_bytes, tree_bytes(self._repository)
        return run

    def _last_backup(self):
        listing = json.loads(process.output_of(self._ctl("-o", "json", "backup", "list"), self._bench.user, self._dir))
        return listing["backups"][0]["summary"]["name"]  # newest first

    def restore(self, target):
        """Restores the last backup into the empty directory `target`."""
        self._start_agent()
        try:
            run = Meter(daemons=[self._agent.pid]).run(
                self, self._ctl("backup", "restore", self._backup_name, "--target", target), self._bench.user,
                self._dir, self._bench.log)
        finally:
            self._stop_agent()
            self._bench.server.stop()  # in case that the agent started it
        run.stored_bytes = tree_bytes(self._repository)
        return run

    def close(self):
        self._stop_agent()
