"""TCP: mutual TLS, roles from the caller's certificate, new certificate files without a restart, plain TCP on loopback only."""
import os
import shutil

import pytest

from harness import certificates
from harness.node import Node, has_hint
from harness.process import wait_for

ROLES = {"viewer": "viewer.test", "operator": "operator.test", "orchestrator": "orchestrator.test", "peer": "peer.test"}
# Commands by the permission that they need.
OBSERVE = [("status",), ("events",), ("op", "list"), ("disk", "list"), ("backup", "archive")]
OPERATE = [("pg", "start"), ("pg", "config", "set", "work_mem=9MB")]
ORCHESTRATE = [("term", "begin", "2"), ("fence", "--term", "2", "--reason", "test"), ("unfence", "--term", "2")]


class Secured:
    """A node that serves TCP with mutual TLS, and a certificate for each role."""

    def __init__(self, workspace, version):
        self.authority = certificates.Authority(workspace)
        self.server = self.authority.issue("server", "IP:127.0.0.1", "DNS:node.test")
        self.callers = {role: self.authority.issue(role, f"DNS:{name}") for role, name in ROLES.items()}
        self.callers["stranger"] = self.authority.issue("stranger", "DNS:stranger.test")
        self.callers["nearly"] = self.authority.issue("nearly", "DNS:x.orchestrator.test", "DNS:orchestrator.test.x")
        self.node = Node(workspace, version)
        self.node.config["tls"] = {"certificate": self.server[0], "key": self.server[1],
                                   "client_ca": self.authority.certificate}
        self.node.roles = [{"san": name, "role": role} for role, name in ROLES.items()]
        self.node.make_primary()
        with open(self.node.port_file, encoding="utf-8") as file:
            self.address = file.read().strip()

    def ctl(self, caller, *command, authority=None, server_name=None):
        certificate, key = self.callers[caller]
        options = ["--ca", authority or self.authority.certificate, "--cert", certificate,
                   "--key", key, "--timeout", "5", *(["--server-name", server_name] if server_name else [])]
        return self.node.ctl(*options, *command, endpoint=self.address)


@pytest.fixture(scope="module")
def secured(pg, module_workspace):
    return Secured(module_workspace, pg)


@pytest.mark.parametrize("role,allowed", [
    ("viewer", OBSERVE), ("peer", OBSERVE), ("operator", OBSERVE + OPERATE),
    ("orchestrator", OBSERVE + OPERATE + ORCHESTRATE)])
def test_role_table_is_enforced(secured, role, allowed):
    for command in OBSERVE + OPERATE + ORCHESTRATE:
        answer = secured.ctl(role, *command)
        if command in allowed:
            assert answer.code == 0, answer
        else:
            assert answer.code == 5 and "may not call" in answer.error and has_hint(answer.error), answer


@pytest.mark.parametrize("caller", ["stranger", "nearly"])
def test_certificate_without_a_role_may_do_nothing(secured, caller):
    """Names are compared whole: neither a subdomain nor a longer name counts."""
    answer = secured.ctl(caller, "status")
    assert answer.code == 5 and has_hint(answer.error), answer


def test_caller_is_named_in_the_journal(secured):
    name = secured.ctl("operator", "pg", "start").json["name"]
    assert secured.node.operation(name)["caller"] == "operator.test"
    local = secured.node.ok("pg", "start")
    assert local["caller"].startswith(("uid:", "unix"))


def test_caller_of_another_authority_is_refused(secured, module_workspace):
    foreign = certificates.Authority(module_workspace, "foreign")
    secured.callers["foreign"] = foreign.issue("foreign", "DNS:orchestrator.test")
    assert secured.ctl("foreign", "status").code == 3


def test_caller_without_a_certificate_or_without_tls_is_refused(secured):
    node, address = secured.node, secured.address
    assert node.ctl("--timeout", "3", "status", endpoint=address).code == 3
    assert node.ctl("--ca", secured.authority.certificate, "--timeout", "3", "status", endpoint=address).code == 3


def test_caller_checks_the_agent_too(secured, module_workspace):
    foreign = certificates.Authority(module_workspace, "not-the-agents")
    assert secured.ctl("viewer", "status", authority=foreign.certificate).code == 3
    assert secured.ctl("viewer", "status", server_name="elsewhere.test").code == 3
    assert secured.ctl("viewer", "status", server_name="node.test").code == 0


def test_new_certificate_files_are_served_without_a_restart(secured):
    def served():
        return certificates.serial_served(secured.address, secured.authority.certificate, *secured.callers["viewer"])
    before = certificates.serial_of(secured.server[0])
    assert served() == before
    pid = secured.node.process.pid
    secured.authority.issue("server", "IP:127.0.0.1", "DNS:node.test")
    after = certificates.serial_of(secured.server[0])
    assert after != before
    wait_for("the new certificate is served", lambda: served() == after, 40, 0.5)
    assert secured.ctl("viewer", "status").code == 0
    assert secured.node.process.pid == pid and secured.node.process.poll() is None


def test_new_client_authority_is_trusted_without_a_restart(secured, module_workspace):
    successor = certificates.Authority(module_workspace, "successor")
    secured.callers["renewed"] = successor.issue("renewed", "DNS:viewer.test")
    assert secured.ctl("renewed", "status").code == 3
    kept, trusted = secured.authority.certificate + ".kept", secured.node.config["tls"]["client_ca"]
    shutil.copy(trusted, kept)
    shutil.copy(successor.certificate, trusted + ".new")
    os.replace(module_workspace.give(trusted + ".new"), trusted)
    try:
        wait_for("the new authority's callers are served",
                 lambda: secured.ctl("renewed", "status", authority=kept).code == 0, 40)
        wait_for("the old authority's are not", lambda: secured.ctl("viewer", "status", authority=kept).code == 3, 40)
        assert secured.node.process.poll() is None
    finally:
        os.replace(kept, trusted)


# ---- what the agent refuses to serve ----

@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7420"])
def test_plain_tcp_beyond_loopback_is_refused(workspace, pg, address):
    said = Node(workspace, pg, agent={"listen": address}).agent_start_fails()
    assert "loopback" in said and has_hint(said), said


def test_plain_tcp_on_loopback_is_served(node):
    with open(node.port_file, encoding="utf-8") as file:
        address = file.read().strip()
    assert node.status()["node"]["grpc_address"] == address
    assert node.ctl("status", endpoint=address).code == 0


@pytest.mark.parametrize("config,says", [
    ({"tls": {"certificate": "/etc/hostname"}}, "belong together"),
    ({"agent": {"listen": "nonsense"}}, "host:port"),
    ({"agent": {"socked": "/x"}}, "did you mean"),
    ({"postgres": {"port": 0}}, "1 to 65535"),
    ({"backup": {"codec": "rar"}}, "zstd, lz4, none"),
])
def test_wrong_configuration_is_refused_by_file_and_key(workspace, pg, config, says):
    node = Node(workspace, pg, **config)
    said = node.agent_start_fails()
    assert says in said and "agent.toml" in said and has_hint(said), said


def test_unix_socket_is_closed_to_others(node):
    """Only root and the agent's group may call."""
    import os
    import stat
    mode = os.stat(node.config["agent"]["socket"]).st_mode
    assert stat.S_ISSOCK(mode) and not mode & stat.S_IRWXO, oct(mode)
