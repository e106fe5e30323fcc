"""The codecs' own speed: the agent's encoders and decoders (codec_speed), every core at once, in memory."""

import json
import os
import subprocess

from . import process
from .process import CommandFailed

CODECS = ("zstd", "lz4")
LEVEL = 1
FRAME = "1MiB"  # as in Metal's repository
READY_TIMEOUT_S = 120


class CodecSpeed:
    """Runs codec_speed over frames of `files`. Figures: see the head of bench/micro/codec_speed.cc."""

    def __init__(self, program, files, cwd):
        self._program, self._files, self._cwd = program, files, cwd

    def _command(self, codec, *words):
        return [self._program, "--codec", codec, "--level", LEVEL, "--threads", os.cpu_count(), "--frame", FRAME, *words,
                *self._files]

    def both(self, codec, seconds):
        """Compression, then decompression, each for `seconds`."""
        return json.loads(process.output_of(self._command(codec, "--seconds", seconds), "root", self._cwd))

    def beside(self, codec, direction, amount, start):
        """One direction until `amount` raw bytes are done, begun together with start(), which begins what runs beside."""
        command = list(map(str, self._command(codec, "--direction", direction, "--amount", amount, "--wait")))
        child = subprocess.Popen(command, cwd=self._cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if child.stdout.readline() != "ready\n":
                raise CommandFailed(f"{' '.join(command[:9])}: ended early")
            start()
            output, _ = child.communicate("\n", timeout=READY_TIMEOUT_S)
        finally:
            process.stop(child)
        if child.returncode != 0:
            raise CommandFailed(f"{' '.join(command[:9])}: exit {child.returncode}")
        return json.loads(output)
