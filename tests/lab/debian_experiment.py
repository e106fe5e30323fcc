"""An experiment with a full guest: the packaged agent under systemd makes and leads a cluster, and what happens to the agent and to
its package never touches PostgreSQL; then the fault."""
import psycopg2

from harness.process import wait_for
from lab.debian_guest import NETWORK, UNIT
from lab.postgres_experiment import PostgresExperiment

SETTINGS = ("--set", "shared_buffers=32MB", "max_wal_size=128MB", "min_wal_size=64MB")
SYSTEMD_S = 300  # for whatever systemd is asked to do, on a busy machine
# What ends the agent, and must not end PostgreSQL.
ENDS = (("restarted", f"systemctl restart {UNIT}"), ("killed", f"systemctl kill --kill-whom=main --signal=KILL {UNIT}"),
        ("upgraded", "dpkg -i /root/metal.deb > /tmp/dpkg.log 2>&1 || cat /tmp/dpkg.log"))


def let_in(guest):
    """This host comes in as superuser; clients prove who they are. Clones and rewinds bring the file to other nodes."""
    lines = ("local all ledger scram-sha-256", f"host all all {NETWORK}.0/24 scram-sha-256", "host all all 10.0.2.0/24 trust")
    guest.shell("sed -i '1i " + "\\n".join(lines) + "' /data/pg/pg_hba.conf")


class DebianExperiment(PostgresExperiment):
    START_S = 600

    def settle(self):
        self.ctl("pg", "init", *SETTINGS)
        let_in(self.guest)
        super().settle()

    def watch(self):
        """Before anything is watched: the agent's connections end with it."""
        self.check_systemd()
        for what, command in ENDS:
            self.outlive(what, command)
        super().watch()

    def postmaster(self):
        """(pid, when it started in ticks since boot) of PostgreSQL."""
        said = self.guest.shell("pid=$(head -1 /data/pg/postmaster.pid); echo $pid $(cut -d' ' -f22 /proc/$pid/stat)")
        return tuple(said.split())

    def check_systemd(self):
        """The agent is a service, PostgreSQL a scope of its own; the kernel's OOM killer spares both, but for backends."""
        shell = self.guest.shell
        pid = self.postmaster()[0]
        scope = f"metal-postgres-5432-{pid}.scope"
        inside = shell(f"cat /proc/{pid}/cgroup")
        self.expect(inside.endswith(f"/{scope}"), f"PostgreSQL is in {inside}, not in {scope}")
        left = shell(f"for each in $(cat /sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs); do cat /proc/$each/comm; done")
        self.expect("postgres" not in left.split(), f"{UNIT} still holds {left.split()}")
        properties = shell(f"systemctl show -p Delegate -p KillSignal -p TimeoutStopUSec {scope}")
        self.expect(set(properties.split("\n")) == {"Delegate=yes", "KillSignal=2", "TimeoutStopUSec=5min"},
                    f"{scope}: {properties}")
        scores = [shell(f"cat /proc/{each}/oom_score_adj") for each in (self.guest.agent_pid(), pid)]
        self.expect(scores == ["-900", "-900"], f"OOM scores of agent and postmaster: {scores}")
        backend = oom_score_of_backend(self.server)
        self.expect(backend == "0", f"OOM score of a backend: {backend}")
        told = {kind for kind in self.event_ids().values() if kind in ("postgres.scope_failed", "agent.oom_unprotected")}
        self.expect(not told, f"the agent says {sorted(told)}")
        failed = shell("systemctl --failed --no-legend --plain")
        self.expect(not failed, f"units failed: {failed}")

    def outlive(self, what, command):
        """PostgreSQL, a session and the clients outlive an end of the agent, and it is adopted again."""
        before, agent = self.postmaster(), self.guest.agent_pid()
        session = self.server.connect()
        refused = len(self.ledger.errors)
        try:
            said = self.guest.shell(command, timeout=SYSTEMD_S)
            self.expect(not said, f"{command}: {said}")
            wait_for(f"another agent runs after it was {what}", lambda: self.guest.agent_pid() not in (0, agent), SYSTEMD_S, 0.2)
            wait_for("the agent answers again", self.guest.answers, SYSTEMD_S, 0.2)
            wait_for("PostgreSQL is adopted", self.running, SYSTEMD_S, 0.2)
            self.ledger.wait_more(10, SYSTEMD_S)
            with session.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error as error:
            self.expect(False, f"agent {what}: a session was lost: {error}")
        finally:
            session.close()
        after = self.postmaster()
        self.expect(before == after, f"agent {what}: PostgreSQL was {before}, is {after}")
        self.expect(len(self.ledger.errors) == refused, f"agent {what}: clients heard {self.ledger.errors[refused:refused + 2]}")
        self.outcome.notes.append(f"agent {what}: PostgreSQL {after[0]} ran on")


    def end(self):
        super().end()
        self.shut_down_in_order()

    def shut_down_in_order(self):
        """The host goes down: systemd ends the agent, then PostgreSQL with a shutdown checkpoint, then the file system."""
        guest = self.guest
        guest.shell("(systemctl poweroff) > /dev/null 2>&1 &")
        wait_for("the machine is off", lambda: guest.process.poll() is not None, SYSTEMD_S, 0.2)
        guest.cut_power()
        guest.boot(agent=False)
        state = guest.shell("/usr/lib/postgresql/15/bin/pg_controldata -D /data/pg | sed -n 's/^Database cluster state: *//p'")
        # In recovery: a node that has fenced itself starts as a standby.
        self.expect(state in ("shut down", "shut down in recovery"), f"after a shutdown of the host the cluster is '{state}'")


def oom_score_of_backend(server):
    """OOM score of a backend, as the superuser reads it."""
    return server.sql("SELECT trim(pg_read_file('/proc/self/oom_score_adj'), E'\\n')")[0][0]
