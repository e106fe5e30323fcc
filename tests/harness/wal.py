"""WAL as a server would have left it, written by hand into pg_wal of a server that is down."""
import struct

from harness.node import lsn_number

PAGE = 8192
FIRST_IS_CONTINUED = 0x0001
LOGICAL_MESSAGE = 21  # RM_LOGICALMSG_ID
SEGMENT = 16 << 20


def fork(node):
    """(timeline, LSN) at which the last timeline of a node left the one before."""
    timeline = int(node.ok("pg", "control")["timeline"])
    with open(f"{node.data_dir}/pg_wal/{timeline:08X}.history", encoding="utf-8") as file:
        before, lsn = [line for line in file.read().splitlines() if line][-1].split("\t")[:2]
    return int(before), lsn_number(lsn)


def segment_name(timeline, lsn, segment_size=SEGMENT):
    """Of the segment in which an LSN lies."""
    return f"{timeline:08X}{lsn >> 32:08X}{(lsn & 0xFFFFFFFF) // segment_size:08X}"


def append_cut_record(node, timeline, at, previous, segment_size=SEGMENT):
    """From LSN `at` on, behind the record at `previous`, the beginning of a record that goes on in the next segment, which is
    not there: what a full disk or a lost primary leaves. Returns the LSN at which the segment ends."""
    start = at - at % segment_size
    end = start + segment_size
    length = end - at + segment_size // 2
    record = struct.pack("<IIQBBHI", length, 0, previous, 0, LOGICAL_MESSAGE, 0, 0) + b"cut" * (segment_size // 3)
    with open(f"{node.data_dir}/pg_wal/{segment_name(timeline, at, segment_size)}", "r+b") as file:
        magic = struct.unpack("<H", file.read(2))[0]
        done, place = 0, at
        while place < end:
            if place % PAGE == 0:
                header = struct.pack("<HHIQII", magic, FIRST_IS_CONTINUED if done else 0, timeline, place,
                                     length - done if done else 0, 0)
                file.seek(place - start)
                file.write(header)
                place += len(header)
            count = PAGE - place % PAGE
            file.seek(place - start)
            file.write(record[done:done + count])
            done, place = done + count, place + count
    return end
