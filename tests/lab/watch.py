"""What the agent says while something happens to its drive: events as they come, and how long GetStatus takes. Each has a thread
and a connection of its own; both were connected before the fault."""
import threading
import time

from harness.status_latency import percentile
from harness.wire import fields_of, message


def text_of(fields, number):
    return fields.get(number, [b""])[0].decode()


class Event:
    """One event, and when it reached this host (monotonic)."""

    def __init__(self, encoded, at):
        fields = fields_of(encoded)
        self.at = at
        self.id, self.severity = fields.get(1, [0])[0], fields.get(3, [0])[0]
        self.type, self.subject, self.message = (text_of(fields, number) for number in (4, 5, 6))
        pairs = [fields_of(each) for each in fields.get(7, [])]
        self.attributes = {text_of(each, 1): text_of(each, 2) for each in pairs}

    def words(self):
        """What may name a class of fault."""
        return {self.type.rsplit(".", 1)[-1], *self.attributes.values()}

    def __repr__(self):
        return f"{self.type} {self.subject}: {self.message}"


def list_events(connection):
    answer = fields_of(connection.call("HostService/ListEvents", message({3: 0, 4: 10000})))
    return [Event(each, 0.0) for each in answer.get(1, [])]


class _Reader:
    """A thread that ends with its connection. PATIENCE_S: how long it waits for what comes next."""
    PATIENCE_S = 60

    def __init__(self, guest):
        self._connection = guest.connect(timeout=self.PATIENCE_S)
        self._stop = threading.Event()
        self.error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._read()
        except (OSError, AssertionError) as error:
            if not self._stop.is_set():
                self.error = repr(error)

    def stop(self):
        self._stop.set()
        self._connection.close()
        self._thread.join(10)


class EventStream(_Reader):
    """WatchEvents. Minutes may pass without an event."""
    PATIENCE_S = None

    def __init__(self, guest):
        self.events = []
        super().__init__(guest)

    def _read(self):
        for answer in self._connection.stream("HostService/WatchEvents"):
            self.events.append(Event(fields_of(answer)[1][0], time.monotonic()))

    def since(self, moment):
        return [each for each in list(self.events) if each.at >= moment]


class StatusCalls(_Reader):
    """GetStatus, at most `RATE` times a second: (when it began, how long it took, the faults in it, whether
    the node is fenced, whether its PostgreSQL has ended). A call that has not come back counts as long as it has been waited for.
    `actions`, `postgres`: what was done about faults, and PostgreSQL's section, as the last answers say."""
    RATE = 50

    def __init__(self, guest):
        self.calls, self.actions, self.postgres = [], [], {}
        self._asked = None  # when the call began that has not come back; it stays when the connection broke over it
        super().__init__(guest)

    def _read(self):
        while not self._stop.is_set():
            begin = self._asked = time.monotonic()
            status = fields_of(fields_of(self._connection.call("HostService/GetStatus"))[1][0])
            taken = time.monotonic() - begin
            said = [fields_of(fault) for fault in status.get(12, [])]
            faults = {(text_of(fault, 1), text_of(fault, 2)) for fault in said}
            fenced = fields_of(status[3][0]).get(9) == [1]
            self.postgres = fields_of(status[4][0])
            down = self.postgres.get(4, [0]) == [0]
            self.calls.append((begin, taken, faults, fenced, down))
            self.actions = [each.decode() for fault in said for disk in fault.get(6, []) for each in fields_of(disk).get(11, [])]
            self._asked = None
            self._stop.wait(max(0.0, 1 / self.RATE - taken))

    def waiting_s(self):
        """Age of the call that has not come back; 0 when all have."""
        asked = self._asked
        return 0.0 if asked is None else time.monotonic() - asked

    def _taken(self, first, last):
        """Seconds of the calls that were under way between two moments; the first may have begun before."""
        asked, calls = self._asked, list(self.calls)
        taken = [each[1] for each in calls if first <= each[0] + each[1] and each[0] < last]
        if asked is not None and asked < last and all(each[0] != asked for each in calls[-3:]):  # it did not just come back
            taken.append(time.monotonic() - asked)
        return taken

    def p99_ms(self, first, last=float("inf")):
        """None without a call."""
        taken = self._taken(first, last)
        return (percentile(taken, 99) if len(taken) > 1 else taken[0]) * 1e3 if taken else None

    def longest_ms(self, first, last=float("inf")):
        """None without a call."""
        taken = self._taken(first, last)
        return max(taken) * 1e3 if taken else None

    def first_fenced(self, since):
        """When a status of a fenced node was first asked for."""
        return next((begin + taken for begin, taken, _, fenced, _ in list(self.calls) if begin >= since and fenced), None)

    def first_down(self, since):
        """The same of a status whose PostgreSQL has ended."""
        return next((begin + taken for begin, taken, _, _, down in list(self.calls) if begin >= since and down), None)

    def faults(self):
        return self.calls[-1][2] if self.calls else set()

    def first_with(self, classes, since):
        """When a status with a fault of these classes was first asked for."""
        return next((begin + taken for begin, taken, faults, _, _ in list(self.calls)
                     if begin >= since and classes & {each for each, _ in faults}), None)


class StuckThreads:
    """A watch inside the guest for threads of the agent and of its helper in uninterruptible sleep. A read of a working disk is
    one, for a moment: what counts is how long one stays there."""
    AT_LEAST_S = 1.0

    def __init__(self, guest):
        self._guest = guest
        guest.shell(f"guest_tool stuck {guest.agent_pid()} /run/stuck &")

    def found(self):
        """{name of the thread: seconds} of those that stayed there for a second or longer."""
        lines = [each.partition(" ") for each in self._guest.shell("cat /run/stuck").splitlines()]
        return {name: int(taken) / 1e3 for taken, _, name in lines if int(taken) >= self.AT_LEAST_S * 1e3}
