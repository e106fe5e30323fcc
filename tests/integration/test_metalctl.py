"""metalctl as people and scripts see it: exit codes, JSON, tables, completion, help."""
import json
import os
import re
import signal
import subprocess

from harness import process
from harness.node import BIN, elapsed, has_hint
from harness.process import run, wait_for

# What every command is asked with -o json, in this order, and its exit code. Where a test of the command itself is elsewhere, the
# agent's refusal (5) will do: that is JSON too. None is a usage error (2), which no agent has seen. {} are filled in by the test.
ANSWERS = [
    ("status", 0), ("capabilities", 0), ("op list", 0), ("op show {operation}", 0), ("op wait {operation}", 0),
    ("op watch {operation}", 0), ("op cancel {operation}", 0), ("pg init", 5), ("pg start", 0), ("pg restart", 0),
    ("pg reload", 0), ("pg control", 0), ("pg status", 0), ("pg config get", 0), ("pg config get --effective", 0),
    ("pg config set work_mem=5MB", 0), ("wait-lsn 0/1", 0), ("events", 0),
    ("diag --output {root}/diag.tar.zst", 0),
    ("backup list", 0), ("backup show", 0), ("backup archive", 0), ("backup verify", 0), ("backup create", 0),
    ("backup restore --target {root}/copy --dry-run", 0), ("disk list", 0), ("disk health", 0), ("disk logs nowhere", 4),
    ("disk probe --reads 5 --writes 5", 5), ("disk acknowledge media_error", 4),
    ("gate status", 0), ("gate hold --term 1 --for 1s", 5), ("gate release /nowhere --term 1", 5),
    ("synchronous --term 1", 0), ("slots one --term 1", 0), ("lease renew --term 1 --ttl 60s", 0),
    ("demote --term 2", 0), ("undo-demote --term 2", 0), ("replay pause", 5), ("replay resume", 5), ("receiver stop", 5),
    ("receiver start", 5), ("fence --term 3 --reason x", 0), ("unfence --term 3", 0), ("term begin 4", 0),
    ("follow /nowhere:1 --term 4", 0), ("promote --term 4", 0),
    ("rewind --from /nowhere:1 --term 4", 5), ("clone --from 127.0.0.1:1 --primary 127.0.0.1:2 --term 4", 5),
    *[(f"shard --config {{shard}} {each}", code) for each, code in  # the other node of this shard never answers
      (("status", 0), ("check", 1), ("init", 1), ("replace b", 5), ("reparent", 5), ("recover", 1), ("failover", 0))],
    ("pg stop", 0),
]
LIVE = ["watch", "disk watch", "shard --config {shard} watch"]  # documents until Ctrl-C
TEXTS = {"completion", "shard template"}                        # print a file for others to read


def commands(*words):
    """Words and help of every command that has none below it, as the helps themselves list them."""
    text = run([f"{BIN}/metalctl", *words, "--help"]).stdout
    below, section = [], ""
    for line in text.splitlines():
        section = line if re.match(r"\S.*:$", line) else section
        found = re.match(r"  ([a-z][a-z-]*)(?:  |$)", line)
        if found and not re.match("Options|Positionals|Exit codes|Example", section):
            below.append(found[1])
    if "SUBCOMMAND" not in text:
        yield " ".join(words), text
    for each in below if "SUBCOMMAND" in text else []:
        yield from commands(*words, each)


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
    assert primary.ctl("op", "wait", "none").code == 4
    assert primary.ctl("promote", "--term", "77").code == 5
    absent = f"unix:{workspace.path}/absent.sock"
    gone = run([f"{BIN}/metalctl", "--endpoint", absent, "--timeout", "2", "status"], code=3)
    assert absent in gone.stderr and "HINT" in gone.stderr
    with open(f"{workspace.path}/other", "w", encoding="utf-8"):  # what is there, and is no agent
        pass
    assert primary.ctl("status", endpoint=f"unix:{workspace.path}/other").code == 3


def test_errors_are_json_too(primary):
    answer = primary.ctl("promote", "--term", "77", code=5)
    error = json.loads(answer.stderr)["error"]
    assert not answer.stdout and error["code"] == "FAILED_PRECONDITION" and error["message"]
    assert json.loads(primary.ctl("backup", "show", "none", code=4).stderr)["error"]["code"] == "NOT_FOUND"
    assert json.loads(primary.ctl("wait-lsn", "x", code=2).stderr)["error"]["code"] == "USAGE"
    failed = primary.ctl("backup", "restore", "--target", primary.data_dir, "--term", "1")
    assert json.loads(failed.stderr.splitlines()[-1])["error"]["message"]


def test_a_frozen_agent_is_not_an_absent_one(primary):
    primary.process.send_signal(signal.SIGSTOP)
    try:
        answer = primary.ctl("--timeout", "300ms", "status", code=3)
    finally:
        primary.process.send_signal(signal.SIGCONT)
    assert "in time" in answer.error and "frozen" in answer.error, answer


def test_a_result_that_cannot_be_written_is_a_failure(primary):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(primary.ctl_arguments("status"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=20,
                              env=process.environment(), check=False)
    assert done.returncode == 1 and "cannot be written" in done.stderr, done


def test_every_command_explains_itself():
    top = run([f"{BIN}/metalctl", "--help"]).stdout
    assert "Exit codes" in top and "Examples" in top
    for group in ("Look:", "Operations:", "PostgreSQL:", "Role of the node:", "Replication:", "Backups:", "Disks:", "Shard:"):
        assert group in top
    found = dict(commands())
    assert len(found) > 50 and {"status", "pg config set", "shard failover"} <= found.keys(), "the walk leaves none out"
    for words, text in found.items():
        example = re.search(r"^Examples?:\n((?:  .*\n)+)", text, re.MULTILINE)
        assert example and f"metalctl {words}" in re.sub(r" (-o json|--config \S+)", "", example[1]), (words, text)
        assert f"Usage: metalctl {words} " in text
    assert run([f"{BIN}/metalctl"], code=2)
    assert run([f"{BIN}/metalctl", "--version"]).stdout.startswith("metalctl ")


def bare(words):
    """"pg config get" of "pg config get --effective", as commands() names it."""
    return re.match(r"(?:[a-z-]+ ?)+", words.replace("--config {shard} ", ""))[0].strip()


def test_output_is_json_everywhere(primary):
    primary.backup()
    nodes = [f'[[node]]\nid = "{name}"\nagent = "unix:{place}/agent.sock"\npostgres = "{place}:{primary.port}"\ntransfer = "{host}"'
             for name, place, host in (("node", primary.run_dir, "127.0.0.1:1"), ("b", "/nowhere", "127.0.0.1:2"))]
    shard = primary.workspace.file("shard.toml", "\n".join(['[shard]\nname = "test"\nsynchronous = "ANY 1"', *nodes, ""]))
    filled = {"operation": primary.operations()[0]["name"], "root": primary.root, "shard": shard}
    told = {bare(words) for words in [*(words for words, _ in ANSWERS), *LIVE]}
    for words, _ in commands():
        assert words in TEXTS or any(each == words or each.startswith(f"{words} ") for each in told), \
            f"metalctl {words}: say in ANSWERS how it is called"
    assert 2 not in {code for _, code in ANSWERS}
    for words, code in ANSWERS:
        answer = primary.ctl(*words.format(**filled).split())
        assert answer.code == code, answer
        if words.startswith("promote "):  # the shard's commands are told what the monitor saw
            primary.wait_status("the promotion is seen", lambda each: each["postgres"]["role_observed"] == "ROLE_PRIMARY")
        documents = answer.stdout.splitlines() if words == "events" else filter(None, [answer.stdout])
        assert all(isinstance(json.loads(each), dict) for each in documents), answer
        assert answer.stdout if answer.code == 0 else answer.reason or '"error":' in answer.stderr or answer.stdout, answer
        assert all(isinstance(json.loads(line), dict) for line in answer.stderr.splitlines()), answer
    for line in primary.ctl("events", code=0).stdout.splitlines():
        assert {"id", "type", "severity", "message"} <= json.loads(line).keys()
    for words in LIVE:
        command = primary.ctl_arguments("-o", "json", *words.format(**filled).split())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=process.environment()) as live:
            assert isinstance(json.loads(live.stdout.readline()), dict), words
            live.send_signal(signal.SIGINT)
            live.stdout.read()


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
    took, done = elapsed(lambda: ctl(primary, "backup", "create"))
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) <= len({line.split("  ")[0] for line in lines}) + took, "one a phase, and one a second"
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
    waited = primary.ctl("op", "wait", name, "--wait", "200ms", code=7)
    assert name in waited.error and has_hint(waited.error) and waited.json["state"] == "OPERATION_STATE_RUNNING", waited
    os.unlink(pause)
    assert primary.ok("op", "wait", name, "--wait", "2m")["state"] == "OPERATION_STATE_SUCCEEDED"
    assert primary.wait_operation(name)["state"] == "OPERATION_STATE_SUCCEEDED"
    assert primary.ok("op", "watch", name)["state"] == "OPERATION_STATE_SUCCEEDED"


def test_completion_of_bash(primary):
    """The script asks the program, which asks the agent for names."""
    script = run([f"{BIN}/metalctl", "completion", "bash"]).stdout
    assert "#compdef metalctl" in run([f"{BIN}/metalctl", "completion", "zsh"]).stdout
    primary.backup()
    name = primary.backups()[0].removeprefix("backups/")

    def offered(*words):
        given = " ".join(f"'{word}'" for word in (f"{BIN}/metalctl", *words))
        return run(["bash"], env={"METAL_ENDPOINT": primary.endpoint}, text_input=script + f"COMP_WORDS=({given}); "
                   f"COMP_CWORD={len(words)}; _metalctl; printf '%s\\n' \"${{COMPREPLY[@]}}\"").stdout.split()
    assert offered("back") == ["backup"]
    assert offered("backup", "show", "") == ["latest", name]
    assert "--target" in offered("backup", "restore", name, "")
    assert offered("pg", "stop", "--mode", "=", "im") == ["immediate"]
    assert offered("--endpoint", "unix", ":", "/nowhere", "backup", "show", "") == ["latest"]


def test_mistyped_words_get_a_hint():
    for words, meant in ((["statsu"], "'status'"), (["backup", "crate"], "'create'"), (["pg", "stop", "--mod", "fast"], "'--mode'"),
                         (["backup"], "create, list, show, verify, restore, archive")):
        answer = run([f"{BIN}/metalctl", *words], code=2)
        assert meant in answer.stderr and "HINT: " in answer.stderr and "--help" in answer.stderr and not answer.stdout
    as_json = run([f"{BIN}/metalctl", "-o", "json", "statsu"], code=2)
    assert json.loads(as_json.stderr)["error"]["code"] == "USAGE" and not as_json.stdout


def test_lengths_of_time(primary):
    """Fractions reach the agent: a wait of half a second is neither none nor one."""
    for given in ("0.5", "500ms", "0.5s"):
        took, late = elapsed(lambda wait=given: primary.ctl("wait-lsn", "FF/0", "--wait", wait, code=7))
        assert 0.5 <= took < 5 and has_hint(late.error), late
    for given in ("0", "-1", "nonsense", "1 s", "inf"):
        assert primary.ctl("wait-lsn", "FF/0", "--wait", given, code=2).error


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
    assert set(answer["cpu_variants"]) == {"page_checksum", "hash"} and all(answer["cpu_variants"].values())
    assert answer["io_engine"] in answer["io_engines"] and answer["io_engine_reason"]
