"""Hosts: a shard as it is in production, on one machine: every node a host of its own with an address, a door for clients, mutual
TLS between all, passwords, a data disk and a clock of its own.

As root each host is a network namespace (network.py) and each disk a loop device (loop_disk.py), so that the network can part and
disks can be full or slow. Agents probe their disks and servers sync as in production: a slow disk delays commits, and is known to
be sick. Without root, or where the kernel has neither, everything is on the loopback address and one disk, and only processes can
fail: `network` and `node.disk` are None, and `no_disks` says why. Disks that cannot be held back are there, and `no_throttle` says
why they are never slow. `node.clock` is None where the programs are built with a sanitizer.
"""
import contextlib
import os
import struct

from harness import process
from harness.certificates import Authority
from harness.ledger import PREPARE, Ledger, WriteWatch, lets_in
from harness.loop_disk import LoopDisk, Unavailable
from harness.network import Network
from harness.node import BIN, Node
from harness.process import wait_for
from harness.three_nodes import Shard
from harness.workspace import free_port

AGENT, TRANSFER, POSTGRES, GATE = 7420, 7421, 5432, 6432
CLOCK_STEP = f"{BIN}/metal_clock_step.so"


class WallClock:
    """The wall clock of a host's processes: the machine's own, and a step (clock_step/clock_step.cc)."""

    def __init__(self, workspace, name):
        self._path = workspace.file(f"{name}/clock", "\0" * 8)
        self.env = {"LD_PRELOAD": CLOCK_STEP, "METAL_CLOCK_FILE": self._path}

    def step(self, seconds):
        """Away from the machine's clock by so much; 0: back to it."""
        with open(self._path, "r+b") as file:
            file.write(struct.pack("q", int(seconds * 1e9)))


class Hosts(Shard):
    """start() makes the shard serve."""

    def __init__(self, workspace, version, names=("a", "b", "c"), disks=True, **config):
        self.network = Network(workspace, names) if process.IS_ROOT else None
        self.no_disks = None if disks and process.IS_ROOT else "no loop device: not root, or none wanted"
        self.no_throttle = self.no_disks
        self.authority = Authority(workspace)
        self.operator = self.authority.issue("operator", "DNS:operator.test")
        self.password = workspace.file("replication-password", "of-the-standbys\n", 0o600)
        self.names = names
        super().__init__(workspace, version, names, **config)
        self.file = self.write_file(tls={"ca": self.authority.certificate, "certificate": self.operator[0],
                                         "key": self.operator[1]})

    @property
    def subnet(self):
        return f"{self.network.subnet}.0/24" if self.network else "127.0.0.1/32"

    def make_node(self, name):
        disk, words = self.make_disk(name)
        node = Node(self.workspace, self.version, name=name, data_dir=disk and os.path.join(disk.mount, "data"), **self.config)
        node.disk = disk
        node.host = self.network.address(name) if self.network else "127.0.0.1"
        node.ports = {each: each if self.network else free_port() for each in (AGENT, TRANSFER, POSTGRES, GATE)}
        node.port = node.ports[POSTGRES]
        node.door = (node.host, node.ports[GATE])
        node.clock = WallClock(self.workspace, name) if os.path.exists(CLOCK_STEP) else None
        node.agent_env = node.clock.env if node.clock else {}
        node.enter = [*words, *(self.network.enter(name) if self.network else [])]
        certificate, key = self.authority.issue(name, f"IP:{node.host}", f"DNS:{name}.test")
        for section, options in {
                "agent": {"cluster_id": "orders", "listen": f"{node.host}:{node.ports[AGENT]}"},
                "tls": {"certificate": certificate, "key": key, "client_ca": self.authority.certificate},
                "postgres": {"port": node.port, "listen_addresses": node.host},
                "replication": {"password_file": self.password, "networks": self.subnet, "ssl_mode": "disable"},
                "transfer": {"listen": f"{node.host}:{node.ports[TRANSFER]}"},
                "disk": {"probe_enabled": disk is not None},
                "gate": {"enabled": True, "listen": f"{node.host}:{node.ports[GATE]}", "server_tls": "disable"}}.items():
            node.config.setdefault(section, {}).update(options)
        node.roles = [{"san": "operator.test", "role": "orchestrator"},
                      *[{"san": f"{each}.test", "role": "peer"} for each in self.names]]
        return node

    def make_disk(self, name):
        """(the disk or None, words before a command whose I/O to it can be held back)"""
        if self.no_disks:
            return None, []
        self.workspace.directory(name, 0o755)
        try:
            disk = LoopDisk(self.workspace, os.path.join(self.workspace.path, name, "disk"), name)
        except Unavailable as why:
            print(f"one disk for all: {why}")
            self.no_disks = self.no_throttle = str(why)
            return None, []
        try:
            return disk, disk.enter()
        except Unavailable as why:
            print(f"no disk is ever slow: {why}")
            self.no_throttle = str(why)
            return disk, []

    def places(self, node):
        return {"agent": f"{node.host}:{node.ports[AGENT]}", "server_name": f"{node.name}.test",
                "postgres": f"{node.host}:{node.port}", "transfer": f"{node.host}:{node.ports[TRANSFER]}",
                "gate": f"{node.host}:{node.ports[GATE]}"}

    def start(self):
        """A shard of empty hosts is made, and clients can log in at every door."""
        first = next(iter(self.nodes.values()))
        self.start_agents()
        # Where all share one disk, syncs cost time and prove nothing.
        sync = "off" if self.no_disks else "on"
        first.init("--set", "shared_buffers=32MB", "max_wal_size=128MB", "min_wal_size=64MB", f"fsync={sync}")
        self.let_clients_in(first)
        assert self.ok("init")["left_behind"] == []
        first.sql(PREPARE)
        self.wait_healthy()
        for node in self.nodes.values():
            wait_for(f"the door of {node.name} lets clients in", lambda node=node: lets_in(*node.door, 5), 30)
        return self

    def let_clients_in(self, node):
        """Clones and rewinds bring pg_hba.conf to the other nodes."""
        path = os.path.join(node.data_dir, "pg_hba.conf")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"local all ledger scram-sha-256\nhost all all {self.subnet} scram-sha-256\n{text}")

    @contextlib.contextmanager
    def clients_and_watch(self):
        """Clients at every door, and one at each server by itself, on its own host: a partition does not keep it from writing."""
        ledger = Ledger([node.door for node in self.nodes.values()], clients=4, pause=0.005)
        watch = WriteWatch({node.name: (node.run_dir, node.port) for node in self.nodes.values()})
        ledger.start(self.primary())
        watch.start()
        try:
            ledger.wait_more()
            yield ledger, watch
        finally:
            ledger.stop()
            watch.stop()

    def check_everywhere(self, ledger):
        """Every node has everything that was acknowledged."""
        primary = self.primary()
        lsn = primary.lsn()
        for node in self.nodes.values():
            if node is not primary:
                node.ok("wait-lsn", lsn)
            ledger.check(node.run_dir, node.port)

    def remote(self, node, *command, timeout=10):
        """metalctl to one agent over the network, as the operator reaches it; the node's own ctl() comes by its unix socket."""
        certificate, key = self.operator
        return node.ctl("--ca", self.authority.certificate, "--cert", certificate, "--key", key, "--server-name",
                        f"{node.name}.test", "--timeout", "2", *command, endpoint=f"{node.host}:{node.ports[AGENT]}",
                        timeout=timeout)

    # ---- what is lost between hosts, by what it is ----

    def cut_agent(self, name):
        """The agent's own ports, in both directions: calls, and clones."""
        self.network.lose(name, ports=(AGENT, TRANSFER))

    def cut_replication(self, name):
        """PostgreSQL's port, in both directions: WAL, and the other hosts' doors."""
        self.network.lose(name, self.network.others(name), ports=(POSTGRES,))
