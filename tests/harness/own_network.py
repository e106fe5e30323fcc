"""A network of the tests' own: what they start from then on lives in it, and the machine's rules and ports are left alone. Needs
root. Only the thread that enters it, and what that starts, is moved."""
import ctypes
import os

from harness.process import run

CLONE_NEWNET = 0x40000000


class Unavailable(Exception):
    """This machine cannot make such a network; the text says why."""


class OwnNetwork:
    """Entered at once, left at the end of the workspace, after what was started later has ended."""

    def __init__(self, workspace):
        self._before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._libc = ctypes.CDLL(None, use_errno=True)
        if self._libc.unshare(CLONE_NEWNET) != 0:
            os.close(self._before)
            raise Unavailable(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        workspace.at_end(self.leave)
        run(["ip", "link", "set", "lo", "up"], as_root=True)

    def leave(self):
        if self._libc.setns(self._before, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "go back to the machine's network")
        os.close(self._before)
