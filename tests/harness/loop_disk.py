"""A disk of a test's own: a file system on a loop device, which can be filled and whose I/O can be held back. Needs root."""
import contextlib
import os
import shutil

from harness import process
from harness.node import Node
from harness.process import run
from harness.throttle import STOPPED, Throttle, Unavailable


class LoopDisk:
    """What can be filled needs a loop device alone. What is to be slow needs a throttle too, which is made when it is first asked
    for: Unavailable where the machine has none."""

    def __init__(self, workspace, mount, name="disk", image_dir=None, make=("mkfs.ext4", "-q", "-F")):
        """`image_dir`: where the disk's image lies; what that has no room for, the disk refuses to write. `make`: the command that
        makes its file system."""
        self._workspace, self._name, self._throttle = workspace, name, None
        image = os.path.join(image_dir or workspace.path, f"{name}.img")
        with open(image, "wb") as file:
            file.truncate(1 << 30)
        direct = "on" if image_dir is None else "off"
        made = run(["losetup", "--find", "--show", f"--direct-io={direct}", image], as_root=True, code=None)
        if made.code != 0:
            raise Unavailable(f"no loop device: {made.stderr.strip()}")
        self.device = made.stdout.strip()
        workspace.at_end(lambda: run(["losetup", "-d", self.device], as_root=True))
        run([*make, self.device], as_root=True)
        self.mount = mount
        os.makedirs(mount)
        run(["mount", self.device, mount], as_root=True)
        workspace.at_end(lambda: run(["umount", mount], as_root=True))
        if os.path.exists(os.path.join(mount, "lost+found")):
            os.rmdir(os.path.join(mount, "lost+found"))
        os.chown(mount, process.UID, process.GID)
        os.chmod(mount, 0o700)
        with open(f"/sys/class/block/{os.path.basename(self.device)}/dev", encoding="utf-8") as file:
            self.number = file.read().strip()

    # ---- slow: who is in the cgroup waits ----

    @property
    def throttle(self):
        if self._throttle is None:
            self._throttle = Throttle(f"metal-test-{os.getpid()}-{self._name}")
            self._workspace.at_end(self._leave)
        return self._throttle

    def capture(self, pid):
        """The process and its children to come."""
        self.throttle.enter(pid)

    @contextlib.contextmanager
    def capturing_new(self):
        """Processes that are started within are in the cgroup from their first instruction on."""
        self.capture(os.getpid())
        try:
            yield
        finally:
            self.throttle.leave(os.getpid())

    def enter(self):
        """Words before a command: it and its children are in the cgroup."""
        return ["sh", "-c", f'echo $$ > {self.throttle.directory}/cgroup.procs && exec "$@"', "sh"]

    def hang(self):
        self.slow(STOPPED)

    def slow(self, bytes_per_second):
        self.throttle.limit(self.number, bytes_per_second)

    def work(self):
        """As fast as it can."""
        if self._throttle:
            self._throttle.limit(self.number, None)

    def _leave(self):
        self.work()
        self._throttle.close()

    # ---- full ----

    def fill(self, left=0):
        """Takes what is free for users other than root, but for `left` bytes."""
        free = os.statvfs(self.mount)
        size = free.f_bavail * free.f_frsize - left
        with open(self._ballast(), "ab") as file:
            if size > 0:
                os.posix_fallocate(file.fileno(), file.tell(), size)

    def fill_inodes(self, left):
        """Takes all but `left` of the free ones, with empty files."""
        crowd = self._ballast() + ".files"
        os.makedirs(crowd, exist_ok=True)
        for number in range(os.statvfs(self.mount).f_favail - left):
            with open(os.path.join(crowd, str(number)), "wb"):
                pass

    def empty(self):
        """Gives back what `fill` and `fill_inodes` took."""
        if os.path.exists(self._ballast()):
            os.unlink(self._ballast())
        shutil.rmtree(self._ballast() + ".files", ignore_errors=True)

    def _ballast(self):
        return os.path.join(self.mount, "ballast")


def primary_on_loop_disk(workspace, version, **config):
    """A primary whose data disk (`node.disk`) can be made to hang, with the agent and all its children in the cgroup."""
    disk = LoopDisk(workspace, os.path.join(workspace.path, "mount"))
    throttle = disk.throttle  # or Unavailable, before anything is started
    node = Node(workspace, version, data_dir=disk.mount, **config, disk={
        "probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms", "probe_stall_after": "2s"})
    node.disk = disk
    node.launch()
    throttle.enter(node.process.pid)
    process.wait_for("the agent answers", lambda: node.ctl("status", timeout=2).code == 0)
    return node.make_primary()
