"""Nodes that other nodes may clone."""
import os


def with_transfer(node):
    """Lets the node's next agent listen for clones, on a port of its own choice."""
    node.transfer_file = os.path.join(node.run_dir, "transfer")
    node.config["transfer"] = {"listen": "127.0.0.1:0", "port_file": node.transfer_file}
    return node


def transfer_address(node):
    with open(node.transfer_file, encoding="utf-8") as file:
        return file.read().strip()
