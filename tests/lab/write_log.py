"""The log that dm-log-writes keeps of what is written to a device, and what the device would hold had the power gone at a mark:
only what a flush had made durable by then.

Source of the format: drivers/md/dm-log-writes.c of Linux 6.1; numbers are little-endian, places and sizes in sectors of the log.
"""
import dataclasses
import struct

MAGIC, VERSION = 0x6A736677736872, 1
SUPER, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SLOTS, RECORD = 4096, 4096  # of the workload's file (guest_tool.cc)


class NoLog(Exception):
    """The file holds no such log, or not a whole one."""


@dataclasses.dataclass(frozen=True)
class Entry:
    at: int  # byte on the device
    size: int
    flags: int
    mark: str  # its text; empty unless it is one
    data_at: int  # byte in the log


def read_log(file):
    """The entries of a log, oldest first."""
    magic, version, count, sector = SUPER.unpack(file.read(SUPER.size))
    if (magic, version) != (MAGIC, VERSION):
        raise NoLog(f"magic {magic:#x}, version {version}")
    entries, place = [], sector
    for number in range(count):
        file.seek(place)
        header = file.read(sector)
        if len(header) < sector:
            raise NoLog(f"ends in entry {number} of {count}")
        at, size, flags, length = ENTRY.unpack_from(header)
        text = header[ENTRY.size:ENTRY.size + length].decode() if flags & MARK else ""
        entries.append(Entry(at * sector, size * sector, flags, text, place + sector))
        place += sector + (0 if flags & DISCARD else size * sector)
    return entries


def replay(file, entries, image):
    """Yields each mark's text when `image` holds what was durable then. At first it is as the device was when the log began."""
    for each in entries:
        if each.flags & MARK:
            image.flush()
            yield each.mark
        elif each.size:
            file.seek(each.data_at)
            image.seek(each.at)
            image.write(bytes(each.size) if each.flags & DISCARD else file.read(each.size))


def lost_records(image, sectors, count):
    """How many of the first `count` records of the workload an image does not hold. sectors: where the file's pages are on it."""
    lost = 0
    for number in range(max(1, count - SLOTS + 1), count + 1):
        image.seek(sectors[number % SLOTS] * 512)
        page = image.read(RECORD)
        found = int.from_bytes(page[:8], "little")
        # Laps later is what was written after the count was told.
        if page != page[:8] * (RECORD // 8) or found < number or found % SLOTS != number % SLOTS:
            lost += 1
    return lost
