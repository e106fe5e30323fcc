"""metalctl before a person: Ctrl-C, the progress bar, colours, and agents that freeze or restart meanwhile."""
import contextlib
import json
import os
import re
import signal
import subprocess

import pytest

from harness import process
from harness.node import BIN, Node, elapsed
from harness.process import run, wait_for
from harness.terminal import Terminal

CTRL_C = "\x03"


@pytest.fixture(scope="module", name="pause")
def pause_file(module_workspace):
    """While this file is there, backups stand still at their frames."""
    return os.path.join(module_workspace.path, "pause")


@pytest.fixture(scope="module", name="primary")
def module_primary(module_workspace, pg, pause):
    node = Node(module_workspace, pg).make_primary()
    return node.restart_agent(faults="backup.frame=pause", pause=pause)


@contextlib.contextmanager
def standing_backup(primary, pause, **options):
    """metalctl backup create on a terminal, with the backup standing still."""
    with open(pause, "w", encoding="utf-8"):
        pass
    try:
        with Terminal(primary.ctl_arguments("backup", "create"), **options) as terminal:
            terminal.expect("copying")
            yield terminal, primary.operations("CreateBackup")[0]["name"]
    finally:
        if os.path.exists(pause):
            os.unlink(pause)
        wait_for("no backup runs", lambda: not primary.ok("op", "list", "--running").get("operations"))


@contextlib.contextmanager
def frozen(primary):
    primary.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        primary.process.send_signal(signal.SIGCONT)


def test_ctrl_c_asks_and_cancels(primary, pause):
    with standing_backup(primary, pause) as (terminal, name):
        terminal.press(CTRL_C)
        terminal.expect("[c]ancel it, [l]eave it running, or [w]atch on?")
        terminal.press("w\n")
        terminal.expect("copying")
        terminal.press(CTRL_C)
        terminal.expect("[w]atch on?")
        terminal.press("c\n")
        terminal.expect(f"asked {name} to stop")
        os.unlink(pause)
        assert terminal.wait() == 1 and f"{name} was cancelled" in terminal.said
    assert primary.operation(name)["state"] == "OPERATION_STATE_CANCELLED"


def test_ctrl_c_does_not_wait_for_a_frozen_agent(primary, pause):
    with standing_backup(primary, pause) as (terminal, name):
        with frozen(primary):
            took, _ = elapsed(lambda: (terminal.press(CTRL_C), terminal.expect("[w]atch on?")))
            assert took < 5
            terminal.press("l\n")
            took, code = elapsed(terminal.wait)
            assert code == 130 and took < 5 and f"{name} goes on. HINT: metalctl op watch {name}" in terminal.said


@pytest.mark.parametrize("words", [["watch"], ["events", "-f"], ["disk", "watch"]], ids=lambda words: words[0])
def test_ctrl_c_ends_a_watch_of_a_frozen_agent(primary, words):
    with Terminal(primary.ctl_arguments(*words)) as terminal:
        wait_for("it watches", lambda: terminal.read() and len(terminal.said) > 200)
        with frozen(primary):
            terminal.press(CTRL_C)
            took, code = elapsed(terminal.wait)
    assert code == 130 and took < 5


def test_a_cancel_that_reaches_no_agent_says_so(primary, pause):
    with standing_backup(primary, pause) as (terminal, name):
        with frozen(primary):
            terminal.press(CTRL_C)
            terminal.expect("[w]atch on?")
            terminal.press("c\n")
            terminal.press(CTRL_C)  # nor does asking the agent hold anybody
            assert terminal.wait() == 130 and f"metalctl op watch {name}" in terminal.said


def test_the_bar_fits_the_terminal(primary, pause):
    with standing_backup(primary, pause, columns=64) as (terminal, _):
        os.unlink(pause)
        assert terminal.wait() == 0
    shown = re.findall(r"\r\x1b\[K([^\r\n]+)", terminal.said)
    assert any(line.startswith("CreateBackup: ") and "%" in line for line in shown), terminal.said
    assert max(map(len, shown)) < 64
    assert "next: metalctl backup verify" in terminal.said


def test_colours_and_width_follow_the_terminal(primary):
    primary.wait_running()
    with Terminal(primary.ctl_arguments("status")) as coloured:
        assert coloured.wait() == 0 and "\x1b[32mrunning\x1b[0m" in coloured.said
    with Terminal(primary.ctl_arguments("status"), columns=60, env={"NO_COLOR": "1"}) as plain:
        assert plain.wait() == 0 and "\x1b" not in plain.said
    table = [line for line in plain.said.splitlines() if line.startswith("BACKUP ")]
    assert table and "STORED" not in table[0] and max(map(len, table)) <= 60


def follow(primary, *arguments):
    log = os.path.join(primary.root, "follow.log")
    if os.path.exists(log):
        os.unlink(log)
    follower = process.spawn(primary.ctl_arguments("-o", "json", *arguments), log, as_root=True)

    def lines():
        with open(log, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]
    return follower, lines


def notes(lines):
    return [each["note"]["message"] for each in lines() if "note" in each]


def test_a_follower_outside_of_the_log_begins_anew_once(primary):
    follower, lines = follow(primary, "events", "-f", "--after", "99999999", "--type", "postgres.")
    try:
        wait_for("the log from its beginning", lambda: [each for each in lines() if each.get("type") == "postgres.started"])
        primary.ok("pg", "reload")
        primary.ok("pg", "restart")
        wait_for("a new event", lambda: len([each for each in lines() if each.get("type") == "postgres.started"]) > 1)
        ids = [int(each["id"]) for each in lines() if "id" in each]
        assert ids == sorted(set(ids))
        assert len(notes(lines)) == 1 and "began anew" in notes(lines)[0]
    finally:
        assert process.end(follower, signal.SIGINT) == 130


def test_watches_go_on_after_the_agent_restarts(primary):
    events, event_lines = follow(primary, "events", "-f")
    shown = os.path.join(primary.root, "watch.log")
    with open(shown, "w", encoding="utf-8") as out:
        watch = subprocess.Popen(primary.ctl_arguments("watch"), stdout=out, stderr=subprocess.PIPE, text=True,
                                 env=process.environment())
    try:
        wait_for("a status", lambda: os.path.getsize(shown))
        wait_for("it follows", event_lines)
        primary.kill_agent()
        assert "is gone; trying again" in watch.stderr.readline()
        primary.start_agent()
        assert "answers again" in watch.stderr.readline()
        primary.ok("pg", "restart")
        last = primary.last_event_id()
        wait_for("an event from after the restart", lambda: [each for each in event_lines() if int(each.get("id", 0)) >= last])
        assert [("gone" in each, "again" in each) for each in notes(event_lines)] == [(True, True), (False, True)]
    finally:
        codes = process.end(events, signal.SIGINT), process.end(watch, signal.SIGINT)
    assert codes == (130, 130)


def test_an_operation_is_followed_through_a_restart(primary):
    """The agent's end is no end of the operation's watcher: it reports what became of the operation."""
    pause = primary.workspace.file("pause2", "")
    primary.restart_agent(faults="backup.frame=pause", pause=pause)
    watcher = subprocess.Popen(primary.ctl_arguments("-o", "json", "backup", "create"), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=process.environment())
    assert "progress" in json.loads(watcher.stderr.readline())
    primary.kill_agent()
    os.unlink(pause)
    primary.start_agent()
    out, err = watcher.communicate(timeout=20)
    assert json.loads(out)["error"]["reason"] == "AGENT_RESTARTED" and watcher.returncode not in (0, 3)
    said = [json.loads(line) for line in err.splitlines()]
    assert said[-1]["error"]["reason"] == "AGENT_RESTARTED" and said[-1]["error"]["hint"], said
    assert run(primary.ctl_arguments("op", "list")).stdout


def test_completion_of_zsh(primary, workspace):
    """The script in a shell that a person types to, which has a key (Ctrl-T) that tells the line as it is."""
    primary.backup()
    name = primary.backups()[0].removeprefix("backups/")
    home = workspace.directory("home")
    script = workspace.file("home/metalctl.zsh", run([f"{BIN}/metalctl", "completion", "zsh"]).stdout)
    environment = {"HOME": home, "PATH": f"{BIN}:{os.environ['PATH']}", "METAL_ENDPOINT": primary.endpoint}
    with Terminal(["/usr/bin/zsh", "-f", "-i"], env=environment) as shell:
        shell.press("tell() { zle -I; print -r -- \"<$BUFFER>\"; BUFFER= }; zle -N tell; bindkey '^T' tell\n")
        shell.press(f"autoload -U compinit && compinit -u -D && source {script} && print rea''dy\n")
        shell.expect("ready")
        for typed, line in (("back\tsh\t", "backup show "), (f"backup show {name[:-2]}\t", f"backup show {name} "),
                            ("pg stop --mode im\t", "pg stop --mode immediate "),
                            ("pg stop --mode=im\t", "pg stop --mode=immediate "), ("no-such-command \t", "no-such-command ")):
            shell.press(f"metalctl {typed}\x14")
            shell.expect(f"<metalctl {line}>")
