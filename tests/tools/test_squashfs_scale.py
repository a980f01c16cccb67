"""Squashfs roots of many inodes: an edit reads and packs what it changes, and a listing keeps nothing."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest

import cosremaster
from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import open_source
from cosremaster.layers.squashfs.blocks import XzBlocks
from cosremaster.layers.squashfs.tree import SquashfsTree
from cosremaster.tree.nodes import facts_of
from tests.fixtures import tools
from tests.fixtures.tools import run

DIRECTORIES, NAMES = 300, 100
CHANGED = "d150/file-050"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A squashfs of 30,000 inodes in some 200 metadata blocks."""
    tools.require("gensquashfs", "unsquashfs")
    folder = tmp_path_factory.mktemp("many")
    (folder / "data").write_bytes(b"old\n")
    lines = []
    for number in range(DIRECTORIES):
        lines.append(f"dir /d{number:03d} 0755 0 0")
        lines += [
            f"slink /d{number:03d}/link-{name:03d} 0777 {name} 5 file-{name + 1:03d}"
            if name % 10 == 9
            else f"file /d{number:03d}/file-{name:03d} 0644 {name} 5 {folder}/data"
            for name in range(NAMES)
        ]
    (folder / "list").write_text("\n".join(lines) + "\n")
    run(["gensquashfs", "-q", "-e", "-c", "xz", "-F", str(folder / "list"), str(folder / "many.sqfs")])
    return folder / "many.sqfs"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many blocks are unpacked and packed from now on."""
    counted = {"unpack": 0, "pack": 0}
    unpack, pack = XzBlocks.unpack, XzBlocks.pack

    def count_unpacked(codec: XzBlocks, data: bytes, limit: int) -> bytes:
        counted["unpack"] += 1
        return unpack(codec, data, limit)

    def count_packed(codec: XzBlocks, data: bytes) -> bytes:
        counted["pack"] += 1
        return pack(codec, data)

    monkeypatch.setattr(XzBlocks, "unpack", count_unpacked)
    monkeypatch.setattr(XzBlocks, "pack", count_packed)
    return counted


def test_only_what_changes_is_unpacked_and_packed(many: Path, tmp_path: Path, counts: dict[str, int]) -> None:
    site = tmp_path / "site" / CHANGED
    site.parent.mkdir(parents=True)
    site.write_bytes(b"new\n")
    with open_source(many) as source:
        filesystem = SquashfsTree(PieceTable([Range(source, 0, source.size)]), Place(("many",))).filesystem
        at, inode_blocks = filesystem.superblock.inode_table, 0
        while at < filesystem.superblock.directory_table:
            at, inode_blocks = filesystem.metadata.block(at)[1], inode_blocks + 1
    counts["unpack"] = -inode_blocks  # each is looked at once, as the data that stay have to be where they stay
    with cosremaster.open(many, remember=False) as image:
        out = tmp_path / "out.sqfs"
        image.remaster(out, cosremaster.Request(add=[tmp_path / "site"]))  # a plan also counts what a repack would save
        assert counts["unpack"] < 40
        assert counts["pack"] < 12
    before, after = (run(["unsquashfs", "-lln", "-d", "", str(path)]).splitlines() for path in (many, out))
    old = set(before)
    changed = [line for line in after if line not in old]
    assert [line.split()[-1] for line in changed if not line.startswith(b"d")] == [b"/" + CHANGED.encode()]
    assert len(after) == len(before)
    assert run(["unsquashfs", "-cat", str(out), CHANGED]) == b"new\n"
    assert run(["unsquashfs", "-cat", str(out), "d299/file-098"]) == b"old\n"


def test_looking_into_a_directory_reads_no_other(many: Path, counts: dict[str, int]) -> None:
    with cosremaster.open(many, remember=False) as image:
        assert len(image.names("d150")) == NAMES
        assert image.stat("d150/link-009").target == b"file-010"
        assert len(list(image.long_lines("d150"))) == NAMES
    assert counts["unpack"] < 12


def test_a_listing_is_that_of_unsquashfs_and_keeps_nothing(many: Path) -> None:
    with cosremaster.open(many, remember=False) as image:
        tracemalloc.start()
        try:
            count = sum(1 for _ in image.long_lines("", recursive=True))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        lines = [line.split() for line in image.long_lines("", recursive=True)]
    assert count == DIRECTORIES * (NAMES + 1)
    assert peak < 6 << 20
    judged = [line.split() for line in run(["unsquashfs", "-lln", "-d", "", str(many)]).decode().splitlines()[1:]]
    ours = [[mode, f"{uid}/{gid}", *rest] for mode, uid, gid, _, *rest in lines]
    theirs = [[mode, owner, day, clock, name[1:], *rest] for mode, owner, _, day, clock, name, *rest in judged]
    assert ours == theirs


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A squashfs with every type of inode, files of many blocks, and enough of all to cross metadata blocks."""
    tools.require("gensquashfs", "unsquashfs")
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "data").write_bytes(b"text\n")
    (folder / "long").write_bytes(bytes(range(251)) * 400)
    lines = []
    for number in range(40):
        name = f"/d{number:02}"
        lines += [f"dir {name} 1755 0 0", f"dir {name}/m 0700 1 70000", f"file {name}/m/f 0644 0 0 {folder}/data"]
        lines += [f"file {name}/a{at} 4755 {at} 0 {folder}/{'data' if at % 3 else 'long'}" for at in range(12)]
        lines += [f"slink {name}/{at}\u00e9 0777 0 0 {'x' * (at * 13 % 250 + 1)}" for at in range(12)]
        lines += [f"link {name}/hard 0 0 0 {name}/a1", f"nod {name}/null 0666 0 0 c 1 3"]
        lines += [f"nod {name}/sda 0660 0 6 b 8 300", f"pipe {name}/p 0600 0 0", f"sock {name}/s 0600 0 0"]
    (folder / "list").write_text("\n".join(lines) + "\n")
    run(["gensquashfs", "-q", "-b", "4096", "-F", str(folder / "list"), str(folder / "mixed.sqfs")])
    return folder / "mixed.sqfs"


def test_rows_of_a_listing_tell_what_the_nodes_tell(mixed: Path) -> None:
    with open_source(mixed) as source:
        tree = SquashfsTree(PieceTable([Range(source, 0, source.size)]), Place(("mixed.sqfs",)))
        for below in (b"", b"d07", b"d07/m"):
            nodes = [(node.path, facts_of(node)) for node in tree.walk_nodes(below)]
            rows = list(tree.walk_rows(below))
            assert nodes == [
                (row.prefix + name, facts) for row in rows for name, facts in zip(row.names, row.facts, strict=True)
            ]


def test_a_listing_of_every_type_is_that_of_unsquashfs(mixed: Path) -> None:
    with cosremaster.open(mixed, remember=False) as image:
        lines = [re.sub(", *", ",", line).split() for line in image.long_lines("", recursive=True)]
    judged = re.sub(", *", ",", run(["unsquashfs", "-lln", "-d", "", str(mixed)]).decode()).splitlines()[1:]
    ours = sorted([mode, f"{uid}/{gid}", *rest] for mode, uid, gid, _, *rest in lines)
    theirs = sorted(
        [mode, owner, day, clock, name[1:], *rest] for mode, owner, _, day, clock, name, *rest in map(str.split, judged)
    )
    assert ours == theirs
