"""Random episodes on a shard of three hosts: faults and procedures at random moments while clients write through the doors.
Afterwards the shard is whole again, no acknowledged commit is lost, and at no moment two servers took writes.

An episode is its seed: tests/run chaos --seed N plays one again, tests/run chaos --episodes 300 plays many."""
import contextlib
import json
import os
import time

import pytest
from conftest import FAILED
from harness.episode import Episode
from harness.faults import heal
from harness.hosts import Hosts
from harness.orchestrator import Orchestrator
from harness.process import wait_for
from harness.workspace import Workspace

FIRST_SEED = int(os.environ.get("METAL_CHAOS_SEED", "1"))
EPISODES = int(os.environ.get("METAL_CHAOS_EPISODES", "20"))


class Shards:
    """One shard for all episodes; after one that failed the next gets another."""

    def __init__(self, version):
        self.version, self.workspace, self.shard = version, None, None

    def get(self):
        if self.shard is None:
            self.workspace = Workspace()
            self.shard = Hosts(self.workspace, self.version).start()
        return self.shard

    def close(self):
        workspace, self.workspace, self.shard = self.workspace, None, None
        if workspace:
            workspace.close()


@pytest.fixture(scope="module")
def shards(pg):
    made = Shards(pg)
    yield made
    made.close()


@pytest.fixture
def shard(shards, request):
    yield shards.get()
    if request.node.stash.get(FAILED, False):
        shards.close()


def end_lease(shard, orchestrator):
    """A term without one: nobody renews it between episodes."""
    def ended():
        orchestrator.renew("60s")
        shard.ctl("reparent")
        return shard.ctl("recover").code == 0 and "lease" not in shard.primary().status()["node"]
    wait_for("the lease is given up", ended, 60)
    shard.wait_healthy()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + EPISODES))
def test_episode(shard, seed):
    episode = Episode(shard, seed)
    orchestrator = Orchestrator(shard)
    begin = time.monotonic()
    try:
        with shard.clients_and_watch() as (ledger, watch), orchestrator if episode.leased else contextlib.nullcontext():
            episode.play()
            played = time.monotonic()
            replaced = heal(shard, episode)
            ledger.wait_more()
    finally:
        episode.end_faults()
    if episode.leased:
        end_lease(shard, orchestrator)
    wrote = watch.check()
    shard.check_everywhere(ledger)
    print(json.dumps({"seed": seed, "acknowledged": len(ledger.acknowledged), "errors": len(ledger.errors), "writers": wrote,
                      "stall_s": round(ledger.longest_stall(), 2), "leased": orchestrator.renewed, "replaced": replaced,
                      "play_s": round(played - begin, 1), "heal_s": round(time.monotonic() - played, 1)}))
    assert len(ledger.acknowledged) > 10
