"""Network: hosts of their own on one machine: each a network namespace with an address, joined by a bridge to which the tests
themselves belong as one more host. Packets can be lost between them, by where they come from and by port. Needs root.

What is lost is lost where it arrives, silently, as in a network that fails: a routing rule of the namespace ("blackhole") decides,
so that nothing but iproute2 is needed. What a run leaves that was killed is removed by the next one.
"""
import contextlib
import os
import re

from harness import process
from harness.process import run

NAMESPACE = "metal-test-"  # followed by the pid of the tests, a number and the host's name
INTERFACE = "mt"           # followed by the same pid and number
FIRST_PREF = 10            # of the rules that lose packets; before the rule of local addresses, at 100


def ip(*arguments, code=0, text=None):
    return run(["ip", *arguments], as_root=True, code=code, text_input=text).stdout


def remove_stale():
    """Namespaces and interfaces of tests that ended without removing them."""
    for line in ip("netns", "list").splitlines():
        found = re.match(rf"{NAMESPACE}(\d+)-", line)
        if found and not process.is_alive(int(found[1])):
            ip("netns", "del", line.split()[0], code=None)
    for name in os.listdir("/sys/class/net"):
        found = re.match(rf"{INTERFACE}(\d+)\.", name)
        if found and not process.is_alive(int(found[1])):
            ip("link", "del", name, code=None)


class Network:
    """`address(name)` of each host; a process is put into it by the words of `enter(name)` before its own."""

    _number = 0

    def __init__(self, workspace, names):
        remove_stale()
        Network._number += 1
        self._tag = f"{os.getpid()}.{Network._number}"
        self._bridge = f"{INTERFACE}{self._tag}"
        self.subnet = self._free_subnet()
        self.names = list(names)
        self._lost = {name: [] for name in self.names}  # rules in force at each host
        ip("link", "add", self._bridge, "type", "bridge")
        workspace.at_end(lambda: ip("link", "del", self._bridge))
        ip("addr", "add", f"{self.subnet}.254/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        for number, name in enumerate(self.names, 1):
            self._add_host(workspace, number, name)

    @staticmethod
    def _free_subnet():
        taken = ip("-4", "addr", "show")
        first = os.getpid()
        return next(each for each in (f"10.213.{(first + more) % 250}" for more in range(250)) if f" {each}." not in taken)

    def _add_host(self, workspace, number, name):
        space, outside = self._space(name), f"{self._bridge}{number}"
        ip("netns", "add", space)
        workspace.at_end(lambda: ip("netns", "del", space))
        ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
        # The far end goes with the namespace, but only once the last process in it has ended.
        workspace.at_end(lambda: ip("link", "del", outside, code=None))
        ip("link", "set", outside, "master", self._bridge, "up")
        # Before the rule of local addresses there must be room for rules that lose packets.
        ip("-n", space, "-batch", "-", text=f"addr add {self.address(name)}/24 dev eth0\nlink set lo up\nlink set eth0 up\n"
           "rule add pref 100 lookup local\nrule del pref 0\n")

    def _space(self, name):
        return f"{NAMESPACE}{self._tag.replace('.', '-')}-{name}"

    def address(self, name):
        return f"{self.subnet}.{self.names.index(name) + 1}"

    def enter(self, name):
        return ["nsenter", f"--net=/run/netns/{self._space(name)}", "--"]

    # ---- what is lost ----

    def lose(self, at, sources=None, ports=None):
        """Packets that reach host `at` are lost: from these hosts alone (None: from everybody, the tests too), to or from these
        TCP ports alone (None: all). Connections that are open go silent."""
        origins = [""] if sources is None else [f"from {self.address(each)} " for each in sources]
        which = [""] if ports is None else [f"ipproto tcp {side} {port} " for side in ("sport", "dport") for port in ports]
        wanted = {f"{origin}{port}" for origin in origins for port in which} - set(self._lost[at])
        # Each with a place of its own: at one place the kernel takes a rule for all packets for one that is there for some.
        self._lost[at] += sorted(wanted)
        ip("-n", self._space(at), "-batch", "-", text="".join(
            f"rule add pref {FIRST_PREF + self._lost[at].index(each)} iif eth0 {each}blackhole\n" for each in wanted))

    def mend(self):
        """Nothing is lost any more."""
        for name, lost in self._lost.items():
            ip("-n", self._space(name), "-batch", "-", text="".join(
                f"rule del pref {FIRST_PREF + number}\n" for number in range(len(lost))))
            lost.clear()

    def others(self, name):
        return [each for each in self.names if each != name]

    def isolate(self, name):
        """Nothing reaches the host, and nothing of it reaches the others."""
        self.lose(name)
        self.mute(name)

    def mute(self, name):
        """Nothing of the host reaches the others; it hears them."""
        for each in self.others(name):
            self.lose(each, [name])

    def deafen(self, name):
        """The host hears none of the others; they hear it."""
        self.lose(name, self.others(name))

    def part(self, name):
        """The host and the others hear nothing of each other; the tests reach all."""
        self.deafen(name)
        self.mute(name)

    @contextlib.contextmanager
    def losing(self):
        try:
            yield self
        finally:
            self.mend()
