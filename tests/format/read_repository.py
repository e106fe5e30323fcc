#!/usr/bin/python3
"""Reads a backup repository by its documents alone (agent/docs/repository-format.md, repository-format-wal.md), without any code of
the agent.

  read_repository.py list REPOSITORY
  read_repository.py verify REPOSITORY LABEL              every frame and file
  read_repository.py restore REPOSITORY LABEL DIRECTORY [--tablespace OID=PATH]...
  read_repository.py wal REPOSITORY [--into DIRECTORY]   every file of the WAL archive; writes them there

LABEL may be "latest". Debian packages: python3-zstandard python3-lz4 python3-xxhash. Exits 1 and names what is wrong.
"""

import argparse
import hashlib
import os
import re
import socket
import struct
import sys

import lz4.block
import xxhash
import zstandard

FRAME_HEADER = struct.Struct("<4sBBHIIQII")
PACK_HEADER = struct.Struct("<8sIIQI")
WAL_HEADER = struct.Struct("<8sIIQQQQII64sII")
WAL_PAGE = struct.Struct("<HHIQI4xQII")  # PostgreSQL's long header of a segment's first page
WAL_NAME = re.compile(r"[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history")
FRAME_MAX = 1 << 20


class Damaged(Exception):
    """The repository does not say what its format promises."""


def check(condition, message):
    if not condition:
        raise Damaged(message)


# ---- CRC-32C: by the kernel where it can, else by a table


class KernelCrc:
    def __init__(self):
        self.algorithm = socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0)
        self.algorithm.bind(("hash", "crc32c"))

    def __call__(self, data):
        self.algorithm.setsockopt(socket.SOL_ALG, socket.ALG_SET_KEY, b"\xff\xff\xff\xff")
        operation, _ = self.algorithm.accept()
        with operation:
            view = memoryview(data)
            for at in range(0, len(view), 1 << 16):
                operation.send(view[at:at + (1 << 16)], socket.MSG_MORE)
            operation.send(b"")
            return struct.unpack("<I", operation.recv(4))[0]


class TableCrc:
    def __init__(self):
        self.table = []
        for value in range(256):
            for _ in range(8):
                value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
            self.table.append(value)

    def __call__(self, data):
        crc, table = 0xFFFFFFFF, self.table
        for byte in data:
            crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
        return crc ^ 0xFFFFFFFF


def choose_crc():
    table = TableCrc()
    try:
        kernel = KernelCrc()
        if kernel(b"123456789") == table(b"123456789") == 0xE3069283:
            return kernel
    except (OSError, AttributeError):
        pass
    return table


crc32c = choose_crc()


# ---- text


def unescape(field):
    """Bytes of a text field."""
    check(re.fullmatch(r"(?:[ -$&-~]|%[0-9A-F]{2})*", field), f"bad text field {field!r}")
    return re.sub(rb"%(..)", lambda m: bytes([int(m.group(1), 16)]), field.encode())


def safe_path(field):
    path = unescape(field)
    parts = path.split(b"/")
    check(all(part not in (b"", b".", b"..") for part in parts) and b"\0" not in path,
          f"unsafe path {path!r}")
    return path


REPEATED = {"corrupt-page", "tablespace", "annotation", "pack"}
SINGLE = """label type system-identifier postgres-version control-version catalog-version page-size segment-pages
wal-segment-size source timeline start-lsn stop-lsn start-time stop-time copy-microseconds codec level io-engine
checksums corrupt-pages files directories frames bytes stored-bytes data-directory backup-label tablespace-map
file-list-bytes
file-list-sha256""".split()

OPTIONAL = ["created-tablespaces", "pages-in-window"]


class Manifest:
    def __init__(self, directory):
        with open(os.path.join(directory, "manifest"), "rb") as file:
            data = file.read()
        check(data.endswith(b"\n"), "manifest: the end is missing")
        end = data.rfind(b"\n", 0, len(data) - 1) + 1
        want = f"end\t{hashlib.sha256(data[:end]).hexdigest()}\n".encode()
        check(data[end:] == want, "manifest: contents do not match the hash")
        lines = data[:end].decode("ascii").splitlines()
        check(lines[0] == "metal-backup\t1", "manifest: not format 1")
        self.values, self.packs, self.tablespaces, self.corrupt = {}, [], {}, []
        for line in lines[1:]:
            key, *fields = line.split("\t")
            self._take(key, fields)
        missing = [key for key in SINGLE if key not in self.values]
        check(not missing, f"manifest: {missing} missing")
        check(self.text("label") == os.path.basename(directory), "manifest: of another backup")

    def _take(self, key, fields):
        if key == "pack":
            index, path, size = fields
            check(int(index) == len(self.packs), "manifest: pack out of order")
            self.packs.append((safe_path(path).decode(), int(size)))
        elif key == "tablespace":
            self.tablespaces[int(fields[0])] = unescape(fields[1])
        elif key == "corrupt-page":
            self.corrupt.append((unescape(fields[0]), int(fields[1]), unescape(fields[2])))
        elif key not in REPEATED:
            check(key in SINGLE + OPTIONAL and key not in self.values and len(fields) == 1, f"manifest: bad key {key}")
            self.values[key] = fields[0]

    def text(self, key):
        return unescape(self.values[key]).decode()

    def number(self, key):
        return int(self.values[key])


# ---- the list of files


class Extent:
    def __init__(self, fields):
        numbers = [int(field) for field in fields]
        self.offset, self.length, self.pack, self.pack_offset = numbers[:4]
        self.stored, self.raw, self.frame_offset = numbers[4:]
        check(self.length > 0 and self.frame_offset + self.length <= self.raw <= FRAME_MAX,
              "extent: passes its frame")


class FileRecord:
    def __init__(self, fields):
        path, size, mtime, mode, crc = fields
        self.path, self.size, self.mtime = safe_path(path), int(size), int(mtime)
        self.mode, self.crc = int(mode, 8), int(crc, 16)
        self.extents = []

    def check_extents(self, pack_count):
        at = 0
        for extent in self.extents:
            check(extent.offset == at and extent.pack < pack_count, f"{self.path!r}: extents are out of order")
            at += extent.length
        check(at == self.size, f"{self.path!r}: extents do not cover it")


def read_list(directory, manifest):
    """Gives ("D", path, mode), ("L", oid, location) and ("F", FileRecord); checks the list as it goes."""
    digest, length, ended = hashlib.sha256(), 0, None
    counts = {"F": 0, "D": 0, "X": 0}
    size, record = 0, None
    with open(os.path.join(directory, "files.zst"), "rb") as file:
        for line in lines_of(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)):
            digest.update(line)
            length += len(line)
            check(ended is None and line.endswith(b"\n"), "file list: lines after the end")
            kind, *fields = line[:-1].decode("ascii").split("\t")
            if kind != "X" and record is not None:
                record.check_extents(len(manifest.packs))
                yield "F", record
                record = None
            if kind in counts:
                counts[kind] += 1
            if kind == "D":
                yield "D", safe_path(fields[0]), int(fields[1], 8)
            elif kind == "L":
                yield "L", int(fields[0]), unescape(fields[1])
            elif kind == "F":
                record = FileRecord(fields)
                size += record.size
            elif kind == "X":
                check(record is not None, "file list: extent without file")
                record.extents.append(Extent(fields))
            else:
                check(kind == "E", f"file list: unknown line {kind!r}")
                ended = [int(field) for field in fields]
    check(ended == [counts["F"], counts["D"], counts["X"], size], "file list: counts do not match")
    check(length == manifest.number("file-list-bytes") and digest.hexdigest() == manifest.text("file-list-sha256"),
          "file list: contents do not match the manifest")


def lines_of(stream):
    rest = b""
    while True:
        piece = stream.read(1 << 20)
        if not piece:
            break
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


# ---- frames and packs


def decode_frame(stored, where):
    """The raw bytes of a frame: its header and its payload, nothing behind them."""
    check(len(stored) > FRAME_HEADER.size, f"{where}: cut off")
    magic, codec, flags, zero, raw_length, payload_length, xxh3, raw_crc, header_crc = FRAME_HEADER.unpack(
        stored[:FRAME_HEADER.size])
    check(magic == b"FRM1" and flags == 0 and zero == 0, f"{where}: not a frame")
    check(crc32c(stored[:28]) == header_crc, f"{where}: damaged header")
    payload = stored[FRAME_HEADER.size:]
    check(len(payload) == payload_length and 0 < raw_length <= FRAME_MAX, f"{where}: another frame")
    check(xxhash.xxh3_64_intdigest(payload) == xxh3, f"{where}: payload does not match its hash")
    if codec == 0:
        raw = payload
    elif codec == 1:
        raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=raw_length)
    else:
        check(codec == 2, f"{where}: unknown codec {codec}")
        raw = lz4.block.decompress(payload, uncompressed_size=raw_length)
    check(len(raw) == raw_length and crc32c(raw) == raw_crc, f"{where}: raw bytes do not match their CRC")
    return raw


class Packs:
    """Frames of a backup. Keeps the last frame, because small files that share one come one after the other."""

    def __init__(self, system_directory, manifest):
        self.system = int(os.path.basename(system_directory))
        self.files, self.last_key, self.last_frame, self.frames = [], None, None, 0
        for path, size in manifest.packs:
            full = os.path.join(system_directory, "packs", path)
            file = open(full, "rb")
            self.files.append(file)
            check(os.fstat(file.fileno()).st_size == size, f"pack {path}: wrong size")
            self._check_header(file, path)

    def _check_header(self, file, path):
        header = file.read(4096)
        check(len(header) == 4096 and crc32c(header[:4092]) == struct.unpack("<I", header[4092:])[0],
              f"pack {path}: damaged header")
        magic, version, number, system, length = PACK_HEADER.unpack(header[:PACK_HEADER.size])
        label = header[32:32 + length].decode()
        check(magic == b"METALPK1" and version == 1 and system == self.system, f"pack {path}: not one of ours")
        check(path == f"{label}/{number}.pack", f"pack {path}: says it is {label}/{number}.pack")

    def read(self, extent):
        """The extent's bytes."""
        key = (extent.pack, extent.pack_offset, extent.stored, extent.raw)
        if key != self.last_key:
            self.last_frame = self._decode(extent)
            self.last_key = key
            self.frames += 1
        return self.last_frame[extent.frame_offset:extent.frame_offset + extent.length]

    def _decode(self, extent):
        file = self.files[extent.pack]
        file.seek(extent.pack_offset)
        stored = file.read(extent.stored)
        where = f"{file.name} offset {extent.pack_offset}"
        check(len(stored) == extent.stored, f"{where}: cut off")
        raw = decode_frame(stored, where)
        check(len(raw) == extent.raw, f"{where}: another frame")
        return raw


# ---- the WAL archive


def read_wal(path, system, name):
    """What PostgreSQL handed over as `name`; every check of the document, "How to read one"."""
    with open(path, "rb") as file:
        data = file.read()
    check(len(data) >= WAL_HEADER.size, f"{path}: cut off")
    magic, version, frame, owner, raw_length, rest, digest, raw_crc, zero, field, zero2, header_crc = WAL_HEADER.unpack(
        data[:WAL_HEADER.size])
    check(magic == b"METALWL1" and crc32c(data[:124]) == header_crc, f"{path}: damaged header")
    check(version == 1 and frame == FRAME_MAX and zero == zero2 == 0, f"{path}: not format 1")
    check(owner == system and field == name.encode().ljust(64, b"\0"), f"{path}: another file")
    check(len(data) == WAL_HEADER.size + rest, f"{path}: wrong size")
    pieces, at = [], WAL_HEADER.size
    while at < len(data):
        check(not pieces or len(pieces[-1]) == FRAME_MAX, f"{path}: a short frame before the last one")
        end = at + FRAME_HEADER.size + int.from_bytes(data[at + 12:at + 16], "little")
        pieces.append(decode_frame(data[at:end], f"{path} offset {at}"))
        at = end
    raw = b"".join(pieces)
    hashes = b"".join(xxhash.xxh3_64_intdigest(piece).to_bytes(8, "little") for piece in pieces)
    check(len(raw) == raw_length and crc32c(raw) == raw_crc, f"{path}: raw bytes do not match their CRC")
    check(xxhash.xxh3_64_intdigest(hashes) == digest, f"{path}: raw bytes do not match their digest")
    return raw


def check_segment(raw, system, name):
    """What the writer promises of a segment: its first page is of this place, this timeline or an ancestor, and this cluster."""
    magic, info, timeline, address, _, owner, size, _ = WAL_PAGE.unpack(raw[:WAL_PAGE.size])
    check(magic >= 0xD106 and info & 2, f"{name}: no page header of PostgreSQL 13 or newer")
    check(owner == system and size == len(raw) and timeline <= int(name[:8], 16), f"{name}: WAL of another server")
    check(address == (int(name[8:16], 16) << 32) + int(name[16:24], 16) * size, f"{name}: WAL of another place")


# ---- what can be done


def open_repository(root):
    with open(os.path.join(root, "metal-repository"), encoding="ascii") as file:
        values = dict(line.rstrip("\n").split("\t", 1) for line in file)
    check(values.get("format") == "1", f"{root}: format {values.get('format')}, this reads format 1")
    systems = [name for name in sorted(os.listdir(root)) if name.isdigit()]
    return [os.path.join(root, name) for name in systems]


def backups_of(system_directory):
    """Manifests of the complete backups, oldest first."""
    directory = os.path.join(system_directory, "backups")
    if not os.path.isdir(directory):
        return []
    found = []
    for label in os.listdir(directory):
        path = os.path.join(directory, label)
        if os.path.exists(os.path.join(path, "manifest")):
            found.append((Manifest(path), path))
    return sorted(found, key=lambda pair: pair[0].text("start-time"))


def find(root, label):
    found = []
    for system in open_repository(root):
        backups = backups_of(system)
        if label == "latest":
            backups = backups[-1:]
        found += [(system, manifest, path) for manifest, path in backups
                  if label in ("latest", manifest.text("label"))]
    check(len(found) == 1, f"backup {label}: found {len(found)}")
    return found[0]


def file_bytes(packs, record):
    data = b"".join(packs.read(extent) for extent in record.extents)
    check(crc32c(data) == record.crc, f"{record.path!r}: CRC does not match")
    return data


def command_list(options):
    for system in open_repository(options.repository):
        for manifest, _ in backups_of(system):
            raw, stored = manifest.number("bytes"), manifest.number("stored-bytes")
            print(f"{manifest.text('label')}\t{os.path.basename(system)}\t{manifest.text('checksums')}\t"
                  f"{manifest.number('files')} files\t{raw} bytes\t{stored} stored\t"
                  f"{manifest.text('start-lsn')}..{manifest.text('stop-lsn')}")


def command_verify(options):
    system, manifest, path = find(options.repository, options.label)
    packs, files, size = Packs(system, manifest), 0, 0
    for kind, *rest in read_list(path, manifest):
        if kind == "F":
            size += len(file_bytes(packs, rest[0]))
            files += 1
    check(files == manifest.number("files") and size == manifest.number("bytes"), "counts do not match the manifest")
    print(f"{manifest.text('label')}: {files} files, {packs.frames} frames, {size} bytes are good")


def command_restore(options):
    system, manifest, path = find(options.repository, options.label)
    target = os.fsencode(options.directory)
    os.makedirs(target, mode=0o700, exist_ok=True)
    check(not os.listdir(target), f"{options.directory} is not empty")
    mapping = {int(oid): os.fsencode(place) for oid, place in (item.split("=", 1) for item in options.tablespace)}
    packs, control = Packs(system, manifest), None
    for kind, *rest in read_list(path, manifest):
        if kind == "D":
            name, mode = rest
            os.mkdir(os.path.join(target, name))
            os.chmod(os.path.join(target, name), mode)
        elif kind == "L":
            oid, location = rest
            location = mapping.get(oid, location)
            os.makedirs(location, mode=0o700, exist_ok=True)
            os.symlink(location, os.path.join(target, b"pg_tblspc/%d" % oid))
        else:
            data = file_bytes(packs, rest[0])
            if rest[0].path == b"global/pg_control":
                control = rest[0], data
            else:
                write_file(target, rest[0], moved_map(manifest, mapping) if rest[0].path == b"tablespace_map" else data)
    check(control is not None, "no global/pg_control")
    write_file(target, *control)
    print(f"{manifest.text('label')}: restored into {options.directory}")


def command_wal(options):
    files = size = 0
    for system in open_repository(options.repository):
        for timeline in sorted(set(os.listdir(os.path.join(system, "wal"))) - {"incoming"}):
            for entry in sorted(os.listdir(os.path.join(system, "wal", timeline))):
                name = entry.removesuffix(".wal")
                path = os.path.join(system, "wal", timeline, entry)
                check(entry != name and WAL_NAME.fullmatch(name) and name[:8] == timeline, f"{path}: does not belong there")
                owner = int(os.path.basename(system))
                raw = read_wal(path, owner, name)
                if len(name) == 24 or name.endswith(".partial"):
                    check_segment(raw, owner, name)
                files, size = files + 1, size + len(raw)
                if options.into:
                    with open(os.path.join(options.into, name), "xb") as file:
                        file.write(raw)
    print(f"{files} files of WAL, {size} bytes are good")


def moved_map(manifest, mapping):
    """PostgreSQL links each tablespace anew when it starts, to the place that this file names."""
    places = {oid: mapping.get(oid, location) for oid, location in manifest.tablespaces.items()}
    return b"".join(b"%d %s\n" % (oid, re.sub(rb"([\n\r\\])", rb"\\\1", place)) for oid, place in sorted(places.items()))


def write_file(target, record, data):
    full = os.path.join(target, record.path)
    with open(full, "xb") as file:
        file.write(data)
        os.fchmod(file.fileno(), record.mode)
    os.utime(full, (record.mtime, record.mtime))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function, arguments in (("list", command_list, ()), ("verify", command_verify, ("label",)),
                                      ("restore", command_restore, ("label", "directory")), ("wal", command_wal, ())):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("repository")
        for argument in arguments:
            command.add_argument(argument)
        if name == "restore":
            command.add_argument("--tablespace", action="append", default=[], metavar="OID=PATH")
        if name == "wal":
            command.add_argument("--into", metavar="DIRECTORY")
    options = parser.parse_args()
    try:
        options.function(options)
    except (Damaged, zstandard.ZstdError, lz4.block.LZ4BlockError, ValueError, OSError) as error:
        print(f"read_repository: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
