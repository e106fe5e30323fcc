"""A capture of diagnostics: the files of its archive, and what they say."""
import io
import json
import os
import tarfile

import zstandard


class Capture:
    """`files`: name without the archive's directory → text."""

    def __init__(self, path):
        with open(path, "rb") as file:
            plain = zstandard.ZstdDecompressor().stream_reader(file).read()
        self.bytes = plain
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            self.directory = archive.getnames()[0].split("/")[0]
            self.files = {each.name.split("/", 1)[1]: archive.extractfile(each).read().decode() for each in archive.getmembers()}
        self.manifest = json.loads(self.files["manifest.json"])
        self.status = json.loads(self.files["status.json"])
        self.records = [each for name in sorted(self.files) if name.startswith("records-") for each in _lines(self.files[name])]
        self.events = _lines(self.files["events.jsonl"])

    def of_kind(self, kind, **wanted):
        return [each for each in self.records
                if each["kind"] == kind and all(each.get(name) == value for name, value in wanted.items())]


def _lines(text):
    return [json.loads(line) for line in text.splitlines()]


def capture(node, name="diag.tar.zst", *arguments):
    path = f"{node.root}/{name}"
    if os.path.exists(path):
        os.unlink(path)
    told = node.ok("diag", "--output", path, *arguments)
    assert told["path"] == path
    return Capture(path)
