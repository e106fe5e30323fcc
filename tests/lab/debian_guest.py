"""DebianGuest: a full guest, as a host of production: systemd runs the packaged agent, whose state is on a drive of its own, and
which is reached by mutual TLS. Guests of one network reach each other at the addresses of NETWORK."""
import json
import os
import ssl
import tempfile

from harness.certificates import Authority
from harness.process import run
from harness.workspace import free_port
from lab.guest import CLOCK_WORDS, Guest

NETWORK = "10.77.0"
AGENT, POSTGRES, GATE, TRANSFER = 7420, 5432, 6432, 7422
MEMORY = "1G"
UNIT = "metal-agent.service"
CONFIG_BYTES = 4 << 20


class Lan:
    """A network of guests, made by QEMU alone, with an authority for its certificates. `names`: of the guests, in order."""

    def __init__(self, workspace, names=("a",)):
        self.workspace, self.names = workspace, names
        self.port = free_port()
        self.authority = Authority(workspace)
        self.operator = self.authority.issue("operator", "DNS:operator.test")
        self.tls = ssl.create_default_context(cafile=self.authority.certificate)
        self.tls.load_cert_chain(*self.operator)
        self.tls.set_alpn_protocols(["h2"])

    def address(self, name):
        """In the network; this host does not reach it."""
        return f"{NETWORK}.{self.names.index(name) + 1}"

    def agent_toml(self, name):
        peers = "".join(f'[[tls.role]]\nsan = "{each}.test"\nrole = "peer"\n' for each in self.names)
        sections = {
            "agent": {"node_id": name, "cluster_id": "orders", "listen": f"0.0.0.0:{AGENT}"},
            "tls": {"certificate": "/etc/metal/node.pem", "key": "/etc/metal/node.key", "client_ca": "/etc/metal/ca.pem"},
            "postgres": {"data_dir": "/data/pg", "listen_addresses": "*"},
            "replication": {"password_file": "/etc/metal/replication", "networks": f"{NETWORK}.0/24", "ssl_mode": "disable"},
            "transfer": {"listen": f"0.0.0.0:{TRANSFER}"},
            "gate": {"enabled": True, "listen": f"0.0.0.0:{GATE}", "server_tls": "disable"},
            "disk": {"reaction": "demote"},
            "recorder": {"size": "4MiB"}}
        text = "".join(f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
                       for section, options in sections.items())
        return f'{text}[[tls.role]]\nsan = "operator.test"\nrole = "orchestrator"\n{peers}'

    def config_image(self, name, path):
        """An image of what is in /etc/metal of a guest."""
        certificate, key = self.authority.issue(name, f"DNS:{name}.test", f"IP:{self.address(name)}")
        with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as tree:
            for source, target in ((certificate, "node.pem"), (key, "node.key"), (self.authority.certificate, "ca.pem")):
                with open(source, encoding="utf-8") as file:
                    _write(os.path.join(tree, target), file.read())
            _write(os.path.join(tree, "agent.toml"), self.agent_toml(name))
            _write(os.path.join(tree, "replication"), "of-the-standbys\n")
            with open(path, "wb") as file:
                file.truncate(CONFIG_BYTES)
            run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-L", "metal-config", "-d", tree, path], as_root=True)


def _write(path, text):
    """Readable by all: the owners of this host are not those of the guest, and the machine lives for minutes."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)


class DebianGuest(Guest):
    """Its drives: the root file system, forgotten at the end; the agent's state; /etc/metal; and an NVMe drive, XFS at /data."""
    BOOT_S = 600

    def __init__(self, system, directory, lan, name="a"):
        self.system, self.lan, self.name = system, lan, name
        self.gate_address = None
        super().__init__(system.kernel, system.initramfs, directory, state="disk", postgres=True)
        self._choose_addresses()  # now: guests boot on threads of their own
        lan.config_image(name, self._path("config.img"))

    def _choose_addresses(self):
        """The same after each boot: the shard's file names them."""
        if self.address is None:
            self.address, self.postgres_address, self.gate_address = (("127.0.0.1", free_port()) for _ in range(3))

    def arguments(self, agent):
        without = "" if agent else f" systemd.mask={UNIT}"
        words = (f"console=ttyS0 loglevel=4 {CLOCK_WORDS} panic=-1 rdinit=/init net.ifnames=0 quiet systemd.show_status=error "
                 f"lab.name={self.name} lab.address={self.lan.address(self.name)}{without}")
        forwards = [(self.address, AGENT), (self.postgres_address, POSTGRES), (self.gate_address, GATE)]
        number = self.lan.names.index(self.name) + 1
        return [*self._machine(words, MEMORY, forwards),
                "-netdev", f"socket,id=lan,mcast=230.0.0.1:{self.lan.port},localaddr=127.0.0.1",
                "-device", f"virtio-net-pci,netdev=lan,mac=52:54:00:77:00:{number:02x},romfile=",
                "-drive", f"if=none,id=root,file={self.system.root},format=raw,snapshot=on,cache=unsafe",
                "-device", "virtio-blk-pci,drive=root",
                "-drive", f"if=none,id=state,file={self._path('state.img')},format=raw,cache=unsafe",
                "-device", "virtio-blk-pci,drive=state",
                "-drive", f"if=none,id=config,file={self._path('config.img')},format=raw,cache=unsafe",
                "-device", "virtio-blk-pci,drive=config", *self._drive("data.img", "data", "nv0", "METAL0001")]

    def connect(self, timeout=30):
        return self._connection(timeout, (self.lan.tls, f"{self.name}.test"))

    def endpoint(self):
        certificate, key = self.lan.operator
        return [*super().endpoint(), "--ca", self.lan.authority.certificate, "--cert", certificate, "--key", key, "--server-name",
                f"{self.name}.test"]

    def agent_pid(self):
        return int(self.shell(f"systemctl show -P MainPID {UNIT}"))

    def places(self):
        """What the shard's file says of this guest."""
        return {"agent": f"127.0.0.1:{self.address[1]}", "server_name": f"{self.name}.test",
                **{key: f"{self.lan.address(self.name)}:{port}"
                   for key, port in (("postgres", POSTGRES), ("transfer", TRANSFER), ("gate", GATE))}}
