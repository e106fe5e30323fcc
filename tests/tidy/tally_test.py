"""The count line of the tests, and its exit code."""
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
TALLY = os.path.join(TESTS, "harness", "tally")


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


def test_a_broken_promise_is_not_excused_by_a_second_run(tmp_path):
    broken = ("<testsuites><testsuite><testcase name='lost'><properties><property name='violation' value='3 rows are lost'/>"
              "</properties><failure message='no'/></testcase></testsuite></testsuites>")
    done = tally(tmp_path, fault__xml=broken, fault__again__xml=junit(lost="passed"))
    assert done.returncode == 1 and done.stdout == "failed: lost: 3 rows are lost\n0 passed, 1 failed, 0 skipped\n"


def test_a_violation_is_marked_in_the_results_and_an_assertion_is_not(tmp_path):
    """Also one after which something else was raised, and one that a wait would have waited out."""
    (tmp_path / "test_promises.py").write_text(
        "from harness.ledger import promised\n"
        "from harness.process import wait_for\n"
        "def test_lost(): promised(False, 'a row is lost')\n"
        "def test_waited(): wait_for('peace', lambda: promised(False, 'two primaries'), timeout=60)\n"
        "def test_hidden():\n"
        "    try: promised(False, 'lost, and then more')\n"
        "    finally: assert 1 == 2\n"
        "def test_slow(): assert 1 == 2\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\njunit_family = xunit2\n")
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-c", "pytest.ini", "-p", "conftest", "-p", "no:cacheprovider",
                    "--junit-xml", "results.xml", "."], cwd=tmp_path, env={**os.environ, "PYTHONPATH": TESTS},
                   stdout=subprocess.DEVNULL, timeout=60, check=False)
    told = {case.get("name"): [each.get("value") for each in case.iter("property")]
            for case in ElementTree.parse(tmp_path / "results.xml").getroot().iter("testcase")}
    assert told == {"test_lost": ["a row is lost"], "test_waited": ["two primaries"], "test_hidden": ["lost, and then more"],
                    "test_slow": []}


def test_results_of_google_test_are_named_by_module_suite_and_test(tmp_path):
    """One name may stand in two suites."""
    cases = ("<testcase name='Reads' classname='DiskTest' status='run' result='completed'/>"
             "<testcase name='Reads' classname='FileTest' status='run' result='completed'><failure message='no'/></testcase>"
             "<testcase name='Drive' classname='DiskTest' status='run' result='skipped'>"
             "<skipped message='disk_test.cc:3&#x0A;there is none'/></testcase>"
             "<testcase name='Off' classname='DiskTest' status='notrun' result='suppressed'/>")
    done = tally(tmp_path, disk__gtest__xml=f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert done.stdout.startswith("skipped unexpectedly: disk.DiskTest.Drive: there is none\n")
    assert "\nfailed: disk.FileTest.Reads\n" in done.stdout and "1 passed, 3 failed, 0 skipped" in done.stdout


UNIT_TESTS = os.path.join(TESTS, "harness", "unit-tests")
# A binary of one unit test that fails the first time.
LUCK = r"""#!/bin/sh
for each in "$@"; do case $each in --gtest_output=xml:*) xml=${each#*:} ;; --gtest_filter=*) filter=${each#*=} ;; esac; done
echo "$filter" >> "$0.filters"
[ "$filter" = - ] && luck="<failure message='no'/>" || luck=
%s
echo "<testsuites><testsuite><testcase name='Luck/0' classname='A/DiskTest'>$luck</testcase></testsuite></testsuites>" > "$xml"
[ -n "$luck" ] || exit 0
printf '[  FAILED  ] A/DiskTest.Luck/0, where GetParam() = "x" (1 ms)\n[  FAILED  ] 1 test, listed below:\n'
printf '[  FAILED  ] A/DiskTest.Luck/0, where GetParam() = "x"\n'
exit 1
"""


def unit_tests(directory, script):
    binary = directory / "test_disk"
    binary.write_text(script)
    binary.chmod(0o755)
    (directory / "results").mkdir()
    for arguments in ([UNIT_TESTS, str(directory / "results"), str(directory), "asan-", "", str(binary)],
                      [sys.executable, TALLY, str(directory / "results")]):
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    return done, (directory / "test_disk.filters").read_text().splitlines()


def test_a_unit_test_that_fails_is_run_once_more(tmp_path):
    done, filters = unit_tests(tmp_path, LUCK % "")
    assert filters == ["-", "A/DiskTest.Luck/0"]
    assert done.returncode == 0 and done.stdout.endswith("0 passed, 0 failed, 0 skipped, 1 unstable\n"), done.stdout
    assert "unstable: disk.A/DiskTest.Luck/0: " in done.stdout and (tmp_path / "test_disk.log").exists()


def test_unit_tests_that_fail_twice_or_do_not_end_or_break_a_sanitizers_rules_fail(tmp_path):
    for name, script, runs, failed in (("twice", LUCK % "luck='<failure/>'", 2, 2), ("killed", LUCK % "kill -9 $$", 1, 1),
                                       ("race", LUCK % "echo 'WARNING: ThreadSanitizer: data race'", 1, 2)):
        (tmp_path / name).mkdir()
        done, filters = unit_tests(tmp_path / name, script)
        assert done.returncode == 1 and len(filters) == runs, (name, done.stdout)
        assert done.stdout.endswith(f"0 passed, {failed} failed, 0 skipped\n"), (name, done.stdout)


def test_a_failed_step_and_no_test_at_all_fail(tmp_path):
    assert tally(tmp_path).returncode == 1
    assert tally(tmp_path, steps="failed build it does not compile\n").returncode == 1
