"""Copying the front of an image before it is known what of it stays."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosremaster
from cosremaster.errors import OutputError
from cosremaster.io import output, precopy
from cosremaster.io.descriptors import MIN_HOLE, Failure
from cosremaster.io.output import Output
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.source import ByteSource, copy_bytes, open_source
from tests.support.small import write_overlay, write_small

STEP = 1 << 12
HOLE = (2 * MIN_HOLE, 4 * MIN_HOLE)
DATA = os.urandom(HOLE[0]) + bytes(HOLE[1] - HOLE[0]) + os.urandom(3 * MIN_HOLE + 123)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precopy, "STEP", STEP)
    monkeypatch.setattr(precopy, "may_share_blocks", lambda device: False)


def _sparse(path: Path) -> Path:
    with path.open("wb") as file:
        file.write(DATA[: HOLE[0]])
        file.seek(HOLE[1])
        file.write(DATA[HOLE[1] :])
    return path


def _wait(output: Output) -> None:
    """Until all is copied."""
    assert output._precopy is not None
    assert output._precopy._worker is not None
    output._precopy._worker.join()


def _written(target: Path, source: ByteSource, table: PieceTable, reached: int | None = None) -> tuple[int, bytes]:
    """How many bytes ``write`` told of, and what it made behind a head start: of all of ``source``, though it is told
    that only ``reached`` bytes were copied."""
    counts: list[int] = []
    with Output(target, (), force=True, sync=False) as output:
        output.start_precopy(source)
        _wait(output)
        assert output._precopy is not None
        if reached is not None:
            output._precopy._copied = min(reached, output._precopy._copied)
        output.write(table, source, counts.append)
        output.publish()
    return sum(counts), target.read_bytes()


KINDS = st.lists(
    st.tuples(st.sampled_from(["same", "patch", "zeros", "hole", "moved"]), st.integers(1, 3 * MIN_HOLE)), max_size=8
)


@given(KINDS, st.one_of(st.none(), st.integers(0, len(DATA))))
def test_what_was_copied_before_does_not_show(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[str, int]], reached: int | None
) -> None:
    folder = tmp_path_factory.mktemp("precopy")
    with open_source(_sparse(folder / "in")) as source:
        pieces: list[Piece] = []
        at = 0
        for kind, length in kinds:
            room = max(0, min(length, len(DATA) - at))
            made: dict[str, Piece] = {
                "same": Range(source, at, room),
                "patch": Literal(bytes([7]) * (length % 100)),
                "zeros": Zeros(length % MIN_HOLE),
                "hole": Zeros(MIN_HOLE + length),
                "moved": Range(source, min(at, 1), min(length, len(DATA) - 1)),
            }
            pieces.append(made[kind])
            at += made[kind].length
        table = PieceTable(pieces)
        wanted = b"".join(chunk for piece in table.pieces for chunk in piece.chunks())
        assert _written(folder / "out", source, table, reached) == (len(wanted), wanted)
    assert sorted(os.listdir(folder)) == ["in", "out"]


def test_holes_stay_and_what_was_copied_too_far_takes_no_room(tmp_path: Path) -> None:
    with open_source(_sparse(tmp_path / "in")) as source:
        if os.stat(tmp_path / "in").st_blocks * 512 >= len(DATA):
            pytest.fail("the file system under the tests keeps no holes")
        _, found = _written(tmp_path / "same", source, PieceTable([Range(source, 0, source.size)]))
        assert found == DATA
        _, found = _written(tmp_path / "hole", source, PieceTable([Literal(b"x"), Zeros(len(DATA) - 1)]))
        assert found == b"x" + bytes(len(DATA) - 1)
    used = {name: os.stat(tmp_path / name).st_blocks for name in ("in", "same", "hole")}
    assert used["same"] == used["in"]
    assert used["hole"] < MIN_HOLE // 512


def test_a_front_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[tuple[int, int]] = []
    real = copy_bytes

    def noted(source: ByteSource, fd: int, offset: int, length: int, failure: Failure, observe: None) -> Iterator[int]:
        copied.append((offset, length))
        return real(source, fd, offset, length, failure, observe)

    monkeypatch.setattr(output, "copy_bytes", noted)
    with open_source(_sparse(tmp_path / "in")) as source:
        table = PieceTable([Range(source, 0, source.size)]).patched([(5, b"new"), (source.size - 9, b"too")])
        assert _written(tmp_path / "out", source, table)[1] == DATA[:5] + b"new" + DATA[8:-9] + b"too" + DATA[-6:]
    assert sum(length for _, length in copied) == 0


def test_what_stays_is_copied_on_while_the_writer_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = os.copy_file_range, threading.Semaphore(0)

    def copy(from_fd: int, to_fd: int, count: int, start: int, to: int) -> int:
        steps.acquire(timeout=0.25)  # longer than the writer waits before it tells how far the copy is
        return real(from_fd, to_fd, min(count, 1 << 16), start, to)

    monkeypatch.setattr(os, "copy_file_range", copy)
    monkeypatch.setattr(precopy, "STEP", 1 << 16)
    monkeypatch.setattr(output, "copy_bytes", lambda *_: iter(()))  # nothing is left for it
    end = 3 * MIN_HOLE
    (tmp_path / "in").write_bytes(os.urandom(end) + bytes(range(256)) * 1000)
    with open_source(tmp_path / "in") as source, Output(tmp_path / "out", (), force=False, sync=False) as written:
        counts: list[int] = []
        written.start_precopy(source)
        new = bytes([7]) * MIN_HOLE
        written.write(PieceTable([Range(source, 0, end), Literal(new)]), source, counts.append)
        steps.release(100)
        written.publish()
        assert (tmp_path / "out").read_bytes() == source.read(0, end) + new
    assert sum(counts) == end + len(new)
    assert counts[0] < end


def test_an_error_of_the_head_start_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, full = os.copy_file_range, [True]

    def copy(from_fd: int, to_fd: int, count: int, start: int, to: int | None = None) -> int:
        if full[0] and start >= 4 * STEP and to is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(from_fd, to_fd, min(count, STEP // 3), start, to)  # and what is short is continued

    monkeypatch.setattr(os, "copy_file_range", copy)
    with open_source(_sparse(tmp_path / "in")) as source:
        table = PieceTable([Range(source, 0, source.size), Zeros(MIN_HOLE)])
        assert _written(tmp_path / "out", source, table)[1] == DATA + bytes(MIN_HOLE)
        with Output(tmp_path / "full", (), force=False) as output:
            output.start_precopy(source)
            _wait(output)
            (part,) = tmp_path.glob(".*")
            assert part.stat().st_size == 0, "the room is given back"
        full[0] = False
        assert _written(tmp_path / "out", source, table)[1] == DATA + bytes(MIN_HOLE)


def test_where_room_is_scarce_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fstatvfs

    def scarce(fd: int) -> os.statvfs_result:
        found = list(real(fd))
        found[4] = precopy.FREE_SPACE_FACTOR * len(DATA) // found[1] - 1  # f_bavail in units of f_frsize
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "fstatvfs", scarce)
    with open_source(_sparse(tmp_path / "in")) as source, Output(tmp_path / "out", (), force=False) as output:
        output.start_precopy(source)
        assert output._precopy is not None
        assert output._precopy._worker is None
        output.write(PieceTable([Range(source, 0, source.size)]), source, lambda _: None)
        output.publish()
    assert (tmp_path / "out").read_bytes() == DATA


def test_nothing_is_left_of_a_head_start(tmp_path: Path) -> None:
    with open_source(_sparse(tmp_path / "in")) as source, Output(tmp_path / "out", (), force=False) as output:
        output.start_precopy(source)
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == ["in"]


def test_no_file_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with (
        open_source(_sparse(tmp_path / "in")) as source,
        Output(tmp_path / "folder" / "out", (), force=False) as output,
        pytest.raises(OutputError, match="No such file"),
    ):
        (tmp_path / "folder").rmdir()
        output.start_precopy(source)


@pytest.mark.parametrize("what", ["add", "remove", "iso", "nothing"])
def test_images_are_the_same_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    source, overlay = write_small(tmp_path), write_overlay(tmp_path)
    wishes = {
        "add": {"add": [overlay]}, "remove": {"remove": ["etc"]}, "iso": {"add_iso": [overlay]}, "nothing": {},
    }[what]  # fmt: skip
    begun: list[bool] = []
    real = Output.start_precopy

    def begin(self: Output, source: ByteSource, limit: int | None = None) -> None:
        begun.append(True)
        real(self, source, limit)
        _wait(self)

    monkeypatch.setattr(Output, "start_precopy", begin)
    cosremaster.remaster(source, tmp_path / "with.iso", **wishes)  # type: ignore[arg-type]
    assert begun == [True]
    monkeypatch.setattr(Output, "start_precopy", lambda *_: None)
    cosremaster.remaster(source, tmp_path / "without.iso", **wishes)  # type: ignore[arg-type]
    assert (tmp_path / "with.iso").read_bytes() == (tmp_path / "without.iso").read_bytes()


def test_nothing_is_left_when_closing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.close

    def close(fd: int) -> None:
        real(fd)
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with pytest.raises(OutputError, match="quota"), Output(tmp_path / "out", (), force=False) as output:
        monkeypatch.setattr(os, "close", close)
        try:
            output.write(PieceTable([Literal(b"x")]), None, lambda _: None)
        finally:
            monkeypatch.undo()
    assert not os.listdir(tmp_path)


def test_nothing_is_left_when_waiting_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = precopy.Precopy.stop

    def stop(self: precopy.Precopy) -> None:
        real(self)
        raise KeyboardInterrupt

    with (
        open_source(_sparse(tmp_path / "in")) as source,
        pytest.raises(KeyboardInterrupt),
        Output(tmp_path / "out", (), force=False, digest="md5") as output,
    ):
        output.start_precopy(source)
        monkeypatch.setattr(precopy.Precopy, "stop", stop)
    assert os.listdir(tmp_path) == ["in"]
