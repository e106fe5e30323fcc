"""The comparison of copies itself: it overlooks hints and nothing else."""
import os

import pytest

from harness import compare


def heap_page():
    """A page with one tuple of 40 bytes at the end."""
    page = bytearray(compare.PAGE)
    offset = compare.PAGE - 40
    page[0:8] = bytes(range(1, 9))  # pd_lsn
    page[12:18] = (28).to_bytes(2, "little") + offset.to_bytes(2, "little") + compare.PAGE.to_bytes(2, "little")
    page[18:20] = b"\x04\x20"
    page[24:28] = (offset | 1 << 15 | 37 << 17).to_bytes(4, "little")
    page[offset:offset + 37] = bytes(range(100, 137))
    return page


def changed(page, place, value=0xFF):
    page = bytearray(page)
    page[place] ^= value
    return bytes(page)


TUPLE = compare.PAGE - 40


@pytest.mark.parametrize("place,value", [
    (8, 0xFF), (10, 0x03), (20, 0xFF),  # checksum, hint flags, prune xid
    (4000, 0xFF),  # the hole
    (TUPLE + 8, 0xFF), (TUPLE + 21, 0x0C), (TUPLE + 38, 0xFF),  # t_cid, hint bits, padding
])
def test_hints_are_overlooked(place, value):
    page = bytes(heap_page())
    assert compare.mask_page(page) == compare.mask_page(changed(page, place, value))


@pytest.mark.parametrize("place", [0, 7, 11, 24, TUPLE, TUPLE + 4, TUPLE + 12, TUPLE + 18, TUPLE + 22, TUPLE + 36])
def test_everything_else_counts(place):
    page = bytes(heap_page())
    assert compare.mask_page(page) != compare.mask_page(changed(page, place))


def make(root, **files):
    for path, contents in files.items():
        path = os.path.join(root, path.replace("__", "/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(contents)
    return str(root)


def test_files_are_compared_by_name_length_and_contents(tmp_path):
    page = bytes(heap_page())
    ours = make(tmp_path / "a", base__5__1000=page, base__5__2000=page + page, pg_xact__0000=b"x", **{"postmaster.pid": b"1"})
    theirs = make(tmp_path / "b", base__5__1000=changed(page, TUPLE), base__5__2000=page, pg_xact__0000=b"y", base__5__3000=page)
    found, pages = compare.differences(ours, theirs)
    assert pages == 3
    assert [line.split(":")[0] for line in found if "block" in line] == [
        "base/5/1000 block 0", "base/5/2000 block 1", "base/5/3000 block 0", "pg_xact/0000 block 0"]
    assert any(line.endswith("base/5/3000") for line in found if line.startswith("missing"))


def test_unused_pages_and_emptied_files_are_no_difference(tmp_path):
    page = bytes(heap_page())
    ours = make(tmp_path / "a", base__5__1000=page)
    theirs = make(tmp_path / "b", base__5__1000=page + bytes(compare.PAGE), base__5__1000_vm=bytes(compare.PAGE),
                  base__5__2000=b"")
    assert compare.differences(ours, theirs)[0] == []
