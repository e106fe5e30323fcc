"""Shard: nodes a, b, c … of one shard, each with its agent, and `metalctl shard` to operate them."""
import contextlib
import subprocess

from harness.ledger import Ledger
from harness.node import Node
from harness.process import wait_for
from harness.workspace import free_port

QUICK_SERVER = ("--set", "shared_buffers=32MB", "max_wal_size=256MB", "fsync=off")  # settings of a shard that is made


class Shard:
    """`nodes`: the nodes by name; agents are not started. Each reaches the others' servers by unix sockets."""

    def __init__(self, workspace, version, names=("a", "b", "c"), policy="ANY 1", **config):
        self.workspace, self.version, self.policy, self.config = workspace, version, policy, config
        self.nodes = {name: self.make_node(name) for name in names}
        self.file = self.write_file()

    def __getitem__(self, name):
        return self.nodes[name]

    def make_node(self, name):
        node = Node(self.workspace, self.version, name=name, **self.config)
        node.config["agent"]["cluster_id"] = "orders"
        node.transfer = f"127.0.0.1:{free_port()}"
        node.config["transfer"] = {"listen": node.transfer}
        return node

    def places(self, node):
        """What the shard's file says of a node."""
        return {"agent": node.endpoint, "postgres": f"{node.run_dir}:{node.port}", "transfer": node.transfer}

    def write_file(self, **sections):
        lines = ["[shard]", 'name = "orders"', f'synchronous = "{self.policy}"']
        for section, values in sections.items():
            lines += [f"[{section}]", *[f'{key} = "{value}"' for key, value in values.items()]]
        for node in self.nodes.values():
            lines += ["[[node]]", f'id = "{node.name}"', *[f'{key} = "{value}"' for key, value in self.places(node).items()]]
        return self.workspace.file("shard.toml", "\n".join(lines) + "\n")

    def start_agents(self):
        for node in self.nodes.values():
            node.start_agent()
        return self

    def ctl(self, command, *arguments, **options):
        """metalctl -o json shard COMMAND, asked through any node: the endpoint is not used."""
        return next(iter(self.nodes.values())).ctl("shard", "--config", self.file, command, *arguments, **options)

    def ok(self, command, *arguments, **options):
        return self.ctl(command, *arguments, code=0, **options).json

    def findings(self):
        """(name, node) of every inconsistency."""
        return set(self.explained())

    def explained(self):
        """What is said of every inconsistency, by (name, node)."""
        return {(each["name"], each["node"]): each["message"] for each in self.ok("status")["findings"]}

    def wait_findings(self, expected, timeout=30.0):
        """Waits until exactly these are found."""
        found = {}

        def check():
            found["last"] = self.explained()
            return set(found["last"]) == set(expected)
        try:
            wait_for("the shard's findings", check, timeout, 0.2)
        except AssertionError as error:
            raise AssertionError(f"expected {sorted(expected)}, found {found['last']}") from error

    # ---- a shard that serves ----

    def init(self):
        """A shard of empty nodes is made."""
        return self.ok("init", *QUICK_SERVER)

    def kill_at_step(self, step, command, *arguments):
        """Runs metalctl shard COMMAND and kills it when the step of this name starts, or with a number the step after as many.
        False when it ended before."""
        first = next(iter(self.nodes.values()))
        arguments = first.ctl_arguments("-o", "json", "shard", "--config", self.file, command, *arguments)
        started = 0
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                if '"started"' in line:
                    if f'"name":"{step}"' in line or started == step:
                        process.kill()
                        return True
                    started += 1
        return False

    def primary(self):
        """The node that is the primary."""
        return self.nodes[self.ok("status")["primary"]]

    def wait_healthy(self, timeout=60.0):
        self.wait_findings(set(), timeout)

    @contextlib.contextmanager
    def clients(self):
        """A Ledger whose clients write wherever writes are accepted; stopped at the end, not yet checked."""
        ledger = Ledger([("127.0.0.1", node.port) for node in self.nodes.values()], clients=2, pause=0.005)
        ledger.start(self.primary())
        try:
            wait_for("the clients write", lambda: len(ledger.acknowledged) > 3, 20)
            yield ledger
        finally:
            ledger.stop()

    def check(self, ledger):
        """The primary has everything that was acknowledged."""
        primary = self.primary()
        ledger.check("127.0.0.1", primary.port)
