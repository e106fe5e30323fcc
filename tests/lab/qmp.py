"""QEMU's control socket: one command at a time; events are kept."""
import json
import socket
import threading
import time


class QmpError(AssertionError):
    """QEMU refused a command."""


class Qmp:
    def __init__(self, path, timeout=20):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(path)
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._lock = threading.Lock()
        self.events = []
        self._read()  # the greeting
        self("qmp_capabilities")

    def _read(self):
        while True:
            line = self._file.readline()
            if not line:
                raise QmpError("QEMU closed its control socket")
            said = json.loads(line)
            if "event" not in said:
                return said
            self.events.append(said)

    def __call__(self, command, **arguments):
        with self._lock:
            self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._file.flush()
            said = self._read()
        if "error" in said:
            raise QmpError(f"{command}: {said['error']['desc']}")
        return said["return"]

    def wait_event(self, name, timeout=20, **data):
        """Waits for an event with this name and these fields in its data."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for event in self.events:
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return event
            self("query-status")  # reads what came meanwhile
            time.sleep(0.02)
        raise QmpError(f"no event {name} {data} within {timeout} s")

    def close(self):
        self._socket.close()
