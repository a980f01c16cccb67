"""Squashfs images that lie: each ends with an error that tells where, soon, and without filling the memory."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cosremaster
from cosremaster.errors import CorruptError, CosremasterError
from cosremaster.layers.squashfs.directories import SquashfsEntry
from cosremaster.layers.squashfs.inodes import DIRECTORY, SYMLINK, Inode
from cosremaster.layers.squashfs.superblock import SUPERBLOCK_SIZE, Superblock, read_superblock
from cosremaster.records import replace
from tests.support.squashfs_image import SquashfsDraft

SECONDS, MEMORY = 20, 48 << 20
CODES = {2, 3, 4}


@contextmanager
def bounded() -> Iterator[None]:
    """Check time and memory of the context."""
    begin = time.process_time()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begin < SECONDS
    assert peak < MEMORY


def try_all(path: Path, out: Path) -> list[CosremasterError]:
    """What listing everything, reading it, verifying it and changing it raise."""
    request = cosremaster.Request(add=[cosremaster.InlineFile("/site", b"7")])
    works: list[Callable[[cosremaster.Image], object]] = [
        lambda image: [image.read(entry.address.partition("::")[2]) for entry in image.walk()
                       if entry.type == "file" and entry.size < 1 << 24],
        lambda image: sum(1 for _ in image.long_lines("", recursive=True)),
        lambda image: image.verify(deep=True),
        lambda image: image.remaster(out, request),
    ]  # fmt: skip
    errors: list[CosremasterError] = []
    for work in works:
        try:
            with cosremaster.open(path, remember=False) as image:
                work(image)
        except CosremasterError as error:
            errors.append(error)
    return errors


def edited(name: str, **fields: object) -> Callable[[str, Inode], Inode]:
    """Change ``fields`` of the inode called ``name``."""
    return lambda at, inode: replace(inode, **fields) if at == name else inode


def looped(entries: list[SquashfsEntry]) -> list[SquashfsEntry]:
    """Let the first entry be the directory itself."""
    root = SquashfsEntry(b"aaa", find_root(), 1, DIRECTORY)
    return [root, *entries]


def find_root() -> int:
    """Return the reference of a draft's root."""
    return superblock_of(SquashfsDraft().build()).root


def superblock_of(data: bytes) -> Superblock:
    return read_superblock(data[:SUPERBLOCK_SIZE], len(data), cosremaster.Place(("x",)))


def outside(entries: list[SquashfsEntry]) -> list[SquashfsEntry]:
    """Let an entry lead out of the table."""
    return [entry._replace(reference=1 << 40) if entry.name == b"big" else entry for entry in entries]


def misnumbered(number: int) -> Callable[[list[SquashfsEntry]], list[SquashfsEntry]]:
    """Give the last entry of each directory ``number``."""
    return lambda entries: [*entries[:-1], entries[-1]._replace(number=number)]


LIES = {
    "a directory in itself": SquashfsDraft(edit_entries=looped),
    "an inode outside": SquashfsDraft(edit_entries=outside),
    "the number of an inode below 1": SquashfsDraft(edit_entries=misnumbered(-3)),
    "the number of an inode above all": SquashfsDraft(edit_entries=misnumbered(9_000)),
    "a listing of 4 GiB": SquashfsDraft(edit_inode=edited("root", size=0xFFFFFFF0)),
    "a listing outside": SquashfsDraft(edit_inode=edited("root", start=0x7FFFFFFF)),
    "a file of 2^50 bytes": SquashfsDraft(edit_inode=edited("big", size=1 << 50)),
    "a block outside": SquashfsDraft(edit_inode=edited("big", start=1 << 40)),
    "a fragment that is none": SquashfsDraft(edit_inode=edited("small", fragment=7)),
    "a tail outside": SquashfsDraft(edit_inode=edited("small", offset=1 << 30)),
    "an owner that is none": SquashfsDraft(edit_inode=edited("small", uid=99)),
    "attributes that are none": SquashfsDraft(edit_inode=edited("small", xattr=99)),
    "a bomb for a block": SquashfsDraft(pack=lambda plain: zlib.compress(bytes(3 << 20), 9)),
    "ten million inodes": SquashfsDraft(superblock={"inodes": 10_000_000}),
    "four billion inodes": SquashfsDraft(superblock={"inodes": 0xFFFFFFFF}),
    "no inodes": SquashfsDraft(superblock={"inodes": 0}),
    "four billion fragments": SquashfsDraft(superblock={"fragments": 0xFFFFFFFF}),
    "65,535 owners": SquashfsDraft(superblock={"ids": 0xFFFF}),
    "no owners": SquashfsDraft(superblock={"ids": 0}),
    "a root outside": SquashfsDraft(superblock={"root": 1 << 44}),
    "a root that is a file": SquashfsDraft(superblock={"root": 0}),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_told_with_its_place(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.squashfs"
    path.write_bytes(LIES[name].build())
    with bounded():
        errors = try_all(path, tmp_path / "out.squashfs")
    for error in errors:
        assert error.exit_code in CODES, error
        assert str(error).startswith(str(path)) or "x.squashfs" in str(error)
    unharmed = {"no inodes"}
    assert errors or name in unharmed


INODES_AT = superblock_of(SquashfsDraft().build()).inode_table
OVERLAPS = {
    "the superblock": {"start": 90},
    "the inodes": {"start": INODES_AT - 10},
    "the inodes, and an extended inode": {"start": INODES_AT - 10, "nlink": 2},
}
"""What is changed of a file whose block is then where an edit writes something else, and what is there."""


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("is_split", [False, True])
def test_data_over_bytes_that_an_edit_writes(name: str, is_split: bool, tmp_path: Path) -> None:
    """The file would have other bytes afterwards. That a plan alone does not look for."""
    path, out = tmp_path / "x.squashfs", tmp_path / "out.squashfs"
    path.write_bytes(SquashfsDraft(edit_inode=edited("big", **OVERLAPS[name]), splits_inodes=is_split).build())
    request = cosremaster.Request(add=[cosremaster.InlineFile("/site", b"7")])
    with cosremaster.open(path, remember=False) as image:
        for _ in range(2):  # the first answer is remembered
            with pytest.raises(CorruptError, match=r"x\.squashfs » big: squashfs inode 2 has data outside"):
                image.remaster(out, request)
        with pytest.raises(CorruptError, match="other bytes after an edit"):
            image.prepare(request)
    assert not out.exists()


def test_tails_over_bytes_that_an_edit_writes(tmp_path: Path) -> None:
    path, out = tmp_path / "x.squashfs", tmp_path / "out.squashfs"
    data = bytearray(SquashfsDraft().build())
    (index,) = struct.unpack_from("<Q", data, superblock_of(bytes(data)).fragment_table)
    struct.pack_into("<Q", data, index + 2, 90)
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"x\.squashfs: squashfs fragment 0 has data outside"):
        cosremaster.remaster(path, out, add=[cosremaster.InlineFile("/site", b"7")])
    assert not out.exists()


def test_data_of_an_inode_behind_a_gap(tmp_path: Path) -> None:
    """Then inodes do not follow each other, and each is looked for from the root."""
    path, out = tmp_path / "x.squashfs", tmp_path / "out.squashfs"
    draft = SquashfsDraft(
        edit_inode=edited("big", start=90),
        edit_entries=lambda entries: [entry for entry in entries if entry.type != SYMLINK],
    )
    data = bytearray(draft.build())
    at = data.index(struct.pack("<HHHHII", SYMLINK, 0o777, 0, 0, 1, 4))
    struct.pack_into("<H", data, at, 99)  # the inode of the symlink, which no directory names
    path.write_bytes(data)
    with pytest.raises(CorruptError, match=r"x\.squashfs » big: squashfs inode 2 has data outside"):
        cosremaster.remaster(path, out, add=[cosremaster.InlineFile("/site", b"7")])
    assert not out.exists()


def test_the_number_of_another_inode_is_no_name_of_it(tmp_path: Path) -> None:
    path, out = tmp_path / "x.squashfs", tmp_path / "out.squashfs"
    path.write_bytes(SquashfsDraft(edit_entries=misnumbered(1)).build())
    with cosremaster.open(path, remember=False) as image:
        assert any("is inode 1 in its directory" in finding.message for finding in image.verify(deep=True).findings)
        with pytest.raises(CosremasterError, match=r"squashfs has inode \d+ where its directory names inode 1$"):
            image.remaster(out, cosremaster.Request(repack=True))
    assert not out.exists()


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_cut_at_every_boundary(is_hidden: bool, tmp_path: Path) -> None:
    data = SquashfsDraft().build()
    superblock = superblock_of(data)
    places = (
        superblock.inode_table, superblock.directory_table, superblock.fragment_table, superblock.lookup_table,
        superblock.id_table, superblock.xattr_table, superblock.bytes_used,
    )  # fmt: skip
    path = tmp_path / "x.squashfs"
    with bounded():
        for place in sorted({table + by for table in places for by in (-1, 0, 1)} | {0, 4, 95, 96}):
            if place >= superblock.bytes_used:
                continue
            cut = bytearray(data[:place])
            if is_hidden and len(cut) >= SUPERBLOCK_SIZE:  # it claims to end where it is cut
                struct.pack_into("<Q", cut, 40, place)
            path.write_bytes(cut)
            errors = try_all(path, tmp_path / "out.squashfs")
            assert errors, place
            assert {error.exit_code for error in errors} <= CODES


def test_a_metadata_block_that_inflates_to_megabytes(tmp_path: Path) -> None:
    data = bytearray(SquashfsDraft().build())
    superblock = superblock_of(bytes(data))
    packer = zlib.compressobj(9)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(7)) + packer.flush()
    assert len(bomb) < 8192
    at = len(data)
    data += struct.pack("<H", len(bomb)) + bomb
    struct.pack_into("<Q", data, superblock.id_table, at)
    path = tmp_path / "x.squashfs"
    path.write_bytes(data)
    with bounded():
        errors = try_all(path, tmp_path / "out.squashfs")
    assert any("too long" in str(error) and f"@0x{at:X}" in str(error) for error in errors)


def test_many_names_in_a_directory(tmp_path: Path) -> None:
    def many(entries: list[SquashfsEntry]) -> list[SquashfsEntry]:
        return [entries[0]._replace(name=b"%06d" % number) for number in range(20_000)]

    path = tmp_path / "x.squashfs"
    path.write_bytes(SquashfsDraft(edit_entries=many).build())
    with cosremaster.open(path, remember=False) as image, bounded():
        assert sum(1 for _ in image.long_lines("", recursive=True)) == 20_000
