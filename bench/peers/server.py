"""The PostgreSQL server that the peers back up. (Metal's agent starts its own.)"""

import os
import shutil
import tempfile

from . import process

# The same for every tool. Autovacuum is off so that nothing but the tools works on the disk.
SETTINGS = {"listen_addresses": "", "shared_buffers": "256MB", "autovacuum": "off", "max_wal_senders": "10",
            "wal_level": "replica"}


class Server:
    """A server over `data`, started and stopped by us. Listens only in `socket_dir`, on port 5432."""

    def __init__(self, bindir, data, user, log):
        self.bindir, self.data, self.user, self.log = bindir, data, user, log
        self.socket_dir = tempfile.mkdtemp(prefix="metal-bench.", dir="/tmp")  # short: a socket's path is limited
        shutil.chown(self.socket_dir, user)

    def start(self, **settings):
        """Starts with SETTINGS and `settings`; returns the postmaster's pid once it accepts connections."""
        options = {**SETTINGS, "unix_socket_directories": self.socket_dir, **settings}
        words = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        process.check([self.bindir / "pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "120", "-o", words,
                       "start"], self.user, self.socket_dir, self.log)
        return self.postmaster()

    def postmaster(self):
        """The running postmaster's pid, or None."""
        try:
            with open(self.data / "postmaster.pid") as file:
                pid = int(file.readline())
            return pid if os.path.exists(f"/proc/{pid}") else None
        except OSError:
            return None

    def stop(self):
        if self.postmaster():
            process.check([self.bindir / "pg_ctl", "-D", self.data, "-m", "fast", "-w", "-t", "120", "stop"],
                          self.user, self.socket_dir, self.log)

    def close(self):
        """Stops the server and removes the socket directory."""
        self.stop()
        shutil.rmtree(self.socket_dir, ignore_errors=True)
