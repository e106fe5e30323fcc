"""An experiment with three full guests that are a shard: clients at every door and pgbench while the primary's drive is pulled out.
`metalctl shard watch --auto` runs on this host, and nobody does anything else."""
import concurrent.futures
import json
import os
import signal

from harness import process
from harness.ledger import Ledger, Violation, WriteWatch, lets_in
from harness.node import BIN
from harness.postgres import find_versions
from harness.process import CommandFailed, run, wait_for
from lab.debian_experiment import SETTINGS, let_in
from lab.experiment import Experiment
from lab.postgres_experiment import Server

PATIENCE_S = 900  # for what three emulated machines do at once
CALL_S = 60  # for one call to one of them
ANSWER_S = 5  # within which the status of the node on the sick drive has to come, each time
CLIENTS, PAUSE_S, WATCH_S = 3, 0.05, 0.25


class ShardExperiment(Experiment):
    """The first guest is the primary; its drive is the one that fails."""

    def __init__(self, scenario, guests, workspace):
        super().__init__(scenario, guests[0])
        self.guests, self.workspace = guests, workspace
        # For the whole experiment: a machine ends with the thread that started it.
        self.threads = concurrent.futures.ThreadPoolExecutor(len(guests))
        self.file = self.ledger = self.writes = self.pilot = self.bench = None

    def run(self):
        try:
            self.each(lambda guest: guest.boot())
            self.settle()
            self.measure_idle()
            self.scenario.inject(self)
            self.await_detection()
            self.observe()
            self.await_failover()
            self.end()
        finally:
            self.stop_clients()
            self.stop_watching()
            self.each(lambda guest: guest.cut_power())
            self.threads.shutdown()
        return self.outcome

    def each(self, action):
        """On every guest at once; the first error is raised when all have ended."""
        ends = [self.threads.submit(action, guest) for guest in self.guests]
        concurrent.futures.wait(ends)
        return [each.result() for each in ends]

    # ---- metalctl on this host ----

    def ctl(self, *arguments, code=0):
        command = [os.path.join(BIN, "metalctl"), "--timeout", f"{CALL_S}s", "-o", "json", *arguments]
        return run(command, code=code, as_root=True, timeout=PATIENCE_S)

    def shard(self, *arguments):
        return json.loads(self.ctl("shard", "--config", self.file, *arguments).stdout)

    def write_file(self):
        certificate, key = self.guest.lan.operator
        lines = ["[shard]", 'name = "orders"', 'synchronous = "ANY 1"', "[tls]", f'ca = "{self.guest.lan.authority.certificate}"',
                 f'certificate = "{certificate}"', f'key = "{key}"']
        for guest in self.guests:
            lines += ["[[node]]", f'id = "{guest.name}"', *[f'{key} = "{value}"' for key, value in guest.places().items()]]
        return self.workspace.file("shard.toml", "\n".join(lines) + "\n")

    # ---- before ----

    def settle(self):
        self.file = self.write_file()
        # Three machines that boot on a few cores lose connections: what was not answered is asked again.
        wait_for("a cluster is made", self.made_cluster, PATIENCE_S, 1)
        let_in(self.guest)
        wait_for("the shard is made", lambda: self.shard("init"), PATIENCE_S, 1)
        wait_for("nothing is wrong with the shard", lambda: not self.shard("status")["findings"], PATIENCE_S, 1)
        self.start_clients()
        wait_for("the probes are healthy", self.probes_healthy, 60, 0.2)
        self.pilot = process.spawn([os.path.join(BIN, "metalctl"), "shard", "--config", self.file, "watch", "--auto"],
                                   self.pilot_log, as_root=True)
        self.watch()

    def made_cluster(self):
        endpoint = self.guest.endpoint()
        if self.ctl(*endpoint, "pg", "control", code=None).code == 0:
            return True
        self.ctl(*endpoint, "pg", "init", *SETTINGS, code=None)
        return False

    @property
    def pilot_log(self):
        return os.path.join(self.workspace.path, "shard-watch.log")

    def start_clients(self):
        primary = Server(self.guest)
        self.ledger = Ledger([guest.gate_address for guest in self.guests], clients=CLIENTS, pause=PAUSE_S)
        self.writes = WriteWatch({guest.name: guest.postgres_address for guest in self.guests}, every=WATCH_S)
        self.ledger.start(primary)
        self.each(lambda guest: wait_for(f"the door of {guest.name} lets clients in",
                                         lambda: lets_in(*guest.gate_address, 10), PATIENCE_S, 0.5))
        self.writes.start()
        self.ledger.wait_more(20, PATIENCE_S)
        host, port = self.guest.postgres_address
        pgbench, where = find_versions(["15"])[0].program("pgbench"), ["-h", host, "-p", str(port), "-U", "postgres", "postgres"]
        run([pgbench, "-i", "-q", "-s", "1", *where], timeout=PATIENCE_S)
        self.bench = process.spawn([pgbench, "-c", "2", "-T", "3600", *where], os.path.join(self.workspace.path, "pgbench.log"))

    # ---- after ----

    def measure_status(self):
        super().measure_status()
        # Three machines share the cores of one, and do most at once now: a quantile says nothing of the agent, a call that takes
        # seconds does.
        longest = self.outcome.longest_ms
        if longest is not None and longest > ANSWER_S * 1e3:
            self.outcome.broken.append(f"GetStatus took {longest / 1e3:.1f} s")

    def await_failover(self):
        """Another node leads, and clients are told of commits again."""
        leads = wait_for("another node leads", self.other_primary, PATIENCE_S, 1)
        self.ledger.wait_more(20, PATIENCE_S)
        begin, end = self.ledger.stall_since(self.injected)
        self.outcome.resumed_s = end - self.injected
        self.outcome.notes.append(f"{leads.name} leads; clients stood still for {end - begin:.1f} s")

    def other_primary(self):
        name = self.shard("status")["primary"]
        return next((guest for guest in self.guests[1:] if guest.name == name), None)

    def stop_clients(self):
        for each in (self.bench, self.pilot):
            if each:
                process.end(each, signal.SIGINT)
        for each in (self.ledger, self.writes):
            if each:
                each.stop()

    def end(self):
        for event in self.events.since(self.injected)[:6]:
            self.outcome.notes.append(f"{event.at - self.injected:.1f} s {event!r}")
        self.outcome.stuck = self.stuck_threads()
        self.stop_watching()
        self.terminate()
        self.stop_clients()
        self.outcome.notes += [each for each in self.pilot_text().splitlines() if "failover" in each and "HINT" not in each][:4]
        self.outcome.acknowledged = len(self.ledger.acknowledged)
        leader = self.other_primary()
        self.outcome.lost = self.missing_at(leader)
        try:
            self.outcome.notes.append("wrote: " + ", then ".join(self.writes.check()))
        except Violation as violation:
            self.outcome.broken.append(str(violation))

    def missing_at(self, guest):
        if guest is None:
            raise CommandFailed("nobody leads")
        found = {each for each, in Server(guest).sql("SELECT id FROM ledger")}
        return len(self.ledger.acknowledged - found)

    def pilot_text(self):
        with open(self.pilot_log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def keep_console(self, target):
        for guest in self.guests:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(f"{target}.{guest.name}", "w", encoding="utf-8") as file:
                file.write(guest.text("console.log"))
        if self.pilot:
            with open(f"{target}.watch", "w", encoding="utf-8") as file:
                file.write(self.pilot_text())
