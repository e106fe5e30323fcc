"""What is measured: builds the programs of this tree (preset release) and says which commit they are made from."""

import pathlib
import subprocess

from .process import CommandFailed, tail

PROGRAMS = ("metal-agent", "metalctl", "metal-wal", "codec_speed", "tls_speed")


class Source:
    """The tree at `root`. `given`: a directory with programs built elsewhere, used as they are; None builds them."""

    def __init__(self, root, given=None, programs=PROGRAMS):
        self._root = root
        self._programs = programs
        self._given = pathlib.Path(given).resolve() if given else None
        self._commit, self._dirty = None, None  # of programs that somebody else built nothing is known

    @property
    def build_dir(self):
        return self._given or self._root / "build/release"

    @property
    def bindir(self):
        return self.build_dir / "bin"

    def prepare(self, say):
        """Builds, or checks that the given programs are there."""
        if self._given:
            return self._check_given()
        self._commit, self._dirty = self._git("rev-parse", "HEAD"), bool(self._git("status", "--porcelain"))
        say("building (preset release)")
        log = self._root / "build/bench-build.log"
        log.parent.mkdir(exist_ok=True)
        with open(log, "wb") as output:
            code = subprocess.run([self._root / "tools/dev/build", "--preset", "release", *self._programs],
                                  stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT).returncode
        if code != 0:
            raise CommandFailed(f"the build failed:\n{tail(log, 40)}HINT: the whole log is {log}")
        # Somebody may have edited or committed while the compiler ran: then no one commit describes the programs.
        self._dirty = self._dirty or self.head() != self._commit or bool(self._git("status", "--porcelain"))

    def _check_given(self):
        missing = [name for name in self._programs if not (self.bindir / name).exists()]
        if missing:
            raise CommandFailed(f"{self.bindir} lacks {', '.join(missing)}. HINT: leave --build out to have them built")

    def head(self):
        return self._git("rev-parse", "HEAD")

    def facts(self):
        """For the report. commit and dirty are null for programs that were given, and without a repository."""
        return {"commit": self._commit or None, "dirty": self._dirty if self._commit else None,
                "build": "given" if self._given else "release"}

    def _git(self, *words):
        return subprocess.run(["git", "-c", f"safe.directory={self._root}", "-C", self._root, *words],
                              capture_output=True, text=True).stdout.strip()
