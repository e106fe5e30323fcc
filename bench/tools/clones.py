"""Copies of a running server onto an empty directory, over TLS on loopback TCP: Metal's clone, and pg_basebackup's plain format."""

import shutil
import socket

from measure import process
from measure.compare import compare
from measure.meter import Meter, tree_bytes

from .agent import TERM, Agent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MetalClone:
    """Two agents. The copy is complete, synced and its server streams when the command ends; wall_s ends with the copy, for
    pg_basebackup starts no server."""

    name = "metal"
    codec = "none"

    def __init__(self, bench, certificates):
        self._bench = bench
        self._transfer = f"127.0.0.1:{free_port()}"
        self._target = bench.scratch("clone") / "data"
        self._source_agent = self._agent("source", bench.server.data, 5432, certificates, {"transfer": {"listen": self._transfer}})
        self._target_agent = self._agent("target", self._target, 5433, certificates, {})
        self.streaming_after_s = []  # of each run: from the last byte until the copy streams

    def _agent(self, name, data, port, certificates, sections):
        certificate, key = certificates.issue(name)
        sections = {**sections, "tls": {"certificate": str(certificate), "key": str(key),
                                        "client_ca": str(certificates.authority)}}
        return Agent(self._bench, name, data, port, sections, [{"san": "target.bench.test", "role": "peer"}])

    @staticmethod
    def version(bench):
        return process.output_of([bench.metal_bindir / "metalctl", "--version"], bench.user, "/").split()[-1]

    def run(self):
        bench, server = self._bench, self._bench.server
        source, target = self._source_agent, self._target_agent
        source.start()
        target.start()
        try:
            server.configure()
            source.lead()
            server.check_settings()
            target.call("term", "begin", TERM)
            run = Meter(daemons=[source.pid, target.pid], postmaster=server.postmaster()).run(
                self, target.command("clone", "--from", self._transfer, "--primary", f"{server.socket_dir}:5432", "--term", TERM),
                bench.user, target.dir, bench.log)
            facts = self._facts()
            run.wall_s -= float(facts["streaming_after_seconds"])
            self.streaming_after_s.append(float(facts["finish_seconds"]) + float(facts["streaming_after_seconds"]))
            source.call("pg", "stop")  # hands its last WAL over
            target.call("pg", "stop")
        finally:
            for agent in (target, source):
                agent.stop()
            self._stop_copy()
            server.stop()
        return _compared(self, run, server.data, self._target)

    def _facts(self):
        """Of the clone that has ended."""
        operation = next(each for each in self._target_agent.ask("op", "list", "-n", "10")["operations"] if each["kind"] == "Clone")
        return operation["result"]

    def _stop_copy(self):
        """The agent's end leaves a server running."""
        if process.postmaster(self._target):
            process.check([self._bench.bindir / "pg_ctl", "-D", self._target, "-m", "immediate", "-w", "stop"],
                          self._bench.user, self._target.parent, self._bench.log)

    def close(self):
        for agent in (self._target_agent, self._source_agent):
            agent.stop()
        self._stop_copy()


class PgBaseBackupClone:
    """Plain format, WAL streamed beside, TLS with the server's certificate verified; it syncs at its end."""

    name = "pg_basebackup"
    codec = "none"

    def __init__(self, bench, certificates):
        self._bench, self._authority = bench, certificates.authority
        self._certificate, self._key = certificates.issue("server")
        self._port = free_port()
        self._target = bench.scratch("basebackup") / "data"

    @staticmethod
    def version(bench):
        return process.output_of([bench.bindir / "pg_basebackup", "--version"], bench.user, "/").split()[2]

    def run(self):
        bench, server = self._bench, self._bench.server
        postmaster = server.start(archive_mode="off", archive_command="", listen_addresses="127.0.0.1", port=self._port, ssl="on",
                                  ssl_cert_file=self._certificate, ssl_key_file=self._key)
        try:
            run = Meter(postmaster=postmaster, count_walsenders=True).run(
                self, [bench.bindir / "pg_basebackup", "-D", self._target, "-Fp", "-X", "stream", "--checkpoint=fast", "-d",
                       f"host=127.0.0.1 port={self._port} user=postgres sslmode=verify-full sslrootcert={self._authority}"],
                bench.user, self._target.parent, bench.log)
        finally:
            server.stop()
        return _compared(self, run, server.data, self._target)

    def close(self):
        pass


def _compared(tool, run, source, target):
    """The run with what was compared; the copy is removed."""
    run.bytes = tree_bytes(target, skip=("pg_wal",))
    run.compared_files, run.compared_bytes = compare(f"{tool.name} clone", source, target)
    shutil.rmtree(target)
    return run
