"""The flight recorder and `metalctl diag`: what happened is in the archive, secrets are not, a killed agent loses nothing."""
import json
import os
import re

import pytest

from harness.diagnostics import Capture, capture
from harness.node import Node
from harness.process import run, wait_for

SECRETS = {"role": "planted-role-4711", "conninfo": "planted-conninfo-4711", "file": "planted-file-4711", "url": "planted-url-4711"}


@pytest.fixture(scope="module")
def node(module_workspace, pg):
    """A primary with secrets in all the places where PostgreSQL and the agent keep some, that was fenced, and runs again."""
    password = module_workspace.file("replication-password", SECRETS["file"] + "\n", 0o600)
    made = Node(module_workspace, pg, replication={"password_file": password},
                disk={"probe_enabled": True, "probe_read_interval": "100ms", "probe_write_interval": "200ms"})
    made.make_primary()
    made.sql(f"CREATE ROLE app LOGIN PASSWORD '{SECRETS['role']}'")
    made.sql("ALTER SYSTEM SET log_statement = 'all'; SELECT pg_reload_conf()")
    made.sql(f"CREATE ROLE app PASSWORD '{SECRETS['role']}'", code=None)  # PostgreSQL logs what fails, as it was written
    made.sql(f"SELECT 'postgres://app:{SECRETS['url']}@db-9/postgres'::int", code=None)
    made.sql(f"ALTER SYSTEM SET primary_conninfo = 'host=db-9 user=app password=''{SECRETS['conninfo']}'''")
    made.ok("fence", "--term", "2", "--reason", "test")
    made.ok("unfence", "--term", "2")
    made.ok("pg", "restart")
    wait_for("probes are on the record", lambda: any(
        each["read_count"] and each["write_count"] for each in capture(made).of_kind("probe", role="data")), 30)
    return made


def test_capture_tells_what_happened(node):
    found = capture(node)
    assert found.manifest["missing"].keys() <= {"kernel.txt"}, "this user may not read the kernel's log everywhere"
    assert set(found.files) >= {
        "README.txt", "timeline.html", "status.json", "events.jsonl", "histograms.json", "kernel.txt", "postgres.log", "agent.toml",
        "settings/postgresql.conf", "settings/postgresql.auto.conf", "settings/pg_hba.conf", "versions.json", "manifest.json"}
    assert found.status["node"]["node_id"] == "node"
    fence = found.of_kind("rpc", rpc="ReplicationService/Fence")[-1]
    assert (fence["caller"], fence["term"], fence["code"]) == ("unix", 2, "OK")
    assert fence["duration_us"] > 0 and fence["peer"].startswith("unix:")
    moments = [each["moment"] for each in found.of_kind("control")]
    assert {"before RestartPostgres", "before start", "after RestartPostgres", "capture"} <= set(moments), moments
    assert found.of_kind("control", moment="after RestartPostgres")[-1]["state"]
    assert any(each["type"] == "operation.finished" for each in found.of_kind("event"))
    probe = next(each for each in found.of_kind("probe", role="data") if each["read_count"])
    assert probe["read_max_us"] >= probe["read_p50_us"] > 0
    assert [each["sequence"] for each in found.records if each["sequence"]] == sorted(
        each["sequence"] for each in found.records if each["sequence"])
    assert any(each["role"] == "data" and each["buckets_ns"] for each in json.loads(found.files["histograms.json"]))
    assert "ready to accept connections" in found.files["postgres.log"]
    assert json.loads(found.files["versions.json"])["postgres"]
    data = json.loads(re.search(r'id="data">(.*?)</script>', found.files["timeline.html"], re.DOTALL)[1])
    assert data["probes"]["data"] and data["events"] and data["calls"] and data["controls"]


def test_no_secret_leaves_the_host(node):
    found = capture(node, "secrets.tar.zst")
    assert "host=db-9" in found.files["settings/postgresql.auto.conf"], "what is around it stays"
    assert "CREATE ROLE app" in found.files["postgres.log"]
    for name, secret in SECRETS.items():
        assert secret.encode() not in found.bytes, name
    assert b"SCRAM-SHA-256$4096" not in found.bytes


def test_killed_agent_loses_no_record(node):
    before = capture(node, "before.tar.zst")
    node.kill_agent()
    node.start_agent()
    after = capture(node, "after.tar.zst")
    known = {each["sequence"]: each for each in after.records}
    assert all(known.get(each["sequence"]) == each for each in before.records if each["sequence"])
    assert len(after.of_kind("start")) > len(before.of_kind("start"))
    assert after.of_kind("rpc", rpc="HostService/CaptureDiagnostics"), "the capture before was recorded when it had ended"
    assert "at postgres.adopted" in [each["moment"] for each in after.of_kind("control")]


def test_capture_of_a_node_without_postgres_and_to_standard_output(node):
    node.ok("pg", "stop", "--mode", "immediate")
    path = f"{node.root}/down.tar.zst"
    run(["sh", "-c", 'exec "$@" > ' + path, "sh", *node.ctl_arguments("diag", "--output", "-", "--window", "1h")], as_root=True)
    found = Capture(path)
    assert found.status["postgres"]["state"] != "POSTGRES_STATE_RUNNING"
    assert "settings/postgresql.conf" in found.files and "postgres.log" in found.files
    assert node.ctl("diag", "--output", path).code == 5, "nothing is written over"
    assert not os.path.exists(path + ".part")
    node.ok("pg", "start")
