"""Squashfs roots of many inodes: an edit reads and packs what it changes, and a listing keeps nothing."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

import cosremaster
from cosremaster.layers.squashfs.blocks import XzBlocks
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
    with cosremaster.open(many, remember=False) as image:
        image.plan(cosremaster.Request(add=[tmp_path / "site"]))
        assert counts["unpack"] < 40
        assert counts["pack"] < 12
        out = tmp_path / "out.sqfs"
        image.remaster(out, cosremaster.Request(add=[tmp_path / "site"]))
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
