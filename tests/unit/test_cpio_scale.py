"""An archive of very many entries: what each of them takes in memory, and names that are made when they are read."""

from __future__ import annotations

import tracemalloc

from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.columns import unpack_columns
from cosremaster.layers.cpio.members import DottedNames, Members
from cosremaster.layers.cpio.read import CpioIndex
from cosremaster.tree.paths import normal_name, normal_names

_FOLDERS, _FILES = 40, 250


def _index_archive(prefix: bytes) -> CpioIndex:
    """Return the index of an archive of 10,000 files in 40 folders, as GNU cpio writes it behind ``find .``."""
    members, offset = Members.empty(), 0
    names = [b"." if prefix == b"./" else b"usr"]
    names += [prefix + b"share"]
    for folder in range(_FOLDERS):
        names.append(prefix + b"share/part-%03d" % folder)
        names += [prefix + b"share/part-%03d/item-%03d-%05d.txt" % (folder, folder, file) for file in range(_FILES)]
    for number, name in enumerate(names, 1):
        mode = 0o100644 if name.endswith(b".txt") else 0o40755
        header = cpio.HeaderFields(
            ino=number, mode=mode, uid=0, gid=0, nlink=1, mtime=1, size=0, name_size=len(name) + 1
        ).encode(cpio.NEWC)
        members.add(cpio.NewcEntry(header, name, offset))
        offset += len(cpio.encode_head(header, name))
    return CpioIndex(members, cpio.missing_trailer(cpio.NEWC, offset))


def test_an_entry_takes_less_than_400_bytes() -> None:
    """Its columns, its path and what the rules need to know: also at the highest."""
    tracemalloc.start()
    try:
        index = _index_archive(b"./")
        assert unpack_columns(index.members, index.paths) is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak / len(index.members) < 400


def test_names_with_a_dot_are_made_when_they_are_read() -> None:
    """All that reads names gets what was written, and the paths are kept once."""
    index = _index_archive(b"./")
    written = list(index.members.names)
    assert index.paths is index.paths
    names = index.members.names
    assert isinstance(names, DottedNames)
    assert list(names) == written
    assert (names[0], names[5], len(names)) == (b".", written[5], len(written))
    assert names[3:9] == written[3:9]
    assert [member.entry.name for member in index.members] == written
    assert index.members[7].entry.name == written[7]


def test_other_names_stay_as_they_are() -> None:
    """Names without a dot are the paths themselves; names of both kinds are kept."""
    plain = _index_archive(b"")
    assert plain.paths is plain.members.names
    mixed = [b"./a", b"b", *[b"./c/%d" % number for number in range(9000)], b"d/", b"/e"]
    assert normal_names(mixed) == [normal_name(name) for name in mixed]
