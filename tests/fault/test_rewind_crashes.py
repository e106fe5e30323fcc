"""The agent killed with -9 at each step of a rewind: nothing starts a half-rewound directory, and the same request completes it."""
import os
import signal

import pytest

from harness import process
from harness.postgres import postmaster_pid
from harness.process import wait_for
from harness.pair import Pair
from harness.wal import append_cut_record, fork

# In the order in which a rewind passes them, also one that is taken up again.
BEFORE = ["rewind.checked", "rewind.stopped", "rewind.tried", "rewind.kept"]
HALF = ["rewind.sentinel", "rewind.copying", "rewind.put_back", "rewind.copying", "rewind.rewound", "rewind.noted",
        "rewind.configured", "rewind.ready"]
WHOLE = ["rewind.whole", "rewind.started", "rewind.verified"]
# Of one with nothing to rewind.
FOLLOWING = ["rewind.checked", "rewind.stopped", "rewind.history_written", "rewind.wal_cut"]


def crash_at(pair, node, point):
    """Lets the agent die at `point` of a rewind, and starts it again."""
    node.restart_agent(faults=f"{point}=crash")
    node.detach(*pair.rewind_arguments())
    wait_for(f"the agent died at {point}", lambda: node.process.poll() is not None, 60)
    assert node.process.returncode == -signal.SIGKILL
    assert not [each for each in process.run(["ps", "-eo", "args"]).stdout.splitlines()
                if each.split(" ")[0].endswith("/pg_rewind") and node.data_dir in each], "pg_rewind has gone with its agent"
    node.start_agent()
    last = node.operations("Rewind")[0]
    assert last["error"]["reason"] == "AGENT_RESTARTED"


def diverge(pair):
    parted = pair.part()
    pair.begin_term(parted[0])
    return parted


@pytest.mark.slow
def test_every_step_that_a_rewind_passes_is_in_these_lists(workspace, pg):
    pair = Pair(workspace, pg)
    old, _, shared, _, kept = diverge(pair)
    trace = os.path.join(old.run_dir, "trace")
    old.restart_agent(trace=trace)
    old.ok(*pair.rewind_arguments())
    pair.settled(old, shared, kept)
    with open(trace, encoding="utf-8") as file:
        passed = {line.strip() for line in file if line.startswith("rewind.")}
    assert passed == {*BEFORE, *HALF, *WHOLE} - {"rewind.put_back"}


@pytest.mark.slow
def test_killed_at_one_step_after_the_other(workspace, pg):
    pair = Pair(workspace, pg)
    old, new, shared, lost, kept = diverge(pair)
    for point in BEFORE:
        crash_at(pair, old, point)
        assert not os.path.exists(f"{old.data_dir}/metal.rewind")
    assert old.ok("pg", "start")["result"]["role"] == "standby", "nothing was changed yet"
    assert pair.rows(old) >= lost
    for point in HALF:
        crash_at(pair, old, point)
        assert os.path.exists(f"{old.data_dir}/metal.rewind"), point
        assert old.ctl("pg", "start").reason == "DATA_DIRECTORY_INCOMPLETE", point
        kept |= set(pair.write(new, 100))
        new.sql("CHECKPOINT")
    crash_at(pair, old, "rewind.whole")
    assert old.ok("pg", "start")["result"]["role"] == "standby"
    for point in WHOLE[1:]:
        crash_at(pair, old, point)
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "false"
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost


@pytest.mark.slow
def test_killed_where_there_is_nothing_to_rewind(workspace, pg):
    pair = Pair(workspace, pg)
    old, new = pair.hand_over()
    shared = pair.rows(new)
    timeline, at = fork(new)
    append_cut_record(old, timeline, at, int(old.ok("pg", "control")["checkpoint_lsn"]))
    pair.begin_term(old)
    for point in FOLLOWING:
        crash_at(pair, old, point)
        assert not os.path.exists(f"{old.data_dir}/metal.rewind")
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "false"
    pair.settled(old, shared, set())


@pytest.mark.slow
def test_killed_while_a_crashed_server_is_recovered_and_while_it_is_copied(workspace, pg):
    pair = Pair(workspace, pg)
    old, _, shared, lost, kept = diverge(pair)
    old.kill_agent()
    pid = postmaster_pid(old.data_dir)
    os.kill(pid, signal.SIGKILL)
    wait_for("the server is gone", lambda: not process.is_alive(pid), 20)
    # What should run and does not is started by the next agent; here the rewind comes first.
    with open(f"{old.state}/postgres.desired", encoding="utf-8") as file:
        assert "running" in file.read()
    old.start_agent()
    old.ok("pg", "stop", "--mode", "immediate")
    crash_at(pair, old, "rewind.recovered")
    crash_at(pair, old, "rewind.copying")
    assert old.ctl("pg", "start").reason == "DATA_DIRECTORY_INCOMPLETE"
    assert old.ok(*pair.rewind_arguments())["result"]["rewound"] == "true"
    pair.settled(old, shared, kept)
    assert not pair.rows(old) & lost
