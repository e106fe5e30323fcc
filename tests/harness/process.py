"""Processes of tests: run as the user postgres when the tests run as root, waited for with a deadline, ended by pid."""
import os
import pwd
import signal
import subprocess
import time

IS_ROOT = os.geteuid() == 0
USER = "postgres" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
UID, GID = pwd.getpwnam(USER).pw_uid, pwd.getpwnam(USER).pw_gid


class CommandFailed(AssertionError):
    """A command ended with another exit code than the test allowed."""


class Result:
    def __init__(self, arguments, code, stdout, stderr):
        self.arguments, self.code, self.stdout, self.stderr = arguments, code, stdout, stderr

    def __repr__(self):
        return f"{' '.join(map(str, self.arguments))}\n  exit {self.code}\n  {self.stdout[-4000:]}\n  {self.stderr[-4000:]}"


def identity(as_root=False):
    """Popen arguments that make the child the user postgres."""
    if not IS_ROOT or as_root:
        return {}
    return {"user": UID, "group": GID, "extra_groups": []}


def environment(extra=None):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "ASAN_OPTIONS", "TSAN_OPTIONS") if name in os.environ}
    kept.update({"LC_ALL": "C.UTF-8", "TZ": "UTC"})
    kept.update(extra or {})
    return kept


def run(arguments, code=0, as_root=False, timeout=120, env=None, text_input=None, cwd="/"):
    """Runs to the end. `code`: the exit code that must come, or None for any."""
    done = subprocess.run([str(each) for each in arguments], capture_output=True, text=True, timeout=timeout, cwd=cwd,
                          env=environment(env), input=text_input, errors="replace", **identity(as_root))
    result = Result(arguments, done.returncode, done.stdout, done.stderr)
    if code is not None and result.code != code:
        raise CommandFailed(f"expected exit {code}: {result!r}")
    return result


def spawn(arguments, log_path, as_root=False, env=None):
    """Starts in a session of its own; both outputs go to the log."""
    with open(log_path, "ab") as log:
        return subprocess.Popen([str(each) for each in arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                env=environment(env), start_new_session=True, **identity(as_root))


def end(process, first=signal.SIGTERM, patience=20):
    """Ends a child of ours; SIGKILL after `patience` seconds. Returns its exit code."""
    if process.poll() is None:
        process.send_signal(first)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def state(pid):
    """As /proc has it: "R", "S", "D" and so on; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_alive(pid):
    """False for a zombie too."""
    return state(pid) not in ("", "Z")


def arguments(pid):
    """Of its command; none when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return file.read().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def start_ticks(pid):
    """When the process started, in ticks since boot: with the pid it names one process for ever."""
    with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
        return int(file.read().rsplit(")", 1)[1].split()[19])


def wait_for(what, condition, timeout=20.0, interval=0.03):
    """Polls until `condition()` is true and returns its value. An AssertionError in it counts as not yet. A condition that costs
    something is asked for at most a third of the time: what is waited for needs the processor too."""
    deadline = time.monotonic() + timeout
    last = None
    while True:
        asked = time.monotonic()
        try:
            last = condition()
            if last:
                return last
        except AssertionError as error:
            last = error
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"{what}: not within {timeout} s; last seen: {last!r}")
        time.sleep(max(interval, min(2 * (now - asked), 0.5)))
