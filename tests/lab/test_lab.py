"""A few faults of an emulated drive, in a guest that really boots; tests/run lab plays all of them and measures."""
import dataclasses
import json
import os
import time

import pytest

from harness import drive_tools
from harness.node import BIN
from harness.process import run, wait_for
from lab import image
from lab.experiment import EXIT_LIMIT_MS, Experiment
from lab.faults import work
from lab.guest import Guest
from lab.scenarios import named

# The limit itself is judged by tests/run lab, where nothing else keeps the machine busy; what waits for the disk never ends.
BUSY_EXIT_LIMIT_MS = 4 * EXIT_LIMIT_MS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs():
    """The kernel and the initramfs."""
    try:
        return image.prepare(os.path.join(BIN, "metal-agent"))
    except image.Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture
def lab(workspace, programs):
    """A guest whose agent's probes are healthy."""
    scenario = named("stall")
    made = Experiment(scenario, Guest.for_scenario(scenario, *programs, workspace.directory("guest")))
    workspace.at_end(made.guest.cut_power)
    workspace.at_end(made.stop_watching)
    made.guest.boot()
    made.settle()
    return made


def expect_in_time(lab, name):
    """Plays a scenario of the table on this guest; the fault must be named within the table's limit."""
    lab.scenario = named(name)
    lab.scenario.inject(lab)
    lab.await_detection()
    assert lab.outcome.detected_as, f"{name}: {lab.outcome.instead or 'nothing was said'}"
    assert lab.outcome.seconds <= lab.scenario.bar_s


def test_a_drive_that_hangs_is_told_and_holds_nobody(lab):
    expect_in_time(lab, "crawl")
    work(lab)
    wait_for("the probes are healthy again", lab.probes_healthy, 60, 0.1)
    expect_in_time(lab, "smart-read-only")
    expect_in_time(lab, "stall")
    assert lab.stuck_threads() == {}
    lab.stop_watching()
    lab.terminate()
    assert lab.outcome.exit_ms <= BUSY_EXIT_LIMIT_MS


def test_a_drive_that_is_pulled_out_is_told(lab):
    lab.scenario = named("gone")
    lab.scenario.inject(lab)
    event = wait_for("a fault of the disk is told",
                     lambda: [each for each in lab.events.since(lab.injected) if each.type.startswith("disk.")], 10)[0]
    assert event.at - lab.injected <= lab.scenario.bar_s, event
    assert lab.stuck_threads() == {}
    lab.stop_watching()
    lab.terminate()
    assert lab.outcome.exit_ms <= BUSY_EXIT_LIMIT_MS


def test_commands_to_a_drive_get_what_the_drive_says(workspace, programs):
    """The unit tests that need an emulated drive, and are skipped where there is none."""
    unit_tests = os.path.join(os.path.dirname(BIN), "tests/unit/test_disk")
    kernel, initramfs = programs
    guest = Guest(kernel, image.with_programs(initramfs, unit_tests), workspace.directory("guest"))
    workspace.at_end(guest.cut_power)
    guest.boot(agent=False)
    said = guest.shell("test_disk --gtest_color=no --gtest_filter=RealDriveTest.* 2>&1", timeout=180)
    assert "[  PASSED  ] 3 tests." in said and "SKIPPED" not in said and "FAILED" not in said, said


class GuestDrive:
    """The drive of a guest, as its agent reads it and as programs in the guest do (harness/drive_tools.py)."""

    def __init__(self, guest):
        self.guest = guest

    def decoded(self):
        command = [os.path.join(BIN, "metalctl"), *self.guest.endpoint(), "-o", "json", "disk", "logs", "nvme0n1"]
        said = json.loads(run(command, as_root=True).stdout)
        return {log["name"]: [{each["name"]: each["value"] for each in record["fields"]} for record in log.get("records", [])]
                for log in said["logs"]}

    def told_by(self, *command):
        return json.loads(self.guest.shell(" ".join(command) + " 2> /dev/null", timeout=60))


def test_a_drive_is_read_as_nvme_and_smartctl_read_it(workspace, programs):
    kernel, initramfs = programs
    tools = [image.program(name) for name in ("nvme", "smartctl")]
    # Probes half an hour apart: the drive's counters stand still between our look and theirs.
    guest = Guest(kernel, image.with_programs(initramfs, *tools), workspace.directory("guest"), probe_ms=1_800_000)
    workspace.at_end(guest.cut_power)
    guest.boot()
    drive = GuestDrive(guest)
    wait_for("the agent has read the drive's logs", lambda: "smart" in drive.decoded(), 60)
    guest.smart_warning(1 << 1)
    wait_for("it has seen the warning", lambda: drive.decoded()["smart"][0]["critical_warning"] == "2", 60)
    # An emulated drive has no errors to show; those of the pages of the unit tests are compared in test_drive_logs.py.
    for same in (drive_tools.smart_as_nvme_shows_it, drive_tools.smart_and_identity_as_smartctl_shows_them,
                 drive_tools.identity_as_nvme_shows_it):
        # The agent reads every 10 s; what the file system writes may lie between.
        for last in (False, False, True):
            try:
                same(drive)
                break
            except AssertionError:
                if last:
                    raise
                time.sleep(11)


def test_an_idle_drive_gets_few_requests(workspace, programs):
    """At most five a second for all that the agent does; nobody else uses these two."""
    scenario = dataclasses.replace(named("power-cut"), workload=None)  # the agent's state on a drive of its own
    guest = Guest.for_scenario(scenario, *programs, workspace.directory("guest"))
    workspace.at_end(guest.cut_power)
    guest.boot()
    made = Experiment(scenario, guest)
    workspace.at_end(made.stop_watching)
    made.settle()
    made.stop_watching()

    def requests(seconds):
        """A second, of each drive: reads, writes, discards and flushes."""
        def count():
            said = guest.shell("cat /sys/block/nvme0n1/stat /sys/block/nvme1n1/stat").splitlines()
            return [sum(int(each.split()[i]) for i in (0, 4, 11, 15)) for each in said]
        before, begin = count(), time.monotonic()
        time.sleep(seconds)
        return [(now - then) / (time.monotonic() - begin) for now, then in zip(count(), before)]
    for device, rate in zip(("the data drive", "the drive of the agent's state"), requests(40)):
        assert rate <= 5.0, f"{device}: {rate:.1f} requests a second"
