"""The disk's own speed: fio with O_DIRECT, 512 KiB, queue depth 32, io_uring."""

import json
import subprocess

from . import process
from .meter import drop_caches
from .process import CommandFailed

COMMON = ["fio", "--ioengine=io_uring", "--direct=1", "--bs=512k", "--iodepth=32", "--runtime=60", "--output-format=json"]
TIMEOUT_S = 180


class Disk:
    """`files`: what is read, never written. `directory`: where files are written and removed again."""

    def __init__(self, files, directory):
        self._files, self._directory = files, directory
        self._written = directory / "written"
        self._fio = None

    def _read_job(self, *words):
        return ["--name=read", "--rw=read", "--filename=" + ":".join(self._files), *words]

    def _write_job(self, size):
        return ["--name=write", "--rw=write", "--end_fsync=1", f"--size={size}", f"--filename={self._written}"]

    def read(self):
        """Cold read of all the files: bytes per second."""
        drop_caches()
        return self._rate(process.output_of(COMMON + self._read_job("--readonly"), "root", self._directory), "read")

    def write(self, size):
        """Write of a preallocated file, made durable at the end: bytes per second."""
        drop_caches()
        try:
            return self._rate(process.output_of(COMMON + self._write_job(size), "root", self._directory), "write")
        finally:
            self._written.unlink(missing_ok=True)

    @staticmethod
    def _rate(output, direction):
        return json.loads(output)["jobs"][0][direction]["bw_bytes"]

    def start_both(self, read_bytes, write_bytes):
        """Begins to read and to write so much, both at once."""
        command = COMMON + self._read_job(f"--io_size={read_bytes}") + self._write_job(write_bytes)
        self._fio = subprocess.Popen(command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True)

    def finish_both(self):
        """Waits for what start_both() began: seconds until the slower of the two was done. Also after a failure."""
        fio, self._fio = self._fio, None
        if fio is None:
            return 0.0
        try:
            output, _ = fio.communicate(timeout=TIMEOUT_S)
        finally:
            process.stop(fio)
            self._written.unlink(missing_ok=True)
        if fio.returncode != 0:
            raise CommandFailed(f"fio: exit {fio.returncode}\n{output[-2000:]}")
        return max(job["job_runtime"] for job in json.loads(output)["jobs"]) / 1000
