"""`metalctl shard watch --auto`, as an operator leaves it running."""
import signal
import subprocess


class ShardWatch:
    """Runs until the end of the block."""

    def __init__(self, workspace, shard):
        first = next(iter(shard.nodes.values()))
        arguments = first.ctl_arguments("shard", "--config", shard.file, "watch", "--auto")
        self.log = open(workspace.file("watch.log", ""), "w+", encoding="utf-8")
        self.process = subprocess.Popen(arguments, stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(20) == 130
        self.log.close()

    def said(self):
        with open(self.log.name, encoding="utf-8") as file:
            return file.read()
