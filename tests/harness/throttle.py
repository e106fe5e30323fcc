"""Throttle: processes whose reads and writes of one block device the kernel holds back, by the controller blkio of cgroup v1 or io
of cgroup v2, whichever this machine has. Needs root."""
import os

from harness.process import wait_for

CGROUPS = "/sys/fs/cgroup"
STOPPED = 2  # bytes a second; v2 takes no less


class Unavailable(Exception):
    """This machine cannot make such a disk; the text says why."""


class BlkioOfV1:
    line = "blkio"  # of /proc/self/cgroup: "7:blkio:/path"

    def __init__(self, cgroups):
        self.root = os.path.join(cgroups, "blkio")

    def exists(self):
        return os.path.exists(f"{self.root}/blkio.throttle.write_bps_device")

    def prepare(self):
        pass

    @staticmethod
    def limits(device, speed):
        """What to write to which files."""
        return [(f"blkio.throttle.{each}_bps_device", f"{device} {speed or 0}") for each in ("read", "write")]


class IoOfV2:
    """With `memory` beside it where there is one: the kernel then knows whose pages fsync writes, and holds those back too."""
    line = ""  # "0::/path"

    def __init__(self, root):
        self.root = root

    def _words(self, name):
        try:
            with open(f"{self.root}/{name}", encoding="utf-8") as file:
                return file.read().split()
        except OSError:
            return []

    def exists(self):
        return "io" in self._words("cgroup.controllers")

    def prepare(self):
        """Cgroups below the root may use them from now on; systemd does the same when a service asks for it."""
        wanted = {"io", "memory"} & set(self._words("cgroup.controllers")) - set(self._words("cgroup.subtree_control"))
        if wanted:
            _write(f"{self.root}/cgroup.subtree_control", " ".join(f"+{each}" for each in sorted(wanted)))

    @staticmethod
    def limits(device, speed):
        return [("io.max", f"{device} rbps={speed or 'max'} wbps={speed or 'max'}")]


def _write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


class Throttle:
    """A cgroup of this name; Unavailable where the kernel has neither controller, or lets us make none."""

    def __init__(self, name, cgroups=CGROUPS):
        kinds = [BlkioOfV1(cgroups), IoOfV2(cgroups), IoOfV2(os.path.join(cgroups, "unified"))]
        self._kind = next((kind for kind in kinds if kind.exists()), None)
        if self._kind is None:
            raise Unavailable(f"no block throttle: {cgroups} has neither blkio of cgroup v1 nor io of v2")
        self.directory = os.path.join(self._kind.root, name)
        self._home = self._own_cgroup()
        try:
            self._kind.prepare()
            os.makedirs(self.directory)
        except OSError as why:
            raise Unavailable(f"no block throttle: {why}") from why

    def _own_cgroup(self):
        """Where this process is, and where members go back to. A container may not see its own."""
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        own = next((path for _, controllers, path in lines if self._kind.line in controllers.split(",")), "/")
        directory = self._kind.root + own.rstrip("/")
        return directory if os.path.isdir(directory) else self._kind.root

    def limit(self, device, speed):
        """`device`: MAJOR:MINOR. Bytes a second, for reads and for writes; None: no limit, and what waits is let through."""
        for file, text in self._kind.limits(device, speed and max(speed, STOPPED)):
            _write(os.path.join(self.directory, file), text)

    def enter(self, pid):
        """The process and its children to come."""
        _write(f"{self.directory}/cgroup.procs", str(pid))

    def leave(self, pid):
        _write(f"{self._home}/cgroup.procs", str(pid))

    def close(self):
        wait_for("the cgroup is empty", lambda: not self._members(), 20)
        os.rmdir(self.directory)

    def _members(self):
        with open(f"{self.directory}/cgroup.procs", encoding="utf-8") as file:
            members = file.read().split()
        for pid in members:
            try:
                self.leave(pid)
            except ProcessLookupError:
                pass
        return members
