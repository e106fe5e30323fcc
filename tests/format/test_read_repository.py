"""The reader was written from agent/docs/repository-format.md and repository-format-wal.md: it restores what the agent restores,
reads the WAL that PostgreSQL wrote, and what the agent finds damaged it finds damaged. Run through tests/run, which builds the
agent and finds PostgreSQL first."""
import filecmp
import glob
import os
import subprocess

import pytest

from format import read_repository
from harness.node import Node
from harness.process import wait_for

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
def filled(primary, workspace):
    primary.pgbench_load(2)
    primary.sql("CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a")
    primary.sql(f"CREATE TABLESPACE space LOCATION '{workspace.directory('space')}'")
    primary.sql("CREATE TABLE spaced TABLESPACE space AS SELECT g AS a, md5(g::text) AS b FROM generate_series(1, 20000) g")
    return primary


@pytest.fixture(scope="module")
def archiving(module_workspace, pg):
    """A primary with segments of two frames: not more, for where the kernel offers no CRC-32C the reader computes its own."""
    node = Node(module_workspace, pg).start_agent()
    node.init("--wal-segment-bytes", str(2 << 20), "--set", "fsync=off")
    node.ok("pg", "start")
    node.promote(1)
    return node


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
def test_the_reader_restores_what_the_agent_restores(filled, workspace, codec):
    filled.backup("--codec", codec)
    label = filled.backups()[0].removeprefix("backups/")
    assert label in read("list", filled.repository)
    assert "are good" in read("verify", filled.repository, label)

    ours, theirs = (os.path.join(workspace.path, name) for name in ("by-agent", "by-reader"))
    tablespace = filled.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'")
    filled.restore(ours, "--tablespace", f"{tablespace}={ours}-space")
    read("restore", filled.repository, "latest", theirs, "--tablespace", f"{tablespace}={theirs}-space")
    assert [os.readlink(f"{each}/pg_tblspc/{tablespace}") for each in (ours, theirs)] == [f"{ours}-space", f"{theirs}-space"]
    relation = filled.sql("SELECT pg_relation_filepath('spaced')")
    expected = {path: kind for path, kind in tree(ours).items() if path not in WRITTEN_BY_RESTORE}
    found = {path: kind for path, kind in tree(theirs).items() if path not in WRITTEN_BY_RESTORE}
    assert found == expected
    for directory in (ours, theirs):
        with open(os.path.join(directory, "tablespace_map"), encoding="utf-8") as file:
            assert file.read() == f"{tablespace} {directory}-space\n", "PostgreSQL links what it says"
    files = [path for path, kind in expected.items() if kind == "file" and path != "tablespace_map"]
    assert len(files) > 500 and relation in files and relation.startswith("pg_tblspc/")
    _, different, errors = filecmp.cmpfiles(ours, theirs, files, shallow=False)
    assert (different, errors) == ([], [])


def flip(path, at):
    """Damages a byte; a second call mends it."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 16]))


def test_the_reader_finds_a_flipped_byte(filled):
    filled.backup()
    pack, = glob.glob(os.path.join(filled.repository, "*", "packs", "*", "1.pack"))
    flip(pack, os.path.getsize(pack) // 2)
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


def archived(node):
    """A new segment, in which something stands."""
    segment = node.switch_wal()
    wait_for(f"{segment} is archived", lambda: node.sql("SELECT last_archived_wal FROM pg_stat_archiver") >= segment, 30)
    return segment


def test_the_reader_reads_the_wal_that_postgres_wrote(archiving, module_workspace):
    """Every kind of file; what the server still has is the same, byte for byte."""
    archiving.sql("CREATE TABLE noise AS SELECT gen_random_uuid() FROM generate_series(1, 40000)")
    archiving.backup()
    segment = archived(archiving)
    into = module_workspace.directory("wal")
    said = read("wal", archiving.repository, "--into", into)
    names = set(os.listdir(into))
    assert f"{len(names)} files of WAL" in said
    assert {os.path.splitext(each)[1] for each in names} == {"", ".partial", ".history", ".backup"}
    own = os.path.join(archiving.data_dir, "pg_wal")
    there = [each for each in names if os.path.exists(os.path.join(own, each))]
    assert segment in there and len(there) > 2
    assert filecmp.cmpfiles(own, into, there, shallow=False)[1:] == ([], [])


def test_the_reader_finds_every_byte_of_archived_wal_that_was_changed(archiving):
    path, = glob.glob(os.path.join(archiving.repository, "*", "wal", "*", "00000002.history.wal"))
    system, size = int(archiving.system_identifier()), os.path.getsize(path)
    assert b"\t" in read_repository.read_wal(path, system, "00000002.history") and size < 400
    for at in range(size):
        flip(path, at)
        with pytest.raises(read_repository.Damaged):
            read_repository.read_wal(path, system, "00000002.history")
        flip(path, at)
    for other in ((path, system + 1, "00000002.history"), (path, system, "00000003.history")):
        with pytest.raises(read_repository.Damaged, match="another file"):
            read_repository.read_wal(*other)
    os.truncate(path, size - 1)
    assert "00000002.history.wal: wrong size" in read("wal", archiving.repository, code=1)
    os.unlink(path)


def test_the_reader_finds_a_segment_in_the_place_of_another(archiving):
    segment = archived(archiving)
    path, = glob.glob(os.path.join(archiving.repository, "*", "wal", "*", f"{segment}.wal"))
    system = int(archiving.system_identifier())
    raw = read_repository.read_wal(path, system, segment)
    read_repository.check_segment(raw, system, segment)
    for other in ((raw, system + 1, segment), (raw, system, segment[:-1] + "F"), (raw, system, "00000001" + segment[8:]),
                  (raw[:1 << 20], system, segment)):
        with pytest.raises(read_repository.Damaged):
            read_repository.check_segment(*other)
