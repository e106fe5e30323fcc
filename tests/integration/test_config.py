"""Managed settings: what is applied, what is refused with PostgreSQL's own reason, and what stays the user's."""
import os
import shutil

import pytest

from harness import certificates
from harness.node import has_hint


def read(node, name):
    with open(os.path.join(node.data_dir, name), encoding="utf-8") as file:
        return file.read()


def append(node, name, text):
    with open(os.path.join(node.data_dir, name), "a", encoding="utf-8") as file:
        file.write(text)


def managed(node):
    return {each["name"]: each["value"] for each in node.ok("pg", "config", "get").get("managed", [])
            if each["source"] == "managed"}


def change(answer, name):
    return next(each for each in answer["changes"] if each["name"] == name)


def refused(node, *settings, code=2, says=()):
    before = read(node, "metal.conf")
    answer = node.ctl("pg", "config", "set", *settings)
    assert answer.code == code, answer
    for part in says:
        assert part in answer.error, answer
    assert read(node, "metal.conf") == before
    return answer


@pytest.mark.matrix
def test_settings_are_applied_checked_and_reset(primary):
    answer = primary.ok("pg", "config", "set", "work_mem=9MB", "log_min_duration_statement=250ms")
    assert change(answer, "work_mem")["requires_restart"] is False
    assert primary.sql("SHOW work_mem; SHOW log_min_duration_statement") == "9MB\n250ms"
    assert managed(primary)["work_mem"] == "9MB"

    answer = primary.ok("pg", "config", "set", "max_connections=77")
    assert change(answer, "max_connections")["requires_restart"] is True
    assert "max_connections" in answer["pending_restart"]
    assert primary.sql("SHOW max_connections") == "100"
    primary.wait_status("the status says it", lambda each: each["postgres"]["settings_pending_restart"])
    primary.ok("pg", "restart")
    assert primary.sql("SHOW max_connections") == "77"

    refused(primary, "work_mem=banana", says=["work_mem", "invalid value"])
    refused(primary, "work_mem=1MB", "no_such_setting=1", says=["no_such_setting"])
    assert primary.sql("SHOW work_mem") == "9MB"

    answer = primary.ok("pg", "config", "set", "maintenance_work_mem=99MB", "--reset", "work_mem")
    assert change(answer, "work_mem")["old_value"] == "9MB"
    assert primary.sql("SHOW work_mem; SHOW maintenance_work_mem") == "4MB\n99MB"


def test_dry_run_changes_nothing(primary):
    before = read(primary, "metal.conf")
    answer = primary.ok("pg", "config", "set", "work_mem=9MB", "--dry-run")
    assert change(answer, "work_mem")["new_value"] == "9MB"
    assert read(primary, "metal.conf") == before
    assert primary.sql("SHOW work_mem") == "4MB"


@pytest.mark.parametrize("setting,says", [
    ("shared_buffers=1", '1 8kB is outside the valid range for parameter "shared_buffers" (16 .. '),
    ("wal_level=sometimes", 'invalid value for parameter "wal_level": "sometimes".\nHINT: Available values: minimal, '),
    ("autovacuum=perhaps", 'parameter "autovacuum" requires a Boolean value'),
    ("TimeZone=Nowhere/Never", 'invalid value for parameter "TimeZone": "Nowhere/Never"'),
    ("max_wal_size=10", 'max_wal_size" must be at least twice'),  # what only a server that starts finds out
])
def test_value_that_postgres_rejects_is_refused_with_its_reason(primary, setting, says):
    """`says`: PostgreSQL's own words."""
    refused(primary, setting, says=[says])


@pytest.mark.parametrize("settings, says", [
    (["shared_buffers=6TB"], "could not map anonymous shared memory: Cannot allocate memory"),
    (["huge_pages=on", "shared_buffers=1TB", "max_connections=20"], "Cannot allocate memory")])
def test_memory_that_the_machine_lacks_is_refused_before_a_restart_needs_it(primary, settings, says):
    refused(primary, *settings, says=[says, "shared_buffers"])
    primary.ok("pg", "config", "set", "shared_buffers=32MB")
    primary.ok("pg", "restart")
    assert primary.sql("SHOW shared_buffers") == "32MB"


def test_tls_of_the_server_with_its_certificate_in_the_data_directory(primary):
    certificate, key = certificates.Authority(primary.workspace).issue("server", "DNS:localhost")
    refused(primary, "ssl=on", says=["server.crt"])
    for source, name in ((certificate, "server.crt"), (key, "server.key")):
        os.chmod(primary.workspace.give(shutil.copy(source, os.path.join(primary.data_dir, name))), 0o600)
    primary.ok("pg", "config", "set", "ssl=on")
    assert primary.sql("SHOW ssl") == "on"
    # The server's files are seen by every later check too.
    primary.ok("pg", "config", "set", "work_mem=9MB")
    refused(primary, "ssl_cert_file=missing.crt", says=["missing.crt"])
    os.chmod(os.path.join(primary.data_dir, "server.key"), 0o644)
    refused(primary, "ssl_cert_file=./server.crt", says=["server.key"])
    # Names that begin as the server's own files do are the user's all the same.
    for source, name in ((certificate, "postgresql.crt"), (key, "pg_server.key")):
        os.chmod(primary.workspace.give(shutil.copy(source, os.path.join(primary.data_dir, name))), 0o600)
    primary.ok("pg", "config", "set", "ssl_cert_file=postgresql.crt", "ssl_key_file=pg_server.key")


def test_checked_also_while_postgres_is_down(primary):
    primary.ok("pg", "stop")
    refused(primary, "work_mem=banana", says=["work_mem"])
    refused(primary, "no_such_setting=1", says=["no_such_setting"])
    primary.ok("pg", "config", "set", "work_mem=9MB")
    primary.ok("pg", "start")
    assert primary.sql("SHOW work_mem") == "9MB"


@pytest.mark.parametrize("setting", ["port=1", "listen_addresses=*", "archive_command=true", "unix_socket_directories=/tmp"])
def test_settings_of_the_agent_are_not_to_be_set(primary, setting):
    assert has_hint(refused(primary, setting, code=5).error)


def test_lines_of_the_user_stay(primary):
    append(primary, "postgresql.conf", "# mine\nstatement_timeout = 77s  # mine too\n")
    append(primary, "pg_hba.conf", "# my rule\nhost all nobody 127.0.0.1/32 reject\n")
    mine = read(primary, "postgresql.conf"), read(primary, "pg_hba.conf")
    primary.ok("pg", "reload")
    assert primary.sql("SHOW statement_timeout") == "77s"
    primary.ok("pg", "config", "set", "work_mem=9MB")
    primary.restart_agent()
    primary.ok("pg", "restart")
    for name, before in zip(("postgresql.conf", "pg_hba.conf"), mine):
        kept = [line for line in before.splitlines() if line.strip()]
        assert [line for line in read(primary, name).splitlines() if line in kept and line.strip()] != []
        assert set(kept) <= set(read(primary, name).splitlines())
    assert primary.sql("SHOW statement_timeout; SHOW work_mem") == "77s\n9MB"


def test_setting_of_the_user_that_would_win_is_named(primary):
    primary.sql("ALTER SYSTEM SET work_mem = '5MB'")
    answer = refused(primary, "work_mem=9MB", code=5, says=["work_mem", "postgresql.auto.conf"])
    assert has_hint(answer.error)


def test_broken_file_is_not_loaded(primary):
    append(primary, "postgresql.conf", "work_mem = = banana\n")
    answer = primary.ctl("pg", "reload")
    assert answer.code == 2 and "postgresql.conf" in answer.error, answer
    assert primary.sql("SHOW work_mem") == "4MB"
    assert primary.answers()


def test_managed_rules_come_first_in_hba(primary):
    lines = [line for line in read(primary, "pg_hba.conf").splitlines() if line and not line.startswith("#")]
    assert lines[0].startswith("local all") and "peer" in lines[0]
    assert primary.sql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"
    assert primary.sql("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'") == "0"


def test_effective_settings(primary):
    answer = primary.ok("pg", "config", "get", "--effective")
    found = {each["name"]: each for each in answer["effective"]}
    assert len(found) > 300
    assert found["port"]["value"] == str(primary.port)
    assert found["shared_buffers"]["value"] == str(32 * 128) and found["shared_buffers"]["unit"] == "8kB"


def test_new_cluster_has_the_locale_the_encoding_and_the_segments_that_were_asked_for(node):
    """None of them is the default."""
    node.init("--locale", "C", "--encoding", "LATIN1", "--wal-segment-bytes", str(1 << 20))
    node.ok("pg", "start")
    assert node.sql("SELECT DISTINCT datcollate, datctype FROM pg_database; SHOW server_encoding") == "C|C\nLATIN1"
    assert node.sql("SHOW lc_messages; SHOW wal_segment_size") == "C\n1MB"


def test_password_of_the_superuser_is_a_scram_verifier(node):
    secret = node.workspace.file("password", "a secret of the test\n", 0o600)
    node.init("--password-file", secret)
    node.ok("pg", "start")
    assert node.sql("SELECT substr(rolpassword, 1, 14) FROM pg_authid WHERE rolname = 'postgres'") == "SCRAM-SHA-256$"
    connect = ["-h", "127.0.0.1", "-w", "-c", "SELECT 1"]
    from harness.process import run
    psql = [node.version.program("psql"), "-XAt", *connect]
    assert run(psql, env={**node.env, "PGHOST": "", "PGPASSWORD": "a secret of the test"}).stdout == "1\n"
    run(psql, env={**node.env, "PGHOST": "", "PGPASSWORD": "wrong"}, code=2)
    for directory, _, files in os.walk(node.state):
        for name in files:
            with open(os.path.join(directory, name), "rb") as file:
                assert b"a secret of the test" not in file.read(), f"{name} holds the password"
    assert "a secret of the test" not in node.log_text()
