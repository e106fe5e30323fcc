"""A directory of one test or module below /var/tmp, and everything that has to be undone when it ends."""
import os
import shutil
import socket
import tempfile

from harness import process

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOGS = os.path.join(ROOT, "build", "test-logs")
_live = []
FIRST_PORT, PORTS = 20000, 500  # of one process: below the kernel's own range
_own_ports, _next_port = None, 0


def _claim_ports():
    """A range of ports that no other process of tests has: a server's port is its own also while it is down. The kernel takes the
    name back when this process ends."""
    for number in range(20):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0metal-test-ports-{number}")
            return claim, FIRST_PORT + number * PORTS
        except OSError:
            claim.close()
    raise RuntimeError("20 processes run tests here already")


def free_port():
    """A TCP port of 127.0.0.1 that nobody listens on, and that no other process of tests takes."""
    global _own_ports, _next_port
    if _own_ports is None:
        _own_ports = _claim_ports()
    first = _own_ports[1]
    while True:
        _next_port = (_next_port + 1) % PORTS
        port = first + _next_port
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Workspace:
    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="metal-test-", dir="/var/tmp")
        os.chmod(self.path, 0o755)
        self.give(self.path)
        self._undo = []
        _live.append(self)

    def give(self, path):
        """Makes the user postgres the owner."""
        if process.IS_ROOT:
            os.chown(path, process.UID, process.GID)
        return path

    def directory(self, name, mode=0o700):
        path = os.path.join(self.path, name)
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        return self.give(path)

    def file(self, name, text, mode=0o644):
        path = os.path.join(self.path, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return self.give(path)

    def small_disk(self, name, megabytes):
        """A file system in memory, unmounted after whatever was set up later has ended. Needs root."""
        path = self.directory(name)
        options = f"size={megabytes}m,mode=700,uid={process.UID},gid={process.GID}"
        process.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], as_root=True)
        self.at_end(lambda: process.run(["umount", path], as_root=True))
        return path

    def at_end(self, action):
        """Actions run in reverse order."""
        self._undo.append(action)

    def save_logs(self, name):
        """Copies what explains a failure: logs and configuration, not data."""
        target = os.path.join(LOGS, name.replace("/", "_").replace("::", "."))
        for directory, folders, files in os.walk(self.path):
            folders[:] = [each for each in folders if each not in ("base", "pg_wal", "repository", "mount")]
            for each in files:
                if each.endswith((".log", ".toml", ".conf", ".trace")) or each in ("postmaster.pid", "backup_label"):
                    copy = os.path.join(target, os.path.relpath(directory, self.path))
                    os.makedirs(copy, exist_ok=True)
                    shutil.copyfile(os.path.join(directory, each), os.path.join(copy, each))

    def close(self):
        problems = []
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as error:  # every other action still has to run
                problems.append(repr(error))
        _live.remove(self)
        if not os.environ.get("METAL_KEEP"):
            shutil.rmtree(self.path, ignore_errors=True)
        assert not problems, f"cleaning up {self.path}: {problems}"


def save_all_logs(name):
    for each in _live:
        each.save_logs(name)
