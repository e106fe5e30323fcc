"""Orchestrator: who renews the lease of a shard's primary, over the network, as long as it reaches it."""
import threading

TTL = 4  # seconds


class Orchestrator:
    def __init__(self, shard, every=0.7):
        self.shard, self.every = shard, every
        self.renewed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "the orchestrator hangs"

    def _run(self):
        while not self._stop.wait(self.every):
            self.renewed += self.renew(f"{TTL}s")

    def renew(self, ttl):
        """Whether the primary, if there is one, has its lease for longer."""
        status = self.shard.ctl("status", timeout=30).json or {}
        primary = status.get("primary")
        if not primary:
            return False
        holder = next(each["orchestrator"] for each in status["nodes"] if each["id"] == primary)
        return self.shard.remote(self.shard[primary], "lease", "renew", "--term", status["term"], "--orchestrator", holder,
                                 "--ttl", ttl).code == 0
