"""PostgreSQL of one version: its programs, SQL on a running server, and plain servers that no agent manages."""
import os
import signal
import subprocess

from harness import process
from harness.process import run, wait_for
from harness.workspace import ROOT, free_port

# Transactions a second of a load that is there so that something changes all the time: at full speed it would take the processor
# from what is tested.
PGBENCH_RATE = "300"


class Version:
    def __init__(self, name, bin_dir):
        self.name, self.major, self.bin_dir = name, int(name), bin_dir

    def __repr__(self):
        return f"pg{self.name}"

    def program(self, name):
        return os.path.join(self.bin_dir, name)

    def has(self, name):
        return os.path.exists(self.program(name))


def find_versions(names):
    listed = run([os.path.join(ROOT, "tests/harness/postgres-versions"), *names], as_root=True, timeout=600).stdout
    return [Version(*line.split(None, 1)) for line in listed.splitlines()]


def postmaster_pid(data_dir):
    """The pid in postmaster.pid when that process lives, else 0."""
    try:
        with open(os.path.join(data_dir, "postmaster.pid"), encoding="utf-8") as file:
            pid = int(file.readline())
    except (FileNotFoundError, ValueError):
        return 0
    return pid if process.is_alive(pid) else 0


class Database:
    """SQL through the unix socket of a server."""

    def __init__(self, version, socket_dir, port, data_dir):
        self.version, self.socket_dir, self.port, self.data_dir = version, socket_dir, port, data_dir

    @property
    def env(self):
        return {"PGHOST": self.socket_dir, "PGPORT": str(self.port), "PGUSER": "postgres", "PGDATABASE": "postgres",
                "PGCONNECT_TIMEOUT": "10"}

    def psql_arguments(self, *extra, database="postgres"):
        return [self.version.program("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", database, *extra]

    def sql(self, statement, database="postgres", code=0, timeout=120):
        """Runs statements from standard input (each its own transaction) and returns the output without its last newline."""
        result = run(self.psql_arguments("-f", "-", database=database), code=code, env=self.env, text_input=statement,
                     timeout=timeout)
        return result.stdout.rstrip("\n") if code == 0 else result

    def answers(self):
        return run(self.psql_arguments("-c", "SELECT 1"), code=None, env=self.env).code == 0

    def run(self, program, *arguments, **options):
        return run([self.version.program(program), *arguments], env=self.env, **options)

    def start(self, program, *arguments, log):
        return process.spawn([self.version.program(program), *arguments], log, env=self.env)

    def pgbench_load(self, scale=2):
        self.run("pgbench", "-i", "-q", "-s", str(scale))

    def session(self):
        return Session(self)

    def pid(self):
        return postmaster_pid(self.data_dir)

    def lsn(self):
        return self.sql("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END")


class Session:
    """One open psql: shows whether a client connection survives."""

    def __init__(self, database):
        self._psql = subprocess.Popen(database.psql_arguments(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, bufsize=1, env=process.environment(database.env),
                                      cwd="/", start_new_session=True, **process.identity())
        self.backend = int(self.ask("SELECT pg_backend_pid()"))

    def ask(self, statement):
        """The first line of the answer; raises when the server has gone."""
        self._psql.stdin.write(statement + ";\n")
        self._psql.stdin.flush()
        return self._psql.stdout.readline().rstrip("\n")

    def send(self, statement):
        self._psql.stdin.write(statement + ";\n")
        self._psql.stdin.flush()

    def close(self):
        if self._psql.poll() is None:
            try:
                self._psql.stdin.close()
            except OSError:
                pass
            process.end(self._psql, signal.SIGKILL)
        self._psql.stdout.close()


class PlainServer(Database):
    """A server on a data directory that no agent manages; started with settings of its own on the command line."""

    def __init__(self, version, data_dir, workspace, **settings):
        self.workspace = workspace
        self.log = os.path.join(workspace.path, os.path.basename(data_dir) + ".server.log")
        socket_dir = workspace.directory("sockets", 0o755)
        super().__init__(version, socket_dir, free_port(), data_dir)
        # Settings of the directory's own configuration that must not reach beyond the test are overruled here.
        self.settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": socket_dir,
                         "logging_collector": "off", "fsync": "off", "shared_buffers": "16MB", "log_min_messages": "log",
                         "archive_mode": "off", **settings}
        self.process = None

    def start(self, wait="answers", timeout=60):
        """wait: "answers", "end" (the server stops by itself) or None."""
        options = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        self.process = process.spawn([self.version.program("postgres"), "-D", self.data_dir, *options], self.log)
        self.workspace.at_end(self.kill)
        if wait == "answers":
            def ready():
                if self.process.poll() is not None:
                    raise process.CommandFailed(f"{self.data_dir} did not start:\n{self.log_text()[-3000:]}")
                return self.answers()
            wait_for(f"{self.data_dir} answers", ready, timeout)
        elif wait == "end":
            code = self.process.wait(timeout)
            assert code == 0, f"{self.data_dir} ended with {code}:\n{self.log_text()[-3000:]}"
        return self

    def stop(self, how=signal.SIGINT):
        process.end(self.process, how, 60)

    def kill(self):
        if self.process:
            process.end(self.process, signal.SIGQUIT, 10)

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()
