"""A program on a terminal of its own (a pty), as a person sees and drives it."""
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

from harness import process


class Terminal:
    """Runs `arguments` on a new terminal of `columns`; `said` is all that it wrote so far."""

    def __init__(self, arguments, columns=100, env=None):
        self.said, self.code, self._seen = "", None, 0
        environment = process.environment({"TERM": "xterm", **(env or {})})
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
                os.execve(arguments[0], arguments, environment)
            finally:
                os._exit(127)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def read(self, patience=0.02):
        """Takes what the program wrote; waits for it at most `patience` seconds. False at its end."""
        if not select.select([self._fd], [], [], patience)[0]:
            return True
        try:
            self.said += os.read(self._fd, 65536).decode("utf-8", "replace")
        except OSError:  # EIO: nobody holds the other side any more
            return False
        return True

    def expect(self, text, timeout=10.0):
        """Waits until `text` was written, behind what was waited for before."""
        deadline = time.monotonic() + timeout
        while (found := self.said.find(text, self._seen)) < 0:
            still_open = time.monotonic() < deadline and self.read(0.1)
            assert still_open or text in self.said[self._seen:], f"{text!r} did not come; said: {self.said[-2000:]!r}"
        self._seen = found + len(text)

    def press(self, keys):
        """Types; "\\x03" is Ctrl-C."""
        os.write(self._fd, keys.encode())

    def wait(self, timeout=10.0):
        """Exit code; 128 + signal for one that a signal ended."""
        deadline = time.monotonic() + timeout
        while self.code is None:
            open_end = self.read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid != 0:
                self.code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
                while open_end and select.select([self._fd], [], [], 0)[0]:
                    open_end = self.read(0)
            assert self.code is not None or time.monotonic() < deadline, f"still runs; said: {self.said[-2000:]!r}"
        return self.code
