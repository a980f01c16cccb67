"""Columns say of the files of a tree what its records say one by one."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.iso.ecma119.records import DirectoryRecord, decode_identifier, decode_joliet_identifiers
from cosremaster.iso.model import IsoFile
from cosremaster.iso.rockridge.ordinary import OrdinaryNames
from cosremaster.iso.rockridge.read import parse_plain_fields
from cosremaster.iso.tree_files import FileColumns, RegularFiles, TreeFiles
from cosremaster.units import Lba


def _field(signature: bytes, data: bytes, version: int = 1) -> bytes:
    return signature + bytes((4 + len(data), version)) + data


_NAMES = st.binary(min_size=0, max_size=12).map(lambda name: _field(b"NM", b"\0" + name)) | st.binary(
    min_size=1, max_size=12
).map(lambda data: _field(b"NM", data))
_MODES = st.tuples(st.sampled_from((0o100644, 0o120777, 0o40755, 0)), st.sampled_from((32, 40, 20))).map(
    lambda mode: _field(b"PX", mode[0].to_bytes(4, "little").ljust(mode[1], b"\1"))
)
_TIMES = st.tuples(st.integers(0, 255), st.integers(0, 30)).map(
    lambda times: _field(b"TF", bytes((times[0],)) + bytes(times[1]))
) | st.sampled_from((_field(b"TF", b"\x0e" + bytes(21)), _field(b"TF", b"\x0f" + bytes(28))))
_OTHERS = st.sampled_from((_field(b"RR", b"\x89"), _field(b"SL", b"\0\0\1a"), _field(b"CE", bytes(24)), b"\0", b"N"))


def _record(identifier: bytes, area: bytes) -> bytes:
    """Return a directory record with the system use area ``area``."""
    head = bytes(32) + bytes((len(identifier),)) + identifier
    record = head + bytes(len(head) % 2) + area
    return bytes((len(record),)) + record[1:]


def _join_records(records: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """Return the ``records`` behind each other, and the offset of each."""
    return b"".join(records), [0, *accumulate(map(len, records))][:-1]


@given(
    st.lists(_NAMES | _MODES | _TIMES | _OTHERS, max_size=6), st.integers(0, 3), st.integers(0, 4), st.integers(1, 9)
)
def test_an_ordinary_name_is_that_of_fields_one_by_one(fields: list[bytes], skip: int, cut: int, size: int) -> None:
    area = bytes(skip) + b"".join(fields)
    record = _record(b"I" * size, area[: max(skip, len(area) - cut)])
    (name,) = OrdinaryNames(skip).find(record + b"NM\x06\x01\0x", [0])
    if name:
        plain = parse_plain_fields(record, 33 + size + (33 + size) % 2 + skip, len(record))
        assert plain is not None and plain[:2] == (name, True)


def test_the_fields_of_makers_are_ordinary() -> None:
    mode = (0o100444).to_bytes(4, "little") + (0o100444).to_bytes(4, "big")
    genisoimage = _field(b"RR", b"\x89") + _field(b"NM", b"\0a b.txt")
    genisoimage += _field(b"PX", mode.ljust(32, b"\0")) + _field(b"TF", b"\x0e" + bytes(21))
    libisofs = (
        _field(b"PX", mode.ljust(40, b"\0")) + _field(b"TF", b"\x0e" + bytes(21)) + _field(b"NM", b"\0NMx") + b"\0"
    )
    records = [_record(b"A.;1", genisoimage), _record(b"AB", libisofs)]
    assert OrdinaryNames(0).find(b"".join(records), [0, len(records[0])]) == [b"a b.txt", b"NMx"]


_PX = (0o100644).to_bytes(4, "little")
_FIELDS_BEFORE = {
    "genisoimage": (_field(b"RR", b"\x89"), _field(b"PX", _PX.ljust(32, b"\1")) + _field(b"TF", b"\x0e" + bytes(21))),
    "libisofs": (_field(b"PX", _PX.ljust(40, b"\1")) + _field(b"TF", b"\x0f" + bytes(28)), b""),
    "both": (_field(b"PX", _PX.ljust(32, b"\1")), _field(b"TF", b"\2" + bytes(7))),
}
"""The fields in front of a name, and those behind it, as makers have them."""


@pytest.mark.parametrize("maker", _FIELDS_BEFORE)
@pytest.mark.parametrize("skip", [0, 3])
def test_records_of_one_layout_are_read_as_each_by_itself(maker: str, skip: int) -> None:
    """One record differs from the others in a byte, in its name, or in its end."""
    before, behind = _FIELDS_BEFORE[maker]

    def area(name: bytes, end: bytes = b"") -> bytes:
        return bytes(skip) + before + _field(b"NM", b"\0" + name) + behind + end

    usual_names = [b"n" * size for size in range(1, 6)]
    usual = [_record(b"I" * len(name), area(name)) for name in usual_names]
    names = OrdinaryNames(skip)
    changed = [bytes((*raw[:at], raw[at] ^ bit, *raw[at + 1 :])) for raw in (area(b"name"),) for at in range(len(raw))
               for bit in (1, 4, 0x40, 0x80)]  # fmt: skip
    others = [
        area(b""),
        area(b"a\0b"),
        area(b"name", b"\0"),
        area(b"name", b"\1"),
        area(b"name", b"\0\0"),
        area(b"name")[:-1],
    ]
    for odd in (_record(b"II", odd) for odd in (*changed, *others)):
        data, offsets = _join_records([*usual, odd, *usual])
        expected = [*usual_names, *OrdinaryNames(skip).find(odd, [0]), *usual_names]
        assert names.find(data, offsets) == expected
    for cut in range(len(area(b"name"))):  # the last record is a shorter one
        odd = _record(b"II", area(b"name")[:cut])
        assert names.find(*_join_records([*usual, odd])) == [*usual_names, *OrdinaryNames(skip).find(odd, [0])]
    assert names._compare(*_join_records(usual)) == usual_names


def test_another_layout_is_taken_from_the_first_record_of_a_directory() -> None:
    names = OrdinaryNames(0)
    for before, behind in (*_FIELDS_BEFORE.values(), *_FIELDS_BEFORE.values()):
        records = [_record(b"I", before + _field(b"NM", b"\0" + b"%d" % number) + behind) for number in range(9)]
        data, offsets = _join_records(records)
        assert names.find(data, offsets) == names._compare(data, offsets) == [b"%d" % number for number in range(9)]


def test_very_many_records_are_compared_some_at_a_time() -> None:
    fields = _field(b"PX", _PX.ljust(32, b"\1")) + _field(b"TF", b"\x0e" + bytes(21))
    records = [_record(b"I", _field(b"NM", b"\0" + b"%d" % number) + fields) for number in range(3000)]
    assert OrdinaryNames(0).find(*_join_records(records)) == [b"%d" % number for number in range(3000)]


_TEXTS = st.text(alphabet=st.sampled_from("aé/;1\0.𝄞\ud800"), min_size=1, max_size=5)


@given(st.lists(_TEXTS.map(lambda text: text.encode("utf-16-be", "surrogatepass")) | st.binary(min_size=1, max_size=5)))
def test_joliet_identifiers_are_decoded_together_as_alone(identifiers: list[bytes]) -> None:
    assert decode_joliet_identifiers(identifiers) == [
        decode_identifier(identifier, joliet=True) for identifier in identifiers
    ]


def _columns(names: list[bytes], first: int) -> FileColumns:
    data = b"".join(bytes(32) + b"\1A" for _ in names)
    columns = FileColumns(IsoFile, b"d/", 4096, (b"D",), data)
    columns.names = names
    columns.offsets.extend(34 * number for number in range(len(names)))
    columns.starts.extend(first + number for number in range(len(names)))
    columns.sizes.extend(2049 * number for number in range(len(names)))
    return columns


def test_files_are_made_of_columns() -> None:
    columns = _columns([b"a", b"link"], 50)
    columns.special[1] = (False, 7)
    record = DirectoryRecord(4130, Lba(51), 2049, 0, (b"D",), b"A")
    assert columns[1] == IsoFile(b"d/link", (record,), False, 7)
    assert [file.path for file in columns] == columns.paths == [b"d/a", b"d/link"]
    assert (len(columns), columns.path_bytes, columns.data_end) == (2, 9, 51 * 2048 + 2049)
    assert columns.block_runs == [(51, 53)] == [run for file in columns for run in file.block_runs]
    assert columns == [*_columns([b"a"], 50).files, columns[1]] and columns != _columns([b"a", b"link"], 50)


def _extents(*extents: tuple[int, int]) -> FileColumns:
    columns = _columns([b"%d" % number for number in range(len(extents))], 0)
    columns.starts, columns.sizes = (array("I", column) for column in zip(*extents, strict=True))
    return columns


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5000)), min_size=1, max_size=5))
def test_ends_of_columns_are_those_of_each_file(extents: list[tuple[int, int]]) -> None:
    columns = _extents(*extents)
    ends = [lba * 2048 + size for lba, size in extents if size]
    assert columns.data_end == max(ends, default=0) <= columns.data_limit
    runs = [(lba, lba - -size // 2048) for lba, size in extents if size]
    touches = all(end == start for (_, end), (start, _) in pairwise(runs))
    assert list(columns.joined_runs) == ([(runs[0][0], runs[-1][1])] if runs and touches else runs)
    assert columns.only_run in (None, *columns.joined_runs)
    assert columns.empty_blocks == [lba for lba, size in extents if not size]


def test_the_end_of_a_tree_is_that_of_the_file_that_ends_last() -> None:
    tree = TreeFiles()
    for part in (_extents((50, 1), (7, 9000)), _extents((51, 2049), (52, 0)), _extents((9, 1), (49, 1 << 13))):
        tree.add(part)
    assert tree.data_end == 53
    tree.add([IsoFile(b"f", (DirectoryRecord(0, Lba(60), 2049, 0, (), b"F"),))])
    assert tree.data_end == 62


def test_paths_that_begin_so_are_looked_for_where_they_may_be() -> None:
    tree = TreeFiles()
    for part in (_columns([b"a", b"b"], 50), [IsoFile(b"x/y", (DirectoryRecord(0, Lba(7), 1, 0, (), b"Y"),))]):
        tree.add(part)
    beginnings = [b"", b"d", b"d/", b"d/b", b"d/c", b"a", b"x/", b"x/y", b"x/yz", b"y"]
    for beginning in beginnings:
        assert tree.has_path_from(beginning) == any(file.path.startswith(beginning) for file in tree)
    assert tree.join_names(b"|") == b"a|b|y"


_NAMES_OF_FILES = st.sampled_from((b"a", b"b", b"a/b", b"c\0"))
_DIRECTORIES = st.lists(
    st.tuples(
        st.sampled_from((b"", b"d", b"d/a", b"e")),
        st.lists(st.tuples(_NAMES_OF_FILES, st.booleans()), max_size=4),
        st.booleans(),
    ),
    max_size=5,
)


@given(_DIRECTORIES)
def test_a_few_paths_are_found_as_among_all(directories: list[tuple[bytes, list[tuple[bytes, bool]], bool]]) -> None:
    """The names of a damaged image may hold anything; several files may have one path."""
    tree, names = TreeFiles(), list[bytes]()
    for path, entries, is_columns in directories:
        prefix = path + b"/" if path else b""
        columns = FileColumns(IsoFile, prefix, 0, (), b"".join(bytes(32) + b"\1A" for _ in entries))
        for number, (name, is_regular) in enumerate(entries):
            columns.names.append(name)
            columns.offsets.append(34 * number)
            columns.starts.append(number)
            columns.sizes.append(1)
            if not is_regular:
                columns.special[number] = (False, 7)
        tree.add(columns if is_columns else list(columns))
        names += columns.names if is_columns else [file.path.rpartition(b"/")[2] for file in columns]
    paths = [file.path for file in tree]
    regular = {file.path: number for number, file in enumerate(tree) if file.is_regular}
    few, every, chosen = RegularFiles(tree), RegularFiles(tree), RegularFiles(tree).select(lambda path: b"a" in path)
    assert len(every) == len(regular) and every._known is not None
    for path in {*paths, b"", b"d", b"d/", b"a/c", b"/a"}:
        assert tree.has_path(path) == (path in paths)
        assert few.get(path) == every.get(path) == (tree[regular[path]] if path in regular else None)
        assert (path in few) == (path in regular)
        assert chosen.get(path) == (few.get(path) if b"a" in path else None)
    assert chosen._known is None and set(chosen) == {path for path in regular if b"a" in path}
    assert few._known is None and few.keys() == regular.keys() and len(few) == len(regular)
    text, count = tree.join_regular(b"|")
    assert (
        text == b"|".join((b"", *(file.path for file in tree if file.is_regular), b""))
        and count == text.count(b"|") - 1
    )
    assert tree.join_names(b"|") == b"|".join(names)


def test_all_files_are_numbered_where_many_are_asked_for() -> None:
    tree = TreeFiles()
    tree.add(_columns([b"%d" % number for number in range(50)], 50))
    files = RegularFiles(tree)
    assert [files[b"d/%d" % number].start for number in range(32)] == [*range(50, 82)] and files._known is None
    assert files[b"d/40"].start == 90 and files._known is not None
    assert files[b"d/1"].start == 51 and b"d/99" not in files


def test_threads_that_ask_first_get_the_same_files(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = _columns([b"a", b"link"], 50)
    columns.special[1] = (False, 7)
    make_files, both = columns._make_files, threading.Barrier(2, timeout=60)

    def make_together() -> list[IsoFile]:
        files = make_files()
        both.wait()
        return files

    monkeypatch.setattr(columns, "_make_files", make_together)
    results: list[list[IsoFile]] = []
    threads = [threading.Thread(target=lambda: results.append(columns.files)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] is results[1] is columns.files and not columns[1].is_regular


def test_the_files_of_a_tree_are_a_row() -> None:
    first, second = _columns([b"a", b"b", b"c"], 50), _columns([b"x", b"y"], 90)
    single = [IsoFile(b"single", (DirectoryRecord(0, Lba(7), 1, 0, (), b"S"),))]
    tree = TreeFiles()
    assert [tree.add(part) for part in (first, [], single, second)] == [
        slice(0, 3),
        slice(3, 3),
        slice(3, 4),
        slice(4, 6),
    ]
    everything = [*first, *single, *second]
    assert list(tree) == everything and len(tree) == 6
    assert tree[slice(0, 3)] is first and tree[slice(4, 6)] is second and tree[3:4] == single
    for part in (slice(1, 3), slice(None), slice(2, 5), slice(3, 3), slice(None, None, -1), slice(9, 12)):
        assert list(tree[part]) == everything[part]
    assert [tree[at] for at in range(-6, 6)] == everything * 2
    with pytest.raises(IndexError):
        tree[6]
    assert list(tree.paths) == [file.path for file in everything]
    assert list(tree.block_runs()) == [run for file in everything for run in file.block_runs]
    assert list(tree.block_runs(joined=True)) == list(tree.block_runs())  # those of first overlap
    tree = TreeFiles()
    tree.add(_extents((50, 1), (51, 2049), (9, 0), (53, 1)))
    tree.add(single)
    tree.add(second)
    assert list(tree.block_runs(joined=True)) == [(50, 54), (7, 8), (91, 93)]
    assert tree.has_extents_of(tree) is False  # a part of it is no columns
    assert list(tree.find_at({Lba(91), Lba(7), Lba(1)})) == [*single, second[1]]


def test_directories_of_the_same_extents_are_those_of_columns_alone() -> None:
    first, second, third = _columns([b"a", b"b"], 50), _columns([b"x", b"y"], 90), _columns([b"a", b"c"], 50)
    third.sizes[1] = 1
    trees = list[TreeFiles]()
    rows: tuple[tuple[Sequence[IsoFile], ...], ...] = (
        (first, second),
        (second, first),
        (second, [], first),
        (second,),
        (second, third),
    )
    for parts in rows:
        trees.append(TreeFiles())
        for part in parts:
            trees[-1].add(part)
    assert [trees[0].has_extents_of(other) for other in trees] == [True, True, True, False, False]
    assert [other.has_extents_of(trees[0]) for other in trees] == [True, True, True, True, False]


def test_regular_files_are_found_by_path_and_made_when_asked_for() -> None:
    first, second = _columns([b"a", b"b", b"same", b"same"], 50), _columns([b"x"], 90)
    first.special[1] = (False, 7)
    pipe = IsoFile(b"pipe", (DirectoryRecord(0, Lba(7), 0, 0, (), b"P"),), False)
    tree = TreeFiles()
    for part in (first, [pipe], second):
        tree.add(part)
    files = RegularFiles(tree)
    assert list(files) == [b"d/a", b"d/same", b"d/x"] and not first._made
    assert (b"d/b" in files, b"pipe" in files, b"d/x" in files, len(files)) == (False, False, True, 3)
    assert files[b"d/same"] is first[3] and not second._made  # of several with a path the last
    chosen = files.select(lambda path: path != b"d/a")
    assert dict(chosen) == {b"d/same": first[3], b"d/x": second[0]}
    with pytest.raises(KeyError):
        files[b"d/b"]
    first.special.clear()
    assert list(RegularFiles(tree)) == [b"d/a", b"d/b", b"d/same", b"d/x"]


def test_rows_of_files_are_equal_where_the_files_are() -> None:
    first, second = TreeFiles(), TreeFiles()
    first.add(_columns([b"a", b"b"], 50))
    second.add(_columns([b"a", b"b"], 50).files[:1])
    assert first != second
    second.add(_columns([b"a", b"b"], 50).files[1:])
    assert first == second and hash(first) == hash(second)
    assert first == list(first) and first != 1
    assert _columns([b"a"], 5) != 1 and hash(_columns([b"a"], 5)) == hash(_columns([b"b"], 6))
