"""What the machine itself can do, measured in the same call as the tools.

Two limits bound a backup or a restore with a codec, both in bytes of uncompressed database per second:
  the lower of two speeds    disk and codec, each alone, as if the other cost nothing
  beside I/O                 both at once: the codec works through as many bytes as fio reads and writes beside it, and the
                             slower one counts. Where the disk's driver and the codec share cores, nobody can be faster.
"""

import statistics

from .codec import CODECS, CodecSpeed
from .disk import Disk

BIG_FILE_BYTES = 1 << 20
AMOUNT_MAX = 2 << 30  # bytes to write or to encode in one measurement


class Limits:
    """Samples of what bounds a tool; figures() gives their medians. `seconds`: for each codec and direction.

    The disk's own speed is what changes most between two moments, on shared storage by a factor of two. So a round takes it before
    its tools and after them: before_tools(), after_tools()."""

    def __init__(self, place, seconds):
        self._seconds = seconds
        self._seen = {}
        base = place.server.data / "base"
        files = sorted(str(path) for path in base.rglob("*") if path.is_file() and path.stat().st_size >= BIG_FILE_BYTES)
        directory = place.scratch("limits")
        self._amount = min(AMOUNT_MAX, place.database_bytes)
        self._disk = Disk(files, directory)
        self._codecs = CodecSpeed(place.metal_bindir / "codec_speed", files, directory)

    def _add(self, name, value):
        self._seen.setdefault(name, []).append(value)

    def _median(self, name):
        return statistics.median(self._seen[name])

    def before_tools(self, kind):
        """One sample of everything that bounds a "backup" or a "restore", and of what the disk does the other way round."""
        self._add("read", self._disk.read())
        self._add("write", self._disk.write(self._amount))
        for codec in CODECS:
            alone = self._codecs.both(codec, self._seconds)
            self._add(f"{codec}_compress", alone["compress_mb_s"] * 1e6)
            self._add(f"{codec}_decompress", alone["decompress_mb_s"] * 1e6)
            self._add(f"{codec}_beside_io", self._beside_io(kind, codec, alone["ratio"]))

    def after_tools(self, kind):
        """Another sample of what bounds it on the disk."""
        if kind == "backup":
            self._add("read", self._disk.read())
        else:
            self._add("write", self._disk.write(self._amount))

    def _beside_io(self, kind, codec, ratio):
        """A backup reads everything and writes what is left of it; a restore the other way round."""
        stored = max(1 << 20, int(self._amount / ratio))
        direction, to_read, to_write = (("compress", self._amount, stored) if kind == "backup" else
                                        ("decompress", stored, self._amount))
        try:
            speed = self._codecs.beside(codec, direction, self._amount,
                                        lambda: self._disk.start_both(to_read, to_write))
        finally:
            io_seconds = self._disk.finish_both()
        return self._amount / max(speed[f"{direction}_s"], io_seconds)

    def limit(self, kind, codec):
        """What bounds a backup or a restore with `codec` when disk and codec are looked at alone: bytes per second."""
        disk, side = ("read", "compress") if kind == "backup" else ("write", "decompress")
        return min(self._median(disk), self._median(f"{codec}_{side}"))

    def beside_io(self, codec):
        """The same when they work at the same time."""
        return self._median(f"{codec}_beside_io")

    def figures(self, kind):
        """The report's "limits"."""
        figures = {f"{name}_bytes_per_s": round(statistics.median(values)) for name, values in self._seen.items()
                   if not name.endswith("_beside_io")}
        for codec in CODECS:
            figures[f"{kind}_{codec}_bytes_per_s"] = round(self.limit(kind, codec))
        for codec in CODECS:
            figures[f"{kind}_{codec}_beside_io_mb_s"] = round(self.beside_io(codec) / 1e6, 1)
        figures[f"{kind}_beside_io_mb_s"] = figures[f"{kind}_{CODECS[0]}_beside_io_mb_s"]  # of the default codec
        return figures
