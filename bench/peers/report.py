"""The result: JSON for machines, a table for people. Ratios and fractions are of medians."""

import datetime
import os
import platform
import statistics
import subprocess

GIB = 2**30


def machine(directory):
    """What a reader needs to know of the machine to judge the figures."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    with open("/proc/meminfo") as file:
        memory_gib = int(file.readline().split()[1]) / 2**20
    filesystem = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", directory], capture_output=True, text=True).stdout.strip()
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory_gib, 1), "kernel": platform.release(),
            "architecture": platform.machine(), "filesystem": filesystem}


def commit(source_dir):
    """The source's commit, with "+" when files differ from it; None without a repository."""
    def git(*words):
        return subprocess.run(["git", "-c", f"safe.directory={source_dir}", "-C", source_dir, *words],
                              capture_output=True, text=True).stdout.strip()
    head = git("rev-parse", "HEAD")
    return (head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")) if head else None


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
    limit_figures = limits.figures()
    fractions = {}
    for codec in ("zstd", "lz4"):
        limit = limits.limit(kind, codec)
        limit_figures[f"{kind}_{codec}_bytes_per_s"] = round(limit)
        wall_s = median(runs, "metal", codec, "wall_s")
        if wall_s:
            fractions[codec] = round(median(runs, "metal", codec, "bytes") / wall_s / limit, 3)
    return {"bench": kind,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), **facts,
            "runs": [{"tool": run.tool, "codec": run.codec, "wall_s": round(run.wall_s, 3),
                      "cpu_s": round(run.cpu_s, 2), "max_rss_mib": round(run.max_rss_mib, 1), "bytes": run.bytes,
                      "stored_bytes": run.stored_bytes} for run in runs],
            "ratios": ratios(runs),
            "limits": limit_figures,
            "fraction_of_limit": min(fractions.values()) if fractions else None,
            "fraction_of_limit_by_codec": fractions}


def print_table(report, runs):
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
    for name, value in report["ratios"].items():
        print(f"{name:<34} {'-' if value is None else f'{value:.2f}'}")
    for name, value in report["limits"].items():
        print(f"limit {name:<34} {value / 1e6:>8.0f} MB/s")
    for codec, value in report["fraction_of_limit_by_codec"].items():
        print(f"metal reaches of its limit, {codec:<6} {value:.0%}")
