"""Shard: nodes a, b, c … of one shard, each with its agent, and `metalctl shard` to operate them."""
from harness.node import Node
from harness.process import wait_for


class Shard:
    """`nodes`: the nodes by name; agents are not started. Each reaches the others' servers by unix sockets."""

    def __init__(self, workspace, version, names=("a", "b", "c"), policy="ANY 1", **config):
        self.workspace, self.policy = workspace, policy
        self.nodes = {name: Node(workspace, version, name=name, **config) for name in names}
        for node in self.nodes.values():
            node.config["agent"]["cluster_id"] = "orders"
        self.file = self.write_file()

    def __getitem__(self, name):
        return self.nodes[name]

    def write_file(self):
        lines = ["[shard]", 'name = "orders"', f'synchronous = "{self.policy}"']
        for node in self.nodes.values():
            lines += ["[[node]]", f'id = "{node.name}"', f'agent = "{node.endpoint}"', f'postgres = "{node.run_dir}:{node.port}"']
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
        return {(each["name"], each["node"]) for each in self.ok("status")["findings"]}

    def wait_findings(self, expected, timeout=30.0):
        """Waits until exactly these are found."""
        found = {}

        def check():
            found["last"] = self.findings()
            return found["last"] == set(expected)
        try:
            wait_for("the shard's findings", check, timeout, 0.2)
        except AssertionError as error:
            raise AssertionError(f"expected {sorted(expected)}, found {sorted(found['last'])}") from error
