"""A run of chaos in CI leaves no fault out: what its episodes do is drawn before they begin, and is looked at here."""
import pytest

from harness.episode import ACTIONS, CLOCK, DISKS, NETWORK, PROCEDURES, PROCESSES, SERVERS, draw_plan
from harness.faults import Faults

RUN = 20  # episodes of a commit (tests/run)
EVERYWHERE = [PROCESSES, SERVERS, PROCEDURES]
ALL = [*EVERYWHERE, NETWORK, DISKS, CLOCK]


def done_by(first, kinds):
    return {action for seed in range(first, first + RUN) for _, action, *_ in draw_plan(seed, kinds, 3)[1]}


@pytest.mark.parametrize("first", [*range(1, 30), 0xFFFFF])
def test_any_run_has_every_action(first):
    assert done_by(first, ALL) == set(ACTIONS)
    # Where hosts have neither a network nor a disk of their own.
    assert done_by(first, EVERYWHERE) == {action for kind in EVERYWHERE for action in kind}


def test_every_action_can_be_done():
    assert all(callable(getattr(Faults, action)) for action in ACTIONS)


def test_a_seed_is_one_plan():
    assert draw_plan(7, ALL, 3) == draw_plan(7, ALL, 3) != draw_plan(8, ALL, 3)
    nodes = {number for seed in range(100) for _, _, number, *_ in draw_plan(seed, ALL, 3)[1]}
    assert nodes == {0, 1, 2}
