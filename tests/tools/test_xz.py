"""xz: what the real tools make is decoded, what we make satisfies xz and busybox, and damage never passes."""

import lzma
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.codecs import find_codec
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.xz import codec as xz_module
from cosremaster.codecs.xz.blocks import XzBlock
from cosremaster.codecs.xz.codec import XzDecoding
from cosremaster.codecs.xz.container import (
    MAX_VLI,
    BlockHeader,
    IndexRecord,
    Lzma2ChunkHeader,
    check_stream_footer,
    decode_vli,
    encode_vli,
    pack_dictionary_size,
    pack_index,
    pack_stream_footer,
    pack_stream_header,
    parse_stream_header,
    unpack_dictionary_size,
)
from cosremaster.codecs.xz.read_block import read_block
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.pieces import Literal, PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from tests.fixtures import tools
from tests.support.memory import Memory

PLACE = Place(("a.xz",))
NOISE = random.Random(1).randbytes(150_000)
TEXT = b"".join(b"line %d of a text that xz can shorten\n" % (number * number % 977) for number in range(9000))
SAMPLES = {"text and noise": TEXT + NOISE + TEXT[:1000], "empty": b"", "one byte": b"x", "noise": NOISE, "text": TEXT}

OPTIONS = {
    "plain": ("-T1",),
    "blocks": ("-T2", "--block-size=100KiB"),
    "no check": ("--check=none",),
    "crc32": ("--check=crc32", "-1"),
    "sha256": ("--check=sha256", "--lzma2=dict=64KiB"),
    "x86": ("--x86", "--lzma2=preset=1"),
    "delta": ("--delta=dist=4", "--lzma2=preset=1,lc=0,pb=0"),
    "arm": ("--arm", "--lzma2=preset=1"),
    "three filters": ("--x86", "--delta=dist=1", "--lzma2=dict=4KiB"),
}


def _xz(data: bytes, *options: str) -> bytes:
    tools.require("xz")
    return tools.run(["xz", "-c", *options], stdin=data)


def _decode(packed: bytes, step: int = 4099) -> tuple[bytes, XzParameters]:
    decoding = XzDecoding(ByteReader((packed[at : at + step] for at in range(0, len(packed), step)), PLACE))
    plain = b"".join(decoding.chunks())
    return plain, decoding.parameters


def _form(check: int, dict_size: int) -> XzParameters:
    """The form of a stream with one empty block under such a dictionary; none for no dictionary."""
    blocks = (XzBlock(BlockHeader.make(None, None, dict_size), check, 12, 24, 0),) if dict_size else ()
    return XzParameters(check, blocks, 1)


def _pack(form: XzParameters, plain: bytes, folder: Path, threads: int = 2) -> bytes:
    """``plain`` packed as ``form`` says; nothing of an old stream is reused."""
    told: list[int] = []
    with Spool(folder) as spool:
        new, old = Memory(plain), Memory(b"")
        table = form.repack(
            RepackJob(
                packed=PieceTable([]), decoded=old, plain=PieceTable([Range(new, 0, len(plain))]), spool=spool,
                threads=threads, advance=told.append,
            )
        ).table  # fmt: skip
        packed = b"".join(table.chunks())
    assert len(packed) == table.length
    assert sum(told) == len(plain)
    return packed


@dataclass(frozen=True)
class Listing:
    """What ``xz --list`` says of a file."""

    streams: int
    blocks: int
    plain: int
    check: str
    padding: int
    dicts: tuple[int, ...]


def _listed(packed: bytes, folder: Path) -> Listing:
    path = folder / "listed.xz"
    path.write_bytes(packed)
    rows = [row.split("\t") for row in tools.run(["xz", "--robot", "-lvv", path]).decode().splitlines()]
    file = next(row for row in rows if row[0] == "file")
    options = [option for row in rows if row[0] == "block" for option in row[-1].replace(",", "=").split("=")]
    sizes = [after for before, after in pairwise(options) if before.endswith("dict")]
    units = {"KiB": 1 << 10, "MiB": 1 << 20}
    dicts = tuple(int(size[:-3]) * units[size[-3:]] for size in sizes)
    return Listing(int(file[1]), int(file[2]), int(file[4]), file[6], int(file[7]), dicts)


# What real tools make


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("options", OPTIONS)
def test_what_xz_makes_is_decoded_and_described(tmp_path: Path, options: str, sample: str) -> None:
    packed = _xz(SAMPLES[sample], *OPTIONS[options])
    plain, form = _decode(packed)
    assert plain == SAMPLES[sample]
    listing = _listed(packed, tmp_path)
    assert (form.streams, len(form.blocks)) == (1, listing.blocks)
    assert form.dictionary_size == max(listing.dicts, default=0)
    assert form.describe().startswith(listing.check.replace("None", "none") + ", dictionary ")
    assert find_codec(packed[:16]) is not None


@pytest.mark.parametrize("zeros", [0, 4, 8, 4096])
def test_streams_in_a_row_are_one(tmp_path: Path, zeros: int) -> None:
    packed = _xz(TEXT, "-0") + bytes(zeros) + _xz(NOISE, "--check=crc32", "-1") + _xz(b"") + bytes(zeros)
    listing = _listed(packed, tmp_path)
    for step in (1, 4099):
        plain, form = _decode(packed, step)
        assert plain == TEXT + NOISE
        assert (form.streams, len(form.blocks), form.check) == (listing.streams, listing.blocks, 4) == (3, 2, 4)
        assert form.dictionary_size == max(listing.dicts)


@pytest.mark.parametrize("junk", [b"\0", b"\0\0\0", b"x", bytes(5), bytes(12), b"\xfd7zXZ\0", b"\0\0\0\0YZ\0\0"])
def test_what_follows_a_stream_is_a_stream_or_padding(junk: bytes) -> None:
    packed = _xz(b"hello") + junk
    if not len(junk) % 4 and not any(junk):
        assert _decode(packed)[0] == b"hello"
        return
    with pytest.raises(AssertionError, match=r"^xz -dc\n"):
        tools.run(["xz", "-dc"], stdin=packed)
    with pytest.raises(CorruptError, match=r"^a\.xz @0x"):
        _decode(packed)


# What we make


@pytest.mark.parametrize("sample", ["text and noise", "empty", "one byte"])
@pytest.mark.parametrize("options", OPTIONS)
def test_what_we_make_is_what_xz_and_busybox_read(tmp_path: Path, options: str, sample: str) -> None:
    tools.require("xz", "busybox")
    old = _xz(TEXT, *OPTIONS[options])
    plain = SAMPLES[sample]
    packed = _pack(_decode(old)[1], plain, tmp_path)
    tools.run(["xz", "-t"], stdin=packed)
    assert tools.run(["xz", "-dc"], stdin=packed) == plain
    assert tools.run(["busybox", "unxz", "-c"], stdin=packed) == plain
    before, after = _listed(old, tmp_path), _listed(packed, tmp_path)
    assert (after.check, after.plain, after.streams) == (before.check, len(plain), 1)
    assert max(after.dicts, default=0) <= max(before.dicts)


def test_any_number_of_threads_makes_the_same_blocks(tmp_path: Path) -> None:
    form = _form(1, 65536)
    plain = TEXT * 12 + NOISE * 10
    one, two, three = (_pack(form, plain, tmp_path, threads) for threads in (1, 2, 3))
    assert one == two == three
    listing = _listed(one, tmp_path)
    assert listing.blocks > 4
    assert max(listing.dicts) == 65536
    assert len(one) < 1.01 * len(_xz(plain, "-6", "--lzma2=preset=6,dict=64KiB", "--check=crc32"))


def test_a_huge_dictionary_is_not_kept_and_an_empty_file_gets_a_usual_one(tmp_path: Path) -> None:
    for dict_size, wanted in ((1 << 30, 8 << 20), (0, 8 << 20), (4096, 4096), (6 << 20, 6 << 20)):
        packed = _pack(_form(4, dict_size), bytes(9 << 20), tmp_path)
        assert max(_listed(packed, tmp_path).dicts) == wanted


def test_a_dictionary_is_no_larger_than_its_data(tmp_path: Path) -> None:
    packed = _pack(_form(4, 8 << 20), TEXT[:70_000], tmp_path)
    assert _listed(packed, tmp_path).dicts == (96 << 10,)


# Damage


def _verdict(packed: bytes) -> bytes | None:
    """What we decode; None for damage or what is not supported."""
    try:
        return _decode(packed)[0]
    except (CorruptError, UnsupportedError) as error:
        assert str(error).startswith("a.xz @0x")
        assert error.place is not None and error.place.offset is not None and error.place.offset <= len(packed)
        return None


def _liblzma(packed: bytes) -> bytes | None:
    """What liblzma decodes of one stream with padding behind it; None for anything else."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        plain = decoder.decompress(packed)
    except lzma.LZMAError:
        return None
    rest = decoder.unused_data
    return plain if decoder.eof and rest == bytes(len(rest)) and not len(rest) % 4 else None


SMALL = TEXT[:150] + NOISE[:40]


@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
def test_every_truncation_is_told(check: str) -> None:
    packed = _xz(SMALL, f"--check={check}", "-T2", "--block-size=100")
    for length in range(len(packed)):
        with pytest.raises(CorruptError, match=r"^a\.xz @0x"):
            _decode(packed[:length])


@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
def test_every_flipped_bit_is_judged_as_liblzma_does(check: str) -> None:
    packed = _xz(SMALL, f"--check={check}", "-T2", "--block-size=100")
    for at in range(len(packed)):
        for bit in range(8):
            flipped = packed[:at] + bytes((packed[at] ^ 1 << bit,)) + packed[at + 1 :]
            seen = _verdict(flipped)
            assert seen == _liblzma(flipped), (at, bit)
            assert check == "none" or seen in (None, SMALL)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=4))
def test_other_damage_is_judged_as_liblzma_does(edits: list[tuple[int, bytes, int]]) -> None:
    packed = _STREAM
    for at, new, gone in edits:
        start = at % len(packed)
        packed = packed[:start] + new + packed[start + gone :]
    seen = _verdict(packed)
    assert seen in (None, SMALL)
    assert seen == _liblzma(packed)


_STREAM = lzma.compress(SMALL, lzma.FORMAT_XZ, lzma.CHECK_CRC32)


def _stream(filters: bytes, data: bytes = b"\x01\0\0x\0") -> bytes:
    """A stream whose only block has these filter flags; everything up to its data is sound."""
    body = bytes(((len(filters) + 8) // 4, filters[0])) + filters[1:]
    body += bytes(-len(body) % 4)
    body = bytes((len(body) // 4,)) + body[1:]
    return pack_stream_header(1) + body + zlib.crc32(body).to_bytes(4, "little") + data + bytes(40)


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        (b"\0\x21\1\x28", "xz dictionary of 4,294,967,295 bytes is too large"),
        (b"\0\x21\1\x29", "xz filter 0x21 is not supported"),
        (b"\1\x0a\0\x21\1\x10", "xz filter 0xA is not supported"),  # ARM64
        (b"\0\x03\1\0", "xz filter chain does not end with LZMA2"),
        (b"\0\x21\x7f\x10", "xz filter properties leave the block header"),
        (b"\0\x80\0\1\x10", "malformed number in an xz header"),
        (b"\4\x21\1\x10", "reserved xz block flags are set"),
        (b"\0\x21\1\x10\0\0\0\1", "xz block header is not padded with zeros"),
    ],
)
def test_what_a_block_header_may_not_say_is_told(filters: bytes, said: str) -> None:
    with pytest.raises((CorruptError, UnsupportedError), match=rf"^a\.xz @0xC: {said}$"):
        _decode(_stream(filters))


@pytest.mark.parametrize(
    "filters", [b"\1\x21\1\x10\x21\1\x10", b"\1\x07\4\1\0\0\0\x21\1\x10"], ids=["LZMA2 twice", "ARM"]
)
def test_a_filter_chain_that_liblzma_refuses_is_told(filters: bytes) -> None:
    with pytest.raises((CorruptError, UnsupportedError), match=r"^a\.xz @0xC: "):
        _decode(_stream(filters))


@pytest.mark.parametrize(("packed", "plain"), [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
def test_a_block_header_that_tells_other_sizes_is_told(tmp_path: Path, packed: int, plain: int) -> None:
    old = _pack(_form(1, 4096), SMALL, tmp_path)
    header = BlockHeader.parse(old[12 : 12 + 4 * (old[12] + 1)], PLACE)
    assert header.packed is not None and header.plain is not None
    forged = BlockHeader.make(header.packed + packed, header.plain + plain, header.dictionary_size)
    assert len(forged.raw) == len(header.raw)
    new = old[:12] + forged.raw + old[12 + len(forged.raw) :]
    if packed == plain == 0:
        assert _decode(new)[0] == _liblzma(new) == SMALL
        return
    assert _liblzma(new) is None
    with pytest.raises(CorruptError, match=r"^a\.xz @0xC: xz block header tells other sizes"):
        _decode(new)


def test_a_chunk_is_told_by_its_offset() -> None:
    with pytest.raises(CorruptError, match=r"^a\.xz @0x18: no LZMA2 chunk begins with 0x03$"):
        _decode(_stream(b"\0\x21\1\x10", b"\x03"))
    with pytest.raises(CorruptError, match=r"^a\.xz @0x18: corrupt xz data in the LZMA2 chunk here"):
        _decode(_stream(b"\0\x21\1\x10", b"\x02\0\0x\0"))
    with pytest.raises(CorruptError, match=r"^a\.xz @0x20: xz block check does not fit the data$"):
        _decode(_stream(b"\0\x21\1\x10"))


def test_a_stream_of_a_later_format_is_unsupported() -> None:
    for flags in (b"\1\1", b"\0\2", b"\0\x0f"):
        with pytest.raises(UnsupportedError, match=f"xz stream flags {flags.hex()} are not supported"):
            parse_stream_header(b"\xfd7zXZ\0" + flags + zlib.crc32(flags).to_bytes(4, "little"), PLACE)


# Records


@given(st.integers(0, MAX_VLI), st.binary(max_size=3))
def test_numbers_come_back(value: int, before: bytes) -> None:
    packed = encode_vli(value)
    assert len(packed) == max(1, -(-value.bit_length() // 7))
    assert decode_vli(before + packed + b"\x81", len(before), PLACE) == (value, len(before) + len(packed))


@pytest.mark.parametrize("packed", [b"", b"\x80", b"\x80\0", b"\x81\x80\0", b"\xff" * 9 + b"\1", b"\x80" * 9])
def test_malformed_numbers_are_told(packed: bytes) -> None:
    with pytest.raises(CorruptError, match="malformed number"):
        decode_vli(packed, 0, PLACE)


SIZES = st.one_of(st.none(), st.integers(1, MAX_VLI))


@given(SIZES, SIZES, st.integers(4096, 0xFFFFFFFF))
def test_block_headers_come_back(packed: int | None, plain: int | None, dict_size: int) -> None:
    header = BlockHeader.make(packed, plain, dict_size)
    assert BlockHeader.parse(header.raw, PLACE) == header
    assert header.dictionary_size >= dict_size
    assert len(header.raw) == (header.raw[0] + 1) * 4


def test_dictionary_sizes_are_those_of_the_specification() -> None:
    assert [unpack_dictionary_size(bits) for bits in (0, 1, 2, 3, 38, 39, 40)] == [
        4096, 6144, 8192, 12288, 2 << 30, 3 << 30, (4 << 30) - 1,
    ]  # fmt: skip
    for bits in range(41):
        assert pack_dictionary_size(unpack_dictionary_size(bits)) == bytes((bits,))
        assert bits == 40 or pack_dictionary_size(unpack_dictionary_size(bits) + 1) == bytes((bits + 1,))


@pytest.mark.parametrize("check", [0, 1, 4, 10])
def test_stream_headers_and_footers_come_back(check: int) -> None:
    assert parse_stream_header(pack_stream_header(check), PLACE) == check
    footer = pack_stream_footer(check, 16)
    check_stream_footer(footer, check, 16, PLACE)
    for other, size in ((check ^ 1, 16), (check, 20)):
        with pytest.raises(CorruptError):
            check_stream_footer(footer, other, size, PLACE)


def test_chunk_headers_lead_through_raw_lzma2() -> None:
    plain = TEXT * 8 + NOISE
    raw = lzma.compress(plain, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}])
    lengths, at = [], 0
    while raw[at]:
        chunk = Lzma2ChunkHeader.parse(raw[at : at + Lzma2ChunkHeader.header_size(raw[at], PLACE)])
        at += len(chunk.header) + chunk.size
        lengths.append(chunk.plain)
    assert at == len(raw) - 1
    assert sum(lengths) == len(plain)
    assert len(lengths) > 3


@given(st.lists(st.tuples(st.integers(5, MAX_VLI), st.integers(0, MAX_VLI)), max_size=20))
def test_an_index_holds_its_records(pairs: list[tuple[int, int]]) -> None:
    index = pack_index(IndexRecord(unpadded, plain) for unpadded, plain in pairs)
    assert len(index) % 4 == 0 and index[0] == 0
    assert index[-4:] == zlib.crc32(index[:-4]).to_bytes(4, "little")
    numbers, at = [], 1
    for _ in range(1 + 2 * len(pairs)):
        number, at = decode_vli(index, at, PLACE)
        numbers.append(number)
    assert numbers == [len(pairs), *(number for pair in pairs for number in pair)]
    assert not any(index[at:-4]) and len(index) - 4 - at < 4


# Blocks side by side, and beginning at one


@pytest.fixture(scope="module")
def many() -> bytes:
    """Blocks with sizes, blocks without, and empty ones, in several streams with padding between."""
    plain = (TEXT + NOISE) * 3
    sized = _xz(plain, "-T3", "-1", "--block-size=90000", "--check=sha256")
    bare = _xz(plain, "-T1", "-1", "--block-list=70000,0", "--check=crc32")
    return sized + bytes(8) + bare + _xz(b"") + bytes(4) + sized


@pytest.mark.parametrize("step", [977, 1 << 20])
def test_blocks_decoded_side_by_side_are_those_decoded_in_a_row(
    many: bytes, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(xz_module, "cpu_count", lambda number=count: number)
        results.append(_decode(many, step))
    assert results[0] == results[1] == results[2]
    plain, form = results[0]
    assert plain == tools.run(["xz", "-dc"], stdin=many)
    assert len(form.blocks) > 20
    assert form.streams == 4


def test_blocks_that_hardly_shrink_are_decoded_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that do not shrink at all are copied, and need no memory for that."""
    hardly = b"".join(NOISE[start : start + 55_000] + bytes(5_000) for start in range(0, 110_000, 55_000))
    alone = []

    def note(*args: Any, **options: Any) -> Iterator[bytes]:
        alone.append(args[2])
        return read_block(*args, **options)

    monkeypatch.setattr(xz_module, "cpu_count", lambda: 2)
    monkeypatch.setattr(xz_module, "WHOLE_LIMIT", 64_000)
    monkeypatch.setattr(xz_module, "read_block", note)
    plain = hardly + NOISE[:120_000] + hardly
    assert _decode(_xz(plain, "-T2", "-1", "--block-size=60000"))[0] == plain
    assert alone == [120_000, 180_000]


def test_decoding_begins_at_any_block(many: bytes) -> None:
    plain, form = _decode(many)
    table = PieceTable([Literal(many)])
    for block in form.blocks:
        for offset in {block.plain, block.plain + 1, max(block.plain_end - 1, block.plain)}:
            start, chunks = form.decode_from(table, offset, PLACE)
            assert start == block.plain or not block.record.plain
            assert b"".join(chunks) == plain[start:]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_damage_is_told_before_what_reading_further_meets(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    packed = bytearray(_xz(NOISE * 2, "-T3", "-1", "--block-size=60000"))
    packed[30_000] ^= 1

    def broken() -> Iterator[bytes]:
        yield bytes(packed[:100_000])
        raise CorruptError("no more")

    monkeypatch.setattr(xz_module, "cpu_count", lambda: count)
    with pytest.raises(CorruptError, match="xz block check does not fit the data"):
        list(XzDecoding(ByteReader(broken(), PLACE)).chunks())


@pytest.mark.parametrize("options", [("-T3", "-1", "--block-size=60000"), ("-T1", "-0")])
def test_damage_met_on_several_threads_is_told_as_in_a_row(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    packed = _xz(TEXT * 2 + NOISE, *options)
    chance = random.Random(5)
    for _ in range(150):
        at = chance.randrange(12, len(packed))
        cut = chance.randrange(12, len(packed)) if chance.random() < 0.3 else len(packed)
        hurt = packed[:at] + bytes((packed[at] ^ 1 << chance.randrange(8),)) + packed[at + 1 :]
        told = []
        for count in (1, 3):
            monkeypatch.setattr(xz_module, "cpu_count", lambda number=count: number)
            with pytest.raises((CorruptError, UnsupportedError), match=r"^a\.xz @0x[0-9A-F]+: ") as caught:
                _decode(hurt[:cut])
            told.append(str(caught.value))
        assert told[0] == told[1]
