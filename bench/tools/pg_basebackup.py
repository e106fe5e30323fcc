"""pg_basebackup: compression inside the server with two zstd workers, tar format."""

import shutil

from measure import process
from measure.meter import Meter, tree_bytes

WORKERS = 2


class PgBaseBackup:
    name = "pg_basebackup"
    codec = "zstd"

    def __init__(self, bench):
        self._bench = bench
        self._dir = bench.scratch("pg_basebackup")
        self._archive = bench.repository("pg_basebackup")

    @staticmethod
    def version(bench):
        return process.output_of([bench.bindir / "pg_basebackup", "--version"], bench.user, "/").split()[2]

    def backup(self):
        bench, server = self._bench, self._bench.server
        shutil.rmtree(self._archive, ignore_errors=True)
        postmaster = server.start(archive_mode="off", archive_command="")
        try:
            run = Meter(postmaster=postmaster, count_walsenders=True).run(
                self, [bench.bindir / "pg_basebackup", "-h", server.socket_dir, "-p", "5432", "-U", "postgres", "-D",
                       self._archive, "-Ft", f"--compress=server-zstd:level=1,workers={WORKERS}", "--checkpoint=fast"],
                bench.user, self._dir, bench.log)
        finally:
            server.stop()
        run.bytes, run.stored_bytes = bench.database_bytes, tree_bytes(self._archive)
        return run

    def restore(self, target):
        """Unpacks the archives as the manual says, then makes the result durable as the other tools do."""
        script = (f"zstd -dcq {self._archive}/base.tar.zst | tar -x -C {target} && "
                  f"tar -xf {self._archive}/pg_wal.tar -C {target}/pg_wal && sync -f {target}")
        run = Meter().run(self, ["bash", "-o", "pipefail", "-c", script], self._bench.user, self._dir, self._bench.log)
        run.stored_bytes = tree_bytes(self._archive)
        return run

    def close(self):
        pass
