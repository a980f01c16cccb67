"""The check of an archive's columns, against the check of one entry after another."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.demo.image import DemoEntry, build_archive, directory, regular, root_items, symlink
from cosremaster.errors import Place
from cosremaster.io.streams import ByteReader
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.columns import unpack_columns
from cosremaster.layers.cpio.members import Members
from cosremaster.layers.cpio.rules import CheckedEntries, FinalEntry, InodeNumbers
from cosremaster.tree.nodes import NodeKind
from cosremaster.tree.paths import normal_names

NAMES = st.sampled_from(
    (b".", b"a", b"a/b", b"a/b/c", b"./a", b"l", b"l/x", b"..", b"a/../b", b"a//b", b"x" * 256, b"a/" + b"y" * 255,
     b"TRAILER", b"b", b"b/c", b"\xff")
)  # fmt: skip
TARGETS = st.sampled_from((b"", b"a", b"/a", b"../a", b"x..y", b"t" * 4096))


@st.composite
def entries(draw: st.DrawFn) -> DemoEntry:
    name = draw(NAMES)
    kind = draw(st.sampled_from(("directory", "file", "symlink", "link")))
    ino = draw(st.sampled_from((0, 1, 2, 3, 1 << 25, 0xFFFFFFFF)))
    if kind == "directory":
        return DemoEntry(name, NodeKind.DIRECTORY | 0o755, nlink=2, ino=ino)
    if kind == "symlink":
        return DemoEntry(name, NodeKind.SYMLINK | 0o777, draw(TARGETS), ino=ino)
    nlink = 1 if kind == "file" else 2
    return DemoEntry(name, NodeKind.FILE | 0o644, draw(st.sampled_from((b"", b"1", b"22"))), nlink=nlink, ino=ino)


def read_members(items: Sequence[DemoEntry]) -> Members:
    members = Members.empty()
    reader = ByteReader([build_archive(items)], Place())
    for entry in cpio.read_entries(reader):
        if entry.name == cpio.TRAILER:
            return members
        data = reader.read_upto(entry.header.size)
        reader.read_upto(cpio.padding_size(entry.header.size))
        members.add(entry, data if entry.header.mode >> 12 == 0o12 else b"")
    raise AssertionError("the archive has a trailer")


def check_each(members: Members) -> CheckedEntries:
    targets = (members.targets.get(number, b"") for number in range(len(members)))
    return CheckedEntries(map(FinalEntry, members.names, members.all_fields(), targets))


def assert_same(members: Members) -> bool:
    unpacked = unpack_columns(members, normal_names(members.names))
    checked = check_each(members)
    if unpacked is None:
        return False
    expected = checked._tree
    assert dict(unpacked.made) == dict(expected.made)
    assert unpacked.late_links == expected.late_links
    assert unpacked.groups == expected.groups
    numbers = {ino for ino, *_ in members.all_fields()}
    assert numbers == {number for number in (*range(2000), 1 << 25, 0xFFFFFFFF) if number in unpacked.inodes}
    assert unpacked.inodes.highest == expected.inodes.highest
    assert CheckedEntries.from_tree(unpacked).broken_rules == checked.broken_rules
    return True


@settings(deadline=None, max_examples=200)
@given(st.lists(entries(), max_size=6))
def test_both_checks_agree(items: list[DemoEntry]) -> None:
    assert_same(read_members(items))


def test_an_ordinary_archive_is_known_by_its_columns() -> None:
    """Or nothing would be gained, and the test above would compare nothing."""
    assert assert_same(read_members(root_items()))
    pair = [DemoEntry(name, NodeKind.FILE | 0o644, data, nlink=2, ino=9) for name, data in ((b"a", b""), (b"b", b"1"))]
    assert assert_same(
        read_members([directory(b"d"), symlink(b"l", b"d"), symlink(b"m", b"/d"), regular(b"d/x", b"1"), *pair])
    )


def test_a_name_through_a_symlink_needs_the_look_at_each_entry() -> None:
    members = read_members([directory(b"d"), symlink(b"l", b"d"), regular(b"l/x", b"1")])
    assert unpack_columns(members, members.names) is None
    assert not check_each(members).broken_rules


@pytest.mark.parametrize("seed", range(6))
def test_the_highest_inode_number_is_known_without_a_search(seed: int) -> None:
    """Numbers of both kinds, in copies too; a copy that gets more leaves the first as it is."""
    chance, numbers, added = random.Random(seed), InodeNumbers(), list[int]()
    assert numbers.highest == 0
    for _ in range(20):
        some = [chance.choice((0, 1, chance.randrange(1000), chance.randrange(1 << 25))) for _ in range(3)]
        if chance.random() < 0.1:
            some.append(chance.randrange(1 << 25, 1 << 32))
        before, numbers = numbers, numbers.copy()
        numbers.add(some)
        assert before.highest == max(added, default=0)
        added += some
        assert numbers.highest == max(added)
