"""The Debian package: what is in it, that its unit is one, and that its configuration says what has to be given. Installing it, and
what systemd makes of it, is the lab's (tests/lab, scenario debian)."""
import os
import shutil
import subprocess

import pytest

from harness.node import BIN
from harness.process import run
from harness.workspace import ROOT, Workspace

PROGRAMS = ("metal-agent", "metal-wal", "metalctl")


@pytest.fixture(scope="module")
def package():
    """(path of the package, directory with what is in it)."""
    workspace = Workspace()
    output, tree = workspace.directory("package", 0o755), workspace.directory("tree", 0o755)
    path = run([os.path.join(ROOT, "deploy/package"), "--build", BIN, "--output", output], as_root=True).stdout.strip()
    run(["dpkg-deb", "-R", path, tree], as_root=True)
    yield path, tree
    workspace.close()


def test_the_package_holds_what_a_host_needs(workspace, package):
    path, tree = package
    fields = run(["dpkg-deb", "-f", path, "Package", "Version", "Depends"], as_root=True).stdout
    agent = os.path.join(tree, "usr/bin/metal-agent")
    version = run([agent, "--version"], as_root=True).stdout.split()[-1]
    assert f"Version: {version}" in fields and "libpq5" in fields and "postgresql-common" in fields
    assert all(os.access(os.path.join(tree, "usr/bin", name), os.X_OK) for name in PROGRAMS)
    for name in ("postinst", "prerm", "postrm"):
        run(["sh", "-n", os.path.join(tree, "DEBIAN", name)], as_root=True)
    with open(os.path.join(tree, "etc/metal/agent.toml"), encoding="utf-8") as file:
        text = file.read()
    refused = run([agent, "--config", os.path.join(tree, "etc/metal/agent.toml"), "--check"], code=1, as_root=True).stderr
    assert "postgres.data_dir: must be given" in refused and "HINT" in refused
    given = workspace.file("agent.toml", text.replace('#data_dir = ""', 'data_dir = "/srv/postgres"'))
    run([agent, "--config", given, "--check"], as_root=True)


def test_the_unit_is_one(package):
    tree = package[1]
    unit = os.path.join(tree, "usr/lib/systemd/system/metal-agent.service")
    with open(unit, encoding="utf-8") as file:
        text = file.read()
    assert "KillMode=process" in text and "Delegate=yes" in text, "PostgreSQL and the lease guard outlive the agent"
    with open(unit, "w", encoding="utf-8") as file:
        file.write(text.replace("/usr/bin/", os.path.join(tree, "usr/bin/")))
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert said.returncode == 0 and "metal-agent.service" not in said.stderr, said.stderr
