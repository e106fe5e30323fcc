"""What a shard is without Metal: two servers, one PgBouncer, and the script that everybody writes first.

    PAUSE · pg_ctl stop -m fast · pg_ctl promote · another line in pgbouncer.ini, RELOAD · RESUME

It checks nothing, has no policy of who must acknowledge, and one door. A failure in the middle leaves the door paused."""

import os
import shutil
import subprocess
import time

from measure import process

TIMEOUT_S = 120


class NaivePair:
    """`directory`: an empty one of `user`. `ports`: of two servers and of PgBouncer. `settings`: of both servers."""

    def __init__(self, directory, bindir, user, ports, settings):
        self._directory, self._bindir, self._user, self._settings = directory, bindir, user, settings
        *self._ports, self.port = ports
        self._data = [os.path.join(directory, name) for name in ("one", "two")]
        self._archive = self._make("archive")
        self._sockets = self._make("sockets")
        self._log = os.path.join(directory, "log")
        self._ini = os.path.join(directory, "pgbouncer.ini")
        self._primary = 0
        self._pgbouncer = None

    def _make(self, name):
        path = os.path.join(self._directory, name)
        os.mkdir(path, 0o700)
        shutil.chown(path, self._user)
        return path

    def _write(self, path, text, how="w"):
        with open(path, how, encoding="utf-8") as file:
            file.write(text)
        shutil.chown(path, self._user)

    def _call(self, program, *words):
        process.check([self._bindir / program, *words], self._user, self._directory, self._log)

    def _psql(self, port, statement, database="postgres"):
        return process.output_of([self._bindir / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self._sockets, "-p", port,
                                  "-U", "postgres", "-d", database, "-c", statement], self._user, "/").strip()

    def sql(self, statement):
        """On the primary, past the door."""
        return self._psql(self._ports[self._primary], statement)

    # ---- the pair ----

    def start(self):
        self._write(self._log, "")
        self._call("initdb", "-D", self._data[0], "-U", "postgres", "-A", "trust", "--data-checksums", "--no-sync")
        conf = {**self._settings, "archive_mode": "on", "archive_command": f"cp %p {self._archive}/%f", "hot_standby": "on",
                "unix_socket_directories": self._sockets, "listen_addresses": "127.0.0.1"}
        self._write(os.path.join(self._data[0], "postgresql.conf"),
                    "".join(f"{name} = '{value}'\n" for name, value in conf.items()), "a")
        self._start_server(0)
        self._call("pg_basebackup", "-D", self._data[1], "-c", "fast", "-h", self._sockets, "-p", self._ports[0], "-U",
                   "postgres")
        self._follow(1)
        self._write(os.path.join(self._directory, "users"), '"postgres" ""\n')
        self._write_ini()
        with open(self._log, "ab") as log:
            self._pgbouncer = subprocess.Popen(["pgbouncer", self._ini], cwd=self._directory, stdin=subprocess.DEVNULL,
                                               stdout=log, stderr=log, **process.as_user(self._user))
        self._patiently("PgBouncer answers", lambda: self._psql(self.port, "SHOW VERSION", "pgbouncer"))
        return self

    def _start_server(self, number):
        self._call("pg_ctl", "-D", self._data[number], "-l", self._log, "-w", "-t", TIMEOUT_S, "-o",
                   f"-c port={self._ports[number]}", "start")

    def _write_ini(self):
        self._write(self._ini, f"""[databases]
* = host={self._sockets} port={self._ports[self._primary]}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir = {self._sockets}
auth_type = trust
auth_file = {self._directory}/users
admin_users = postgres
pool_mode = transaction
server_login_retry = 0.2
server_fast_close = 1
""")

    def _follow(self, number):
        """The server, which is down, becomes the standby of the primary, and streams when this returns."""
        source = f"host={self._sockets} port={self._ports[self._primary]} user=postgres"
        self._write(os.path.join(self._data[number], "standby.signal"), "")
        self._write(os.path.join(self._data[number], "postgresql.auto.conf"), f"primary_conninfo = '{source}'\n", "a")
        self._start_server(number)
        self._patiently("the standby streams", lambda: self.sql(
            "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= pg_current_wal_lsn()"))

    @staticmethod
    def _patiently(what, condition):
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                if condition():
                    return
                failure = None
            except process.CommandFailed as error:
                failure = error
            if time.monotonic() > deadline:
                raise process.CommandFailed(f"{what}: not within {TIMEOUT_S} s; {failure}")
            time.sleep(0.05)

    def fail_archive(self, fails):
        """The archive command of both servers fails from now on, or works again."""
        for port in self._ports:
            for statement in ("ALTER SYSTEM SET archive_command = 'false'" if fails else
                              "ALTER SYSTEM RESET archive_command", "SELECT pg_reload_conf()"):
                self._psql(port, statement)

    # ---- the script ----

    def switch_over(self):
        """What is measured; seconds of each step."""
        old, new = self._primary, 1 - self._primary
        steps, began = {}, time.monotonic()

        def step(name, body):
            nonlocal began
            body()
            now = time.monotonic()
            steps[name], began = now - began, now

        def repoint():
            self._primary = new
            self._write_ini()
            self._psql(self.port, "RELOAD", "pgbouncer")

        step("pause", lambda: self._psql(self.port, "PAUSE", "pgbouncer"))
        step("stop", lambda: self._call("pg_ctl", "-D", self._data[old], "-m", "fast", "-w", "-t", TIMEOUT_S, "stop"))
        step("promote", lambda: self._call("pg_ctl", "-D", self._data[new], "-w", "-t", TIMEOUT_S, "promote"))
        step("repoint", repoint)
        step("resume", lambda: self._psql(self.port, "RESUME", "pgbouncer"))
        return steps

    def rejoin(self):
        """The old primary becomes the standby of the new one."""
        self._follow(1 - self._primary)

    def close(self):
        if self._pgbouncer:
            process.stop(self._pgbouncer)
        for data in self._data:
            if process.postmaster(data):
                self._call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
