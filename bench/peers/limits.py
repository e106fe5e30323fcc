"""What the machine itself can do, measured in the same call as the tools: the disk by fio, the codecs by codec.py."""

import json
import os
import statistics

from . import codec, process
from .measure import drop_caches

SAMPLE_BYTES = 96 << 20
WRITE_BYTES_MAX = 2 << 30
FIO = ["fio", "--name=limit", "--ioengine=io_uring", "--direct=1", "--bs=512k", "--iodepth=32", "--runtime=60",
       "--output-format=json"]


class Limits:
    """Measures once per round; figures() gives medians. Rates are bytes per second of uncompressed data."""

    def __init__(self, bench):
        self._bench = bench
        self._dir = bench.scratch("limits")
        self._seen = {}
        base = bench.server.data / "base"
        self._files = sorted(str(path) for path in base.rglob("*") if path.is_file() and
                             path.stat().st_size >= codec.FRAME_BYTES)
        self._sample = self._read_sample()

    def _read_sample(self):
        """Frames taken evenly over all big files, so that the mix is that of the database."""
        total = sum(os.path.getsize(path) for path in self._files)
        step = max(1, total // SAMPLE_BYTES) * codec.FRAME_BYTES
        frames = []
        for path in self._files:
            with open(path, "rb") as file:
                for offset in range(0, os.path.getsize(path) - codec.FRAME_BYTES + 1, step):
                    file.seek(offset)
                    frames.append(file.read(codec.FRAME_BYTES))
        return b"".join(frames)

    def _add(self, name, value):
        self._seen.setdefault(name, []).append(value)

    def _fio(self, direction, *words):
        drop_caches()
        result = json.loads(process.output_of(FIO + list(words), "root", self._dir))
        self._add(direction, result["jobs"][0][direction]["bw_bytes"])

    def read(self):
        """Cold O_DIRECT read of the database's big files."""
        self._fio("read", "--rw=read", "--readonly", "--filename=" + ":".join(self._files))

    def write(self):
        """O_DIRECT write of a preallocated file, made durable at the end."""
        path = self._dir / "written"
        size = min(WRITE_BYTES_MAX, self._bench.database_bytes)
        try:
            self._fio("write", "--rw=write", "--end_fsync=1", f"--size={size}", f"--filename={path}")
        finally:
            path.unlink(missing_ok=True)

    def codec(self, name):
        """Compression and decompression at level 1 on all cores at once."""
        compress, decompress = codec.speed(name, self._sample)
        self._add(f"{name}_compress", compress)
        self._add(f"{name}_decompress", decompress)

    def round(self, kind):
        """One measurement of everything that bounds a "backup" or a "restore"."""
        if kind == "backup":
            self.read()
        else:
            self.write()
        for name in codec.CODECS:
            self.codec(name)

    def figures(self):
        return {f"{name}_bytes_per_s": round(statistics.median(values)) for name, values in self._seen.items()}

    def limit(self, kind, name):
        """What bounds a backup or a restore with codec `name` on this machine: bytes per second."""
        disk, side = ("read", "compress") if kind == "backup" else ("write", "decompress")
        return min(statistics.median(self._seen[name]) for name in (disk, f"{name}_{side}"))
