"""The PostgreSQL server that is backed up, the same for every tool. (Metal's agent starts it itself.)"""

import shutil
import tempfile

from measure import process

DEFAULT_PORT = 5432

# Written to postgresql.conf, so that Metal's server and the peers' run with exactly these. Autovacuum is off and
# checkpoints do not come by time, so that nothing but the tools works on the disk.
SETTINGS = {
    "shared_buffers": "256MB",
    "wal_level": "replica",
    "wal_log_hints": "on",
    "max_wal_senders": "10",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "data_sync_retry": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "logging_collector": "off",
}


class Server:
    """A server over `data`, started and stopped by us. Listens only in `socket_dir`, on port 5432, unless start() is
    told otherwise."""

    def __init__(self, bindir, data, user, log):
        self.bindir, self.data, self.user, self.log = bindir, data, user, log
        self.socket_dir = tempfile.mkdtemp(prefix="metal-bench.", dir="/tmp")  # short: a socket's path is limited
        shutil.chown(self.socket_dir, user)
        self._port = DEFAULT_PORT
        self._initial_conf = (data / "postgresql.conf").read_text()

    def configure(self):
        """Makes postgresql.conf what initdb wrote and SETTINGS: nothing is left of what a tool added."""
        self._port = DEFAULT_PORT
        lines = [f"{name} = '{value}'\n" for name, value in SETTINGS.items()]
        (self.data / "postgresql.conf").write_text(self._initial_conf + "\n# bench/tools/server.py\n" + "".join(lines))

    @property
    def settings(self):
        return dict(SETTINGS)

    def start(self, **settings):
        """Starts with SETTINGS and, on the command line, `settings`; answers the postmaster's pid once it accepts
        connections."""
        self.configure()
        self._port = settings.get("port", DEFAULT_PORT)
        options = {"listen_addresses": "", "unix_socket_directories": self.socket_dir, **settings}
        words = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        process.check([self.bindir / "pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "120", "-o", words,
                       "start"], self.user, self.socket_dir, self.log)
        self.check_settings()
        return self.postmaster()

    def check_settings(self):
        """Whether the running server has SETTINGS, whoever started it; CommandFailed says which it has not."""
        rows = ", ".join(f"('{name}', '{value}')" for name, value in SETTINGS.items())
        # A value is compared as the server understands it: 256MB is 32768 blocks.
        query = ("SELECT s.name || ' is ' || current_setting(s.name) || ', not ' || wanted.value "
                 f"FROM (VALUES {rows}) AS wanted (name, value) JOIN pg_settings s USING (name) "
                 "WHERE current_setting(s.name) <> wanted.value")
        wrong = process.output_of([self.bindir / "psql", "-XAtq", "-h", self.socket_dir, "-p", self._port, "-U", "postgres",
                                   "-d", "postgres", "-c", query], self.user, "/").strip()
        if wrong:
            raise process.CommandFailed("the server has other settings than bench/tools/server.py says: " +
                                        "; ".join(wrong.splitlines()))

    def freeze(self):
        """Leaves nothing for a reader to note in a page: the files stay as they are while nobody writes."""
        process.check([self.bindir / "vacuumdb", "-q", "-a", "-F", "-h", self.socket_dir, "-p", self._port, "-U", "postgres"],
                      self.user, self.socket_dir, self.log)

    def postmaster(self):
        """The running postmaster's pid, or None."""
        return process.postmaster(self.data)

    def stop(self):
        if self.postmaster():
            process.check([self.bindir / "pg_ctl", "-D", self.data, "-m", "fast", "-w", "-t", "120", "stop"],
                          self.user, self.socket_dir, self.log)

    def close(self):
        """Stops the server and removes the socket directory."""
        self.stop()
        shutil.rmtree(self.socket_dir, ignore_errors=True)
