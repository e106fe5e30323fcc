"""Where a call works: a copy of the database, its server, directories of the postgres user, the log."""

import os
import shutil
import subprocess

from tools.server import Server

from . import process
from .meter import tree_bytes


class Place:
    """Use as a context manager: the end stops the tools and the server and removes the files, unless `keep`."""

    user = "postgres"

    def __init__(self, directory, database, *, bindir, pgbackrest_bindir, metal_bindir, repositories=None, keep=False):
        self.bindir, self.pgbackrest_bindir, self.metal_bindir = bindir, pgbackrest_bindir, metal_bindir
        self.tools = []
        self._keep, self._repositories = keep, repositories
        self.agent = None  # of the tools that are Metal: a database has one
        remove_abandoned(directory)
        self.run_dir = directory / f"run-{os.getpid()}"
        self.run_dir.mkdir()
        shutil.chown(self.run_dir, self.user)
        # A copy, because servers and agents write to it: every call starts from the same bytes.
        data = self.run_dir / "data"
        subprocess.run(["cp", "-a", "--reflink=never", database / "data", data], check=True)
        self.database_bytes = tree_bytes(data, skip=("pg_wal",))
        self.log = self.run_dir / "log"
        self.log.touch()
        shutil.chown(self.log, self.user)
        self.server = Server(bindir, data, self.user, self.log)

    def scratch(self, name):
        """A new directory of the postgres user, removed at the end."""
        path = self.run_dir / name
        path.mkdir(mode=0o700)
        shutil.chown(path, self.user)
        return path

    def repository(self, name):
        """Where a tool's repository is to be; its parent exists. Removed at the end, like all else."""
        if self._repositories is None:
            return self.scratch(f"{name}-repository") / "files"
        path = self._repositories / f"{self.run_dir.name}-{name}"
        path.mkdir(mode=0o700, parents=True)
        shutil.chown(path, self.user)
        return path / "files"

    def versions(self):
        versions = {"postgres": process.output_of([self.bindir / "postgres", "--version"], self.user, "/").strip()}
        return {**versions, **{tool.name: tool.version(self) for tool in self.tools}}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for tool in self.tools:
            tool.close()
        self.server.close()
        for path in self._repositories.glob(f"{self.run_dir.name}-*") if self._repositories and not self._keep else ():
            shutil.rmtree(path, ignore_errors=True)
        if self._keep:
            kept = self.run_dir.with_name(self.run_dir.name.replace("run", "kept"))
            self.run_dir.rename(kept)
            process.say(f"kept {kept}")
        else:
            shutil.rmtree(self.run_dir, ignore_errors=True)


def remove_abandoned(directory):
    """Removes what calls left behind that were killed. The directory of a running server stays."""
    for path in directory.glob("run-*"):
        if os.path.exists(f"/proc/{path.name.removeprefix('run-')}"):
            continue
        pid = process.postmaster(path / "data")
        if pid:
            process.say(f"{path} is of an earlier call, and its server, pid {pid}, still runs: left alone")
            continue
        shutil.rmtree(path)
