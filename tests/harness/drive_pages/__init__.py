"""An NVMe drive made of the pages of the decoders' tests, shown to programs that know nothing of it, and to our decoders."""
import json
import os
import shutil
import subprocess

from harness.node import BIN
from harness.workspace import ROOT

PAGES = os.path.join(ROOT, "tests", "unit", "disk", "nvme", "pages")
SHIM = f"{BIN}/metal_drive_shim.so"
FILES = {"identify_controller": "identify-01", "identify_namespace": "identify-00", "error": "log-01", "smart": "log-02",
         "self_test": "log-06", "persistent_events": "log-0d", "ocp": "log-c0", "aws": "log-d0"}


def page(name):
    """The bytes of one page; pages/README.md has the format."""
    data, base = bytearray(), 0
    with open(os.path.join(PAGES, name), encoding="utf-8") as file:
        for line in file:
            words = line.split("#")[0].split()
            if not words:
                continue
            if words[0] == "size":
                data = bytearray(int(words[1]))
            elif words[0] == "at":
                base = int(words[1])
            else:
                field = _field(words[1], words[2:])
                data[base + int(words[0]):base + int(words[0]) + len(field)] = field
    return bytes(data)


def _field(kind, words):
    if kind == "hex":
        return bytes(int(word, 16) for word in words)
    if kind.startswith("text"):
        return " ".join(words).ljust(int(kind[4:])).encode()
    return int(words[0], 0).to_bytes(int(kind[1:]) // 8, "little")


class Drive:
    """The pages as files of a directory."""

    def __init__(self, directory, names=tuple(FILES)):
        self.directory = str(directory)
        for name in names:
            with open(os.path.join(self.directory, FILES[name]), "wb") as file:
                file.write(page(name))

    def decoded(self):
        """What the agent's decoders make of it: {log: [{field: text}]}."""
        return json.loads(subprocess.run([f"{BIN}/decode_page", self.directory], check=True, capture_output=True).stdout)

    def told_by(self, *command):
        """The JSON that a program prints which is shown the drive as /dev/nvme0. Its exit code tells the drive's health."""
        path = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        assert path, f"no {command[0]}. HINT: deploy/install-packages test"
        environment = dict(os.environ, LD_PRELOAD=SHIM, METAL_DRIVE_PAGES=self.directory)
        said = subprocess.run([path, *command[1:]], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert said.stdout, said.stderr
        return json.loads(said.stdout)
