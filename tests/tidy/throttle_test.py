"""What the throttle of tests' disks writes where, on each kind of cgroups. The fault tests show that the kernel obeys it."""
import os

import pytest

from harness.throttle import Throttle, Unavailable


def cgroups(directory, **files):
    """As /sys/fs/cgroup: path → text, with __ for a slash."""
    for name, text in files.items():
        path = directory / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(directory)


def text_of(throttle, name):
    with open(os.path.join(throttle.directory, name), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("place", ["", "unified__"])
def test_the_second_version_limits_reads_and_writes_in_one_line(tmp_path, place):
    """It has the pages that fsync writes accounted for as well, without touching what is there already."""
    root = cgroups(tmp_path, **{f"{place}cgroup-controllers": "cpu io memory pids\n", f"{place}cgroup-subtree_control": "memory\n"})
    throttle = Throttle("test", root)
    assert throttle.directory == os.path.join(root, place.rstrip("_"), "test")
    assert text_of(throttle, "../cgroup.subtree_control") == "+io"
    throttle.limit("7:3", 400)
    assert text_of(throttle, "io.max") == "7:3 rbps=400 wbps=400"
    throttle.limit("7:3", 1)
    assert text_of(throttle, "io.max") == "7:3 rbps=2 wbps=2", "less is refused"
    throttle.limit("7:3", None)
    assert text_of(throttle, "io.max") == "7:3 rbps=max wbps=max"
    throttle.enter(42)
    assert text_of(throttle, "cgroup.procs") == "42"


def test_the_first_version_has_a_file_for_each(tmp_path):
    throttle = Throttle("test", cgroups(tmp_path, **{"blkio__blkio-throttle-write_bps_device": ""}))
    throttle.limit("7:3", 400)
    assert [text_of(throttle, f"blkio.throttle.{each}_bps_device") for each in ("read", "write")] == ["7:3 400"] * 2
    throttle.limit("7:3", None)
    assert [text_of(throttle, f"blkio.throttle.{each}_bps_device") for each in ("read", "write")] == ["7:3 0"] * 2


def test_where_there_is_neither_it_says_so(tmp_path):
    root = cgroups(tmp_path, **{"cgroup-controllers": "cpu pids\n"})
    with pytest.raises(Unavailable, match="no block throttle: .* has neither blkio of cgroup v1 nor io of v2"):
        Throttle("test", root)


def test_a_cgroup_that_cannot_be_made_is_a_reason(tmp_path):
    root = cgroups(tmp_path, **{"cgroup-controllers": "io\n", "test": "in the way"})
    with pytest.raises(Unavailable, match="no block throttle: .*File exists"):
        Throttle("test", root)
