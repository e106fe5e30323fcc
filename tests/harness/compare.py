"""Compares two data directories, byte for byte but for what may differ between two copies that replayed the same WAL.

A relation's page is compared after masking, as PostgreSQL's own wal_consistency_checking does it (bufmask.c):
- pd_checksum and pd_prune_xid, and the hint flags of pd_flags (PD_HAS_FREE_LINES, PD_PAGE_FULL): follow from what is masked;
- the transaction bits of heap tuples (t_infomask, HEAP_XACT_MASK): hints set by readers, and what only the running
  transaction needs; xmin and xmax themselves are compared;
- t_cid of heap tuples: has a meaning within its transaction only, and replay writes the first command's number;
- the padding behind a tuple up to the next multiple of 8 bytes: never written;
- LP_DEAD of index entries, and BTP_HAS_GARBAGE, BTP_SPLIT_END and the vacuum cycle id of B-trees: hints as well;
- the contents of deleted B-tree pages: replay empties them, the server leaves them;
- the hole between pd_lower and pd_upper: its old contents mean nothing.
New pages at the end of a file that were never used are no difference: extending a file is not in WAL. Nor is an empty
file of a relation that was dropped just before the backup: the server unlinks it only after its next checkpoint.
Left out: free space maps (not in WAL, repaired when used), and files that each server writes for itself.
Everything else must be equal: pd_lsn, tuples, visibility maps, transaction status, lengths and the set of files.
"""
import os
import re

PAGE = 8192
OWN_FILES = re.compile(
    r"postmaster\.(pid|opts)$|backup_label|tablespace_map|backup_manifest$|(standby|recovery)\.signal|postgresql.*\.conf$|"
    r"pg_(hba|ident)\.conf|metal\.|\.metal|current_logfiles|global/pg_control$|.*pg_internal\.init|.*pg_filenode\.map\.tmp|"
    # Snapshots of the server's own state, statistics, and pg_subtrans, which is made empty at every start.
    r"pg_(wal|stat|stat_tmp|notify|serial|snapshots|dynshmem|replslot|subtrans|logical)(/|$)|.*/pgsql_tmp|.*_fsm(\.\d+)?$")
RELATION = re.compile(r"(base/\d+|global|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(_vm|_init)?(\.\d+)?$")
XACT_BITS = 0xFFF0  # HEAP_XACT_MASK: who inserted, locked and deleted the tuple, and what became of them
XMAX_HINTS = 0x0400 | 0x0800  # HEAP_XMAX_COMMITTED, HEAP_XMAX_INVALID
XMIN_FROZEN = 0x0300
BTREE_HINTS = 0x0040 | 0x0020  # BTP_HAS_GARBAGE, BTP_SPLIT_END
BTREE_DELETED = 0x0004  # BTP_DELETED


def mask_page(page):
    if not any(page):
        return bytes(PAGE)
    page = bytearray(page)
    lower = int.from_bytes(page[12:14], "little")
    upper = int.from_bytes(page[14:16], "little")
    special = int.from_bytes(page[16:18], "little")
    if not 24 <= lower <= upper <= special <= PAGE:
        return bytes(page)  # no page of the usual shape: every byte counts
    page[8:10] = b"\0\0"  # pd_checksum
    page[10] &= 0xFF ^ 0x03
    page[20:24] = b"\0\0\0\0"  # pd_prune_xid
    page[lower:upper] = bytes(upper - lower)
    is_heap = special == PAGE
    for position in range(24, lower, 4):
        item = int.from_bytes(page[position:position + 4], "little")
        offset, flags, length = item & 0x7FFF, item >> 15 & 3, item >> 17
        if is_heap and flags == 1 and length >= 23 and offset + 22 <= PAGE:
            page[offset + 8:offset + 12] = b"\0\0\0\0"  # t_cid
            infomask = int.from_bytes(page[offset + 20:offset + 22], "little")
            infomask &= 0xFFFF ^ (XMAX_HINTS if infomask & XMIN_FROZEN == XMIN_FROZEN else XACT_BITS)
            page[offset + 20:offset + 22] = infomask.to_bytes(2, "little")
            page[offset + length:offset + (length + 7) // 8 * 8] = bytes(-length % 8)
        elif not is_heap and flags == 3 and length:
            page[position:position + 4] = (item & ~(3 << 15) | 1 << 15).to_bytes(4, "little")  # LP_DEAD → LP_NORMAL
    if PAGE - special == 16:  # B-tree: flags and cycle id are the last four bytes
        flags = int.from_bytes(page[PAGE - 4:PAGE - 2], "little") & (0xFFFF ^ BTREE_HINTS)
        if flags & BTREE_DELETED:
            flags = BTREE_DELETED
        page[PAGE - 4:] = flags.to_bytes(2, "little") + b"\0\0"
        if flags == BTREE_DELETED:
            page[12:special] = bytes(special - 12)
    return bytes(page)


def tree(root):
    """Relative path → real path of every file that both copies must have."""
    found = {}

    def walk(directory, prefix):
        for entry in os.scandir(directory):
            path = prefix + entry.name
            if OWN_FILES.match(path):
                continue
            if entry.is_dir():
                walk(entry.path, path + "/")
            else:
                found[path] = entry.path
    walk(root, "")
    return found


def is_unused(page, path):
    """A new page, or one of a visibility map without a bit."""
    return not any(page[24:] if "_vm" in path else page)


def differing_blocks(ours, theirs, is_relation):
    """Either path may be None: a map that was never used need not exist."""
    with open(ours or os.devnull, "rb") as left, open(theirs or os.devnull, "rb") as right:
        block = 0
        while True:
            a, b = left.read(PAGE), right.read(PAGE)
            if not a and not b:
                return
            unused = is_relation and is_unused(a, ours or theirs) and is_unused(b, ours or theirs)
            if a != b and not unused and not (is_relation and len(a) == len(b) == PAGE and mask_page(a) == mask_page(b)):
                yield block, a, b
            block += 1


def first_difference(a, b):
    if len(a) != len(b):
        return f"lengths {len(a)} and {len(b)}"
    a, b = mask_page(a), mask_page(b)
    places = [place for place in range(len(a)) if a[place] != b[place]]
    return f"{len(places)} bytes, from {places[0] if places else '?'}: {a[places[0]:places[0] + 8].hex()} and " \
           f"{b[places[0]:places[0] + 8].hex()}; lsn {a[:8].hex()} and {b[:8].hex()}" if places else "unmasked bytes"


def differences(ours, theirs):
    """What differs, as lines for people; empty when the copies are the same. Also returns how many pages were compared."""
    left, right = tree(ours), tree(theirs)
    lines, pages = [], 0
    for path in sorted(left.keys() | right.keys()):
        is_relation = bool(RELATION.match(path))
        for root, own in ((ours, left), (theirs, right)):
            size = os.path.getsize(left.get(path) or right[path])
            if path not in own and not (is_relation and ("_vm" in path or size == 0)):
                lines.append(f"missing in {root}: {path}")
        pages += os.path.getsize(left.get(path, os.devnull)) // PAGE
        for block, a, b in differing_blocks(left.get(path), right.get(path), is_relation):
            lines.append(f"{path} block {block}: {first_difference(a, b)}")
    return lines, pages
