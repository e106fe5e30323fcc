"""What scenarios do to the drive, from outside and from within. Each is called with the experiment, and calls experiment.begin()
at the moment of the fault."""
import random
import time

from harness.process import wait_for
from lab.write_log import lost_records

PROBE_FILE = "/data/pg/.metal-probe"
MARK_S = 10.0  # how long moments are chosen at which the power may have gone
DOWN_S = 20.0  # how long PostgreSQL has to stay down once the drive of its fenced node is back
EACH_SIDE = ("read", "write")


def smart(bits):
    def inject(lab):
        lab.begin()
        lab.guest.smart_warning(bits)
    return inject


def errors(where, *kinds):
    """I/O errors of these kinds (read, write, flush) in every page of a file; where None: everywhere."""
    def inject(lab):
        sectors = [None] if where is None else lab.guest.sectors_of(where)
        lab.guest.inject_errors([{"iotype": kind, **({} if sector is None else {"sector": sector})}
                                 for kind in kinds for sector in sectors], lab.begin)
    return inject


def errors_in_other_file(kind):
    """In a file that only a command of the guest reads or writes."""
    command = {"read": "dd if=/data/other of=/dev/null bs=4096 count=1 iflag=direct",
               "write": "dd if=/dev/zero of=/data/other bs=4096 count=1 conv=notrunc,fsync"}[kind]

    def inject(lab):
        lab.guest.shell("dd if=/dev/zero of=/data/other bs=65536 count=1 conv=fsync 2> /dev/null")
        errors("/data/other", kind)(lab)
        lab.begin()
        said = lab.guest.shell(command + " 2>&1")
        lab.outcome.notes.append("the command: " + said.splitlines()[0])
    return inject


def stall(lab):
    """For good: QEMU lets a request that waits go only when its time has come, whatever the limit is by then."""
    lab.begin()
    lab.guest.throttle(bytes_a_second=1)


def crawl(lab):
    lab.begin()
    lab.guest.throttle(requests_a_second=1)


def work(lab):
    lab.guest.throttle()


def workload_rate(lab, seconds=3.0):
    """Requests a second that the workload makes: two for each record, the data and the flush of the drive's cache, of which the
    throttle counts one."""
    first, begin = lab.acknowledged(), time.monotonic()
    wait_for("the rate was measured", lambda: time.monotonic() - begin > seconds, seconds + 10, 0.05)
    return (lab.acknowledged() - first) / (time.monotonic() - begin)


def slow(factor):
    def inject(lab):
        rate = workload_rate(lab)
        lab.outcome.notes.append(f"{rate:.0f} records a second before")
        lab.begin()
        lab.guest.throttle(requests_a_second=max(1, round(rate / factor)))
    return inject


def jitter(lab):
    """Between a tenth of the rate and all of it, another one every 200 ms."""
    rate, chance = workload_rate(lab), random.Random(1)
    lab.begin()
    while time.monotonic() - lab.injected < 45:
        until = time.monotonic() + 0.2
        lab.guest.throttle(requests_a_second=max(1, round(rate * chance.uniform(0.1, 1.0))))
        wait_for("a moment", lambda: time.monotonic() >= until, 5, 0.02)


def mapped(target, more):
    def inject(lab):
        lab.begin()
        lab.guest.map_drive(target, more)
    return inject


def remove(lab):
    lab.begin()
    lab.guest.remove_drive()


def come_back(lab):
    """It came back, and the file system of before is dead all the same: the agent may not say that all is well."""
    lab.guest.return_drive()
    back = time.monotonic()
    wait_for("the drive is back for some seconds", lambda: time.monotonic() - back > 15, 30, 0.1)
    lab.outcome.notes.append(f"15 s after its return: {sorted(lab.status.faults())}")
    if not lab.status.faults():
        lab.outcome.broken.append("no fault 15 s after the drive came back, though its file system is dead")


def come_back_fenced(lab):
    """The drive of a fenced primary is there again, and somebody has mounted its file system, which is whole: the fence stays, and
    nobody starts PostgreSQL."""
    lab.guest.return_drive()
    said = lab.guest.shell("umount -l /data; mount -t xfs -o noatime,nouuid $(drive METAL0001) /data; cat /data/pg/PG_VERSION",
                           timeout=60)
    lab.expect(said == "15", f"the drive's return: {said}")
    back = time.monotonic()

    def broken():
        return ([] if lab.fenced() else ["the fence is gone"]) + (["PostgreSQL runs"] if lab.running() else [])
    found = wait_for("the drive is back for some seconds", lambda: broken() or time.monotonic() - back > DOWN_S, DOWN_S + 60, 0.2)
    lab.expect(found is True, f"{found} {time.monotonic() - back:.1f} s after the drive was back")
    heard = lab.failure_of("SELECT 1")
    # The host's side of the guest's network takes each connection, and closes it when nobody in the guest does.
    down = "refused" in heard or "closed the connection" in heard
    lab.expect(down, f"{DOWN_S:.0f} s after the drive was back a client hears: {heard}")
    lab.outcome.notes.append(f"{DOWN_S:.0f} s after the drive was back, and mounted: fenced, and PostgreSQL is down")


def shut_down(lab):
    lab.begin()
    lab.guest.shell("guest_tool shutdown /data")


def remount_read_only(lab):
    lab.begin()
    lab.guest.shell("echo u > /proc/sysrq-trigger")


def fill(lab):
    """Nearly all of it before: what is measured begins when the last part of the space is taken."""
    left = 128  # the agent's limit is half of it
    free = int(lab.guest.shell("df -P -m /data | tail -1 | awk '{ print $4 }'"))
    lab.guest.shell(f"dd if=/dev/zero of=/data/ballast bs=1048576 count={free - left} 2> /dev/null", timeout=60)
    lab.expect(not any("full" in each for each in lab.status.faults()), f"full before it is: {lab.status.faults()}")
    lab.begin()
    lab.guest.shell("dd if=/dev/zero of=/data/more bs=1048576 2> /dev/null", timeout=60)


def await_probes(seconds=10.0):
    """Some blocks of the probe file are written, and known to the agent."""
    begin = time.monotonic()
    wait_for("some blocks are written", lambda: time.monotonic() - begin > seconds, seconds + 20, 0.1)


def overwrite_probe_file(lab):
    """Other bytes than were written, in the image itself, behind the stamps: the drive answers reads well, with the wrong data."""
    sectors = lab.guest.sectors_of(PROBE_FILE)
    await_probes()
    lab.begin()
    with open(f"{lab.guest.directory}/data.img", "r+b") as image:
        for sector in sectors:
            image.seek(sector * 512 + 2048)
            image.write(b"\xa5" * 512)


def put_back_probe_file(lab):
    """What the file held some seconds before: writes that were acknowledged and are lost."""
    sectors = lab.guest.sectors_of(PROBE_FILE)
    with open(f"{lab.guest.directory}/data.img", "r+b") as image:
        def pages():
            for sector in sectors:
                image.seek(sector * 512)
                yield sector, image.read(4096)
        before = list(pages())
        await_probes()
        lab.begin()
        for sector, page in before:
            image.seek(sector * 512)
            image.write(page)


def cut_power(lab):
    """The agent starts again, with its events and its journal, and nothing that was acknowledged is gone."""
    before, acknowledged = lab.event_ids(), lab.acknowledged()
    lab.begin()
    lab.stop_watching()
    lab.outcome.lost = lab.lost(acknowledged)
    lab.outcome.acknowledged = acknowledged
    lab.guest.cut_power()
    lab.guest.boot()
    after = lab.event_ids()
    missing = {number: kind for number, kind in before.items() if after.get(number) != kind}
    if missing:
        lab.outcome.broken.append(f"events are gone: {missing}")
    if any("corrupt" in kind for kind in after.values()):
        lab.outcome.broken.append(f"the store of events was found corrupt: {after}")
    lab.operations()
    wait_for("the probes are healthy again", lab.probes_healthy, 60, 0.1)
    lab.outcome.notes.append(f"{len(before)} events before, {len(after)} after; boots in {lab.guest.boot_s:.1f} s")
    lab.watch()


def cut_power_at_each_mark(lab):
    """The power goes at any of many moments, and takes with it what no flush had made durable."""
    path, marks = "/data/wal.dat", []
    sectors = lab.guest.sectors_of(path)
    lab.begin()
    while time.monotonic() - lab.injected < MARK_S:
        marks.append(lab.guest.shell('n=$(cat /run/told); dmsetup --noudevsync message data 0 mark "$n"; echo "$n"'))
    lab.stop_watching()
    wait_for("the last mark is in the log", lambda: time.monotonic() - lab.injected > MARK_S + 1, 30, 0.1)
    lab.guest.cut_power()
    lost, found = {}, []

    def check(mark, image):
        found.append(mark)
        missing = lost_records(image, sectors, int(mark))
        if missing:
            lost[mark] = missing
    lab.guest.replay_log(check)
    lab.expect(found == marks, f"{len(marks)} marks were made, {len(found)} are in the log")
    lab.expect(not lost, f"lost at marks: {lost}")
    lab.outcome.acknowledged = int(found[-1])
    lab.outcome.lost = lab.lost(lab.outcome.acknowledged)  # as its file system has them, after its recovery
    lab.outcome.notes.append(f"{len(found)} moments, of {found[0]} to {found[-1]} records")
    lab.guest.cut_power()
    lab.guest.boot()
    wait_for("the probes are healthy again", lab.probes_healthy, 60, 0.1)
    lab.watch()


def unreadable_table(lab):
    """A page of a table that the server has to read from the drive."""
    lab.server.sql("CREATE TABLE sick AS SELECT g FROM generate_series(1, 10000) g; CHECKPOINT")
    path = lab.server.sql("SELECT pg_relation_filepath('sick')")[0][0]
    lab.ctl("pg", "restart")  # what it has in its buffers it does not read
    wait_for("PostgreSQL runs", lab.running, 120, 0.2)
    lab.guest.shell("echo 3 > /proc/sys/vm/drop_caches")
    errors(f"/data/pg/{path}", "read")(lab)
    lab.begin()
    lab.outcome.notes.append("the query: " + lab.failure_of("SELECT sum(g) FROM sick"))
