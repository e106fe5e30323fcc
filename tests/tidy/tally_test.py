"""The count line of the tests, and its exit code."""
import os
import subprocess
import sys

TALLY = os.path.join(os.path.dirname(__file__), "..", "harness", "tally")


def tally(directory, **files):
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    environment = {**os.environ, "CI": "true"}
    return subprocess.run([sys.executable, TALLY, str(directory)], capture_output=True, text=True, env=environment, check=False)


def junit(**outcomes):
    bodies = {"passed": "", "failed": "<failure message='no'/>", "error": "<error message='no'/>"}
    cases = "".join(f"<testcase name='{name}'>{bodies[outcome]}</testcase>" for name, outcome in outcomes.items())
    return f"<testsuites><testsuite>{cases}</testsuite></testsuites>"


def test_a_failure_is_named_and_fails(tmp_path):
    done = tally(tmp_path, fault__xml=junit(good="passed", bad="failed"))
    assert done.returncode == 1 and done.stdout == "failed: bad\n1 passed, 1 failed, 0 skipped\n"


def test_what_passes_when_it_is_run_again_is_unstable(tmp_path):
    done = tally(tmp_path, fault__xml=junit(good="passed", luck="error"), fault__again__xml=junit(luck="passed"))
    assert done.returncode == 0
    assert "unstable: luck: " in done.stdout and "build/test-logs/fault.log" in done.stdout
    assert done.stdout.endswith("1 passed, 0 failed, 0 skipped, 1 unstable\n")


def test_what_fails_twice_fails(tmp_path):
    done = tally(tmp_path, fault__xml=junit(bad="failed"), fault__again__xml=junit(bad="failed"))
    assert done.returncode == 1 and done.stdout.endswith("0 passed, 1 failed, 0 skipped\n")


def test_a_failed_step_and_no_test_at_all_fail(tmp_path):
    assert tally(tmp_path).returncode == 1
    assert tally(tmp_path, steps="failed build it does not compile\n").returncode == 1
