"""Plain bytes of a slow stream are read again from a temporary file, and decoded again where that has no room."""

import errno
import io
import os
import random
import shutil
import tarfile
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

import cosremaster
from cosremaster.codecs.gzip import deflate, inflate, repack
from cosremaster.codecs.gzip.deflate import DEFLATE_BLOCK, ISAL, NEW_LEVEL
from cosremaster.errors import OutputError
from cosremaster.io.spool import Spool
from cosremaster.layers import kept_plain, packed_ahead
from cosremaster.layers.kept_plain import BLOCK, Deflating, KeptPlain, PlainKeeper
from cosremaster.layers.packed_ahead import DeflatedPlain
from tests.fixtures.tools import load_module, require_module
from tests.support.decoders import note_xz_decoders

PLAIN = random.Random(5).randbytes(BLOCK // 2) * 7 + b"end"
PARTS = [PLAIN[at : at + 300_007] for at in range(0, len(PLAIN), 300_007)]


ISAL_BLOCKS = Deflating(ISAL, NEW_LEVEL, 2)
STREAM = random.Random(7).randbytes(1_750_000).hex().encode() + b"end"
"""Bytes that shrink, in four blocks."""


def _keep(keeper: PlainKeeper) -> KeptPlain:
    """All of PLAIN, kept."""
    kept = keeper.keep("xz")
    assert kept is not None
    assert list(kept.watch(PARTS)) == PARTS
    return kept


@pytest.mark.parametrize(
    ("offset", "length"), [(0, len(PLAIN)), (0, 0), (BLOCK - 1, 2), (2 * BLOCK, BLOCK), (len(PLAIN) - 3, 3)]
)
def test_any_range_is_read_again(tmp_path: Path, offset: int, length: int) -> None:
    with PlainKeeper(tmp_path) as keeper:
        kept = _keep(keeper)
        assert kept.is_complete
        assert b"".join(kept.chunks(offset, length)) == PLAIN[offset : offset + length]
        assert not list(tmp_path.iterdir())
    assert not kept.is_complete  # who reads on decodes
    assert keeper.keep("xz") is None


def test_a_stream_that_was_not_read_to_its_end_is_not_complete(tmp_path: Path) -> None:
    with PlainKeeper(tmp_path) as keeper:
        kept = keeper.keep("bzip2")
        assert kept is not None
        chunks = kept.watch(PARTS)
        for _ in PARTS[1:]:
            next(chunks)
        assert not kept.is_complete


def test_what_decodes_fast_is_not_kept(tmp_path: Path) -> None:
    with PlainKeeper(tmp_path) as keeper:
        assert [keeper.keep(codec) for codec in ("none", "gzip", "zstd", "lz4")] == [None] * 4


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1, 1, kept_plain.SHARE * BLOCK))
    with PlainKeeper(tmp_path) as keeper:
        assert not _keep(keeper).is_complete


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OutputError("no space left on device")

    monkeypatch.setattr(Spool, "append", fail)
    with PlainKeeper(tmp_path) as keeper:
        assert not _keep(keeper).is_complete


def test_damage_of_the_temporary_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PlainKeeper(tmp_path) as keeper:
        kept = _keep(keeper)
        whole = Spool.chunks
        monkeypatch.setattr(
            Spool, "chunks", lambda *args: (chunk[:1000] + b"x" + chunk[1001:] for chunk in whole(*args))
        )
        with pytest.raises(OutputError, match="temporary data are damaged"):
            list(kept.chunks(0, 1))


def test_an_archive_under_another_codec_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "in.tar.xz", "w:xz", preset=0) as tar:
        info = tarfile.TarInfo("etc/noise")
        info.size = 6_000_000  # more than the end that stays in memory
        tar.addfile(info, io.BytesIO(random.Random(6).randbytes(info.size)))
    (tmp_path / "motd").write_text("site\n")
    add = [f"{tmp_path}/motd:/etc/"]
    with monkeypatch.context() as patch:
        patch.setattr(kept_plain, "SLOW_CODECS", frozenset())
        cosremaster.remaster(tmp_path / "in.tar.xz", tmp_path / "plain.tar.gz", add=add, remember=False)
    begun = note_xz_decoders(monkeypatch)
    cosremaster.remaster(tmp_path / "in.tar.xz", tmp_path / "out.tar.gz", add=add, remember=False)
    assert begun == ["decode"]
    assert (tmp_path / "out.tar.gz").read_bytes() == (tmp_path / "plain.tar.gz").read_bytes()


def _keep_deflated(keeper: PlainKeeper, step: int = 300_007) -> DeflatedPlain:
    """All of STREAM, deflated while it is read."""
    require_module("isal")
    kept = keeper.keep("xz")
    assert isinstance(kept, DeflatedPlain)
    parts = [STREAM[at : at + step] for at in range(0, len(STREAM), step)]
    assert list(kept.watch(parts)) == parts
    return kept


@pytest.mark.parametrize("has_isal", [True, False])
@pytest.mark.parametrize("step", [100_003, 1 << 24])
def test_any_range_is_read_again_from_deflate_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_isal: bool, step: int
) -> None:
    monkeypatch.setattr(inflate, "HAS_ISAL", has_isal)
    with PlainKeeper(tmp_path, deflating=ISAL_BLOCKS) as keeper:
        kept = _keep_deflated(keeper, step)
        assert kept.is_complete
        for offset, length in ((0, len(STREAM)), (BLOCK - 1, 2), (len(STREAM) - 3, 3), (5, 0), (2 * BLOCK, BLOCK)):
            assert b"".join(kept.chunks(offset, length)) == STREAM[offset : offset + length]
        blocks = [kept.block_at(offset) for offset in range(0, len(STREAM), DEFLATE_BLOCK)]
        assert [block.length for block in blocks if block] == [BLOCK, BLOCK, BLOCK, len(STREAM) - 3 * BLOCK]
        assert kept.block_at(1) is None
        assert not list(tmp_path.iterdir())
    assert not kept.is_complete
    assert kept.block_at(0) is None


def test_isal_of_python_310_inflates_behind_other_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 1.9, which needs Python 3.11, a dictionary for this class of isal damages the program's memory."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(load_module("isal.igzip_lib"), "IgzipDecompressor", refuse)
    before, plain = STREAM[: deflate.WINDOW], STREAM[deflate.WINDOW : 5 * deflate.WINDOW]
    packed = deflate.deflate_block(ISAL, NEW_LEVEL, plain, before)
    assert deflate.inflate_block(packed, before, len(plain)) == plain
    assert deflate.inflate_block(b"\7" + packed, before, len(plain)) == b""


def test_deflating_ends_with_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_module("isal")
    before = threading.active_count()
    with PlainKeeper(tmp_path, deflating=ISAL_BLOCKS) as keeper:
        kept = keeper.keep("xz")
        assert kept is not None
        chunks = kept.watch([STREAM, STREAM])
        next(chunks)
        del chunks
        assert not kept.is_complete
        assert threading.active_count() == before
        monkeypatch.setattr(packed_ahead, "deflate_block", lambda *_: 1 // 0)
        assert not _keep_deflated(keeper).is_complete
        assert threading.active_count() == before


def test_a_full_disk_ends_deflating_without_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1, 1, kept_plain.SHARE * BLOCK))
    with PlainKeeper(tmp_path, deflating=ISAL_BLOCKS) as keeper:
        assert not _keep_deflated(keeper).is_complete


@pytest.mark.parametrize("change", [b"x", b"\0" * 400_000])
def test_damage_of_deflate_blocks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bytes) -> None:
    with PlainKeeper(tmp_path, deflating=ISAL_BLOCKS) as keeper:
        kept = _keep_deflated(keeper)
        whole = Spool.chunks
        monkeypatch.setattr(
            Spool, "chunks", lambda *args: (chunk[:1000] + change + chunk[1001:] for chunk in whole(*args))
        )
        with pytest.raises(OutputError, match="temporary data are damaged"):
            list(kept.chunks(0, 1))


def _read_files(archive: Path) -> dict[str, bytes]:
    """The data of each file in the archive, by name."""
    with tarfile.open(archive) as tar:
        members = ((member.name, tar.extractfile(member)) for member in tar.getmembers())
        return {name: file.read() for name, file in members if file is not None}


def test_what_was_deflated_ahead_makes_the_same_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files go and come, and yet most blocks are those that were made while the archive was read."""
    require_module("isal")
    chance = random.Random(8)
    with tarfile.open(tmp_path / "in.tar.xz", "w:xz", preset=0) as tar:
        for number in range(40):
            info = tarfile.TarInfo(f"usr/{number:02}")
            info.size = chance.choice((100, 40_000, 600_000))
            tar.addfile(info, io.BytesIO(chance.randbytes(info.size // 2).hex().encode()))
    (tmp_path / "motd").write_text("site\n")
    count = 0

    def counted(*args: Any) -> bytes:
        nonlocal count
        count += 1
        return deflate.deflate_block(*args)

    monkeypatch.setattr(repack, "deflate_block", counted)

    def run(name: str, threads: int) -> tuple[bytes, int]:
        nonlocal count
        count = 0
        cosremaster.remaster(
            tmp_path / "in.tar.xz", tmp_path / name, add=[f"{tmp_path}/motd:/etc/"], remove=["usr/17", "usr/30"],
            gzip="isal", threads=threads, remember=False,
        )  # fmt: skip
        return (tmp_path / name).read_bytes(), count

    with monkeypatch.context() as patch:
        patch.setattr(kept_plain, "SLOW_CODECS", frozenset())
        plain, deflated = run("plain.tar.gz", 1)
    assert deflated > 8
    for threads in (1, 3):
        packed, deflated = run(f"{threads}.tar.gz", threads)
        assert packed == plain
        assert 0 < deflated < 7
    new, old = _read_files(tmp_path / "3.tar.gz"), _read_files(tmp_path / "in.tar.xz")
    assert new == {name: data for name, data in old.items() if name not in ("usr/17", "usr/30")} | {
        "etc/motd": b"site\n"
    }


def test_bytes_for_which_the_disk_had_no_room_shift_no_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for a moment takes part of a write; who goes on without these bytes keeps others later."""
    write, room = os.write, [7]

    def write_into_room(fd: int, data: memoryview) -> int:
        """Write what there is room for."""
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(fd, data[: room[0]])
        room[0] -= count
        return count

    with Spool(tmp_path) as spool:
        first = spool.append([b"before"], packed=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_into_room)
            with pytest.raises(OutputError, match="No space left"):
                spool.append([b"whole", b"cut off"], packed=True)
        second = spool.append([b"behind"], packed=True)
        assert (first.read(0, 6), second.read(0, 6)) == (b"before", b"behind")
        assert (spool.size, second.offset) == (12, 6)
