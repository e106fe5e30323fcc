"""Tests tools/dev/format: it names what differs, changes nothing unless told to, and refuses bad usage."""
import os
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UGLY, TIDY = "int a;\nint   b ;\n", "int a;\nint b;\n"


def call(*arguments):
    return subprocess.run([os.path.join(ROOT, "tools/dev/format"), *map(str, arguments)], capture_output=True, text=True)


def test_bad_usage_is_refused(tmp_path):
    for arguments in (["--fix"], [tmp_path / "absent.cc"], ["--no-such-option"]):
        assert call(*arguments).returncode == 2


def test_layout_is_checked_and_mended(tmp_path):
    ugly, tidy = tmp_path / "ugly.cc", tmp_path / "tidy.cc"
    ugly.write_text(UGLY)
    tidy.write_text(TIDY)
    shutil.copy(os.path.join(ROOT, ".clang-format"), tmp_path)
    refused = call(ugly, tidy)
    if refused.returncode == 3:  # it is not installed here: that is not taken for tidiness
        assert "HINT: apt-get install clang-format-14" in refused.stderr and ugly.read_text() == UGLY
        return
    assert refused.returncode == 1 and "ugly.cc:2: layout differs" in refused.stdout and "2 files, 1 differ" in refused.stdout
    assert ugly.read_text() == UGLY
    assert call("--fix", ugly).returncode == 0
    assert ugly.read_text() == TIDY and call(ugly, tidy).returncode == 0
