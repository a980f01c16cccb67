"""An archive of very many entries: what each of them takes in memory, and names that are made when they are read."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.errors import Place
from cosremaster.io.streams import ByteReader
from cosremaster.layers.blobs import Blobs
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.columns import unpack_columns
from cosremaster.layers.cpio.dump import dump_index, load_index
from cosremaster.layers.cpio.members import DottedNames, Members
from cosremaster.layers.cpio.read import CpioIndex, read_index
from cosremaster.layers.cpio.rules import ChangedTable
from cosremaster.layers.scan import MemberScanner, ScanOptions
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


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace what is allocated in the context."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _traced(members: Members) -> tuple[float, float]:
    """Return how many bytes there are for each of ``members``, and how many there were at the highest."""
    current, peak = tracemalloc.get_traced_memory()
    return current / len(members), peak / len(members)


def test_an_entry_takes_less_than_300_bytes() -> None:
    """Its columns, its path and what the rules need to know: also at the highest."""
    with _tracing():
        index = _index_archive(b"./")
        assert unpack_columns(index.members, index.paths) is not None
        _, peak = _traced(index.members)
    assert peak < 300


def test_what_an_archive_unpacks_to_is_no_second_table() -> None:
    """Where there is a table of numbers by path, the check of the rules keeps a bit of an inode and a digit."""
    index = _index_archive(b"./")
    numbers = {path: number for number, path in enumerate(index.paths)}
    with _tracing():
        tree = unpack_columns(index.members, index.paths, numbers)
        assert tree is not None
        changed = tree.copy([index.paths[5]])
        current, _ = _traced(index.members)
    assert current < 8
    assert len(changed.made) == len(tree.made) - 1 == len(index.members) - 1
    assert (index.paths[5] in tree.made, index.paths[5] in changed.made) == (True, False)


def test_a_remembered_index_takes_no_more_than_a_new_one() -> None:
    """It keeps none of the bytes that it was read from."""
    blobs = Blobs()
    values = dump_index(_index_archive(b"./"), blobs)
    with _tracing():
        index = load_index(values, memoryview(b"".join(blobs.parts)))
        assert index.paths
        loaded, _ = _traced(index.members)
    with _tracing():
        new = _index_archive(b"./")
        assert new.paths
        made, _ = _traced(new.members)
    assert loaded < made + 10


def test_counting_entries_keeps_none() -> None:
    """The proof of a result only counts."""
    members = _index_archive(b"./").members
    entries = (cpio.encode_head(entry.header, entry.name) for entry, _, _ in members)
    archive = b"".join((*entries, cpio.encode_trailer()))
    options = ScanOptions(digests=False, nesting=0, edits=False, tail=0, counts=True)
    chunks = [archive[at : at + 65536] for at in range(0, len(archive), 65536)]
    with _tracing():
        index = read_index(ByteReader(chunks, Place()), 0, MemberScanner(options, 1))
        _, peak = _traced(members)
    assert index.entry_count == len(members)
    assert peak < 30


def test_a_part_of_an_index_copies_no_column() -> None:
    """What two archives begin with is a view, and both parts together are the whole."""
    index = _index_archive(b"./")
    assert index.paths
    with _tracing():
        end, front = index.split_before(index.members.offsets[-20])
        current, _ = _traced(index.members)
    assert (end, len(front.members)) == (index.members.offsets[-20], len(index.members) - 20)
    assert current < 20
    rest = CpioIndex(index.members[-20:], index.trailer)
    whole = front.joined(rest)
    assert whole.members == index.members
    assert whole.members.fields == index.members.fields
    assert list(whole.paths) == list(index.paths)


@given(
    st.dictionaries(st.integers(0, 9), st.integers()),
    st.sets(st.integers(0, 9)),
    st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers())),
)
def test_a_changed_table_is_a_changed_copy(
    before: dict[int, int], gone: set[int], changes: list[tuple[int, int | None]]
) -> None:
    """Rows are put and removed in any order; the table before stays as it is."""
    expected = {key: value for key, value in before.items() if key not in gone}
    table, original = ChangedTable(before, gone), dict(before)
    for key, value in changes:
        if value is not None:
            table[key] = expected[key] = value
        elif key in expected:
            del table[key], expected[key]
        else:
            with pytest.raises(KeyError):
                del table[key]
    assert (dict(table), len(table), before) == (expected, len(expected), original)
    assert [key in table for key in range(10)] == [key in expected for key in range(10)]
    assert [table.get(key) for key in range(10)] == [expected.get(key) for key in range(10)]


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
