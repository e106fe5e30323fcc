"""metalctl as people and scripts see it: exit codes, JSON, tables, completion, help."""
import json
import os
import signal
import subprocess

import pytest

from harness import process
from harness.node import BIN
from harness.process import run, wait_for

COMMANDS = ["status", "watch", "events", "op", "pg", "term", "promote", "fence", "unfence", "wait-lsn", "backup", "disk",
            "capabilities", "completion"]


def ctl(node, *arguments, code=0):
    """Without -o json."""
    return run(node.ctl_arguments(*arguments), code=code, as_root=True)


def test_exit_codes(primary, workspace):
    assert primary.ctl("status").code == 0
    assert primary.ctl("no-such-command").code == 2
    assert primary.ctl("status", "--no-such-option").code == 2
    assert primary.ctl("pg", "stop", "--mode", "perhaps").code == 2
    assert primary.ctl("pg", "config", "set", "work_mem").code == 2
    assert primary.ctl("backup", "show", "none").code == 4
    assert primary.ctl("op", "show", "none").code == 4
    assert primary.ctl("promote", "--term", "77").code == 5
    absent = f"unix:{workspace.path}/absent.sock"
    gone = run([f"{BIN}/metalctl", "--endpoint", absent, "--timeout", "2", "status"], code=3)
    assert absent in gone.stderr and "HINT" in gone.stderr


def test_every_command_explains_itself():
    top = run([f"{BIN}/metalctl", "--help"]).stdout
    for command in COMMANDS:
        assert command in top
        assert run([f"{BIN}/metalctl", command, "--help"]).stdout.strip()
    assert "Exit codes" in top and "Examples" in top
    assert run([f"{BIN}/metalctl"], code=2)
    assert run([f"{BIN}/metalctl", "--version"]).stdout.startswith("metalctl ")


def test_output_is_json_everywhere(primary):
    primary.backup()
    for command in (["status"], ["capabilities"], ["op", "list"], ["op", "show", primary.operations()[0]["name"]],
                    ["pg", "config", "get"], ["pg", "config", "get", "--effective"], ["pg", "control"], ["pg", "reload"],
                    ["pg", "status"], ["backup", "list"], ["backup", "show"], ["backup", "archive"], ["backup", "verify"],
                    ["disk", "list"], ["pg", "start"], ["wait-lsn", "0/1"]):
        answer = primary.ctl(*command)
        assert answer.code == 0 and isinstance(answer.json, dict), (command, answer)
    for line in primary.ctl("events", code=0).stdout.splitlines():
        assert {"id", "type", "severity", "message"} <= json.loads(line).keys()


def test_tables_for_people(primary):
    primary.backup()
    status = ctl(primary, "status").stdout
    for word in ("node", "primary", "running", str(primary.port)):
        assert word in status, status
    name = primary.backups()[0].removeprefix("backups/")
    listed = ctl(primary, "backup", "list").stdout
    assert "BACKUP" in listed.splitlines()[0] and name in listed and "zstd" in listed
    assert name in ctl(primary, "backup", "show").stdout
    assert "CreateBackup" in ctl(primary, "op", "list").stdout
    assert "postgres.started" in ctl(primary, "events").stdout
    assert "system identifier" in ctl(primary, "pg", "control").stdout
    assert "\x1b[" not in status, "no colours into a pipe"


def test_progress_is_plain_lines_without_a_terminal(primary):
    done = ctl(primary, "backup", "create")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines and not any("\r" in line or "\x1b" in line for line in lines), done
    assert "complete" in done.stdout


def test_interrupt_leaves_the_operation_running(primary):
    pause = primary.workspace.file("pause", "")
    primary.restart_agent(faults="backup.frame=pause", pause=pause)
    watcher = subprocess.Popen(primary.ctl_arguments("backup", "create"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=process.environment(), start_new_session=True)
    name = wait_for("it runs", lambda: [each for each in primary.operations("CreateBackup")
                                        if each["state"] == "OPERATION_STATE_RUNNING"])[0]["name"]
    wait_for("the watcher watches", lambda: "copy" in primary.operation(name)["progress"]["phase"])
    watcher.send_signal(signal.SIGINT)
    _, said = watcher.communicate(timeout=20)
    assert watcher.returncode == 130 and name in said, said
    assert primary.operation(name)["state"] == "OPERATION_STATE_RUNNING"
    os.unlink(pause)
    assert primary.wait_operation(name)["state"] == "OPERATION_STATE_SUCCEEDED"
    assert primary.ok("op", "watch", name)["state"] == "OPERATION_STATE_SUCCEEDED"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_valid(shell):
    script = run([f"{BIN}/metalctl", "completion", shell]).stdout
    for command in COMMANDS:
        assert command in script
    if shell == "bash":
        run(["bash", "-n"], text_input=script)
        offered = run(["bash"], text_input=script + "\nCOMP_WORDS=(metalctl back); COMP_CWORD=1; COMP_LINE='metalctl back'; "
                      "COMP_POINT=${#COMP_LINE}; f=$(complete -p metalctl | sed -E 's/.*-F ([^ ]+).*/\\1/'); "
                      "$f metalctl back metalctl; printf '%s\\n' \"${COMPREPLY[@]}\"").stdout
        assert "backup" in offered


def test_events_can_be_followed(primary):
    log = os.path.join(primary.root, "events.log")
    watcher = process.spawn(primary.ctl_arguments("-o", "json", "events", "-f"), log, as_root=True)
    try:
        primary.ok("pg", "restart")

        def seen():
            with open(log, encoding="utf-8") as file:
                return [line for line in file if "postgres.started" in line]
        wait_for("the event arrives", lambda: len(seen()) >= 2)
    finally:
        process.end(watcher, signal.SIGINT)


def test_capabilities_name_what_is_there(primary):
    answer = primary.ok("capabilities")
    assert answer["api_packages"] == ["metal.agent.v1"]
    assert answer["postgres_version"].startswith(primary.version.name)
    assert {"zstd", "lz4", "none"} <= set(answer["codecs"]) and "pread" in answer["io_engines"]
    assert "metal.agent.v1.BackupService.CreateBackup" in [each.replace("/", ".").lstrip(".") for each in answer["rpcs"]]
    assert set(answer["features"]) >= {"smart", "probe"}
