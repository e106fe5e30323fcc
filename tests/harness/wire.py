"""A gRPC client of a few lines: unary calls over one HTTP/2 connection to the agent's socket, messages encoded by hand.

It is for what metalctl cannot do: measuring latency without starting a process, and choosing a request_id.
"""
import contextlib
import socket
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK = 0x1, 0x1


class CallRefused(Exception):
    """The call ended without a message; `trailers` are the raw header bytes."""

    def __init__(self, trailers):
        super().__init__(repr(trailers))
        self.trailers = trailers


def varint(number):
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def message(fields):
    """{field number: int, str, bytes or nested dict} → protobuf bytes."""
    encoded = b""
    for number, value in fields.items():
        if isinstance(value, int):
            encoded += varint(number << 3) + varint(value)
        else:
            value = message(value) if isinstance(value, dict) else value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(value)) + value
    return encoded


def fields_of(encoded):
    """Protobuf bytes → {field number: [int or bytes, …]}."""
    position, found = 0, {}

    def next_varint():
        nonlocal position
        number = shift = 0
        while True:
            byte = encoded[position]
            position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
    while position < len(encoded):
        key = next_varint()
        kind = key & 7
        if kind == 0:
            value = next_varint()
        else:
            length = {1: 8, 5: 4}.get(kind) or next_varint()
            value = encoded[position:position + length]
            position += length
        found.setdefault(key >> 3, []).append(value)
    return found


def literal(name, value):
    """A header of HPACK, never indexed and not Huffman-coded."""
    return b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Connection:
    def __init__(self, address, timeout=30, tls=None):
        """address: path of a unix socket, or (host, port). tls: (ssl.SSLContext with h2, name in the agent's certificate)."""
        over_tcp = isinstance(address, tuple)
        self._socket = socket.socket(socket.AF_INET if over_tcp else socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(address)
        if over_tcp:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            context, name = tls
            self._socket = context.wrap_socket(self._socket, server_hostname=name)
        self._stream = 1
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(SETTINGS, 0, 0, struct.pack(">HI", 4, 0x7FFFFFFF))  # initial window: as large as it goes
        self._send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFF0000 - 65535))

    def close(self):
        """A call that another thread waits for ends, with a ConnectionError."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, kind, flags, stream, payload):
        self._socket.sendall(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload)

    def _receive(self, size):
        received = b""
        while len(received) < size:
            part = self._socket.recv(size - len(received))
            if not part:
                raise ConnectionError("the agent closed the connection")
            received += part
        return received

    def _start(self, method, request, deadline):
        """Sends a request with one message; returns the stream's number."""
        stream, self._stream = self._stream, self._stream + 2
        path = b"/" + (method if "." in method else "metal.agent.v1." + method).encode()
        headers = b"\x83\x86" + literal(b":path", path) + literal(b":authority", b"localhost") + \
            literal(b"content-type", b"application/grpc") + literal(b"te", b"trailers")
        if deadline:
            headers += literal(b"grpc-timeout", f"{deadline * 1000:.0f}m".encode())
        self._send(HEADERS, 0x4, stream, headers)
        self._send(DATA, END_STREAM, stream, b"\x00" + struct.pack(">I", len(request)) + request)
        return stream

    def _frame(self, stream):
        """The stream's next frame: (kind, flags, payload). What concerns the whole connection is answered meanwhile."""
        while True:
            header = self._receive(9)
            length, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
            payload = self._receive(length)
            if kind == SETTINGS and not flags & ACK:
                self._send(SETTINGS, ACK, 0, b"")
            elif kind == PING and not flags & ACK:
                self._send(PING, ACK, 0, payload)
            elif kind == GOAWAY:
                raise ConnectionError(f"the agent says goodbye: {payload!r}")
            elif int.from_bytes(header[5:], "big") & 0x7FFFFFFF == stream:
                return kind, flags, payload

    def stream(self, method, request=b"", deadline=None):
        """Yields each message of a server stream until its end. One call at a time on a connection."""
        stream = self._start(method, request, deadline)
        body, trailers = b"", b""
        while True:
            kind, flags, payload = self._frame(stream)
            if kind == DATA:
                body += payload
            elif kind == HEADERS:
                trailers += payload
            while len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
                end = 5 + int.from_bytes(body[1:5], "big")
                yield body[5:end]
                body = body[end:]
            if kind == RST_STREAM or flags & END_STREAM:
                return trailers

    def call(self, method, request=b"", deadline=None):
        """method: "HostService/GetStatus", or with the package "grpc.health.v1.Health/Check". deadline: seconds, as the agent
        is told; this side waits longer. Returns the response's bytes."""
        messages = self.stream(method, request, deadline)
        try:
            answer = next(messages)
        except StopIteration as end:
            raise CallRefused(end.value) from None
        for _ in messages:  # the trailers
            pass
        return answer
