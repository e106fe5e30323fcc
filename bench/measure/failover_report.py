"""The figures of `failover`: JSON for machines, a table for people."""

import statistics

PARTS = ("planned", "planned_failing_archive", "emergency")
# What is to be reached; figures that miss it are printed as such.
BARS = {("planned", "stall_s_median"): 0.4, ("planned", "stall_s_max"): 1.0, ("planned", "client_errors"): 0,
        ("planned_failing_archive", "stall_s_median"): 0.4, ("planned_failing_archive", "stall_s_max"): 1.0,
        ("planned_failing_archive", "client_errors"): 0,
        ("emergency", "first_write_s_median"): 3.0, ("emergency", "lost_acknowledged"): 0,
        **{(part, "double_primaries"): 0 for part in PARTS}, **{(part, "lost_acknowledged"): 0 for part in PARTS[:2]}}


def _common(runs):
    def median(name):
        return round(statistics.median(run[name] for run in runs), 3)

    names = dict.fromkeys(name for run in runs for name in run["steps"])
    return {"runs": len(runs), "client_errors": sum(run["client_errors"] for run in runs),
            "lost_acknowledged": sum(run["lost_acknowledged"] for run in runs), "command_s_median": median("command_s"),
            "steps_s_median": {name: round(statistics.median(run["steps"][name] for run in runs if name in run["steps"]), 3)
                               for name in names}}


def _stalls(runs):
    stalls, silences = [run["stall_s"] for run in runs], [run["silence_s"] for run in runs]
    return {**_common(runs), "stall_s_median": round(statistics.median(stalls), 3), "stall_s_max": round(max(stalls), 3),
            "silence_s_median": round(statistics.median(silences), 3), "silence_s_max": round(max(silences), 3)}


def _doubles(runs):
    return {"double_primaries": sum(run["double_primaries"] for run in runs)}


def report(planned, emergency):
    first = [run["first_write_s"] for run in emergency]
    figures = {part: {**_stalls(planned[part]["metal"]), **_doubles(planned[part]["metal"])} for part in planned}
    figures["emergency"] = {**_common(emergency), **_doubles(emergency), "first_write_s_median": round(statistics.median(first), 3),
                            "first_write_s_max": round(max(first), 3), "rewound": sum(run["rewound"] for run in emergency),
                            "recover_s_median": round(statistics.median(run["recover_s"] for run in emergency), 3)}
    naive = {part: _stalls(planned[part]["naive"]) for part in planned}
    ratios = {f"naive_over_metal_{part}": round(naive[part]["stall_s_median"] / figures[part]["stall_s_median"], 3)
              for part in planned}
    short = [{"part": part, "figure": name, "measured": figures[part][name], "bar": bar}
             for (part, name), bar in BARS.items() if figures[part][name] > bar]
    return {"bench": "failover", **figures, "naive": naive, "ratios": ratios, "short": short,
            "all_runs": {**planned, "emergency": {"metal": emergency}}}


def broken_promises(result):
    """What must be zero in every run, however slow the machine is, and was not: lines for people."""
    return [f"{part}.{name} is {result[part][name]}" for part in PARTS for name in ("lost_acknowledged", "double_primaries")
            if result[part][name]]


def print_table(result):
    print(f"\nfailover, {result['planned']['runs']} runs of each; seconds; a stall is the longest one of any client")
    print(f"{'':<36} {'median':>8} {'max':>8} {'errors':>7} {'lost':>5} {'double':>7}")
    for who, figures in (("metal", result), ("script", result["naive"])):
        for part in PARTS[:2]:
            each = figures[part]
            print(f"{who + ' ' + part:<36} {each['stall_s_median']:>8.3f} {each['stall_s_max']:>8.3f} {each['client_errors']:>7} "
                  f"{each['lost_acknowledged']:>5} {each.get('double_primaries', '-'):>7}")
    each = result["emergency"]
    print(f"{'metal emergency, first write':<36} {each['first_write_s_median']:>8.3f} {each['first_write_s_max']:>8.3f} {'-':>7} "
          f"{each['lost_acknowledged']:>5} {each['double_primaries']:>7}")
    for name, value in result["ratios"].items():
        print(f"{name:<36} {value:>8.2f}")
    for part in PARTS:
        print(f"steps of {part}, medians: " + ", ".join(f"{name} {value:.3f}" for name, value in
                                                        result[part]["steps_s_median"].items()))
    for each in result["short"]:
        print(f"SHORT of its bar: {each['part']}.{each['figure']} is {each['measured']}, to reach {each['bar']}")
