"""Certificates for tests, made with openssl: one authority, certificates with subject alternative names."""
import os

from harness.process import run


class Authority:
    def __init__(self, workspace, name="authority"):
        self._workspace = workspace
        self.directory = workspace.directory(name, 0o755)
        self.certificate, self._key = self._path("ca.pem"), self._path("ca.key")
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={name}"])

    def _path(self, name):
        return os.path.join(self.directory, name)

    def issue(self, name, *alternative_names):
        """alternative_names: "DNS:x", "IP:127.0.0.1", "URI:x". Returns (certificate, key); issued again it replaces them."""
        certificate, key, request, extensions = (self._path(f"{name}.{each}") for each in ("pem", "key", "csr", "ext"))
        with open(extensions, "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={','.join(alternative_names)}\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._workspace.give(extensions)
        run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key + ".new", "-out",
             request, "-subj", f"/CN={name}"])
        run(["openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial",
             "-days", "2", "-extfile", extensions, "-out", certificate + ".new"])
        os.replace(key + ".new", key)
        os.replace(certificate + ".new", certificate)
        return certificate, key


def serial_served(address, authority, certificate, key):
    """Serial number of the certificate that a server shows."""
    host, port = address.rsplit(":", 1)
    shown = run(["openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", authority, "-cert", certificate, "-key", key,
                 "-alpn", "h2"], text_input="", code=None, timeout=20).stdout
    return run(["openssl", "x509", "-noout", "-serial"], text_input=shown).stdout


def serial_of(certificate):
    return run(["openssl", "x509", "-noout", "-serial", "-in", certificate]).stdout
