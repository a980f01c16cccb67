"""gzip: what the real tools make is decoded, what we make satisfies gzip and busybox, and damage never passes."""

import random
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.codecs import find_codec
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.gzip import inflate
from cosremaster.codecs.gzip.codec import GzipDecoding
from cosremaster.codecs.gzip.deflate import DEFLATE_BLOCK
from cosremaster.codecs.gzip.repack import STORE_FROM, GzipParameters
from cosremaster.errors import CorruptError, Place
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.spool import Spool
from cosremaster.io.streams import CHUNK, ByteReader
from tests.fixtures import tools
from tests.support.memory import Memory

PLACE = Place(("a.gz",))
NOISE = random.Random(2).randbytes(200_000)
TEXT = b"".join(b"line %d of a text that gzip can shorten\n" % (number * number % 9973) for number in range(40_000))
SAMPLES = {"text and noise": TEXT + NOISE, "empty": b"", "one byte": b"x", "noise": NOISE, "zeros": bytes(9 * CHUNK)}
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"
FORM = GzipParameters(HEADER, 1)


@pytest.fixture(autouse=True, scope="module", params=["zlib", "isal"])
def inflater(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test with both ways to inflate."""
    if request.param == "isal":
        tools.require_module("isal")
    patch = pytest.MonkeyPatch()
    patch.setattr(inflate, "HAS_ISAL", request.param == "isal")
    yield
    patch.undo()


def _gzip(data: bytes, *options: str) -> bytes:
    tools.require("gzip")
    return tools.run(["gzip", "-c", *options], stdin=data)


def _decode(packed: bytes, step: int = 4099) -> tuple[bytes, GzipParameters]:
    decoding = GzipDecoding(ByteReader((packed[at : at + step] for at in range(0, len(packed), step)), PLACE))
    plain = b"".join(decoding.chunks())
    return plain, decoding.parameters


def _pack(form: GzipParameters, pieces: list[Piece], folder: Path, threads: int = 2) -> tuple[bytes, PieceTable, int]:
    """The new stream, its pieces, and how much of it went through the spool."""
    told: list[int] = []
    plain = PieceTable(pieces)
    with Spool(folder) as spool:
        table = form.repack(
            RepackJob(
                packed=PieceTable([]), decoded=Memory(b""), plain=plain, spool=spool, threads=threads,
                advance=told.append,
            )
        ).table  # fmt: skip
        packed = b"".join(table.chunks())
        assert len(packed) == table.length
        assert sum(told) == plain.length
        return packed, table, spool.size


def _judge(packed: bytes, plain: bytes) -> None:
    """Real tools find ``packed`` sound, and ``plain`` in it."""
    tools.require("gzip", "busybox")
    tools.run(["gzip", "-t"], stdin=packed)
    assert tools.run(["gzip", "-dc"], stdin=packed) == plain
    assert tools.run(["busybox", "gunzip", "-c"], stdin=packed) == plain


# What real tools make


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("level", [1, 6, 9])
def test_what_gzip_makes_is_decoded_and_described(sample: str, level: int) -> None:
    packed = _gzip(SAMPLES[sample], f"-{level}")
    plain, form = _decode(packed)
    assert plain == SAMPLES[sample]
    assert (form.header, form.level, form.members) == (packed[:10], level, 1)
    assert form.describe() == f"level {level}"
    assert find_codec(packed[:16]) is not None


def _named(folder: Path) -> bytes:
    """A gzip file with a name and a time in its header."""
    tools.require("gzip")
    (folder / "caf\xe9.txt").write_bytes(TEXT)
    tools.run(["touch", "-d", "@1700000000", folder / "caf\xe9.txt"])
    tools.run(["gzip", "-N9", folder / "caf\xe9.txt"])
    return (folder / "caf\xe9.txt.gz").read_bytes()


@pytest.mark.parametrize("step", [7, 4099])
def test_a_name_and_a_time_are_kept_and_read_by_gzip(tmp_path: Path, step: int) -> None:
    old = _named(tmp_path)
    plain, form = _decode(old, step)
    assert plain == TEXT
    assert form.header == old[: old.index(b"\0", 10) + 1]
    assert (form.header[4:8], form.header[8]) == ((1_700_000_000).to_bytes(4, "little"), 2)
    packed, _, _ = _pack(form, [Literal(b"new text")], tmp_path)
    _judge(packed, b"new text")
    (tmp_path / "other.gz").write_bytes(packed)
    tools.run(["gzip", "-dN", "other.gz"], cwd=tmp_path)
    (restored,) = tmp_path.glob("*.txt")
    assert (restored.name, restored.read_bytes()) == ("caf\xe9.txt", b"new text")
    assert restored.stat().st_mtime == 1_700_000_000


def test_optional_header_fields_are_kept_but_the_extra_one(tmp_path: Path) -> None:
    header = b"\x1f\x8b\x08\x1f\1\2\3\4\x04\x03" + b"\5\0extra" + b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    old = header + _gzip(TEXT, "-n")[10:]
    plain, form = _decode(old)
    kept = b"\x1f\x8b\x08\x1b\1\2\3\4\x04\x03" + b"name\0" + b"comment\0"
    kept += (zlib.crc32(kept) & 0xFFFF).to_bytes(2, "little")
    assert (plain, form.header, form.level) == (TEXT, kept, 1)
    packed, _, _ = _pack(form, [Literal(b"new text")], tmp_path)
    tools.run(["gzip", "-t"], stdin=packed)
    assert zlib.decompress(packed, 31) == b"new text"
    damaged = header[:-1] + bytes((header[-1] ^ 1,)) + old[len(header) :]
    with pytest.raises(CorruptError, match=r"^a\.gz @0x0: gzip header CRC does not fit$"):
        _decode(damaged)


@pytest.mark.parametrize("zeros", [0, 1, 511, CHUNK])
def test_members_in_a_row_and_zeros_behind_them_are_one(zeros: int) -> None:
    packed = _gzip(TEXT, "-9") + _gzip(b"") + _gzip(NOISE, "-1") + bytes(zeros)
    for step in (97, 4099, 1 << 30):
        plain, form = _decode(packed, step)
        assert plain == TEXT + NOISE == tools.run(["gzip", "-dc"], stdin=packed)
        assert (form.level, form.members) == (9, 3)
    assert form.describe() == "level 9, 3 members"


@pytest.mark.parametrize("junk", [b"x", b"\0\0x", b"\x1f", b"\x1f\x8b\x08", b"\x1f\x8b\x09" + bytes(20)])
def test_what_follows_a_member_is_a_member_or_zeros(junk: bytes) -> None:
    packed = _gzip(b"hello")
    at = len(packed) + len(junk) - len(junk.lstrip(b"\0"))
    with pytest.raises(CorruptError, match=rf"^a\.gz @0x{at:X}: bytes that are no gzip member$"):
        _decode(packed + junk)


# What we make


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("level", [1, 6, 9])
def test_what_we_make_is_what_gzip_and_busybox_read(tmp_path: Path, sample: str, level: int) -> None:
    plain = SAMPLES[sample]
    _, form = _decode(_gzip(TEXT, f"-{level}"))
    packed, _, _ = _pack(form, [Literal(plain)], tmp_path)
    _judge(packed, plain)
    assert packed.startswith(form.header)
    assert len(packed) <= 1.005 * len(_gzip(plain, f"-{level}")) + 30 + 8 * (len(plain) >> 20), "as small as gzip"


def test_any_number_of_threads_makes_the_same_bytes(tmp_path: Path) -> None:
    plain: list[Piece] = [
        Literal(TEXT * 2),
        Range(Memory(NOISE), 0, 150_000, packed=True),
        Literal(NOISE),
        Zeros(3 * CHUNK),
    ]
    assert len(TEXT) * 2 > 2 * DEFLATE_BLOCK
    one, two, three = (_pack(FORM, plain, tmp_path, threads)[0] for threads in (1, 2, 3))
    assert one == two == three
    _judge(one, TEXT * 2 + NOISE[:150_000] + NOISE + bytes(3 * CHUNK))


def test_the_window_reaches_over_the_seams_of_the_blocks(tmp_path: Path) -> None:
    plain = NOISE[:16384] * (3 * DEFLATE_BLOCK // 16384)
    packed, _, _ = _pack(FORM, [Literal(plain)], tmp_path)
    _judge(packed, plain)
    assert len(packed) < 1.5 * len(NOISE[:16384]) + len(plain) // 100, "the noise is told only once"


@pytest.mark.parametrize("length", [STORE_FROM, 65534, 65535, 65536, 131070, 200_000])
def test_packed_pieces_are_stored_at_five_bytes_a_block(tmp_path: Path, length: int) -> None:
    packed, table, spooled = _pack(FORM, [Range(Memory(bytes(length)), 0, length, packed=True)], tmp_path)
    _judge(packed, bytes(length))
    assert len(packed) == length + 5 * -(-length // 65535) + len(HEADER) + 2 + 8
    assert spooled == 0, "stored bytes stay where they are"
    assert sum(piece.length for piece in table.pieces if isinstance(piece, Range)) == length


def test_small_packed_pieces_are_deflated_with_their_neighbours(tmp_path: Path) -> None:
    small = Range(Memory(bytes(STORE_FROM)), 0, STORE_FROM - 1, packed=True)
    packed, _, _ = _pack(FORM, [small, Literal(TEXT[:100])], tmp_path)
    _judge(packed, bytes(STORE_FROM - 1) + TEXT[:100])
    assert len(packed) < 200


def test_stored_blocks_around_a_flush_are_remembered(tmp_path: Path) -> None:
    """Bytes that do not shrink go into stored blocks, and the border between two blocks of ours is an empty one."""
    noise = random.Random(9).randbytes(2 * DEFLATE_BLOCK + 100_000)
    packed, *_ = _pack(FORM, [Literal(noise)], tmp_path)
    plain, form = _decode(packed, CHUNK)
    assert plain == noise
    assert len(form.stored.plain) > 20
    form.check_sizes(len(packed), len(plain))
    form.stored.packed[5] += 1
    with pytest.raises(ValueError, match="follow one another"):
        form.check_sizes(len(packed), len(plain))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["text", "stored", "small"]), st.integers(0, 70_000)), max_size=6))
def test_stored_and_deflated_pieces_in_any_order_are_one_stream(
    tmp_path_factory: pytest.TempPathFactory, shape: list[tuple[str, int]]
) -> None:
    kinds = {"text": (TEXT, False, 70_000), "stored": (NOISE, True, 70_000), "small": (NOISE, True, 4000)}
    pieces: list[Piece] = []
    for kind, number in shape:
        data, is_packed, most = kinds[kind]
        pieces.append(Range(Memory(data), number, number % most, packed=is_packed))
    packed, _, _ = _pack(FORM, pieces, tmp_path_factory.getbasetemp())
    plain = b"".join(PieceTable(pieces).chunks())
    assert tools.run(["gzip", "-dc"], stdin=packed) == plain
    assert _decode(packed)[0] == plain


# Damage

SMALL = TEXT[:300] + NOISE[:40]


def _small(folder: Path) -> bytes:
    tools.require("gzip")
    (folder / "name").write_bytes(SMALL)
    return tools.run(["gzip", "-Nc", folder / "name"])


def test_every_truncation_is_told(tmp_path: Path) -> None:
    packed = _small(tmp_path)
    for step in (1, 4099):
        for length in range(len(packed)):
            with pytest.raises(CorruptError, match=r"^a\.gz @0x") as caught:
                _decode(packed[:length], step)
            assert caught.value.place is not None and (caught.value.place.offset or 0) <= length


def _zlib(packed: bytes) -> bytes | None:
    """What zlib decodes of one member with zeros behind it; None for anything else."""
    decoder = zlib.decompressobj(31)
    try:
        plain = decoder.decompress(packed)
    except zlib.error:
        return None
    return plain if decoder.eof and not decoder.unused_data.strip(b"\0") else None


def _verdict(packed: bytes) -> bytes | None:
    """What we decode; None for damage."""
    try:
        return _decode(packed)[0]
    except CorruptError as error:
        assert re.match(r"a\.gz @0x[0-9A-F]+: ", str(error))
        return None


def test_every_flipped_bit_is_judged_as_zlib_does(tmp_path: Path) -> None:
    packed = _small(tmp_path)
    harmless = set[int]()
    for at in range(len(packed)):
        for bit in range(8):
            flipped = packed[:at] + bytes((packed[at] ^ 1 << bit,)) + packed[at + 1 :]
            seen = _verdict(flipped)
            assert seen in (None, SMALL), (at, bit)
            assert seen == _zlib(flipped), (at, bit)
            harmless |= {at} if seen else set()
    assert harmless >= set(range(4, 14)), "time, XFL, system and name"


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=4))
def test_other_damage_is_judged_as_zlib_does(edits: list[tuple[int, bytes, int]]) -> None:
    coder = zlib.compressobj(wbits=-15)  # zlib.compress has no wbits on Python 3.10
    packed = HEADER + coder.compress(SMALL) + coder.flush() + zlib.crc32(SMALL).to_bytes(4, "little") + b"\x54\1\0\0"
    assert _decode(packed)[0] == SMALL
    for at, new, gone in edits:
        start = at % len(packed)
        packed = packed[:start] + new + packed[start + gone :]
    seen = _verdict(packed)
    assert seen in (None, SMALL)
    assert seen == _zlib(packed)


def test_damage_is_told_where_it_is(tmp_path: Path) -> None:
    packed = _small(tmp_path)
    end = len(packed) - 8
    for at, said in ((end, "gzip CRC32 does not fit the data"), (end + 4, "gzip length does not fit the data")):
        flipped = packed[:at] + bytes((packed[at] ^ 1,)) + packed[at + 1 :]
        with pytest.raises(CorruptError, match=rf"^a\.gz @0x{end:X}: {said}$"):
            _decode(flipped)
    with pytest.raises(CorruptError, match=r"^a\.gz @0x0: reserved gzip flags are set$"):
        _decode(packed[:3] + b"\x80" + packed[4:])
    with pytest.raises(CorruptError, match=rf"^a\.gz @0x{len(HEADER):X}: corrupt gzip data"):
        _decode(HEADER + b"\xff\xff\xff")
    with pytest.raises(CorruptError, match=r"gzip header text without an end"):
        _decode(HEADER[:3] + b"\x08" + HEADER[4:] + b"x" * (CHUNK + 2))


def test_a_bomb_comes_in_small_chunks() -> None:
    packed = _gzip(bytes(16 << 20), "-9")
    assert len(packed) < 1 << 17
    sizes = [len(chunk) for chunk in GzipDecoding(ByteReader([packed], PLACE)).chunks()]
    assert sum(sizes) == 16 << 20
    assert max(sizes) <= 4 * CHUNK
