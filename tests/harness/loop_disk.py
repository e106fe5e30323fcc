"""A disk that can be made to hang: a loop device whose I/O the kernel's block throttle (cgroup v1) holds back. Needs root."""
import contextlib
import os

from harness import process
from harness.node import Node
from harness.process import run

BLKIO = "/sys/fs/cgroup/blkio"


class Unavailable(Exception):
    """This machine cannot make such a disk; the text says why."""


class LoopDisk:
    """A file system on a loop device, which can be filled, and a cgroup in which I/O to that device can be slowed or stopped."""

    def __init__(self, workspace, mount, name="disk", image_dir=None):
        """`image_dir`: where the disk's image lies; what that has no room for, the disk refuses to write."""
        if not os.path.exists(f"{BLKIO}/blkio.throttle.write_bps_device"):
            raise Unavailable("this kernel has no blkio throttle (cgroup v1)")
        image = os.path.join(image_dir or workspace.path, f"{name}.img")
        with open(image, "wb") as file:
            file.truncate(1 << 30)
        direct = "on" if image_dir is None else "off"
        made = run(["losetup", "--find", "--show", f"--direct-io={direct}", image], as_root=True, code=None)
        if made.code != 0:
            raise Unavailable(f"no loop device: {made.stderr.strip()}")
        self.device = made.stdout.strip()
        workspace.at_end(lambda: run(["losetup", "-d", self.device], as_root=True))
        run(["mkfs.ext4", "-q", "-F", self.device], as_root=True)
        self.mount = mount
        os.makedirs(mount)
        run(["mount", self.device, mount], as_root=True)
        workspace.at_end(lambda: run(["umount", mount], as_root=True))
        os.rmdir(os.path.join(mount, "lost+found"))
        os.chown(mount, process.UID, process.GID)
        os.chmod(mount, 0o700)
        with open(f"/sys/class/block/{os.path.basename(self.device)}/dev", encoding="utf-8") as file:
            self.number = file.read().strip()
        self.cgroup = f"{BLKIO}/metal-test-{os.getpid()}-{name}"
        os.makedirs(self.cgroup)
        workspace.at_end(self._leave)

    def _set(self, bytes_per_second):
        for what in ("read_bps_device", "write_bps_device"):
            with open(f"{self.cgroup}/blkio.throttle.{what}", "w", encoding="utf-8") as file:
                file.write(f"{self.number} {bytes_per_second}")

    def capture(self, pid):
        """The process and its children to come."""
        with open(f"{self.cgroup}/cgroup.procs", "w", encoding="utf-8") as file:
            file.write(str(pid))

    @contextlib.contextmanager
    def capturing_new(self):
        """Processes that are started within are in the cgroup from their first instruction on."""
        self.capture(os.getpid())
        try:
            yield
        finally:
            with open(f"{BLKIO}/cgroup.procs", "w", encoding="utf-8") as file:
                file.write(str(os.getpid()))

    def enter(self):
        """Words before a command: it and its children are in the cgroup."""
        return ["sh", "-c", f'echo $$ > {self.cgroup}/cgroup.procs && exec "$@"', "sh"]

    def hang(self):
        self._set(1)

    def slow(self, bytes_per_second):
        self._set(bytes_per_second)

    def fill(self, left=0):
        """Takes what is free for users other than root, but for `left` bytes."""
        free = os.statvfs(self.mount)
        size = free.f_bavail * free.f_frsize - left
        with open(self._ballast(), "ab") as file:
            if size > 0:
                os.posix_fallocate(file.fileno(), file.tell(), size)

    def empty(self):
        """Gives back what `fill` took."""
        if os.path.exists(self._ballast()):
            os.unlink(self._ballast())

    def _ballast(self):
        return os.path.join(self.mount, "ballast")

    def work(self):
        self._set(0)  # no limit; what waits is let through

    def _leave(self):
        self.work()
        process.wait_for("the cgroup is empty", lambda: not self._members(), 20)
        os.rmdir(self.cgroup)

    def _members(self):
        with open(f"{self.cgroup}/cgroup.procs", encoding="utf-8") as file:
            members = file.read().split()
        for pid in members:
            try:
                with open(f"{BLKIO}/cgroup.procs", "w", encoding="utf-8") as file:
                    file.write(pid)
            except ProcessLookupError:
                pass
        return members


def primary_on_loop_disk(workspace, version):
    """A primary whose data disk (`node.disk`) can be made to hang, with the agent and all its children in the cgroup."""
    disk = LoopDisk(workspace, os.path.join(workspace.path, "mount"))
    node = Node(workspace, version, data_dir=disk.mount, disk={
        "probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms", "probe_stall_after": "2s"})
    node.disk = disk
    node.launch()
    disk.capture(node.process.pid)
    process.wait_for("the agent answers", lambda: node.ctl("status", timeout=2).code == 0)
    return node.make_primary()
