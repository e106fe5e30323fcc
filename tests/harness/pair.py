"""Two nodes of one cluster: a primary and a standby that can part and come together again."""
from harness.ledger import promised
from harness.node import Node, lsn_number
from harness.process import wait_for
from harness.transfer import transfer_address, with_transfer


class Pair:
    """`primary` serves, `standby` streams from it. part() makes the standby the primary while the old one goes on writing;
    settled() checks that the old one has come back, after which the pair may be used again: `whole`."""

    def __init__(self, workspace, version, names=("a", "b"), tcp=False, **config):
        self.whole, self.tcp = True, tcp
        self.primary = with_transfer(Node(workspace, version, name=names[0], **config)).make_primary()
        self.primary.ok("promote", "--term", "1")  # which makes the role for standbys
        self.primary.sql("CREATE TABLE ledger (id int PRIMARY KEY, what text)")
        self.standby = with_transfer(Node(workspace, version, name=names[1], **config)).start_agent()
        self.primary.run("pg_basebackup", "-D", self.standby.data_dir, "-c", "fast", "-h", self.primary.run_dir,
                         "-p", str(self.primary.port), "-U", "postgres")
        self.term = 1
        self.ids = 0
        self.standby.ok("pg", "start")
        self.standby.ok("term", "begin", "1")
        self.standby.ok("follow", self.address(self.primary), "--term", "1", "--without-slot")
        self.together(self.standby)

    def address(self, node):
        return f"{'127.0.0.1' if self.tcp else node.run_dir}:{node.port}"

    def together(self, node):
        wait_for(f"{node.name} streams", lambda: node.status().get("standby", {}).get("receiver_state") == "streaming", 30)

    def write(self, node, count=500):
        """Rows that only this node has been asked to keep."""
        first, self.ids = self.ids + 1, self.ids + count
        node.sql(f"INSERT INTO ledger SELECT i, '{node.name}' FROM generate_series({first}, {self.ids}) i")
        return range(first, self.ids + 1)

    def rows(self, node):
        return {int(line) for line in node.sql("SELECT id FROM ledger").split()}

    def settled(self, old, shared, kept):
        """The old primary has what the new one has, also what that writes now, and nothing else."""
        self.together(old)
        more = set(self.write(self.primary, 10))
        old.ok("wait-lsn", self.primary.sql("SELECT pg_current_wal_lsn()"))
        wanted, there, follows = shared | kept | more, self.rows(self.primary), self.rows(old)
        promised(wanted <= there, f"{self.primary.name} has lost rows: {sorted(wanted - there)[:10]}")
        promised(follows == there, f"{old.name} has not the same rows as {self.primary.name}: {sorted(follows ^ there)[:10]}")
        self.whole = True

    def part(self):
        """The standby is promoted in a new term; the old primary has not heard of it and writes on. Returns
        (old, new, what both had, what only the old one has, what only the new one has)."""
        self.whole = False
        old, new = self.primary, self.standby
        new.ok("wait-lsn", old.sql("SELECT pg_current_wal_lsn()"))
        self.term += 1
        new.promote(self.term)
        shared = self.rows(new)
        lost, kept = set(self.write(old)), set(self.write(new))
        new.sql("CHECKPOINT")
        self.primary, self.standby = new, old
        return old, new, shared, lost, kept

    def hand_over(self):
        """In good order: the old primary is down, and the new one has all of its WAL. Returns (old, new)."""
        self.whole = False
        old, new = self.primary, self.standby
        self.term += 1
        wait_for("it streams", lambda: old.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1", 30)
        # Without a slot: what a primary that archives leaves behind at its end is removed before its walsender has sent all of it.
        old.ok("pg", "config", "set", "wal_keep_size=64MB")
        old.ok("pg", "stop")
        end = int(old.ok("pg", "control")["checkpoint_lsn"])
        wait_for("the shutdown is received", lambda: lsn_number(new.sql("SELECT pg_last_wal_receive_lsn()")) > end, 20)
        new.promote(self.term)
        self.primary, self.standby = new, old
        return old, new

    def begin_term(self, node):
        """The old primary hears of the term: it is a standby from now on."""
        return node.ok("term", "begin", str(self.term))

    def or_clone(self):
        """Arguments of a rewind that goes over to a clone."""
        return ("--on-failure", "clone", "--clone-from", transfer_address(self.primary))

    def promote_twice(self):
        """Each is promoted where the other's WAL ends, so that both are on one timeline with histories of their own. The
        later term is the primary's. Returns (old, new, what both had, what only the old one has)."""
        new, old = self.hand_over()  # promotes `old` in this term
        shared = self.rows(old)
        lost = set(self.write(old, 10))
        self.term += 1
        new.ok("term", "begin", str(self.term))
        new.ok("pg", "start")
        new.promote(self.term)
        self.primary, self.standby = new, old
        return old, new, shared, lost

    def rewind_arguments(self, *more):
        return ("rewind", "--from", self.address(self.primary), "--term", str(self.term), *more)
