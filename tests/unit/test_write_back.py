"""A file goes to the disk while more of it is written, and an error of the disk is never lost."""

import errno
import os
import threading
from pathlib import Path

import pytest

import cosremaster
from cosremaster.errors import OutputError
from cosremaster.io import precopy, write_back
from cosremaster.io.descriptors import MIN_HOLE
from cosremaster.io.output import Output
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.source import open_source
from tests.support.small import read_volume, write_overlay, write_small

STEP = 1 << 12
PART = bytes(range(256)) * 16


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_back, "STEP", STEP)
    monkeypatch.setattr(precopy, "STEP", STEP)
    monkeypatch.setattr(precopy, "may_share_blocks", lambda device: False)


class Disk:
    """Notes the length of the file at each fsync(2), and fails at some of them."""

    def __init__(self, failing: int | None = None) -> None:
        self.lengths: list[int] = []
        self.synced = threading.Event()
        self._failing = failing

    def fsync(self, fd: int) -> None:
        self.lengths.append(os.fstat(fd).st_size)
        self.synced.set()
        if self._failing == len(self.lengths) - 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _write(target: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, *, sync: bool = True) -> None:
    """Write twenty parts; the last ones wait until the disk has got something."""
    monkeypatch.setattr(os, "fsync", disk.fsync)

    def advance(count: int) -> None:
        if sync:
            assert disk.synced.wait(10), "nothing goes to the disk before the end"

    with Output(target, (), force=False, sync=sync) as output:
        output.write(PieceTable([Range(Parts(), 0, 20 * STEP)]), None, advance)
        output.publish()


class Parts:
    """A source of ``PART``, over and over."""

    name = "parts"

    def chunks(self, offset: int, length: int):  # type: ignore[no-untyped-def]
        for _ in range(offset, offset + length, STEP):
            yield PART


def test_the_disk_gets_a_file_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    _write(tmp_path / "out", disk, monkeypatch)
    assert disk.lengths[0] < 20 * STEP, "the first time before its end"
    assert 20 * STEP in disk.lengths, "and behind its last byte"
    assert (tmp_path / "out").read_bytes() == PART * 20


def test_nobody_waits_for_the_disk_without_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    _write(tmp_path / "out", disk, monkeypatch, sync=False)
    assert not disk.lengths


def test_an_early_error_of_the_disk_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports it once: the fsync at the end would know nothing of it."""
    disk = Disk(failing=0)
    with pytest.raises(OutputError, match="Input/output error"):
        _write(tmp_path / "out", disk, monkeypatch)
    assert disk.lengths[0] < 20 * STEP
    assert not os.listdir(tmp_path)


def test_what_is_given_up_leaves_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.fsync)
    before = threading.active_count()
    with Output(tmp_path / "out", (), force=False) as output:
        output.write(PieceTable([Literal(PART * 4)]), None, lambda count: None)
    assert threading.active_count() == before
    with Output(tmp_path / "out", (), force=False) as output, open_source(__file__) as source:
        output.start_precopy(source)
    assert threading.active_count() == before
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("limit", [0, 1, STEP, 2 * STEP + 5, None])
def test_a_head_start_ends_where_the_front_does(tmp_path: Path, limit: int | None) -> None:
    (tmp_path / "in").write_bytes(PART * 8)
    with open_source(tmp_path / "in") as source, Output(tmp_path / "out", (), force=False, sync=False) as output:
        output.start_precopy(source, limit)
        assert output._precopy is not None
        assert output._precopy._worker is not None
        output._precopy._worker.join()
        (part,) = tmp_path.glob(".*")
        assert part.stat().st_size == (8 * STEP if limit is None else limit)
        pieces: list[Piece] = [Range(source, 0, 5 * STEP), Literal(b"new"), Range(source, 5 * STEP, 3 * STEP)]
        output.write(PieceTable(pieces), source, lambda count: None)
        output.publish()
    assert (tmp_path / "out").read_bytes() == PART * 5 + b"new" + PART * 3


def test_only_what_stays_in_front_of_a_file_is_copied_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An initramfs that gzip(1) made is compressed again from its beginning on; one of ours grows at its end."""
    limits: list[int | None] = []
    real = Output.start_precopy

    def begin(self: Output, source, limit: int | None = None) -> None:  # type: ignore[no-untyped-def]
        limits.append(limit)
        real(self, source, limit)

    monkeypatch.setattr(Output, "start_precopy", begin)
    image, overlay = write_small(tmp_path), write_overlay(tmp_path)
    cosremaster.remaster(image, tmp_path / "first.iso", add=[overlay], remember=False)
    cosremaster.remaster(tmp_path / "first.iso", tmp_path / "second.iso", add=[overlay], remember=False)
    first = tmp_path / "first.iso"
    (layer,) = (file for file in read_volume(first).files if file.path.endswith(b".cgz"))
    assert limits == [image.read_bytes().index(b"\x1f\x8b\x08"), layer.records[0].lba * 2048 + layer.size]


def test_a_file_is_not_set_to_the_length_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XFS and btrfs wait for the disk then."""
    lengths: list[int] = []
    real = os.ftruncate

    def truncate(fd: int, length: int) -> None:
        lengths.append(length)
        real(fd, length)

    monkeypatch.setattr(os, "ftruncate", truncate)
    monkeypatch.setattr(precopy, "may_share_blocks", lambda device: True)
    (tmp_path / "in").write_bytes(PART)
    with open_source(tmp_path / "in") as source:
        for name, end in (("whole", Literal(b"end")), ("hole", Zeros(MIN_HOLE))):
            with Output(tmp_path / name, (), force=False, sync=False) as output:
                output.start_precopy(source)
                output.write(PieceTable([Range(source, 0, STEP), end]), source, lambda count: None)
                output.publish()
            assert (tmp_path / name).read_bytes() == PART + b"".join(end.chunks())
    assert lengths == [STEP + MIN_HOLE]
