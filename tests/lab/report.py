"""Outcomes as lines for a terminal and as the table of agent/docs/fault-matrix.md."""
import datetime
import os
import platform
import subprocess

from harness.workspace import ROOT
from lab.experiment import EXIT_LIMIT_MS, IDLE_S, OBSERVE_S, STATUS_MARGIN_MS, STATUS_P99_MS
from lab.image import QEMU

PATH = os.path.join(ROOT, "agent/docs/fault-matrix.md")
HEAD = """# The fault matrix

What the agent says when its drive fails, and after how many seconds, measured in the lab: an emulated NVMe drive of QEMU in a guest
with Debian's kernel, faults injected from outside. Written by `{command}` ({date}, the agent of {commit}, {kernel}, {qemu},
{machine}); `tests/lab/scenarios.py` has the table, `tests/lab/README.md` says how it is measured.

- **Detected as** is the class of the first event on `WatchEvents` that names the fault; what came instead is in brackets.
  **After** is the time from the injection to that event's arrival at the host.
- **Confirmed** is when an event says that enough independent witnesses agree. A class after which the drive keeps nothing must be
  confirmed; where it cannot be, the cell says why. **Also** are other classes that were confirmed.
- **Fenced** is the time from the injection to a status that says so, and how long it may take at most. Only a primary is fenced.
  **Down** is the time to a status whose PostgreSQL has ended; before, clients are cut off its port and their connections
  destroyed.
- **GetStatus** is the 99th percentile of calls over one connection, without the fault / while it lasts, and the longest call then;
  one that never came back counts as long as it was waited for. The percentile must stay below {status:.0f} ms; on an emulated
  machine, whose own round trip is noted first, below that plus {margin:.0f} ms where this is more. Where three machines share
  the cores of one only the longest call is judged.
- **Exit** is the time from SIGTERM to the agent's end with the fault in force: at most {exit} ms.
  A dead process whose threads are held by the drive has ended.
- **In D** are threads of the agent that were in uninterruptible sleep for a second or longer: none may be, but where the cell says
  why.
- **Writes again** is the time from the injection until a client of a shard is told of a commit again, by whoever leads then.
- **Not played** are scenarios before which the agent has to see the drive at work for half an hour (`--long`).
- **Lost** are records of a workload that were told to be durable and are gone after a power cut, or after a failover.

| scenario | fault | how | expected | detected as | after | bar | confirmed | also | fenced | down | GetStatus | exit | in D \
| writes again | lost | |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
"""
COLUMNS = HEAD.splitlines()[-1].count("---")


def number(value, unit, digits=0):
    if value is None:
        return "–"
    return "no end" if value == float("inf") else f"{value:.{digits}f} {unit}"


def calls(outcome):
    return f"{number(outcome.idle_p99_ms, 'ms')} / {number(outcome.p99_ms, 'ms')}, longest {number(outcome.longest_ms, 'ms')}"


def confirmed(scenario, outcome):
    if outcome.confirmed_s is None and scenario.suspected and outcome.detected_as:
        return f"no: {scenario.suspected}"
    return number(outcome.confirmed_s, "s", 1)


def fenced(scenario, outcome):
    bar = "" if scenario.fence_bar_s is None else f" (bar {scenario.fence_bar_s:g} s)"
    return number(outcome.fenced_s, "s", 1) + bar


def detected(outcome):
    if outcome.detected_as:
        return outcome.detected_as
    return f"not detected ({outcome.instead[:160]})" if outcome.instead else "not detected"


def line(scenario, outcome):
    misses = outcome.misses(scenario)
    lost = "" if outcome.lost is None else f", lost {outcome.lost} of {outcome.acknowledged}"
    name = f"{'MISSED' if misses else 'ok':6} {scenario.name:24}"
    said = f"{detected(outcome)} {number(outcome.seconds, 's', 1)} (bar {scenario.bar_s:g} s), " if scenario.classes else ""
    said += f"confirmed {confirmed(scenario, outcome)}, " + "".join(f"also {each}, " for each in outcome.also)
    if outcome.fenced_s is not None or scenario.fence_bar_s is not None:
        said += f"fenced {fenced(scenario, outcome)}, down {number(outcome.down_s, 's', 1)}, {outcome.cut[:60]}, "
    if outcome.resumed_s is not None:
        said += f"writes again {number(outcome.resumed_s, 's', 1)}, "
    text = f"{name} {said}GetStatus p99 idle / now {calls(outcome)}, exit {number(outcome.exit_ms, 'ms')}{lost}"
    more = [f"missed: {each}" for each in misses] + [each[:200] for each in outcome.notes]
    return "\n         ".join([text, *more])


def row(scenario, outcome):
    """outcome None: it was not played."""
    head = [f"`{scenario.name}`", scenario.fault, scenario.how, " or ".join(sorted(scenario.classes)) or "all is whole"]
    bar = f"{scenario.bar_s:g} s" if scenario.classes else "–"
    if outcome is None:
        return cells(*head, "not played", "–", bar, *["–"] * (COLUMNS - len(head) - 4), "not played")
    stuck = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in outcome.stuck.items()) or "–"
    stuck += f" ({scenario.holds})" if scenario.holds else ""
    lost = "–" if outcome.lost is None else f"{outcome.lost} of {outcome.acknowledged}"
    misses = outcome.misses(scenario)
    return cells(*head, detected(outcome) if scenario.classes else "–", number(outcome.seconds, "s", 1), bar,
                 confirmed(scenario, outcome), ", ".join(outcome.also) or "–", fenced(scenario, outcome),
                 number(outcome.down_s, "s", 1), calls(outcome),
                 number(outcome.exit_ms, "ms"), stuck, number(outcome.resumed_s, "s", 1), lost,
                 "missed: " + "; ".join(misses) if misses else "ok")


def cells(*texts):
    assert len(texts) == COLUMNS
    return "| " + " | ".join(each.replace("|", "/").replace("\n", " ") for each in texts) + " |\n"


def said_by(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()


def write(scenarios, outcomes, kernel, command):
    """scenarios: all; outcomes: by name, of those that were played."""
    agent = ["--", "agent", "proto", ":!agent/docs"]
    changed = said_by("git", "status", "--porcelain", "--untracked-files=no", *agent)
    head = HEAD.format(
        command=command, date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        commit=said_by("git", "log", "-1", "--format=%h", *agent) + (" with changes" if changed else ""),
        kernel=f"Linux {kernel.version} in the guest", qemu=said_by(QEMU, "--version").split(" (")[0],
        machine=f"TCG, 2 virtual CPUs on a machine with {os.cpu_count()} ({platform.machine()})", status=STATUS_P99_MS,
        margin=STATUS_MARGIN_MS, exit=EXIT_LIMIT_MS)
    kept = sum(not outcomes[each.name].misses(each) for each in scenarios if each.name in outcomes)
    left = f" {len(scenarios) - len(outcomes)} were not played." if len(outcomes) < len(scenarios) else ""
    slow = [each.p99_ms for each in outcomes.values() if each.p99_ms is not None and each.p99_ms >= STATUS_P99_MS]
    classes = sorted(set().union(*(each.classes for each in scenarios)))
    tail = (f"\n{kept} of {len(outcomes)} rows that were played are as the table expects.{left} GetStatus was called for\n"
            f"{IDLE_S:.0f} s before each fault and for at least {OBSERVE_S:.0f} s after it;\n"
            f"in {len(slow)} rows its percentile was {STATUS_P99_MS:.0f} ms or more, also of machines that share cores.\n\n"
            f"Classes with a scenario: {', '.join(classes)}. The others are raised and cleared\n"
            "from recorded or synthetic input through the same path (tests/unit/disk/faults/fault_paths.h).\n")
    with open(PATH, "w", encoding="utf-8") as file:
        file.write(head + "".join(row(each, outcomes.get(each.name)) for each in scenarios) + tail)
    return os.path.relpath(PATH, ROOT)
