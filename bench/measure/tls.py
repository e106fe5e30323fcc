"""The speed of TLS over loopback (bench/micro/tls_speed.cc), and certificates for both ends of it."""

import json
import os
import subprocess

from . import process
from .process import CommandFailed

READY_TIMEOUT_S = 120
LINKS = 2  # [transfer] connections, the default


class Certificates:
    """An authority in the new directory `directory` of `user`; all its files are that user's."""

    def __init__(self, directory, user):
        self._directory, self._user = directory, user
        self.authority = directory / "ca.pem"
        self._openssl("req", "-x509", *self._new_key("ca"), "-days", "2", "-out", self.authority, "-subj", "/CN=bench")

    def _openssl(self, *words):
        process.check(["openssl", *words], self._user, self._directory, self._directory / "log")

    def _new_key(self, name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", self._directory / f"{name}.key"]

    def issue(self, name):
        """(certificate, key) of a host that is called `name`.bench.test, at 127.0.0.1."""
        files = {each: self._directory / f"{name}.{each}" for each in ("pem", "key", "csr", "ext")}
        files["ext"].write_text(f"subjectAltName=IP:127.0.0.1,DNS:{name}.bench.test\nextendedKeyUsage=serverAuth,clientAuth\n")
        files["ext"].chmod(0o644)
        self._openssl("req", *self._new_key(name), "-out", files["csr"], "-subj", f"/CN={name}")
        self._openssl("x509", "-req", "-in", files["csr"], "-CA", self.authority, "-CAkey", self._directory / "ca.key",
                      "-CAcreateserial", "-days", "2", "-extfile", files["ext"], "-out", files["pem"])
        return files["pem"], files["key"]


class TlsSpeed:
    """Moves bytes through LINKS connections at once, with the agent's settings of TLS."""

    def __init__(self, program, certificates, cwd):
        certificate, key = certificates.issue("speed")
        self._cwd = cwd
        self._command = [program, "--certificate", certificate, "--key", key, "--authority", certificates.authority,
                         "--links", LINKS]

    def alone(self, amount):
        """Bytes per second."""
        said = json.loads(process.output_of([*self._command, "--amount", amount], "root", self._cwd))
        return said["bytes"] / said["seconds"]

    def beside(self, amount, start):
        """Seconds for `amount` bytes, begun together with start(), which begins what runs beside."""
        command = list(map(str, [*self._command, "--amount", amount, "--wait"]))
        child = subprocess.Popen(command, cwd=self._cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if child.stdout.readline() != "ready\n":
                raise CommandFailed(f"{os.path.basename(command[0])}: ended early")
            start()
            output, _ = child.communicate("\n", timeout=READY_TIMEOUT_S)
        finally:
            process.stop(child)
        if child.returncode != 0:
            raise CommandFailed(f"{os.path.basename(command[0])}: exit {child.returncode}")
        return json.loads(output)["seconds"]
