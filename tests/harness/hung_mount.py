"""A mount whose file system never answers, as one of a server that is away: a FUSE connection that nobody serves. Needs root."""
import ctypes
import os

from harness.process import run


class Unavailable(Exception):
    """This machine cannot make such a mount; the text says why."""


class HungMount:
    def __init__(self, workspace, path):
        try:
            self._connection = os.open("/dev/fuse", os.O_RDWR)
        except OSError as why:
            raise Unavailable(f"no /dev/fuse: {why.strerror}") from why
        self.path = path
        options = f"fd={self._connection},rootmode=40000,user_id=0,group_id=0,allow_other"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"metal-test", path.encode(), b"fuse", 0, options.encode()) != 0:
            error = os.strerror(ctypes.get_errno())
            os.close(self._connection)
            raise Unavailable(f"no FUSE mount: {error}")
        workspace.at_end(self.end)

    def end(self):
        """Whoever waits gets an error, and the directory below is there again."""
        if self._connection is None:
            return
        os.close(self._connection)
        self._connection = None
        run(["umount", "--lazy", self.path], as_root=True)
