"""Relay: passes TCP connections on to an address, and can break them: what a bad network does, without one."""
import socket
import threading


class Relay:
    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self._lock = threading.Lock()
        self.passed = 0  # bytes that came from the far side
        self.refuses = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self._listener.getsockname()[1]

    def _accept(self):
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            try:
                if self.refuses:
                    raise OSError("refused")
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open += [near, far]
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source, sink, counted):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
                if counted:
                    self.passed += len(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        """Breaks every connection; returns how many there were."""
        with self._lock:
            cut, self._open = self._open, []
        for each in cut:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        return len(cut) // 2

    def close(self):
        # accept() in another thread ends only when the socket is shut down.
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.cut()
