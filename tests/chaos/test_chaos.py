"""Random episodes on a shard of three: faults and procedures at random moments while clients write. Afterwards the shard is
whole again, no acknowledged commit is lost, and at no moment two servers took writes.

An episode is its seed: tests/run chaos --seed N plays one again, tests/run chaos --episodes 300 plays many."""
import json
import os
import random
import signal
import time

import pytest

from harness.ledger import Ledger, WriteWatch
from harness.postgres import postmaster_pid
from harness.process import wait_for
from harness.three_nodes import Shard

FIRST_SEED = int(os.environ.get("METAL_CHAOS_SEED", "1"))
MONITORS = 2.5  # seconds after which every node's status is newer than what happened before
EPISODES = int(os.environ.get("METAL_CHAOS_EPISODES", "20"))


@pytest.fixture(scope="module")
def shard(module_workspace, pg):
    whole = Shard(module_workspace, pg).start_agents()
    assert whole.ok("recover")["left_behind"] == []
    whole.wait_healthy()
    return whole


class Episode:
    """What happens is drawn before it begins, so that a seed means the same faults at the same moments."""

    def __init__(self, shard, seed):
        self.shard, self.random, self.told = shard, random.Random(seed), []
        self.frozen = []
        choices = [self.kill_postgres, self.kill_agent, self.kill_both, self.freeze_agent, self.freeze_postgres, self.reparent,
                   self.killed_reparent, self.failover, self.old_orchestrator, self.stop_receiver, self.pause_replay,
                   self.restart_postgres]
        self.plan = [(self.random.uniform(0, 1.5), self.random.choice(choices), self.random.random(), self.random.random())
                     for _ in range(self.random.randint(1, 4))]

    def tell(self, text):
        self.told.append(text)
        print(f"  {text}", flush=True)

    def node(self, draw):
        nodes = list(self.shard.nodes.values())
        return nodes[int(draw * len(nodes))]

    def play(self):
        for pause, action, draw, size in self.plan:
            time.sleep(pause)
            node = self.node(draw)
            self.tell(f"{action.__name__} {node.name}")
            action(node, size)

    # ---- faults ----

    def kill_postgres(self, node, _):
        pid = postmaster_pid(node.data_dir)
        if pid:
            os.kill(pid, signal.SIGKILL)

    def kill_agent(self, node, _):
        node.kill_agent()

    def kill_both(self, node, _):
        node.kill_agent()
        self.kill_postgres(node, _)

    def freeze_agent(self, node, size):
        self.freeze(node.process.pid if node.process.poll() is None else 0, size)

    def freeze_postgres(self, node, size):
        self.freeze(postmaster_pid(node.data_dir), size)

    def freeze(self, pid, size):
        if not pid:
            return
        os.kill(pid, signal.SIGSTOP)
        self.frozen.append(pid)
        if size < 0.5:
            time.sleep(4 * size)
            self.thaw()

    def thaw(self):
        for pid in self.frozen:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self.frozen.clear()

    # ---- procedures, of which any may be refused as things stand ----

    def reparent(self, node, _):
        self.said(self.shard.ctl("reparent", "--to", node.name))

    def killed_reparent(self, node, size):
        steps = ["checkpoint", "demote", "receive", "begin_term", "slots", "promote", "follow"]
        self.shard.kill_at_step(steps[int(size * len(steps))], "reparent", "--to", node.name)

    def failover(self, node, size):
        self.said(self.shard.ctl("failover", *(["--to", node.name] if size < 0.3 else [])))

    def old_orchestrator(self, node, _):
        answer = node.ctl("term", "begin", "1", "--orchestrator", "long-gone")
        assert answer.code != 0, "an old orchestrator was let in"

    def stop_receiver(self, node, _):
        self.said(node.ctl("receiver", "stop"))

    def pause_replay(self, node, _):
        self.said(node.ctl("replay", "pause"))

    def restart_postgres(self, node, _):
        self.said(node.ctl("pg", "restart"))

    def said(self, answer):
        self.tell(f"  → {answer.code} {answer.reason} {answer.error.splitlines()[:1]}")


def heal(shard, episode):
    """What an operator does: everything that should run is started, then the shard is told to recover, or to fail over."""
    episode.thaw()
    for node in shard.nodes.values():
        if node.process.poll() is not None:
            node.start_agent()
    for node in shard.nodes.values():
        wait_for(f"{node.name} answers", lambda node=node: node.ctl("status").code == 0, 30)
        node.ctl("replay", "resume")
        if node.postgres_state() in ("stopped", "quarantined"):
            node.ctl("pg", "start")

    seen = {}

    def whole():
        answer = shard.ctl("recover")
        if answer.code != 0:
            episode.said(answer)
            left = (answer.json or {}).get("left_behind", [])
            if not left:
                answer = shard.ctl("failover")
                episode.said(answer)
            for name in (answer.json or {}).get("left_behind", []):
                seen[name] = seen.get(name, 0) + 1
                if seen[name] >= 3:  # it has WAL that nobody else has: it is made anew, as a host with a new drive is
                    episode.tell(f"{name} is copied anew")
                    shard.copy_anew(shard[name], shard.primary())
                    seen[name] = 0
            return False
        # Monitors look once a second: what was broken a moment ago may not be seen yet.
        seen["findings"] = shard.findings()
        if not seen["findings"]:
            time.sleep(MONITORS)
            seen["findings"] = shard.findings()
        return not seen["findings"]
    try:
        wait_for("the shard is whole", whole, 180, 1.0)
    except AssertionError as error:
        told = "\n".join(episode.told[-30:])
        raise AssertionError(f"{error}; findings: {seen.get('findings')}; what was told:\n{told}") from error


def addresses(shard):
    return {node.name: ("127.0.0.1", node.port) for node in shard.nodes.values()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + EPISODES))
def test_episode(shard, seed):
    episode = Episode(shard, seed)
    places = list(addresses(shard).values())
    ledger = Ledger(",".join(host for host, _ in places), ",".join(str(port) for _, port in places), pause=0.005)
    watch = WriteWatch(addresses(shard))
    ledger.start(shard.primary())
    watch.start()
    try:
        wait_for("rows come", lambda: len(ledger.acknowledged) > 5, 60)
        episode.play()
        heal(shard, episode)
        before = len(ledger.acknowledged)
        wait_for("clients write again", lambda: len(ledger.acknowledged) > before + 5, 60)
    finally:
        episode.thaw()
        ledger.stop()
        watch.stop()
    status = shard.ok("status")
    primary = shard[status["primary"]]
    lsn = primary.lsn()
    for node in shard.nodes.values():
        if node is not primary:
            node.ok("wait-lsn", lsn)
        ledger.check("127.0.0.1", node.port)
    wrote = watch.check()
    print(json.dumps({"seed": seed, "acknowledged": len(ledger.acknowledged), "errors": len(ledger.errors),
                      "stall_s": round(ledger.longest_stall(), 2), "writers": wrote}))
    assert len(ledger.acknowledged) > 10
