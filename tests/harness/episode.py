"""Episode: what happens to a shard in one go, drawn from a seed before it begins."""
import random
import time

from harness.faults import Faults

PROCESSES = ["kill_postgres", "kill_agent", "kill_both", "kill_door", "freeze_agent", "freeze_postgres", "freeze_door"]
NETWORK = ["isolate", "part", "mute", "deafen", "cut_agent", "cut_replication"]
DISKS = ["fill_disk", "slow_disk"]
CLOCK = ["step_clock"]
SERVERS = ["stop_receiver", "pause_replay", "restart_postgres", "lose_slot"]
PROCEDURES = ["reparent", "failover", "recover", "replace", "killed_procedure", "killed_procedure", "old_orchestrator"]


class Episode(Faults):
    """A seed means the same on machines where the same can be done: a node is drawn by what it is when the episode begins, the
    primary or one of the standbys."""

    def __init__(self, shard, seed):
        super().__init__(shard)
        draw = random.Random(seed)
        primary = shard.primary()
        self.nodes = [primary, *[node for node in shard.nodes.values() if node is not primary]]
        kinds = [PROCESSES, SERVERS, PROCEDURES, PROCEDURES]
        kinds += [NETWORK, NETWORK] if shard.network else []
        kinds += [DISKS] if shard.disks else []
        kinds += [CLOCK] if all(node.clock for node in self.nodes) else []
        self.leased = draw.random() < 0.25
        self.plan = [(draw.uniform(0, 1.2), draw.choice(draw.choice(kinds)), draw.randrange(len(self.nodes)), draw.random(),
                      draw.random()) for _ in range(draw.randint(1, 4))]

    def play(self):
        for pause, action, number, size, more in self.plan:
            time.sleep(pause)
            node = self.nodes[number]
            self.tell(f"{action} {'standby' if number else 'primary'} {node.name} {size:.2f} {more:.2f}")
            getattr(self, action)(node, size, more)
