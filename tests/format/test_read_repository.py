"""The reader was written from agent/docs/repository-format.md: it restores what the agent restores, and what the agent
finds damaged it finds damaged. Run through tests/run, which builds the agent and finds PostgreSQL first."""
import filecmp
import glob
import os
import subprocess

import pytest

READER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "read_repository.py")
# What a restore adds or changes on purpose.
WRITTEN_BY_RESTORE = {"backup_manifest", "recovery.signal", "postgresql.auto.conf"}


def read(*arguments, code=0):
    result = subprocess.run(["/usr/bin/python3", READER, *arguments], capture_output=True, text=True, timeout=300,
                            check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def tree(root):
    """Relative path → kind of every entry, tablespaces followed."""
    entries = {}
    for directory, directories, files in os.walk(root, followlinks=True):
        for name in directories + files:
            path = os.path.join(directory, name)
            entries[os.path.relpath(path, root)] = "directory" if os.path.isdir(path) else "file"
    return entries


@pytest.fixture
def filled(primary):
    primary.pgbench_load(2)
    primary.sql("CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a")
    return primary


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
def test_the_reader_restores_what_the_agent_restores(filled, workspace, codec):
    filled.backup("--codec", codec)
    label = filled.backups()[0].removeprefix("backups/")
    assert label in read("list", filled.repository)
    assert "are good" in read("verify", filled.repository, label)

    ours, theirs = (os.path.join(workspace.path, name) for name in ("by-agent", "by-reader"))
    filled.restore(ours)
    read("restore", filled.repository, "latest", theirs)
    expected = {path: kind for path, kind in tree(ours).items() if path not in WRITTEN_BY_RESTORE}
    found = {path: kind for path, kind in tree(theirs).items() if path not in WRITTEN_BY_RESTORE}
    assert found == expected
    files = [path for path, kind in expected.items() if kind == "file"]
    assert len(files) > 500
    _, different, errors = filecmp.cmpfiles(ours, theirs, files, shallow=False)
    assert (different, errors) == ([], [])


def test_the_reader_finds_a_flipped_byte(filled):
    filled.backup()
    pack, = glob.glob(os.path.join(filled.repository, "*", "packs", "*", "1.pack"))
    with open(pack, "r+b") as file:
        file.seek(os.path.getsize(pack) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 16]))
    message = read("verify", filled.repository, "latest", code=1)
    assert "1.pack offset" in message, message
    assert filled.ctl("backup", "verify", "backups/latest").code != 0


def test_the_reader_refuses_a_manifest_that_was_changed(filled):
    filled.backup()
    manifest, = glob.glob(os.path.join(filled.repository, "*", "backups", "*", "manifest"))
    with open(manifest, encoding="ascii") as file:
        text = file.read()
    with open(manifest, "w", encoding="ascii") as file:
        file.write(text.replace("codec\tzstd", "codec\tlz4"))
    assert "do not match the hash" in read("list", filled.repository, code=1)
