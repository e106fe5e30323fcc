"""A few faults of an emulated drive, in a guest that really boots; tests/run lab plays all of them and measures."""
import os

import pytest

from harness.node import BIN
from harness.process import wait_for
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
    guest = Guest(kernel, image.with_program(initramfs, unit_tests), workspace.directory("guest"))
    workspace.at_end(guest.cut_power)
    guest.boot(agent=False)
    said = guest.shell("test_disk --gtest_color=no --gtest_filter=RealDriveTest.* 2>&1", timeout=180)
    assert "[  PASSED  ] 3 tests." in said and "SKIPPED" not in said and "FAILED" not in said, said
