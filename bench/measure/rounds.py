"""The rounds of `backup` and `restore`: each runs every tool once and measures the limits of the machine around them."""

import shutil

from . import process
from .compare import compare
from .limits import Limits
from .meter import tree_bytes


def measure(place, kind, rounds, seconds):
    """All runs, in the order in which they happened, and the limits. `seconds`: for each codec and direction."""
    limits, runs = Limits(place, seconds), []
    if kind == "restore":
        for tool in place.tools:
            process.say(f"backup for the restores: {tool.name} {tool.codec}")
            tool.backup()
    for number in range(1, rounds + 1):
        process.say(f"round {number} of {rounds}: limits")
        limits.before_tools(kind)
        first = (number - 1) % max(1, len(place.tools))  # nobody is always the first after the limits
        for tool in place.tools[first:] + place.tools[:first]:
            run = tool.backup() if kind == "backup" else _restore_once(place, tool)
            process.say(f"round {number} of {rounds}: {tool.name} {tool.codec}: {run.wall_s:.2f} s")
            runs.append(run)
        process.say(f"round {number} of {rounds}: the disk again")
        limits.after_tools(kind)
    return runs, limits


def _restore_once(place, tool):
    """Restores into a new directory and compares it with the source, byte by byte."""
    target = place.scratch("restored")
    try:
        run = tool.restore(target)
        run.bytes = tree_bytes(target, skip=("pg_wal",))
        run.compared_files, run.compared_bytes = compare(f"{tool.name} {tool.codec}", place.server.data, target)
        return run
    finally:
        shutil.rmtree(target)
