"""The rounds of `clone`: each runs every tool once and measures what bounds a copy over the network on this machine."""

import statistics

from . import process, report
from .disk import Disk
from .limits import AMOUNT_MAX, BIG_FILE_BYTES
from .tls import TlsSpeed

STREAMING_BAR_S = 5.0
BARS = {"pg_basebackup_over_metal": 2.0, "fraction_of_limit": 0.75}


class Limits:
    """A clone reads files and writes as many bytes into new ones at once, and all of them pass TLS. Bytes per second:
      copy       fio reads the database's big files and writes one file of the same size meanwhile
      tls        tls_speed: encrypting and decrypting, nothing else
      clone      the lower of the two: as if TLS cost the disk no processor time, and the disk none of TLS's
      beside     both at once: the slower of the two
    The disk's own speed changes most between two moments, so a round takes it before its tools and after them."""

    def __init__(self, place, certificates):
        base = place.server.data / "base"
        files = sorted(str(path) for path in base.rglob("*") if path.is_file() and path.stat().st_size >= BIG_FILE_BYTES)
        directory = place.scratch("limits")
        self._amount = min(AMOUNT_MAX, place.database_bytes)
        self._disk = Disk(files, directory)
        self._tls = TlsSpeed(place.metal_bindir / "tls_speed", certificates, directory)
        self._seen = {"copy": [], "tls": [], "beside": []}

    def before_tools(self):
        self._sample_copy()
        self._seen["tls"].append(self._tls.alone(self._amount))
        tls_s = 0.0

        def beside(start):
            nonlocal tls_s
            tls_s = self._tls.beside(self._amount, start)
        self._seen["beside"].append(self._amount / max(self._copy(beside), tls_s))

    def after_tools(self):
        self._sample_copy()

    def _sample_copy(self):
        self._seen["copy"].append(self._amount / self._copy(lambda start: start()))

    def _copy(self, run):
        """Seconds that fio takes for all, begun within run()."""
        try:
            run(lambda: self._disk.start_both(self._amount, self._amount))
        finally:
            seconds = self._disk.finish_both()
        return seconds

    def figures(self):
        median = {name: statistics.median(values) for name, values in self._seen.items()}
        median["clone"] = min(median["copy"], median["tls"])
        return {f"{name}_bytes_per_s": round(value) for name, value in median.items()}


def measure(place, certificates, rounds):
    """All runs, in the order in which they happened, and the limits."""
    limits, runs = Limits(place, certificates), []
    for number in range(1, rounds + 1):
        process.say(f"round {number} of {rounds}: limits")
        limits.before_tools()
        first = (number - 1) % max(1, len(place.tools))
        for tool in place.tools[first:] + place.tools[:first]:
            run = tool.run()
            process.say(f"round {number} of {rounds}: {tool.name}: {run.wall_s:.2f} s")
            runs.append(run)
        limits.after_tools()
    return runs, limits.figures()


def build(runs, limits, streaming_after_s, facts):
    """The report."""
    metal, peer = (report.median(runs, name, "none", "wall_s") for name in ("metal", "pg_basebackup"))
    rate = report.median(runs, "metal", "none", "bytes") / metal if metal else None
    figures = {"ratios": {"pg_basebackup_over_metal": report.over(peer, metal)}, "limits": limits,
               "fraction_of_limit": report.over(rate, limits["clone_bytes_per_s"]),
               "fraction_of_beside_limit": report.over(rate, limits["beside_bytes_per_s"]),
               "streaming_after_last_byte_s": round(max(streaming_after_s), 3) if streaming_after_s else None}
    return {"bench": "clone", "date": report.now(), **facts,
            "runs": [report.run_figures("clone", run) for run in runs], **figures, "short": _short(figures)}


def _short(figures):
    seen = {"pg_basebackup_over_metal": figures["ratios"]["pg_basebackup_over_metal"],
            "fraction_of_limit": figures["fraction_of_limit"]}
    short = [{"figure": name, "measured": seen[name], "bar": bar} for name, bar in BARS.items()
             if seen[name] is not None and seen[name] < bar]
    after = figures["streaming_after_last_byte_s"]
    if after is not None and after > STREAMING_BAR_S:
        short.append({"figure": "streaming_after_last_byte_s", "measured": after, "bar": STREAMING_BAR_S})
    return short


def print_table(result, runs):
    report.print_runs(result, runs)
    for name, value in result["ratios"].items():
        print(f"{name:<34} {'-' if value is None else f'{value:.2f}'}")
    for name, value in result["limits"].items():
        print(f"limit {name:<36} {value / 1e6:>8.0f} MB/s")
    for name in ("fraction_of_limit", "fraction_of_beside_limit"):
        value = result[name]
        print(f"{name:<34} {'-' if value is None else f'{value:.0%}'}")
    print(f"{'streams after the last byte, worst':<34} {result['streaming_after_last_byte_s']} s")
    print("every copy was equal to the source, byte by byte")
    for each in result["short"]:
        print(f"SHORT of its bar: {each['figure']} is {each['measured']}, to reach {each['bar']}")
