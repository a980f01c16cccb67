"""What stands before a layer in its container is packed while the layer is indexed, to the same bytes as afterwards."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import cosremaster
from cosremaster.codecs.base import BlockCache
from cosremaster.codecs.gzip import repack
from cosremaster.codecs.gzip.deflate import DEFLATE_BLOCK, deflate_block
from cosremaster.demo.image import build_archive, outer_items, regular, root_items
from cosremaster.errors import CorruptError
from cosremaster.remastering import front_packer, plan_layers
from cosremaster.remastering.pack import PackedFile, Packing, pack_file
from cosremaster.remastering.spread_edits import ArchiveEdits
from tests.fixtures import tools
from tests.support.small import CGZ, write_overlay, write_small

ADDRESS = (CGZ.encode(),)


def _words(size: int) -> bytes:
    return b" ".join(b"%x" % (number * number % 65521) for number in range(size // 5))


def _write_image(folder: Path, *before: bytes) -> Path:
    """Write an image whose container has these files before its layer."""
    files = [regular(b"front-%d" % number, data) for number, data in enumerate(before)]
    layer = outer_items(b"rootfs.cxz", lzma.compress(build_archive(root_items())))
    return write_small(folder, gzip.compress(build_archive([*files, *layer]), 6, mtime=0))


def _remaster(monkeypatch: pytest.MonkeyPatch, image: Path, target: Path, processors: int) -> tuple[bytes, list[int]]:
    """Return the new image, and the plain bytes of the blocks that were deflated before packing began and behind."""
    deflated: list[list[int]] = [[]]
    real_deflate, real_pack = deflate_block, pack_file

    def deflate(coder: str, level: int, plain: bytes, before: bytes) -> bytes:
        deflated[-1].append(len(plain))
        return real_deflate(coder, level, plain, before)

    def pack(changes: Sequence[ArchiveEdits], packing: Packing, folder: Path) -> PackedFile:
        assert packing.fronts is not None
        packing.fronts.wait_for(ADDRESS)
        deflated.append([])
        return real_pack(changes, packing, folder)

    monkeypatch.setattr(repack, "deflate_block", deflate)
    monkeypatch.setattr(plan_layers, "pack_file", pack)
    monkeypatch.setattr(front_packer, "cpu_count", lambda: processors)
    overlay = image.parent / "overlay"
    cosremaster.remaster(image, target, add=[overlay], layer=f"{CGZ}::rootfs.cxz", remember=False)
    monkeypatch.undo()
    return target.read_bytes(), [sum(sizes) for sizes in deflated]


@pytest.mark.parametrize("size", [100, 3_000_000, 10_000_000])
def test_the_front_is_packed_while_the_layer_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A front of a block, of several, and of more than is kept."""
    image = _write_image(tmp_path, _words(size))
    write_overlay(tmp_path)
    with_two, (before, behind) = _remaster(monkeypatch, image, tmp_path / "two.iso", 2)
    with_one, (none, whole) = _remaster(monkeypatch, image, tmp_path / "one.iso", 1)
    assert with_two == with_one
    assert none == 0 < before <= BlockCache.LIMIT
    assert before + behind < whole + DEFLATE_BLOCK, "a block is packed twice at most, the last that fits the cache"
    tools.require("xorriso", "cpio")
    argv = [
        "xorriso",
        "-osirrox",
        "on",
        "-indev",
        str(tmp_path / "two.iso"),
        "-extract",
        f"/{CGZ}",
        str(tmp_path / "cgz"),
    ]
    tools.run(argv)
    plain = gzip.decompress((tmp_path / "cgz").read_bytes())
    assert tools.run(["cpio", "-i", "--quiet", "--to-stdout", "front-0"], stdin=plain) == _words(size)


def test_a_layer_behind_another_has_all_before_it_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = gzip.compress(build_archive([regular(b"notes", b"text\n" * 900)]), mtime=0)
    image = _write_image(tmp_path, _words(1_500_000), inner, _words(2_500_000))
    write_overlay(tmp_path)
    with_two, (before, behind) = _remaster(monkeypatch, image, tmp_path / "two.iso", 2)
    with_one, (_, whole) = _remaster(monkeypatch, image, tmp_path / "one.iso", 1)
    assert with_two == with_one
    assert 0 < before < whole
    assert before + behind < whole + DEFLATE_BLOCK


def test_damage_in_front_is_told_as_without_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = bytearray(gzip.compress(build_archive([regular(b"front", os.urandom(200_000)), *outer_items(
        b"rootfs.cxz", lzma.compress(build_archive(root_items())))]), 6, mtime=0))  # fmt: skip
    packed[-6] ^= 1  # the CRC32, behind everything
    image, overlay = write_small(tmp_path, bytes(packed)), write_overlay(tmp_path)
    messages = []
    for processors in (1, 2):
        monkeypatch.setattr(front_packer, "cpu_count", lambda number=processors: number)
        with pytest.raises(CorruptError) as error:
            cosremaster.remaster(image, tmp_path / "out.iso", add=[overlay], remember=False)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert not (tmp_path / "out.iso").exists()
