"""The result: JSON for machines, a table for people. Ratios and fractions are of medians."""

import datetime
import os
import platform
import statistics
import subprocess

from .codec import CODECS

GIB = 2**30


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def machine(directory):
    """What a reader needs to know of the machine to judge the figures."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    with open("/proc/meminfo") as file:
        memory_gib = int(file.readline().split()[1]) / 2**20
    filesystem = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", directory], capture_output=True, text=True).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory_gib, 1), "kernel": platform.release(),
            "architecture": platform.machine(), "filesystem": filesystem}


def median(runs, tool, codec, field):
    """Median of one figure over a tool's runs; None when it did not run."""
    values = [getattr(run, field) for run in runs if run.tool == tool and run.codec == codec]
    return statistics.median(values) if values else None


def over(numerator, denominator):
    return round(numerator / denominator, 3) if numerator and denominator else None


def ratios(runs):
    """How many times longer the peers took than Metal with the same kind of codec."""
    zstd, lz4 = (median(runs, "metal", codec, "wall_s") for codec in ("zstd", "lz4"))
    return {"pgbackrest_zst_over_metal": over(median(runs, "pgbackrest", "zst", "wall_s"), zstd),
            "pgbackrest_lz4_over_metal": over(median(runs, "pgbackrest", "lz4", "wall_s"), lz4),
            "pg_basebackup_over_metal": over(median(runs, "pg_basebackup", "zstd", "wall_s"), zstd)}


def build(kind, runs, limits, facts):
    """The whole report as a dictionary. `facts`: what else is known of the call (versions and so on)."""
    alone, beside = {}, {}
    for codec in CODECS:
        wall_s = median(runs, "metal", codec, "wall_s")
        if wall_s:
            rate = median(runs, "metal", codec, "bytes") / wall_s
            alone[codec] = round(rate / limits.limit(kind, codec), 3)
            beside[codec] = round(rate / limits.beside_io(codec), 3)
    return {"bench": kind, "date": now(), **facts,
            "runs": [run_figures(kind, run) for run in runs],
            "ratios": ratios(runs),
            "limits": limits.figures(kind),
            "fraction_of_limit": min(alone.values(), default=None), "fraction_of_limit_by_codec": alone,
            "fraction_of_beside_io_limit": min(beside.values(), default=None),
            "fraction_of_beside_io_limit_by_codec": beside}


def run_figures(kind, run):
    """One run as the report has it."""
    figures = {"tool": run.tool, "codec": run.codec, "wall_s": round(run.wall_s, 3), "cpu_s": round(run.cpu_s, 2),
               "max_rss_mib": round(run.max_rss_mib, 1), "bytes": run.bytes, "stored_bytes": run.stored_bytes}
    if kind in ("restore", "clone"):
        figures.update({"compared_files": run.compared_files, "compared_bytes": run.compared_bytes})
    return figures


def print_runs(report, runs):
    """Medians for people: one line a tool and codec, in the order in which they first ran."""
    print(f"\n{report['bench']} of {runs[0].bytes / GIB:.2f} GiB, medians of {report['rounds']} runs, cold cache")
    print(f"{'tool':<14} {'codec':<6} {'wall s':>8} {'min-max':>13} {'MB/s':>7} {'cpu s':>7} {'cpu s/GiB':>10} "
          f"{'rss MiB':>8} {'stored MB':>10}")
    for tool, codec in dict.fromkeys((run.tool, run.codec) for run in runs):
        walls = [run.wall_s for run in runs if (run.tool, run.codec) == (tool, codec)]
        wall, cpu, rss, size, stored = (median(runs, tool, codec, field) for field in
                                        ("wall_s", "cpu_s", "max_rss_mib", "bytes", "stored_bytes"))
        print(f"{tool:<14} {codec:<6} {wall:>8.2f} {min(walls):>6.2f}-{max(walls):<6.2f} {size / wall / 1e6:>7.0f} "
              f"{cpu:>7.2f} {cpu / (size / GIB):>10.2f} {rss:>8.1f} {stored / 1e6:>10.1f}")


def print_table(report, runs):
    """The whole report for people."""
    print_runs(report, runs)
    for name, value in report["ratios"].items():
        print(f"{name:<34} {'-' if value is None else f'{value:.2f}'}")
    for name, value in report["limits"].items():
        print(f"limit {name:<36} {value if name.endswith('mb_s') else value / 1e6:>8.0f} MB/s")
    for codec, value in report["fraction_of_limit_by_codec"].items():
        beside = report["fraction_of_beside_io_limit_by_codec"][codec]
        print(f"metal reaches of its limit, {codec:<5} {value:.0%}; of the limit beside I/O {beside:.0%}")
    if report["bench"] == "restore":
        print("every restored directory was equal to the source, byte by byte")
