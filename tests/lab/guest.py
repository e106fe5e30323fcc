"""Guest: one virtual machine with an agent on an emulated NVMe drive, reached from the host: QMP for the faults, gRPC for what the
agent says, a shell on a second serial port for what only the inside knows."""
import json
import os
import socket
import threading
import time

from harness import process
from harness.process import run, wait_for
from harness.wire import Connection
from harness.workspace import free_port
from lab.image import QEMU
from lab.qmp import Qmp
from lab.write_log import read_log, replay

DRIVE_BYTES, MEMORY, MEMORY_WITH_POSTGRES = 1 << 30, "512M", "1G"
CPU = "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt"  # rdrand: random numbers from the start
CLOCK_WORDS = "no_timer_check"  # on a busy host the kernel's trial of the timer ends too early, and with it the boot
SERIAL = "METAL0001"  # of the data drive; the state drive has METAL0002


class GuestEnded(Exception):
    """QEMU ended by itself."""


class Shell:
    """A shell of the guest on a serial port. One command at a time."""

    def __init__(self, path, timeout=20):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(path)
        self._count, self._rest = 0, b""
        self._lock = threading.Lock()

    def __call__(self, command, timeout=20):
        """Output of a command, without its last line break."""
        with self._lock:
            self._count += 1
            mark = f"=={self._count}==\n".encode()
            self._socket.settimeout(timeout)
            # The mark as it comes back differs from the text of the command, should that be echoed.
            self._socket.sendall(f"{command}\necho =''={self._count}==\n".encode())
            while mark not in self._rest:
                part = self._socket.recv(65536)
                if not part:
                    raise ConnectionError("the guest's shell is gone")
                self._rest += part.replace(b"\r", b"")
            said, self._rest = self._rest.split(mark, 1)
            return said.decode(errors="replace").rstrip("\n")

    def close(self):
        self._socket.close()


class Guest:
    """`directory` keeps the drives' images from one boot to the next, and the console's log."""
    BOOT_S = 90

    def __init__(self, kernel, initramfs, directory, fs="xfs", state="memory", options="noatime", kernel_words="",
                 mapped=False, logged=False, postgres=False, probe_ms=0):
        self.kernel, self.initramfs, self.directory = kernel, initramfs, directory
        self.fs, self.state, self.options, self.kernel_words = fs, state, options, kernel_words
        self.mapped, self.logged, self.postgres, self.probe_ms = mapped, logged, postgres, probe_ms
        self.console = os.path.join(directory, "console.log")
        self.address = self.postgres_address = None  # of the agent's gRPC and of PostgreSQL, on this host
        self.process = self.qmp = self.shell = None
        self.boot_s = None
        self._layers = 0
        self._make_image("data.img", fs, "metal-data")
        if state == "disk":
            self._make_image("state.img", "ext4", "metal-state")
        if logged:
            run(["cp", "--sparse=always", self._path("data.img"), self._path("before.img")], as_root=True)
            self._make_image("log.img")

    @classmethod
    def for_scenario(cls, scenario, kernel, initramfs, directory):
        return cls(kernel, initramfs, directory, fs=scenario.fs, state=scenario.state, options=scenario.mount_options,
                   kernel_words=scenario.kernel_words, mapped=scenario.mapped, logged=scenario.logged, postgres=scenario.postgres,
                   probe_ms=scenario.probe_ms)

    def _path(self, name):
        return os.path.join(self.directory, name)

    def _make_image(self, name, fs="", label=""):
        """Without a file system: empty."""
        with open(self._path(name), "wb") as file:
            file.truncate(DRIVE_BYTES)
        if not fs:
            return
        run({"xfs": ["mkfs.xfs", "-q", "-f"], "ext4": ["mkfs.ext4", "-q", "-F"]}[fs] + ["-L", label, self._path(name)],
            as_root=True)

    def _drive(self, name, node, identity, serial, more=""):
        """A drive that can be removed, over a throttle that is open, over a file. `more`: properties of it. The host's own syncs
        are left out: they would add its disk's latency, and ending QEMU loses nothing that the host has in its cache."""
        file = {"driver": "file", "node-name": f"{node}-file", "filename": self._path(name), "cache": {"no-flush": True},
                "discard": "unmap"}
        throttle = {"driver": "throttle", "node-name": node, "throttle-group": f"{node}-throttle", "file": f"{node}-file"}
        return ["-object", f"throttle-group,id={node}-throttle", "-blockdev", json.dumps(file), "-blockdev", json.dumps(throttle),
                "-device", f"pcie-root-port,id={identity}-port,chassis={ord(identity[-1]) % 100},slot={ord(identity[-1]) % 100}",
                "-device", f"nvme,id={identity},serial={serial},drive={node},bus={identity}-port{more}"]

    def arguments(self, agent):
        mapped = "log" if self.logged else "yes" if self.mapped else "no"
        words = (f"console=ttyS0 loglevel=6 panic=-1 rdinit=/init fs={self.fs} state={self.state} options={self.options} "
                 f"{CLOCK_WORDS} agent={'yes' if agent else 'no'} mapped={mapped} probe={self.probe_ms} "
                 f"{self.kernel_words}")
        # With a persistent memory region, of which it can then say that it is unreliable. Nothing uses it.
        drives = ["-object", "memory-backend-ram,id=pmr,share=on,size=1M"]
        drives += self._drive("data.img", "data", "nv0", SERIAL, ",pmrdev=pmr")
        if self.state == "disk":
            drives += self._drive("state.img", "state", "nv1", "METAL0002")
        if self.logged:
            drives += self._drive("log.img", "log", "nv2", "METAL0003")
        forwards = [(self.address, 7420)] + ([(self.postgres_address, 5432)] if self.postgres else [])
        return self._machine(words, MEMORY_WITH_POSTGRES if self.postgres else MEMORY, forwards) + drives

    def _machine(self, words, memory, forwards):
        """QEMU's arguments but for the drives. forwards: ((host, port) of this host, port of the guest), …"""
        network = "user,id=net,restrict=on" + "".join(f",hostfwd=tcp:{host}:{port}-10.0.2.15:{inner}"
                                                      for (host, port), inner in forwards)
        return [QEMU, "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-nodefaults", "-m", memory,
                "-display", "none", "-no-reboot", "-kernel", self.kernel.file, "-initrd", self.initramfs, "-append", words,
                "-serial", f"file:{self.console}", "-serial", f"unix:{self._path('shell.sock')},server=on,wait=off",
                "-qmp", f"unix:{self._path('qmp.sock')},server=on,wait=off",
                "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="]

    def _choose_addresses(self):
        self.address, self.postgres_address = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())

    def boot(self, agent=True):
        """Until the agent answers (or, without one, until the shell does)."""
        begin = time.monotonic()
        self._choose_addresses()
        if os.path.exists(self.console):
            os.replace(self.console, self.console + ".before.log")
        # It ends with whoever started it, and goes before what else runs, as hardware would.
        before = ["setpriv", "--pdeathsig", "KILL"] + (["nice", "-n", "-10"] if process.IS_ROOT else [])
        self.process = process.spawn([*before, *self.arguments(agent)], self._path("qemu.log"), as_root=True)

        def ready():
            if self.process.poll() is not None:
                raise GuestEnded(f"QEMU ended with {self.process.returncode}:\n{self.text('qemu.log')}")
            return "lab: ready" in self.text("console.log")
        wait_for("the guest is up", ready, self.BOOT_S, 0.05)
        self.qmp, self.shell = Qmp(self._path("qmp.sock")), Shell(self._path("shell.sock"))
        self.shell("true")
        if agent:
            wait_for("the agent answers", self.answers, self.BOOT_S, 0.05)
        self.boot_s = time.monotonic() - begin
        return self

    def answers(self):
        """The agent's status; None when it does not answer."""
        try:
            connection = self.connect(timeout=5)
            try:
                return connection.call("HostService/GetStatus")
            finally:
                connection.close()
        except OSError:
            return None

    def connect(self, timeout=30):
        return self._connection(timeout)

    def _connection(self, timeout, tls=None):
        return Connection(self.address, timeout, tls)

    def endpoint(self):
        """metalctl's arguments that name the agent."""
        return ["--endpoint", f"{self.address[0]}:{self.address[1]}"]

    def text(self, name):
        try:
            with open(self._path(name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def cut_power(self):
        """As pulling the plug: QEMU ends at once."""
        if self.process is None:
            return
        for each in (self.qmp, self.shell):
            if each:
                each.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = self.qmp = self.shell = None

    # ---- faults, from outside ----

    def throttle(self, requests_a_second=0, bytes_a_second=0):
        """At most so many from now on; 0: as many as it can."""
        limits = {}
        for name, limit in (("iops-total", requests_a_second), ("bps-total", bytes_a_second)):
            limits.update({name: limit, f"{name}-max": limit, f"{name}-max-length": 1})
        self.qmp("qom-set", path="/objects/data-throttle", property="limits", value=limits)

    def inject_errors(self, rules, before=lambda: None):
        """blkdebug rules (iotype, errno, sector …) between the throttle and the image; `before` is called when all is ready."""
        self._layers += 1
        layer = f"data-errors-{self._layers}"
        self.qmp("blockdev-add", **{
            "driver": "blkdebug", "node-name": layer, "image": "data-file",
            "inject-error": [{"event": "none", "once": False, "errno": 5, **each} for each in rules]})
        before()
        self.qmp("blockdev-reopen", options=[{"driver": "throttle", "node-name": "data", "throttle-group": "data-throttle",
                                              "file": layer}])

    def smart_warning(self, bits):
        self.qmp("qom-set", path="/machine/peripheral/nv0", property="smart_critical_warning", value=bits)

    def remove_drive(self):
        self.qmp("device_del", id="nv0")

    def return_drive(self):
        self.qmp.wait_event("DEVICE_DELETED", 40, device="nv0")
        self.qmp("device_add", driver="nvme", id="nv0", serial=SERIAL, drive="data", bus="nv0-port")

    def map_drive(self, target, more=""):
        """Puts another target of the device mapper between the drive and its file system: "linear", "delay", "flakey"."""
        said = self.shell(f"map_drive {target} {more}")
        assert not said, said

    def replay_log(self, check):
        """What the drive would hold had the power gone at a mark: calls check(mark, image) for each, oldest first. The guest is
        off; its drive then holds what it held at the last one."""
        data = self._path("data.img")
        os.replace(self._path("before.img"), data)
        with open(self._path("log.img"), "rb") as log, open(data, "r+b") as image:
            entries = read_log(log)
            while entries and not entries[-1].mark:
                entries.pop()
            for mark in replay(log, entries, image):
                check(mark, image)

    # ---- what only the inside knows ----

    def sectors_of(self, path):
        """One sector of every 4 KiB of a file: errors there fail every page of it."""
        found = []
        for line in self.shell(f"guest_tool extents {path}").splitlines():
            start, length = map(int, line.split())
            found += range(start, start + length, 8)
        return found

    def agent_pid(self):
        return int(self.shell("cat /run/agent.pid"))
