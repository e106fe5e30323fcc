"""An experiment with a real PostgreSQL on the drive: a primary by the agent's own orders, and clients on this host that keep in a
ledger what they were told is durable."""
import base64
import json
import os
import tempfile

import psycopg2

from harness import ledger, process
from harness.diagnostics import Capture
from harness.node import BIN
from harness.process import CommandFailed, wait_for
from harness.wire import fields_of
from lab.experiment import Experiment

RUNNING = 4  # POSTGRES_STATE_RUNNING


class Server:
    """PostgreSQL of a guest, as its superuser sees it."""

    def __init__(self, guest):
        self._guest = guest

    def connect(self):
        """A session in which every statement is a transaction."""
        host, port = self._guest.postgres_address
        connection = psycopg2.connect(host=host, port=port, dbname="postgres", user="postgres", connect_timeout=20)
        connection.autocommit = True
        return connection

    def sql(self, statements, parameters=None):
        """Rows of the last statement; none for one that has no answer."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statements, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


class PostgresExperiment(Experiment):
    START_S = 120

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.server, self.ledger = Server(self.guest), None

    def ctl(self, *arguments):
        return process.run([os.path.join(BIN, "metalctl"), *self.guest.endpoint(), "-o", "json", *arguments], as_root=True,
                           timeout=self.START_S)

    def settle(self):
        self.ctl("pg", "start")
        self.ctl("term", "begin", "1")
        self.ctl("promote", "--term", "1")
        wait_for("PostgreSQL runs", self.running, self.START_S, 0.2)
        wait_for("the probes are healthy", self.probes_healthy, 60, 0.1)
        self.ledger = ledger.Ledger([self.guest.postgres_address], clients=2, pause=0.02).start(self.server)
        self.ledger.wait_more(10)
        self.watch()

    def status_now(self):
        return fields_of(fields_of(self.ask("HostService/GetStatus"))[1][0])

    def running(self):
        return fields_of(self.status_now()[4][0]).get(1) == [RUNNING]

    def fenced(self):
        return fields_of(self.status_now()[3][0]).get(9) == [1]

    def failure_of(self, statement):
        """What a client hears of a statement that fails."""
        try:
            return f"answered {self.server.sql(statement)}"
        except psycopg2.Error as error:
            return str(error).strip().splitlines()[0]

    def observe(self):
        super().observe()
        if self.scenario.fatal() and self.scenario.state == "disk":
            self.check_capture()

    def check_capture(self):
        """The agent has written down by itself what happened, down to the kernel's lines."""
        try:
            told = wait_for("the agent has taken a capture", lambda: [
                each for each in self.events.since(self.injected) if each.type == "diagnostics.captured"], 60)[0]
        except AssertionError:
            self.expect(False, "a capture of diagnostics was taken")
            return
        with tempfile.NamedTemporaryFile(suffix=".tar.zst") as file:
            file.write(base64.b64decode(self.guest.shell(f"base64 {told.attributes['path']}", timeout=120)))
            file.flush()
            capture = Capture(file.name)
        lines = {evidence["kernel_line"] for fault in capture.status.get("faults", [])
                 for evidence in fault.get("disk", {}).get("evidence", []) if evidence.get("kernel_line")}
        self.expect(lines or "write_error" not in self.scenario.classes, "the capture has a line of the kernel's")
        # As they stand in its JSON. The last of many may only be counted there.
        shown = [each for each in lines if json.dumps(each)[1:-1].replace("<", "\\u003c") in capture.files["timeline.html"]]
        self.expect(shown or not lines, f"the capture's timeline has one of {lines}")

    def acknowledged(self):
        return len(self.ledger.acknowledged)

    def stop_watching(self):
        super().stop_watching()
        if self.ledger:
            self.ledger.stop()

    def lost(self, acknowledged):
        """Rows that clients were told are durable, and that the server does not have after a power cut and its recovery."""
        self.guest.cut_power()
        self.ledger.stop()
        told = self.ledger.acknowledged
        self.guest.boot()
        if self.fenced():  # it stays down until it is told to start, as a standby, and clients stay cut off: not this host
            self.ctl("pg", "start")
            said = self.guest.shell("/usr/sbin/nft flush ruleset 2>&1")
            self.expect(not said, f"clients are let in: {said}")
        wait_for("PostgreSQL runs again", self.running, self.START_S, 0.2)
        found = {each for each, in self.server.sql("SELECT id FROM ledger")}
        if acknowledged > len(told):
            raise CommandFailed(f"{acknowledged} rows were acknowledged, and then {len(told)}")
        return len(told - found)
