"""A gzip member is read on several threads between its seams, and each seam is checked by what stands before it."""

import gzip
import io
import os
import random
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

import cosremaster
from cosremaster.codecs.base import RepackResult, Seam
from cosremaster.codecs.gzip import inflate, repack, segments
from cosremaster.codecs.gzip.codec import GzipCodec
from cosremaster.codecs.gzip.deflate import CODERS, FINAL_BLOCK, ISAL, WINDOW, deflate_block
from cosremaster.errors import CorruptError, Place, ProofError
from cosremaster.io.output import Output
from cosremaster.io.parallel import ordered_map
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import ByteReader
from cosremaster.records import replace
from tests.fixtures.tools import require_module

HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
PLACE = Place(("a.gz",))
CHANCE = random.Random(11)
WORDS = [CHANCE.randbytes(7).hex().encode() for _ in range(3000)]
PLAIN = b" ".join(CHANCE.choices(WORDS, k=40_000))
"""Half a MiB in which much refers to what stands before."""

BLOCK = 60_000


def _window(data: bytes) -> PieceTable:
    """The last bytes of ``data`` as a window."""
    return PieceTable([Literal(data[-WINDOW:])])


def _member(coder: str = "zlib", block: int = BLOCK) -> tuple[bytes, list[Seam]]:
    """PLAIN as a member made of blocks, with a seam behind each."""
    packed, seams = HEADER, list[Seam]()
    for start in range(0, len(PLAIN), block):
        end = min(start + block, len(PLAIN))
        packed += deflate_block(coder, 6, PLAIN[start:end], PLAIN[max(start - WINDOW, 0) : start])
        seams.append(Seam(len(packed), end, _window(PLAIN[:end])))
    sizes = zlib.crc32(PLAIN).to_bytes(4, "little") + len(PLAIN).to_bytes(4, "little")
    return packed + FINAL_BLOCK + sizes, seams


def _decode(packed: bytes, seams: Sequence[Seam]) -> bytes:
    """What the member ``packed`` holds, read between ``seams``."""
    parts = [packed[at : at + 10_007] for at in range(0, len(packed), 10_007)]
    decoding = GzipCodec().with_seams(seams).for_reading().decode(ByteReader(parts, PLACE))
    return b"".join(decoding.chunks())


@pytest.fixture(params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What inflates."""
    name = str(request.param)
    if name == "isal":
        require_module("isal")
    else:
        monkeypatch.setattr(inflate, "HAS_ISAL", False)
    return name


@pytest.fixture(params=["threads", "one thread", "streamed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How segments are read: beside others, or one after the other, also where they are large."""
    monkeypatch.setattr(segments, "cpu_count", lambda: 1 if request.param == "one thread" else 3)
    if request.param == "streamed":
        monkeypatch.setattr(segments, "WHOLE_LIMIT", 0)
        monkeypatch.setattr(segments, "_STEP", 5_000)


@pytest.mark.usefixtures("library", "way")
@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("every", [1, 3])
def test_the_plain_bytes_are_those_of_the_whole_stream(coder: str, every: int) -> None:
    if coder == ISAL:
        require_module("isal")
    packed, seams = _member(coder)
    assert gzip.decompress(packed) == PLAIN
    assert _decode(packed, seams[::every]) == PLAIN
    assert _decode(packed, seams[: len(seams) // 2]) == PLAIN  # the rest is read as one
    two = packed + gzip.compress(b"more", mtime=0)
    assert _decode(two, seams[::every]) == PLAIN + b"more"


@pytest.mark.usefixtures("library", "way")
def test_no_wrong_seam_is_believed() -> None:
    packed, seams = _member()
    seam = seams[3]
    before = PLAIN[: seam.plain]
    wrong = [
        replace(seam, packed=seam.packed - 1),
        replace(seam, packed=seam.packed + 1),
        replace(seam, packed=seam.packed - 5),  # before the sync flush
        replace(seam, plain=seam.plain - 1),
        replace(seam, plain=seam.plain + 1),
        replace(seam, plain=seam.plain + BLOCK),
        replace(seam, packed=seams[2].packed),
        replace(seam, packed=seams[4].packed),
        replace(seam, packed=len(packed)),
        replace(seam, packed=len(packed) + 1000),
        replace(seam, window=_window(before[:-1] + bytes((before[-1] ^ 1,)))),  # the last byte, and the first
        replace(seam, window=_window(before[:-WINDOW] + bytes((before[-WINDOW] ^ 1,)) + before[1 - WINDOW :])),
        replace(seam, window=_window(before[: -WINDOW // 2])),
        replace(seam, window=PieceTable([])),
    ]
    for other in wrong:
        with pytest.raises(CorruptError):
            _decode(packed, [*seams[:3], other, *seams[4:]])
        with pytest.raises(CorruptError):
            _decode(packed, [other])


@pytest.mark.usefixtures("library")
def test_blocks_end_nowhere_but_at_a_border() -> None:
    packed, seams = _member(block=3_000)
    start, end = seams[1], seams[4]
    borders = {seam.packed for seam in seams[1:5]}
    ends = set()
    for cut in range(start.packed, end.packed + 1):
        parts = (packed[start.packed : cut],)
        try:
            plain = b"".join(segments._inflate_blocks(parts, start.window.read(), len(PLAIN), PLACE))
        except CorruptError:
            continue
        ends.add(cut)
        assert PLAIN[start.plain :].startswith(plain)
    # before a sync flush's last bytes (00 00 ff ff) its three bits may have begun a block, or not
    assert borders <= ends
    for cut in ends - borders:
        model = zlib.decompressobj(-15, zdict=start.window.read())
        model.decompress(packed[start.packed : cut])
        assert model.decompress(FINAL_BLOCK) == b""
        assert model.eof


def test_few_segments_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = list[tuple[int, int]]()

    def note(work: object, items: object, threads: int, limit: int) -> Iterator[object]:
        noted.append((threads, limit))
        return ordered_map(work, items, threads, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(segments, "cpu_count", lambda: 64)
    monkeypatch.setattr(segments, "ordered_map", note)
    packed, seams = _member(block=10_000)
    assert _decode(packed, seams) == PLAIN
    ((threads, limit),) = noted
    assert 1 < threads < limit
    assert limit * 2 * segments.WHOLE_LIMIT <= 96 << 20  # as docs/architecture.md says


@pytest.mark.usefixtures("library", "way")
def test_damage_is_found_in_every_segment() -> None:
    packed, seams = _member()
    borders = [len(HEADER), *(seam.packed for seam in seams), len(packed)]
    for start, end in pairwise(borders):
        at = (start + end) // 2
        damaged = packed[:at] + bytes((packed[at] ^ 4,)) + packed[at + 1 :]
        with pytest.raises(CorruptError):
            _decode(damaged, seams)
    with pytest.raises(CorruptError, match="ends"):
        _decode(packed[: seams[-1].packed - 10], seams)


@pytest.mark.usefixtures("library", "way")
def test_a_stream_that_ends_before_a_seam_is_refused() -> None:
    packed, seams = _member()
    whole = zlib.compressobj(6, zlib.DEFLATED, -15)
    ended = HEADER + whole.compress(PLAIN[:BLOCK]) + whole.flush()
    with pytest.raises(CorruptError, match="others than those that were planned"):
        _decode(ended + packed[len(ended) :], [replace(seams[0], packed=len(ended)), *seams[1:]])


@pytest.fixture(scope="module")
def archive() -> bytes:
    """A tar archive under xz with files that shrink, the first of them small."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:xz", preset=0) as tar:
        for number, length in enumerate((100, *[750_000] * 8)):
            info = tarfile.TarInfo(f"./etc/file-{number}")
            info.size = length
            tar.addfile(info, io.BytesIO(random.Random(number).randbytes(length // 2 + 1).hex().encode()[:length]))
    return file.getvalue()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> Path:
    """An archive whose remaster is proved in several segments."""
    monkeypatch.setattr(repack, "SEGMENT", 1 << 20)
    (tmp_path / "motd").write_text("site\n")
    (tmp_path / "in.tar.xz").write_bytes(archive)
    return tmp_path / "in.tar.xz"


def _remaster(source: Path, target: str = "out.tar.gz", coder: str = "isal") -> Path:
    """The archive under gzip, with its first file replaced."""
    if coder == ISAL:
        require_module("isal")
    path = source.with_name(target)
    add = [f"{source.with_name('motd')}:/etc/file-0"]
    cosremaster.remaster(source, path, add=add, remember=False, gzip=coder)
    return path


def _note_segments(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The plain bytes that each segment may have, when it is inflated."""
    noted = list[int]()
    whole = segments._inflate_blocks

    def note(packed: object, before: bytes, most: int, place: Place) -> Iterator[bytes]:
        noted.append(most)
        return whole(packed, before, most, place)  # type: ignore[arg-type]

    monkeypatch.setattr(segments, "_inflate_blocks", note)
    return noted


@pytest.mark.parametrize("coder", CODERS)
def test_the_proof_reads_what_was_deflated_in_segments(
    monkeypatch: pytest.MonkeyPatch, source: Path, coder: str
) -> None:
    noted = _note_segments(monkeypatch)
    out = _remaster(source, coder=coder)
    assert len(noted) >= 4
    with tarfile.open(out) as tar:
        assert len(tar.getmembers()) == 10  # with etc/
    monkeypatch.setattr(repack, "SEGMENT", 1 << 40)
    del noted[:]
    again = _remaster(source, "again.tar.gz", coder)
    assert not noted
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(("coder", "count"), [("zlib", 1), ("isal", 4)])
def test_few_windows_are_kept_in_memory(monkeypatch: pytest.MonkeyPatch, source: Path, coder: str, count: int) -> None:
    finish, counts = repack._MemberWriter.finish, list[int]()

    def note(self: repack._MemberWriter) -> RepackResult:
        """Return the member, and note how many seams it has."""
        result = finish(self)
        counts.append(len(result.seams))
        return result

    monkeypatch.setattr(repack._MemberWriter, "finish", note)
    monkeypatch.setattr(repack, "MAX_WINDOWS", 2)
    _remaster(source, coder=coder)
    assert counts == [count]  # those of blocks that waited are in a file


@pytest.mark.parametrize("part", [1, 4, 7])
def test_the_proof_finds_damage_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path, part: int
) -> None:
    write = Output.write

    def damage(self: Output, *args: object) -> object:
        """Write, and damage a byte of the result."""
        written = write(self, *args)  # type: ignore[arg-type]
        size = written.path.stat().st_size
        with written.path.open("r+b") as file:
            file.seek(size * part // 8)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes((byte[0] ^ 0x10,)))
        return written

    monkeypatch.setattr(Output, "write", damage)
    with pytest.raises(ProofError):
        _remaster(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tar.xz", "motd"]


def test_seams_that_are_not_those_of_the_result_are_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    finish = repack._MemberWriter.finish

    def move(self: repack._MemberWriter) -> object:
        """Return the member with its seams a byte later."""
        result = finish(self)
        assert len(result.seams) > 2
        seams = (*result.seams[:2], *(replace(seam, packed=seam.packed + 1) for seam in result.seams[2:]))
        return replace(result, seams=seams)

    monkeypatch.setattr(repack._MemberWriter, "finish", move)
    with pytest.raises(ProofError):
        _remaster(source)
    assert not (tmp_path / "out.tar.gz").exists()


def test_the_position_goes_on_inside_a_large_segment(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who guards against bombs compares plain bytes with it: a front that stays may be gigabytes."""
    monkeypatch.setattr(segments, "WHOLE_LIMIT", 1000)
    monkeypatch.setattr(segments, "_STEP", 10_000)
    packed, seams = _member()
    parts = [packed[at : at + 1_007] for at in range(0, len(packed), 1_007)]
    decoding = GzipCodec().with_seams(seams[-1:]).for_reading().decode(ByteReader(parts, PLACE))
    plain, ratio = 0, len(PLAIN) / len(packed)
    for chunk in decoding.chunks():
        plain += len(chunk)
        assert abs(decoding.position * ratio - plain) < 40_000
    assert plain == len(PLAIN)
