"""Processes: running commands as another user, and reading the CPU time and memory of process trees from /proc."""

import os
import pwd
import signal
import subprocess
import sys
import threading

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLE_INTERVAL_S = 0.05


class CommandFailed(RuntimeError):
    """A command ended with a failure; the message has the command and the end of its output."""


def say(text):
    """Progress, for people: standard output is for the report."""
    print(text, file=sys.stderr, flush=True)


def as_user(name):
    """Keyword arguments for subprocess that run a command as `name`; none when we are that user already."""
    entry = pwd.getpwnam(name)
    if os.geteuid() == entry.pw_uid:
        return {}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [],
            "env": {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": entry.pw_dir, "LANG": "C.UTF-8"}}


def check(command, user, cwd, log):
    """Runs `command` to its end as `user`, appending its output to the file `log`; returns its resource usage."""
    with open(log, "ab") as output:
        output.write(("+ " + " ".join(map(str, command)) + "\n").encode())
        output.flush()
        child = subprocess.Popen([str(word) for word in command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=output,
                                 stderr=subprocess.STDOUT, **as_user(user))
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            stop(child)
            raise
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise CommandFailed(f"{' '.join(map(str, command))}: exit {child.returncode}\n{tail(log)}")
    return usage


def output_of(command, user, cwd):
    """Standard output of `command`, run as `user`."""
    result = subprocess.run([str(word) for word in command], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
                            text=True, **as_user(user))
    if result.returncode != 0:
        raise CommandFailed(f"{' '.join(map(str, command))}: exit {result.returncode}\n{result.stderr[-2000:]}")
    return result.stdout


def tail(path, lines=15):
    """The last lines of a text file, or nothing when there is no such file."""
    try:
        with open(path, errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError:
        return ""


def stop(child, timeout_s=30):
    """Ends a process that we started (subprocess.Popen): SIGTERM, and SIGKILL when it does not listen."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def postmaster(data):
    """Pid of the server that runs on the directory `data`, or None: a stale postmaster.pid names anybody."""
    try:
        with open(os.path.join(data, "postmaster.pid")) as file:
            pid = int(file.readline())
        return pid if os.path.samefile(f"/proc/{pid}/cwd", data) else None
    except (OSError, ValueError):
        return None


def tree(pid):
    """The process `pid` and its living descendants."""
    pids, queue = set(), [pid]
    while queue:
        pid = queue.pop()
        pids.add(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    queue.extend(child for child in map(int, file.read().split()) if child not in pids)
        except OSError:
            pass  # ended meanwhile
    return pids


def cpu_seconds(roots):
    """User and system time of the trees below `roots`, with what they collected from children that have ended."""
    ticks = 0
    for pid in set().union(*(tree(root) for root in roots)):
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # utime stime cutime cstime
        except OSError:
            pass
    return ticks / TICKS_PER_SECOND


def resident_bytes(pid):
    """Resident memory of one process; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def walsender_bytes(postmaster):
    """Anonymous memory of the server's walsenders (their resident memory would count shared buffers as well)."""
    total = 0
    for pid in tree(postmaster):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"walsender" not in file.read():
                    continue
            with open(f"/proc/{pid}/status") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))
        except OSError:
            pass
    return total


class PeakMemory(threading.Thread):
    """Samples `memory()` (bytes) until stop(); `peak` is the largest value seen."""

    def __init__(self, memory):
        super().__init__(daemon=True)
        self.peak = 0
        self._memory = memory
        self._stop_requested = threading.Event()

    def run(self):
        while not self._stop_requested.wait(SAMPLE_INTERVAL_S):
            self.peak = max(self.peak, self._memory())

    def stop(self):
        self._stop_requested.set()
        self.join()
