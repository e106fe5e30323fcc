"""Faults: what can happen to a shard of hosts (hosts.py), each as a method that makes it happen to a node; and `heal`, what an
operator does afterwards."""
import os
import signal
import time

from harness.postgres import postmaster_pid
from harness.process import wait_for

MONITORS = 2.5  # seconds after which every node's status is newer than what happened before
LONGEST = 5.0   # seconds that a fault lasts which ends by itself
LASTS = 0.6     # faults of a greater size end only when the shard is healed


class Faults:
    """Methods take the node and two numbers below 1, of which the first says how long it lasts: a small fault ends by itself, a
    great one when the shard is healed. `told`: what was done, for the reader of a failure."""

    def __init__(self, shard):
        self.shard, self.told, self._frozen = shard, [], []

    def tell(self, text):
        self.told.append(text)
        print(f"  {text}", flush=True)

    def said(self, answer):
        self.tell(f"  → {answer.code} {answer.reason} {answer.error.splitlines()[:1]}")

    def end_faults(self):
        """Whatever hangs, is lost or is full works again; what died stays dead."""
        for pid in list(self._frozen):
            self._thaw(pid)
        if self.shard.network:
            self.shard.network.mend()
        for node in self.shard.nodes.values():
            if node.disk:
                node.disk.work()
                node.disk.empty()
            if node.clock:
                node.clock.step(0)

    @staticmethod
    def _last(size, end):
        if size < LASTS:
            time.sleep(LONGEST * size)
            end()

    # ---- processes ----

    def kill_postgres(self, node, *_):
        pid = postmaster_pid(node.data_dir)
        if pid:
            os.kill(pid, signal.SIGKILL)

    def kill_agent(self, node, *_):
        node.kill_agent()

    def kill_both(self, node, *_):
        node.kill_agent()
        self.kill_postgres(node)

    def kill_door(self, node, *_):
        pid = node.pgbouncer_pid()
        if pid:
            os.kill(pid, signal.SIGKILL)

    def freeze_agent(self, node, size, _):
        self._freeze(node.process.pid if node.process.poll() is None else 0, size)

    def freeze_postgres(self, node, size, _):
        self._freeze(postmaster_pid(node.data_dir), size)

    def freeze_door(self, node, size, _):
        self._freeze(node.pgbouncer_pid(), size)

    def _freeze(self, pid, size):
        if pid:
            os.kill(pid, signal.SIGSTOP)
            self._frozen.append(pid)
            self._last(size, lambda: self._thaw(pid))

    def _thaw(self, pid):
        self._frozen.remove(pid)
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    # ---- the network ----

    def isolate(self, node, size, _):
        self.shard.network.isolate(node.name)
        self._last(size, self.shard.network.mend)

    def part(self, node, size, _):
        self.shard.network.part(node.name)
        self._last(size, self.shard.network.mend)

    def mute(self, node, size, _):
        self.shard.network.mute(node.name)
        self._last(size, self.shard.network.mend)

    def deafen(self, node, size, _):
        self.shard.network.deafen(node.name)
        self._last(size, self.shard.network.mend)

    def cut_agent(self, node, size, _):
        self.shard.cut_agent(node.name)
        self._last(size, self.shard.network.mend)

    def cut_replication(self, node, size, _):
        self.shard.cut_replication(node.name)
        self._last(size, self.shard.network.mend)

    # ---- disks ----

    def fill_disk(self, node, size, _):
        node.disk.fill()
        self._last(size, node.disk.empty)

    def slow_disk(self, node, size, more):
        node.disk.slow(int(1 + more * 400_000))
        self._last(size, node.disk.work)

    # ---- clocks ----

    def step_clock(self, node, size, more):
        """Forward; back when it ends. A clock behind the others' would find their certificates not valid yet, as it should."""
        node.clock.step(10 ** (1 + 3 * more))
        self._last(size, lambda: node.clock.step(0))

    # ---- servers ----

    def stop_receiver(self, node, *_):
        self.said(node.ctl("receiver", "stop"))

    def pause_replay(self, node, *_):
        self.said(node.ctl("replay", "pause"))

    def restart_postgres(self, node, *_):
        self.said(node.ctl("pg", "restart", timeout=60))

    def lose_slot(self, node, *_):
        """Of this node, wherever it is."""
        for each in self.shard.nodes.values():
            if postmaster_pid(each.data_dir) and postmaster_pid(each.data_dir) not in self._frozen:
                slot = f"'metal_{node.name}'"
                each.run("psql", "-XqAt", "-c", "SET statement_timeout = '3s'", "-c",
                         f"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = {slot}",
                         "-c", f"SELECT pg_drop_replication_slot({slot})", code=None)

    # ---- procedures, of which any may be refused as things stand ----

    def reparent(self, node, *_):
        self.said(self.shard.ctl("reparent", "--to", node.name))

    def failover(self, node, size, _):
        self.said(self.shard.ctl("failover", *(["--to", node.name] if size < 0.3 else [])))

    def recover(self, *_):
        self.said(self.shard.ctl("recover"))

    def replace(self, node, *_):
        self.said(self.shard.ctl("replace", node.name))

    def killed_procedure(self, node, size, more):
        command = [["reparent", "--to", node.name], ["failover", "--to", node.name], ["recover"],
                   ["replace", node.name]][int(size * 4)]
        killed = self.shard.kill_at_step(int(more * 14), *command)
        self.tell(f"  → {' '.join(command)} {'was killed' if killed else 'ended before'}")

    def old_orchestrator(self, node, *_):
        answer = self.shard.remote(node, "term", "begin", "1", "--orchestrator", "long-gone")
        assert answer.code != 0, "an old orchestrator was let in"
        assert answer.code in (3, 5, 7), answer


def start_what_stopped(shard):
    for node in shard.nodes.values():
        if node.process.poll() is not None:
            node.start_agent()
    for node in shard.nodes.values():
        wait_for(f"{node.name} answers", lambda node=node: node.ctl("status").code == 0, 30)
        node.ctl("replay", "resume")
        if node.postgres_state() in ("stopped", "quarantined"):
            node.ctl("pg", "start")


def heal(shard, faults):
    """What an operator does: everything that should run is started, then the shard is told to recover until nothing is found; a
    node that stays behind is replaced. Returns the names of those."""
    faults.end_faults()
    start_what_stopped(shard)
    behind, replaced, seen = {}, [], {}

    def findings():
        seen["last"] = shard.explained()
        return seen["last"]

    def whole():
        answer = shard.ctl("recover")
        if answer.code == 0:
            # Monitors look once a second: what was broken a moment ago may not be seen yet, and what was mended may still show.
            if not findings():
                return True
            time.sleep(MONITORS)
            return not findings()
        faults.said(answer)
        for name in (answer.json or {}).get("left_behind", []):
            behind[name] = behind.get(name, 0) + 1
            if behind[name] >= 4:
                answer = shard.ctl("replace", name, "--force")
                faults.tell(f"{name} was replaced")
                faults.said(answer)
                replaced.append(name)
                behind[name] = 0
        return False
    try:
        wait_for("the shard is whole", whole, 180, 1.0)
    except AssertionError as error:
        told = "\n".join(faults.told[-40:])
        raise AssertionError(f"{error}; findings: {seen.get('last')}; what was told:\n{told}") from error
    return replaced
