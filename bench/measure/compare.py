"""Whether a restored directory is the database: all its relations and transaction states, byte by byte.

The source's server is shut down and wrote no page since the backups (autovacuum is off, the database was frozen when it
was built), so nothing has to be replayed before files are comparable. Left out is what every start of a server or every
restore writes anew: control file, WAL, caches, statistics, configuration.
"""

import os

from .process import CommandFailed

DIRECTORIES = ("base", "global", "pg_xact", "pg_multixact", "pg_tblspc")
LEFT_OUT = ("pg_control", "pg_internal.init")
CHUNK_BYTES = 4 << 20
PAGE_BYTES = 8192


def compare(who, source, restored):
    """Raises CommandFailed with the first difference; answers (files, bytes) that are equal."""
    expected, found = _files(source), _files(restored)
    if expected != found:
        missing, surplus = sorted(expected - found), sorted(found - expected)
        raise CommandFailed(f"{who}: the restored directory lacks {missing[:5]} and has {surplus[:5]} too much "
                            f"({len(missing)} and {len(surplus)} files)")
    total = 0
    for path in sorted(expected):
        total += _compare_file(who, path, os.path.join(source, path), os.path.join(restored, path))
    return len(expected), total


def _files(root):
    found = set()
    for directory in DIRECTORIES:
        for parent, _, names in os.walk(os.path.join(root, directory)):
            found |= {os.path.relpath(os.path.join(parent, name), root) for name in names
                      if name not in LEFT_OUT and not name.startswith((".metal-probe", "pgsql_tmp"))}
    return found


def _compare_file(who, name, source, restored):
    offset = 0
    with open(source, "rb") as left, open(restored, "rb") as right:
        while True:
            expected, found = left.read(CHUNK_BYTES), right.read(CHUNK_BYTES)
            if expected != found:
                same = len(os.path.commonprefix([expected, found]))
                raise CommandFailed(f"{who}: {name} differs from the source at byte {offset + same} "
                                    f"(page {(offset + same) // PAGE_BYTES}; {len(expected)} and {len(found)} bytes read)")
            if not expected:
                return offset
            offset += len(expected)
