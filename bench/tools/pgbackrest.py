"""pgBackRest with the settings that it recommends for speed: bundles, block-incremental repository, fast codecs."""

import shutil

from measure import process
from measure.meter import Meter, tree_bytes

STANZA = "metal"
PROCESSES = 2


class PgBackRest:
    """One codec of pgBackRest: "zst" or "lz4", level 1."""

    name = "pgbackrest"

    def __init__(self, bench, codec):
        self.codec = codec
        self._bench = bench
        self._program = bench.pgbackrest_bindir / "pgbackrest"
        self._dir = bench.scratch(f"pgbackrest-{codec}")
        self._repository = bench.repository(f"pgbackrest-{codec}")
        self._config = self._dir / "pgbackrest.conf"
        server = bench.server
        self._config.write_text(f"""[global]
repo1-path={self._repository}
repo1-bundle=y
repo1-block=y
repo1-retention-full=9
expire-auto=n
compress-type={codec}
compress-level=1
process-max={PROCESSES}
start-fast=y
log-path={self._dir}
lock-path={self._dir}/lock
spool-path={self._dir}
log-level-console=warn
log-level-file=off

[{STANZA}]
pg1-path={server.data}
pg1-port=5432
pg1-socket-path={server.socket_dir}
pg1-user=postgres
""")
        self._config.chmod(0o644)

    @staticmethod
    def version(bench):
        return process.output_of([bench.pgbackrest_bindir / "pgbackrest", "version"], bench.user, "/").strip()

    def _command(self, *words):
        return [self._program, f"--config={self._config}", f"--stanza={STANZA}", *words]

    def backup(self):
        """A full backup into an empty repository."""
        bench, server = self._bench, self._bench.server
        shutil.rmtree(self._repository, ignore_errors=True)
        postmaster = server.start(archive_mode="on", archive_command=" ".join(map(str, self._command(
            "archive-push", "%p"))))
        try:
            process.check(self._command("stanza-create"), bench.user, self._dir, bench.log)
            run = Meter(postmaster=postmaster).run(self, self._command("backup", "--type=full"), bench.user, self._dir,
                                                   bench.log)
        finally:
            server.stop()
        run.bytes, run.stored_bytes = bench.database_bytes, tree_bytes(self._repository)
        return run

    def restore(self, target):
        """Restores the last backup into the empty directory `target`."""
        run = Meter().run(self, self._command(f"--pg1-path={target}", "restore"), self._bench.user, self._dir,
                          self._bench.log)
        run.stored_bytes = tree_bytes(self._repository)
        return run

    def close(self):
        pass
