"""Stored bytes that are framed while they are read: any cut of them, their sums, and results that other tools judge."""

from __future__ import annotations

import json
import os
import random
import subprocess
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.gzip import repack as gzip_form
from cosremaster.codecs.xz import encode as xz_encode
from cosremaster.errors import CosremasterError, OverlayError, ProofError, SizeError
from cosremaster.io.framed import ConcatSource, FramedCrc32, FramedSource, Framing
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.source import open_source
from cosremaster.io.spool import Spool
from cosremaster.overlay.scan import HostFile
from cosremaster.remastering import write
from tests.fixtures import tools
from tests.support.small import CGZ, write_small
from tests.support.xz_streams import Old, judge, old_stream, splice, xz

CHANCE = random.Random(11)
NOISE = CHANCE.randbytes(700_000)
FRAMINGS: dict[str, Framing] = {"LZMA2": xz_encode.STORED, "deflate": gzip_form.STORED}


def host_file(path: Path, data: bytes) -> HostFile:
    """A file of this machine that holds ``data``."""
    path.write_bytes(data)
    status = path.stat()
    return HostFile(os.fsencode(path), status.st_size, status.st_mtime_ns)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> HostFile:
    """A file with :data:`NOISE`."""
    return host_file(tmp_path_factory.mktemp("framed") / "noise", NOISE)


def framed_by_hand(data: bytes, kind: str) -> bytes:
    """``data`` in frames, as the formats tell it (xz's LZMA2 chunks; RFC 1951, 3.2.4)."""
    out = b""
    size = {"LZMA2": 65536, "deflate": 65535}[kind]
    for at in range(0, len(data), size):
        body = data[at : at + size]
        if kind == "LZMA2":
            out += (b"\2" if at else b"\1") + (len(body) - 1).to_bytes(2, "big") + body
        else:
            out += b"\0" + len(body).to_bytes(2, "little") + (65535 - len(body)).to_bytes(2, "little") + body
    return out


@st.composite
def tables(draw: st.DrawFn, noise: HostFile) -> tuple[PieceTable, bytes]:
    """A table of pieces of several kinds, and its bytes; lengths about those of frames."""
    pieces: list[Literal | Zeros | Range] = []
    data = b""
    lengths = st.sampled_from((1, 2, 5, 65_530, 65_535, 65_536, 65_540, 131_071, 200_000))
    for kind, length in draw(st.lists(st.tuples(st.sampled_from("lzrr"), lengths), min_size=1, max_size=5)):
        start = draw(st.integers(0, len(NOISE) - length))
        if kind == "z":
            pieces.append(Zeros(length))
            data += bytes(length)
        else:
            part = NOISE[start : start + length]
            pieces.append(Literal(part) if kind == "l" else Range(noise, start, length))
            data += part
    return PieceTable(pieces), data


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_cut_of_frames_is_that_of_their_bytes(noise: HostFile, data: st.DataObject) -> None:
    table, plain = data.draw(tables(noise))
    wanted = framed_by_hand(plain, "LZMA2")
    framed = FramedSource(table, FRAMINGS["LZMA2"])
    if data.draw(st.booleans()):
        wanted = framed_by_hand(b"head" + wanted + b"\0", "deflate")
        inner = ConcatSource(PieceTable([Literal(b"head"), framed.piece(), Literal(b"\0")]), 0)
        framed = FramedSource(PieceTable([Range(inner, 0, inner.table.length)]), FRAMINGS["deflate"])
    assert framed.length == len(wanted)
    start = data.draw(st.integers(0, len(wanted)))
    end = data.draw(st.integers(start, len(wanted)))
    assert b"".join(framed.piece().cut(start, end).chunks()) == wanted[start:end]
    buffer = bytearray(end - start)
    edges = sorted(data.draw(st.lists(st.integers(0, len(buffer)), max_size=6)))
    view = memoryview(buffer)
    PieceTable([framed.piece()]).fill(
        start, [view[i:j] for i, j in zip([0, *edges], [*edges, len(buffer)], strict=True)]
    )
    assert buffer == wanted[start:end]


@pytest.mark.parametrize("kind", FRAMINGS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_sums_of_frames_are_those_of_their_bytes(noise: HostFile, kind: str, data: st.DataObject) -> None:
    table, plain = data.draw(tables(noise))
    running = FramedCrc32(FRAMINGS[kind])
    step = data.draw(st.sampled_from((997, 65_535, 65_536, 70_001, 1 << 20)))
    for at in range(0, len(plain), step):
        running.update(plain[at : at + step])
    wanted = framed_by_hand(plain, kind)
    assert running.value() == zlib.crc32(wanted)
    assert FramedSource(table, FRAMINGS[kind]).crc32_of(reading(wanted)) == zlib.crc32(plain)


def reading(data: bytes) -> Callable[[int, Sequence[memoryview]], None]:
    """Fills buffers from ``data``."""
    return PieceTable([Literal(data)]).fill


@pytest.mark.parametrize("kind", FRAMINGS)
def test_what_is_read_back_differs_when_a_byte_does(kind: str) -> None:
    framed = FramedSource(PieceTable([Literal(NOISE)]), FRAMINGS[kind], zlib.crc32(NOISE))
    right = framed_by_hand(NOISE, kind)
    step = framed.framing.size + framed.framing.head_size
    for at in (0, 1, 2, 100, step, step + 1, 5 * step + 2, len(right) - 1):
        wrong = bytearray(right)
        wrong[at] ^= 0x20
        found = framed.crc32_of(reading(bytes(wrong)))
        assert found is None if at % step < framed.framing.head_size else found not in (None, framed.crc)


def test_more_buffers_than_the_system_takes_at_once_are_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise").write_bytes(NOISE)
    buffer = memoryview(bytearray(len(NOISE) - 7))
    views = [buffer[at : at + 100] for at in range(0, len(buffer), 100)]
    assert len(views) > os.sysconf("SC_IOV_MAX")
    real = os.preadv

    def short(fd: int, some: list[memoryview], offset: int) -> int:
        return real(fd, [some[0][:33]] if offset % 5 == 0 else some, offset)

    monkeypatch.setattr(os, "preadv", short)
    with open_source(tmp_path / "noise") as source:
        source.read_into(7, views)
        assert buffer == NOISE[7:]
        with pytest.raises(CosremasterError, match=r"noise @0x\w+: ends 7 bytes too early$"):
            source.read_into(14, views)


@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
def test_a_large_file_is_neither_spooled_nor_lost(tmp_path: Path, check: str) -> None:
    tools.require("busybox")
    old = old_stream(xz(b"old bytes " * 3000, f"--check={check}"))
    other = host_file(tmp_path / "other", CHANCE.randbytes(2_000_001))
    large, third = host_file(tmp_path / "large", NOISE), host_file(tmp_path / "third", CHANCE.randbytes(1_000_005))
    pieces: list[Piece] = [
        Literal(b"a head of sorts"), Range(other, 0, other.size), Literal(b"text " * 9000), Range(large, 1, 600_000),
        Literal(b"xyz"), Range(third, 5, 1_000_000),
    ]  # fmt: skip
    wanted = b"".join(b"".join(piece.chunks()) for piece in pieces)
    news = {splice(old, pieces, threads)[0] for threads in (1, 2, 5)}
    assert len(news) == 1
    judge(new := news.pop(), [Literal(wanted)], b"", busybox=check in ("crc32", "crc64"))
    assert len(new) <= len(wanted)
    with Spool(tmp_path) as spool:
        packed = old.form.repack(job_for(old, pieces, spool))
        assert packed.stored >= 2_500_000
        assert spool.size <= packed.encoded


def job_for(old: Old, pieces: Sequence[Piece], spool: Spool) -> RepackJob:
    """The job that makes a stream of ``pieces``."""
    return RepackJob(
        packed=old.table, decoded=old.decoded, plain=PieceTable(pieces), spool=spool, threads=2, advance=lambda _: None
    )


def test_what_is_not_spooled_counts_too(tmp_path: Path) -> None:
    old = old_stream(xz(b"old"))
    large = host_file(tmp_path / "large", CHANCE.randbytes(3_000_000))
    pieces: list[Piece] = [Range(large, 0, large.size)]
    size = old.form.repack(job_for(old, pieces, Spool(tmp_path))).table.length
    with Spool(tmp_path, size) as spool:
        old.form.repack(job_for(old, pieces, spool))
    with Spool(tmp_path, 2_999_999) as spool, pytest.raises(SizeError, match="passes 2,999,999 bytes"):
        old.form.repack(job_for(old, pieces, spool))


@pytest.fixture
def added(tmp_path: Path) -> Path:
    """An overlay with a large file of noise, and small ones beside it."""
    folder = tmp_path / "add" / "data"
    folder.mkdir(parents=True)
    (folder / "large").write_bytes(CHANCE.randbytes(9_000_000))
    (folder / "larger").write_bytes(CHANCE.randbytes(3_000_000) + b"text and text\n" * 100_000)
    (folder / "small").write_bytes(b"small\n")
    return tmp_path / "add"


def test_other_tools_unpack_the_same_for_any_number_of_threads(tmp_path: Path, added: Path) -> None:
    tools.require("gzip", "xz", "cpio", "busybox", "xorriso")
    source = write_small(tmp_path)
    for threads in (1, 2, 3):
        cosremaster.remaster(source, tmp_path / f"{threads}.iso", add=[added], threads=threads, remember=False)
    results = [(tmp_path / f"{threads}.iso").read_bytes() for threads in (1, 2, 3)]
    assert results[0] == results[1] == results[2]
    unpacked(tmp_path, tmp_path / "1.iso", added)
    # A base that we wrote: what was stored is kept, and another file comes.
    more = tmp_path / "more" / "data"
    more.mkdir(parents=True)
    (more / "more").write_bytes(CHANCE.randbytes(2_000_000))
    done = cosremaster.remaster(tmp_path / "1.iso", tmp_path / "again.iso", add=[more.parent], remember=False)
    assert done.packed[-1].reused > 11_900_000
    unpacked(tmp_path, tmp_path / "again.iso", added, more.parent)


def unpacked(folder: Path, iso: Path, *added: Path) -> None:
    """gzip and xz find the layer of ``iso`` sound; GNU cpio and busybox unpack the files of ``added`` from it."""
    tools.run(["xorriso", "-osirrox", "on", "-indev", iso, "-extract", f"/{CGZ}", folder / "layer.gz"])
    tools.run(["gzip", "-t", folder / "layer.gz"])
    for name, cpio in (("gnu", "cpio"), ("busybox", "busybox cpio")):
        where = folder / f"{iso.stem}-{name}"
        where.mkdir()
        inner = f"gzip -dc ../layer.gz | {cpio} -i 'rootfs.cxz' 2> /dev/null && xz -t --format=xz - < rootfs.cxz"
        subprocess.run(["sh", "-c", inner], cwd=where, check=True)
        subprocess.run(["sh", "-c", f"xz -dc < rootfs.cxz | {cpio} -id 'data/*' 2> /dev/null"], cwd=where, check=True)
        for file in (file for one in added for file in one.rglob("*") if file.is_file()):
            assert (where / "data" / file.name).read_bytes() == file.read_bytes(), file
    (folder / "layer.gz").unlink()


def grown(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"other")
    os.utime(path, ns=(1, 1))


def rewritten_unseen(path: Path) -> None:
    before = path.stat()
    rewritten(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut_short(path: Path) -> None:
    os.truncate(path, 4_000_000)


CHANGES: dict[Callable[[Path], None], tuple[type[CosremasterError], str]] = {
    grown: (OverlayError, r"/data/large: changed while it was being read$"),
    rewritten: (OverlayError, r"/data/large: changed while it was being read$"),
    cut_short: (OverlayError, r"/data/large: changed while it was being read$"),
    Path.unlink: (OverlayError, r"/data/large: cannot be opened: No such file or directory$"),
    rewritten_unseen: (ProofError, r"^\S+/out\.iso @0x\w+: bytes read back are not those that were planned"),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changes_between_plan_and_write_is_told(
    tmp_path: Path, added: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    source = write_small(tmp_path)
    real = write.write_image

    def late(*arguments: Any, **options: Any) -> tuple[str, ...]:
        change(added / "data/large")
        return real(*arguments, **options)

    monkeypatch.setattr("cosremaster.remastering.write.write_image", late)
    before = sorted(path.name for path in tmp_path.iterdir())
    error, message = CHANGES[change]
    with pytest.raises(error, match=message):
        cosremaster.remaster(source, tmp_path / "out.iso", add=[added], remember=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_plan_names_what_is_read_from_files(
    tmp_path: Path, added: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_small(tmp_path)
    assert main(["plan", str(source), "--add", str(added), "--json"]) == 0
    pieces = json.loads(capsys.readouterr().out)["pieces"]
    assert pieces["files"]["bytes"] > 12_000_000
    assert pieces["files"]["pieces"] < 10
