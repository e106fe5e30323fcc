"""Metal: the agent with its own server over the benchmark's data directory, driven by metalctl."""

import shutil

from measure import process
from measure.meter import Meter, tree_bytes

from .agent import Agent


class Metal:
    """One codec of Metal: "zstd" or "lz4", level 1. The agent, one for all codecs, runs during a run and not between runs."""

    name = "metal"

    def __init__(self, bench, codec):
        self.codec = codec
        self._bench = bench
        if bench.agent is None:
            bench.agent = Agent(bench, "metal", bench.server.data)
        self._agent = bench.agent
        self._repository = bench.repository(f"metal-{codec}")
        self._backup_name = None

    @staticmethod
    def version(bench):
        return process.output_of([bench.metal_bindir / "metalctl", "--version"], bench.user, "/").split()[-1]

    def _start_agent(self, heartbeat="0s"):
        self._agent.configure({"repository": {"path": str(self._repository)}, "backup": {"codec": self.codec, "level": 1},
                               "postgres": {"heartbeat_interval": heartbeat}})
        # Of the other codec's repository, or of this one's former contents: it must not be expected.
        (self._agent.state_dir / "repository.id").unlink(missing_ok=True)
        self._agent.start()

    def _become_primary(self):
        self._bench.server.configure()
        self._agent.lead()
        self._bench.server.check_settings()

    @property
    def pid(self):
        return self._agent.pid

    @property
    def data(self):
        """The server's data directory."""
        return self._bench.server.data

    def command(self, *words):
        return self._agent.command(*words)

    def start(self):
        """The agent with its server as the primary, left running, with the heartbeat that it has by default."""
        self._prepare_repository()
        self._start_agent(heartbeat="1s")
        self._become_primary()

    def stop(self):
        """Ends what start() started."""
        try:
            self._agent.call("pg", "stop")
        finally:
            self._agent.stop()
            self._bench.server.stop()

    def _prepare_repository(self):
        """An empty one."""
        shutil.rmtree(self._repository, ignore_errors=True)
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
                self, self._agent.command("backup", "create", "--codec", self.codec, "--level", "1"), bench.user,
                self._agent.dir, bench.log)
            self._backup_name = self._agent.ask("backup", "list")["backups"][0]["summary"]["name"]  # newest first
            self._agent.call("pg", "stop")
        finally:
            self._agent.stop()
            server.stop()
        run.bytes, run.stored_bytes = bench.database_bytes, tree_bytes(self._repository)
        return run

    def restore(self, target):
        """Restores the last backup into the empty directory `target`."""
        self._start_agent()
        try:
            run = Meter(daemons=[self._agent.pid]).run(
                self, self._agent.command("backup", "restore", self._backup_name, "--target", target), self._bench.user,
                self._agent.dir, self._bench.log)
        finally:
            self._agent.stop()
            self._bench.server.stop()  # in case that the agent started it
        run.stored_bytes = tree_bytes(self._repository)
        return run

    def close(self):
        self._agent.stop()
