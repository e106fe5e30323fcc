"""Episode: what happens to a shard in one go, drawn from a seed before it begins."""
import random
import time

from harness.faults import Faults

PROCESSES = ["kill_postgres", "kill_agent", "kill_both", "kill_door", "freeze_agent", "freeze_postgres", "freeze_door"]
NETWORK = ["isolate", "part", "mute", "deafen", "cut_agent", "cut_replication"]
FULL_DISKS = ["fill_disk"]
DISKS = [*FULL_DISKS, "slow_disk"]
CLOCK = ["step_clock"]
SERVERS = ["stop_receiver", "pause_replay", "restart_postgres", "lose_slot"]
PROCEDURES = ["reparent", "failover", "recover", "replace", "killed_procedure", "killed_procedure", "old_orchestrator"]
# Each once, in the order in which seeds take turns.
ACTIONS = list(dict.fromkeys(PROCESSES + NETWORK + DISKS + CLOCK + SERVERS + PROCEDURES))


def possible_on(shard):
    """Lists of actions, of which each is drawn as often as the others."""
    kinds = [PROCESSES, SERVERS, PROCEDURES, PROCEDURES]
    kinds += [NETWORK, NETWORK] if shard.network else []
    kinds += [] if shard.no_disks else [FULL_DISKS if shard.no_throttle else DISKS]
    kinds += [CLOCK] if all(node.clock for node in shard.nodes.values()) else []
    return kinds


def draw_plan(seed, kinds, nodes):
    """(whether the primary has a lease, [(pause, action, number of a node, two numbers below 1)]). The first two actions go by
    turns, so that a run of few episodes leaves none out; all else is chance."""
    draw = random.Random(seed)
    leased = draw.random() < 0.25
    plan = [[draw.uniform(0, 1.2), draw.choice(draw.choice(kinds)), draw.randrange(nodes), draw.random(), draw.random()]
            for _ in range(draw.choice([2, 2, 3, 4]))]
    turn = [ACTIONS[(2 * seed + each) % len(ACTIONS)] for each in draw.sample((0, 1), 2)]
    for step, action in zip(plan, turn):
        if any(action in kind for kind in kinds):
            step[1] = action
    return leased, plan


class Episode(Faults):
    """A seed means the same on machines where the same can be done: a node is drawn by what it is when the episode begins, the
    primary or one of the standbys."""

    def __init__(self, shard, seed):
        super().__init__(shard)
        primary = shard.primary()
        self.nodes = [primary, *[node for node in shard.nodes.values() if node is not primary]]
        self.leased, self.plan = draw_plan(seed, possible_on(shard), len(self.nodes))

    def play(self):
        for pause, action, number, size, more in self.plan:
            time.sleep(pause)
            node = self.nodes[number]
            self.tell(f"{action} {'standby' if number else 'primary'} {node.name} {size:.2f} {more:.2f}")
            getattr(self, action)(node, size, more)
