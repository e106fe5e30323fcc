"""Experiment: one scenario played on one guest, and what came of it."""
import dataclasses
import os
import time

from harness.process import CommandFailed, wait_for
from harness.wire import fields_of
from lab.watch import EventStream, StatusCalls, StuckThreads, list_events

IDLE_S, OBSERVE_S = 4.0, 6.0  # measured before the fault, and at least while it lasts
CONFIRM_S = 4.0  # of those, at least after it was detected
CONFIRM_PATIENCE_S = 20.0  # how long after that a fatal fault is waited for to be confirmed
UNANSWERED_S = 1.0  # a GetStatus that is older, and has not come back when the watch ends, was not answered
EXIT_LIMIT_MS, STATUS_P99_MS = 1000, 20.0  # what the agent promises: its end, and GetStatus during a fault
# An emulated machine on a busy host takes longer with every call, also without a fault: what comes on top is the fault's.
STATUS_MARGIN_MS = 10.0
WARNING = 2


@dataclasses.dataclass
class Outcome:
    """What was measured. None: not measured in this scenario."""
    scenario: str
    detected_as: str = ""  # class that was expected and came; empty: none
    instead: str = ""  # what came first when nothing expected did
    confirmed_s: float = None  # from the injection to the event that says it is confirmed
    also: list = dataclasses.field(default_factory=list)  # other classes that were confirmed
    fenced_s: float = None  # from the injection to the fence in the status
    down_s: float = None  # the same to the end of PostgreSQL
    server: str = ""  # what the status said of it at last
    cut: str = ""  # what was done to keep clients away, in the agent's words
    seconds: float = None  # from the injection to the event on WatchEvents
    resumed_s: float = None  # from the injection to the next commit that a client of the shard was told of
    idle_p99_ms: float = None
    p99_ms: float = None
    longest_ms: float = None  # of the calls of GetStatus since the fault, also of one that never came back
    unanswered_ms: float = None  # age of the call that had not come back at the end; None: all had, or it was just made
    watched: bool = False  # the calls of GetStatus since the fault were looked at
    exit_ms: float = None  # infinite: it had not ended after 10 s
    held: str = ""  # not empty: dead by then, but for threads that the drive does not let go
    stuck: dict = dataclasses.field(default_factory=dict)  # thread of the agent: seconds in uninterruptible sleep, from 1 s on
    acknowledged: int = None
    lost: int = None
    notes: list = dataclasses.field(default_factory=list)
    broken: list = dataclasses.field(default_factory=list)  # promises of the scenario's own that did not hold

    def misses(self, scenario):
        """What is not as the table says."""
        found = list(self.broken)
        if scenario.classes and not self.detected_as:
            found.append("not detected")
        elif scenario.classes and self.seconds > scenario.bar_s:
            found.append(f"detected after {self.seconds:.1f} s, not {scenario.bar_s:g} s")
        if self.detected_as and scenario.fatal() and self.confirmed_s is None and not scenario.suspected:
            found.append("never confirmed")
        found += self._fence_misses(scenario) + self._status_misses(scenario)
        if self.exit_ms is not None and self.exit_ms > EXIT_LIMIT_MS:
            found.append(f"exit took {self.exit_ms:.0f} ms")
        if self.held and not scenario.holds:
            found.append("the drive holds threads of the dead agent")
        if self.stuck and not scenario.holds:
            found.append("threads in D state: " + ", ".join(f"{name} {taken:.0f} s" for name, taken in self.stuck.items()))
        if self.lost and not scenario.loses:
            found.append(f"{self.lost} acknowledged records lost")
        return found

    def _fence_misses(self, scenario):
        bar = scenario.fence_bar_s
        if bar is None:
            return ["fenced, which nothing calls for"] if scenario.classes and self.fenced_s is not None else []
        if self.fenced_s is None:
            return [f"not fenced within {bar:g} s"]
        found = [f"fenced after {self.fenced_s:.1f} s, not {bar:g} s"] if self.fenced_s > bar else []
        if not self.cut.startswith("refuses new connections"):
            found.append(f"clients were not cut off: {self.cut or 'nothing is said of it'}")
        # On a drive that hangs a server has ended only when nothing of it is left.
        if self.down_s is None and not scenario.hangs:
            found.append(f"PostgreSQL has not ended: {self.server}")
        return found

    def _status_misses(self, scenario):
        if not self.watched:
            return []
        if self.p99_ms is None:
            return ["GetStatus did not answer"]
        found = []
        if scenario.status_judged and self.p99_ms >= max(STATUS_P99_MS, (self.idle_p99_ms or 0.0) + STATUS_MARGIN_MS):
            found.append(f"GetStatus p99 {self.p99_ms:.0f} ms")
        if self.unanswered_ms is not None:
            found.append(f"GetStatus had not answered for {self.unanswered_ms / 1e3:.1f} s")
        return found


class Experiment:
    """Scenarios call `begin` at the moment of the fault, and use `guest`."""

    def __init__(self, scenario, guest):
        self.scenario, self.guest = scenario, guest
        self.outcome = Outcome(scenario.name)
        self.injected = None
        self.watched_since = 0.0
        self.events = self.status = self._threads = None

    def begin(self):
        self.injected = time.monotonic()

    def expect(self, holds, promise):
        """A promise of the scenario's own; it goes on."""
        if not holds:
            self.outcome.broken.append(promise)

    def run(self):
        try:
            self.guest.boot()
            self.settle()
            self.measure_idle()
            self.scenario.inject(self)
            self.await_detection()
            self.observe()
            if self.scenario.afterwards:
                self.scenario.afterwards(self)
            self.end()
        finally:
            self.stop_watching()
            self.guest.cut_power()
        return self.outcome

    # ---- before ----

    def probes_healthy(self):
        status = fields_of(fields_of(self.ask("HostService/GetStatus"))[1][0])
        probes = [fields_of(probe) for disk in status.get(9, []) for probe in fields_of(disk).get(20, [])]
        return probes and all(probe.get(3) == [1] for probe in probes)

    def ask(self, method, request=b""):
        connection = self.guest.connect()
        try:
            return connection.call(method, request)
        finally:
            connection.close()

    def settle(self):
        """The agent's probes are healthy, the workload writes, and the watchers watch."""
        wait_for("the probes are healthy", self.probes_healthy, 60, 0.1)
        if self.scenario.workload is not None:
            self.guest.shell(f"guest_tool append /data/wal.dat /run/told {self.scenario.workload} 2> /run/append.err &")
            wait_for("the workload writes", lambda: self.acknowledged() > 10, 60, 0.1)
        self.learn()
        self.watch()

    def learn(self):
        """As long as the scenario says; the agent does not judge a drive that it hardly knows."""
        begin = time.monotonic()
        if self.scenario.learn_s:
            wait_for("the drive was seen at work", lambda: time.monotonic() - begin > self.scenario.learn_s,
                     self.scenario.learn_s + 60, 1)

    def measure_idle(self):
        begin = time.monotonic()
        wait_for("the idle guest was measured", lambda: time.monotonic() - begin > IDLE_S, IDLE_S + 10, 0.05)
        self.outcome.idle_p99_ms = self.status.p99_ms(begin)

    def watch(self):
        self.watched_since = time.monotonic()
        self.events, self.status, self._threads = EventStream(self.guest), StatusCalls(self.guest), StuckThreads(self.guest)

    def acknowledged(self):
        return int(self.guest.shell("cat /run/told 2> /dev/null") or 0)

    # ---- during ----

    def _found(self):
        """(class, when the event came) of the first event that stands for an expected class."""
        for event in self.events.since(self.injected):
            if event.severity < WARNING or not event.type.startswith("disk."):
                continue
            named = self.scenario.classes & event.words()
            if not named:
                # The event does not say: then what the status says from then on, for a moment.
                at = self.status.first_with(self.scenario.classes, event.at - 0.2)
                if at is not None and at - event.at < 0.5:
                    named = self.scenario.classes & {each for each, _ in self.status.faults()}
            if named:
                return ", ".join(sorted(named)), event.at
        return None

    def await_detection(self):
        """Waits for the event that names the fault; the outcome says which, and after how long."""
        if not self.scenario.classes:
            return
        try:
            found = wait_for("it is detected", self._found, self.scenario.patience_s, 0.02)
            self.outcome.detected_as, at = found
            self.outcome.seconds = at - self.injected
        except AssertionError:
            told = [each for each in self.events.since(self.injected) if each.type.startswith("disk.")]
            self.outcome.instead = "; ".join(f"{each!r} after {each.at - self.injected:.1f} s" for each in told[:3])

    def observe(self):
        """For some seconds at least, and until the fault is confirmed and the node fenced where that is expected, or its time is
        over."""
        detected = self.injected + (self.outcome.seconds or 0.0)
        until = max(self.injected + OBSERVE_S, detected + CONFIRM_S, self.watched_since + IDLE_S)
        confirm_by = detected + CONFIRM_PATIENCE_S if self.awaits_confirmation() else until
        fence_by = until if self.scenario.fence_bar_s is None else self.injected + self.scenario.fence_bar_s

        def over():
            now = time.monotonic()
            fenced = self.fenced_at() and (self.scenario.hangs or self.status.first_down(self.injected)) and self.cut()
            return now > until and (now > confirm_by or self.confirmed()) and (now > fence_by or fenced)
        wait_for("it was observed", over, max(until, confirm_by, fence_by) - time.monotonic() + 120, 0.05)
        told = [each for each in self.events.since(self.injected) if each.type == "disk.fault_confirmed"]
        confirmed, fenced = self.confirmed(), self.fenced_at()
        self.outcome.confirmed_s = confirmed and confirmed - self.injected
        self.outcome.also = sorted({each.attributes.get("class", "") for each in told} - self.scenario.classes)
        self.outcome.fenced_s = fenced and fenced - self.injected
        down = self.status.first_down(self.injected)
        self.outcome.down_s = down and down - self.injected
        self.outcome.cut = self.cut()
        seen = self.status.postgres
        self.outcome.server = f"process {seen.get(4, [0])[0]}, state {seen.get(1, [0])[0]}"
        self.measure_status()

    def awaits_confirmation(self):
        return self.outcome.detected_as and self.scenario.fatal() and not self.scenario.suspected

    def confirmed(self):
        """When an event said that the fault is confirmed: one of the fatal classes, where some are expected."""
        classes = self.scenario.fatal() or self.scenario.classes
        return next((each.at for each in self.events.since(self.injected)
                     if each.type == "disk.fault_confirmed" and each.attributes.get("class") in classes), None)

    def fenced_at(self):
        return self.status.first_fenced(self.injected)

    def cut(self):
        """What the agent says that it did to keep clients away."""
        return next((each for each in self.status.actions if "new connections" in each), "")

    def measure_status(self):
        """GetStatus since the fault."""
        waiting = self.status.waiting_s()
        self.outcome.watched = True
        self.outcome.p99_ms = self.status.p99_ms(self.injected)
        self.outcome.longest_ms = self.status.longest_ms(self.injected)
        self.outcome.unanswered_ms = waiting * 1e3 if waiting > UNANSWERED_S else None

    # ---- the end ----

    def stop_watching(self):
        for each in (self.events, self.status):
            if each:
                each.stop()
                if each.error:
                    self.outcome.broken.append(f"{type(each).__name__} ended: {each.error}")
        self.events = self.status = None

    def end(self):
        """SIGTERM while the drive is as it is, power off, and what the drive holds then."""
        for event in self.events.since(self.injected)[:6]:
            self.outcome.notes.append(f"{event.at - self.injected:.1f} s {event!r}")
        counted = self.outcome.lost is not None  # by the scenario itself: the workload began anew since then
        if self.scenario.workload is not None and not counted:
            self.outcome.acknowledged = self.acknowledged()
            error = self.guest.shell("cat /run/append.err 2> /dev/null")
            if error:
                self.outcome.notes.append(error)
        self.outcome.stuck = self.stuck_threads()
        self.stop_watching()
        self.terminate()
        if self.scenario.workload is not None and not counted:
            self.outcome.lost = self.lost(self.outcome.acknowledged)

    def stuck_threads(self):
        return self._threads.found()

    def terminate(self):
        said = self.guest.shell(f"guest_tool terminate {self.guest.agent_pid()} 10000", timeout=30)
        taken, _, self.outcome.held = said.partition(" ")
        if taken != "alive" and not taken.isdigit():
            raise CommandFailed(f"terminate: {said}")
        self.outcome.exit_ms = float("inf") if taken == "alive" else float(taken)

    def lost(self, acknowledged):
        """Records that were told to be durable and are not there after a power cut."""
        self.guest.cut_power()
        self.guest.boot(agent=False)
        said = self.guest.shell(f"guest_tool verify /data/wal.dat {acknowledged} 2>&1", timeout=60)
        if " lost of " not in said:
            raise CommandFailed(f"verify: {said}")
        return int(said.split()[0])

    def event_ids(self):
        """Of all events that are stored."""
        connection = self.guest.connect()
        try:
            return {each.id: each.type for each in list_events(connection)}
        finally:
            connection.close()

    def operations(self):
        """The journal's operations; an error when it cannot be read."""
        return fields_of(self.ask("OperationsService/ListOperations")).get(1, [])

    def keep_console(self, target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as file:
            file.write(self.guest.text("console.log.before.log") + self.guest.text("console.log"))
