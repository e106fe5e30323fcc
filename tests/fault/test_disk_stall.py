"""A data disk that hangs: PGDATA on a loop device whose I/O is held back by the kernel's block throttle.

The stall must show in the status within 5 s and clear when it ends, and nothing else in the agent may notice.
"""
import json
import os
import subprocess
import threading
import time

import pytest

from harness import process
from harness.diagnostics import capture
from harness.loop_disk import Unavailable, primary_on_loop_disk
from harness.status_latency import check_promise

pytestmark = pytest.mark.skipif(not process.IS_ROOT, reason="loop devices and cgroups need root")


@pytest.fixture
def hanging(workspace, pg):
    """A primary on a disk that can be made to hang, with the agent in the cgroup."""
    try:
        node = primary_on_loop_disk(workspace, pg)
    except Unavailable as why:
        pytest.skip(str(why))
    node.wait_status("the probe is healthy", lambda status: probe_state(status) == "HEALTHY", 40)
    return node


def probe_state(status):
    states = [probe["state"] for disk in status["disks"] for probe in disk["probes"] if probe["role"] == "data"]
    return states[0].removeprefix("PROBE_STATE_") if states else ""


class OpenView:
    """`metalctl disk watch`, open to the end of the block; `views`: (when, what it said)."""

    def __init__(self, node):
        self.views = []
        self._process = subprocess.Popen(node.ctl_arguments("-o", "json", "disk", "watch"), stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.views.append((time.monotonic(), json.loads(line)))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait(20)
        self._reader.join(20)

    def shows(self, state):
        return bool(self.views) and probe_state(self.views[-1][1]) == state


def test_a_view_that_is_open_goes_on_through_a_stall(hanging):
    with OpenView(hanging) as view:
        process.wait_for("it shows the disk", lambda: view.shows("HEALTHY"), 20)
        hanging.disk.hang()
        begin = time.monotonic()
        process.wait_for("it shows the stall", lambda: view.shows("STALLED"), 10)
        assert time.monotonic() - begin < 6.0
        before = len(view.views)
        process.wait_for("it goes on", lambda: len(view.views) >= before + 3, 15)
        assert any(each["fault_class"] == "stalled" for each in view.views[-1][1]["faults"])
        hanging.disk.work()
        process.wait_for("it shows the end", lambda: view.shows("HEALTHY"), 20)


def test_stalled_disk_shows_within_five_seconds_and_clears(hanging):
    node, after = hanging, hanging.last_event_id()
    node.disk.hang()
    begin = time.monotonic()
    status = node.wait_status("the stall shows", lambda each: probe_state(each) == "STALLED", 10)
    assert time.monotonic() - begin < 5.0
    fault = next(each for each in status["faults"] if each["fault_class"] == "stalled")
    assert fault["severity"] in ("SEVERITY_ERROR", "SEVERITY_CRITICAL") and fault["message"]

    # Nothing else in the agent notices.
    check_promise(node)
    found = capture(node)
    assert "data disk" in found.manifest["missing"]["settings"], found.manifest
    assert found.of_kind("probe", role="data")[-1]["oldest_us"] > 1_000_000, "the stall is on the record, second by second"
    assert any(each["type"] == "disk.stalled" for each in found.of_kind("event"))
    assert "ready to accept connections" in found.files["postgres.log"], "it is on another disk"
    assert any(each.get("error", "").startswith("the data disk did not answer") or each.get("state")
               for each in found.of_kind("control", moment="capture"))
    assert node.events("disk.", after), "events are written: they live on another disk"
    assert node.operations(), "so does the journal"
    assert node.ok("disk", "list")["disks"]

    node.disk.work()
    node.wait_status("it clears", lambda each: probe_state(each) == "HEALTHY" and not each["faults"], 20)
    node.sql("CREATE TABLE t AS SELECT 1 AS a; CHECKPOINT")
    assert node.sql("SELECT a FROM t") == "1"


def leave_page_cache(path):
    """A read of the file must then go to the disk. (Looking with RWF_NOWAIT would read it ahead.)"""
    def gone():
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return process.run(["fincore", "--noheadings", "--output", "PAGES", path]).stdout.strip() == "0"
    process.wait_for(f"{path} left the page cache", gone, 20)


def test_viewers_of_a_hung_disk_keep_no_order_from_being_heard(hanging):
    """More readers of pg_control than there are places; each gives up by itself, and role changes have places of their own."""
    node = hanging
    node.disk.hang()
    node.wait_status("the stall shows", lambda each: probe_state(each) == "STALLED", 10)
    leave_page_cache(os.path.join(node.data_dir, "global/pg_control"))
    viewers = [subprocess.Popen(node.ctl_arguments("--timeout", "8s", "pg", "control"), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True) for _ in range(20)]

    def ended():
        return [each for each in viewers if each.poll() is not None]
    try:
        # Of twenty, twelve got a place and wait; the others were refused at once.
        process.wait_for("all places are taken", lambda: len(ended()) >= 8, 30)
        stale = node.ctl("term", "begin", "1", "--orchestrator", "somebody-else", timeout=30)
        assert stale.reason == "TERM_HELD", stale
        assert node.ctl("op", "cancel", "operations/none", timeout=30).code == 4
        said = [each.communicate(timeout=60)[0] for each in viewers]
    finally:
        node.disk.work()
        for each in viewers:
            each.kill()
            each.wait(20)
    assert sum("TOO_MANY_CALLS" in text or "too many calls" in text for text in said) <= 8, said
    assert sum("does not answer" in text for text in said) >= 12, said
    process.wait_for("it is read again", lambda: node.ctl("pg", "control", timeout=20).code == 0, 30)


def test_agent_ends_and_starts_while_the_disk_hangs(hanging):
    """A hung probe cannot keep the agent from ending, and PostgreSQL is not touched by either."""
    node, pid = hanging, hanging.pid()
    node.disk.hang()
    node.wait_status("the stall shows", lambda each: probe_state(each) == "STALLED", 10)
    assert process.end(node.process, patience=8.5) in (0, 70), "it ends by itself: orderly, or at its deadline"
    assert process.is_alive(pid)
    with node.disk.capturing_new():
        node.launch()
    process.wait_for("the agent answers", lambda: node.ctl("status", timeout=2).code == 0)
    node.wait_status("the new agent sees the stall too", lambda each: probe_state(each) == "STALLED", 30)
    node.disk.work()
    node.wait_status("it clears", lambda each: probe_state(each) == "HEALTHY" and not each["faults"], 30)
    assert node.wait_running()["postgres"]["pid"] == pid
