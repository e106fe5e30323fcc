"""One metal-agent of a benchmark, started and stopped by us, and metalctl to talk to it."""

import json
import shutil
import subprocess
import time

from measure import process

START_TIMEOUT_S = 60
TERM = 1


class Agent:
    """`name` keeps its files and sockets apart from other agents'; `data_dir` is what it manages, `port` its server's.
    `sections`: more of its configuration, {section: {option: value}}; the state directory is new. No heartbeat is written
    unless `sections` say so: copies are compared with their source."""

    def __init__(self, bench, name, data_dir, port=5432, sections=None, roles=()):
        self._bench = bench
        self.dir = bench.scratch(name)
        self.state_dir = self.dir / "state"
        self.state_dir.mkdir()
        shutil.chown(self.state_dir, bench.user)
        self.socket = f"{bench.server.socket_dir}/{name}.sock"
        self._config = self.dir / "agent.toml"
        self._process = None
        self._roles = roles
        self._leads = False
        self._own = {"agent": {"node_id": name, "state_dir": str(self.state_dir), "socket": self.socket,
                            "wal_socket": f"{bench.server.socket_dir}/{name}-wal.sock", "os_user": bench.user},
                  "postgres": {"data_dir": str(data_dir), "bin_dir": str(bench.bindir),
                               "socket_dir": str(bench.server.socket_dir), "port": port, "heartbeat_interval": "0s"}}
        self.configure(sections or {})

    def configure(self, sections):
        """Writes the configuration of the next start."""
        config = {section: dict(options) for section, options in self._own.items()}
        for section, options in sections.items():
            config.setdefault(section, {}).update(options)
        lines = []
        for section, options in config.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in options.items())]
        for role in self._roles:
            lines += ["[[tls.role]]", *(f"{key} = {json.dumps(value)}" for key, value in role.items())]
        self._config.write_text("\n".join(lines) + "\n")
        self._config.chmod(0o644)

    @property
    def pid(self):
        return self._process.pid

    def command(self, *words):
        return [self._bench.metal_bindir / "metalctl", "--endpoint", f"unix:{self.socket}", *words]

    def call(self, *words):
        process.check(self.command(*words), self._bench.user, self.dir, self._bench.log)

    def ask(self, *words):
        """What metalctl says as JSON."""
        return json.loads(process.output_of(self.command("-o", "json", *words), self._bench.user, self.dir))

    def start(self):
        with open(self._bench.log, "ab") as log:
            self._process = subprocess.Popen([self._bench.metal_bindir / "metal-agent", "--config", self._config],
                                             cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.ask("pg", "status")
                return
            except process.CommandFailed as failure:
                if self._process.poll() is not None:
                    raise process.CommandFailed(f"metal-agent ended\n{process.tail(self._bench.log)}") from failure
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def stop(self):
        if self._process:
            process.stop(self._process)
            self._process = None

    def lead(self):
        """Its server runs as the primary, in term 1: an existing data directory is started as a standby until a term orders
        otherwise."""
        if not self._leads:
            self.call("term", "begin", TERM)
        self.call("pg", "start")
        if not self._leads:
            self.call("promote", "--term", TERM)
            self._leads = True
            self._bench.server.freeze()  # the rows that the agent wrote for itself
