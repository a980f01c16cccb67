"""lzop: what it packs at each level is read as it was, and it reads what we write; whatever is wrong has a place."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster import codecs
from cosremaster.cli import main
from cosremaster.codecs.base import RepackJob
from cosremaster.codecs.defaults import new_parameters
from cosremaster.demo.image import build_archive, root_items
from cosremaster.errors import CorruptError, LayerError, Place, UnsupportedError
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from tests.fixtures import tools
from tests.support.layers import identify_bytes
from tests.support.memory import Memory
from tests.support.small import CGZ, stored_lzop, write_overlay, write_small

tools.require_module("lzokay")

from cosremaster.codecs.lzo import LzoError, compress, expand, expand_within  # noqa: E402 - it needs lzokay
from cosremaster.codecs.lzop import MAGIC, NEW_BLOCK, LzopCodec, LzopParameters  # noqa: E402 - it too

LEVELS = ("-1", "-3", "-7", "-9")


def _mixed(count: int = 900_000) -> bytes:
    """Text, noise, long runs, and matches that lie further back than 16 and 32 KiB."""
    chance = random.Random(11)
    words = [bytes(chance.choices(b"etaoinshrdlu", k=chance.randrange(1, 9))) for _ in range(300)]
    noise = chance.randbytes(20_000)
    out = bytearray()
    while len(out) < count:
        out += b" ".join(chance.choices(words, k=chance.randrange(1, 4000)))
        out += chance.choice(
            (noise, bytes(chance.randrange(70_000)), chance.randbytes(chance.randrange(40)), b"ab" * 999)
        )
    return bytes(out)


def _lzop(plain: bytes, *options: str) -> bytes:
    tools.require("lzop")
    return tools.run(["lzop", *options], stdin=plain)


def _decoded(packed: bytes) -> bytes:
    return b"".join(LzopCodec().decode(ByteReader([packed], Place(("x",)))).chunks())


@pytest.mark.parametrize("options", [*((level,) for level in LEVELS), ("-3", "-F"), ("-1", "--crc32"), ("-C", "-9")])
def test_what_lzop_packs(options: tuple[str, ...]) -> None:
    plain = _mixed()
    packed = _lzop(plain, *options)
    assert len(packed) < len(plain)
    assert _decoded(packed) == plain
    assert _decoded(packed + bytes(9) + _lzop(b"and more", *options)) == plain + b"and more"


@settings(max_examples=40, deadline=None)
@given(plain=st.binary(max_size=300), level=st.sampled_from(LEVELS), times=st.integers(1, 40))
def test_short_and_repeated_data(plain: bytes, level: str, times: int) -> None:
    assert _decoded(_lzop(plain * times, level)) == plain * times


def test_decoding_begins_at_any_block() -> None:
    plain = _mixed()
    packed = _lzop(plain, "-1") + _lzop(plain[::-1], "--crc32")
    decoding = LzopCodec().decode(ByteReader([packed], Place()))
    assert b"".join(decoding.chunks()) == plain + plain[::-1]
    form = LzopCodec().load(decoding.parameters.dump())
    whole = plain + plain[::-1]
    for offset in (0, 1, 300_000, len(plain) - 1, len(plain), len(plain) + 300_000, len(whole) - 1):
        start, chunks = form.decode_from(PieceTable([Literal(packed)]), offset, Place())
        assert offset - 262_144 < start <= offset
        assert b"".join(chunks) == whole[start:]


def test_a_layer_under_lzop_is_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = write_small(tmp_path, cgz=_lzop(build_archive(root_items()), "-9")), tmp_path / "out.iso"
    assert identify_bytes(_lzop(build_archive(root_items()))).format is not None
    assert main(["cat", f"{image}::{CGZ}::etc/hostname"]) == 0
    assert capsys.readouterr().out
    assert main(["inspect", "--deep", str(image)]) == 0
    assert "lzop" in capsys.readouterr().out
    cosremaster.remaster(image, out, add=[write_overlay(tmp_path)])
    plain = tools.run(["lzop", "-dc"], stdin=cosremaster.read(f"{out}::{CGZ}"))
    assert b"welcome\n" in tools.run(["cpio", "-i", "--to-stdout", "--quiet", "etc/motd"], stdin=plain)
    tools.run(["lzop", "-t"], stdin=cosremaster.read(f"{out}::{CGZ}"))


def _parameters(packed: bytes) -> LzopParameters:
    decoding = LzopCodec().decode(ByteReader([packed], Place()))
    for _ in decoding.chunks():
        pass
    return LzopCodec().load(decoding.parameters.dump())


def _repack(packed: bytes, plain: bytes, changed: dict[int, bytes], folder: Path, threads: int = 2) -> bytes:
    """The stream ``packed`` of ``plain`` with bytes exchanged, at offsets."""
    decoded, end = Memory(plain), 0
    pieces: list[Piece] = []
    for offset, new in sorted(changed.items()):
        pieces += [Range(decoded, end, offset - end), Literal(new)]
        end = offset + len(new)
    table = PieceTable([*pieces, Range(decoded, end, len(plain) - end)])
    with Spool(folder) as spool:
        job = RepackJob(
            packed=PieceTable([Literal(packed)]), decoded=decoded, plain=table, spool=spool, threads=threads,
            advance=lambda size: None,
        )  # fmt: skip
        return _parameters(packed).repack(job).table.read()


@pytest.mark.parametrize("options", [("-1",), ("-9", "-F"), ("-3", "--crc32"), ("-C", "-7")])
def test_blocks_around_a_change_stay_as_they_are(options: tuple[str, ...], tmp_path: Path) -> None:
    plain = _mixed()
    packed = _lzop(plain, *options)
    at = NEW_BLOCK + 1000
    result = _repack(packed, plain, {at: b"changed"}, tmp_path)
    changed = plain[:at] + b"changed" + plain[at + 7 :]
    assert tools.run(["lzop", "-dc"], stdin=result) == _decoded(result) == changed
    first, second, third = _parameters(packed).blocks[:3]
    assert result.startswith(packed[: first.end])
    assert result.endswith(packed[third.start :])
    assert packed[second.start : second.end] not in result
    assert result == _repack(packed, plain, {at: b"changed"}, tmp_path, threads=1)


def test_members_become_one_and_keep_blocks_with_the_first_ones_checks(tmp_path: Path) -> None:
    """A kernel reads one member (lib/decompress_unlzo.c)."""
    one, two, three = (_mixed(200_000 + number) for number in range(3))
    packed = _lzop(one, "-1") + _lzop(two, "--crc32") + _lzop(three, "-9")
    result = _repack(packed, one + two + three, {5: b"changed"}, tmp_path)
    assert result.count(MAGIC) == 1
    assert tools.run(["lzop", "-dc"], stdin=result) == one[:5] + b"changed" + one[12:] + two + three
    last = _parameters(packed).blocks[-1]
    assert result.endswith(packed[last.start : last.end] + bytes(4))


@settings(max_examples=30, deadline=None)
@given(plain=st.binary(max_size=2000), times=st.integers(1, 400))
def test_lzop_reads_a_new_stream(plain: bytes, times: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = plain * times
    with Spool(tmp_path_factory.mktemp("spool")) as spool:
        job = RepackJob(
            packed=PieceTable([]), decoded=Memory(b""), plain=PieceTable([Literal(whole)]), spool=spool, threads=1,
            advance=lambda size: None,
        )  # fmt: skip
        packed = new_parameters("lzop").repack(job).table.read()
    assert tools.run(["lzop", "-dc"], stdin=packed) == _decoded(packed) == whole


def test_a_folder_is_packed_under_lzop(tmp_path: Path) -> None:
    write_overlay(tmp_path)
    assert main(["pack", str(tmp_path / "overlay"), str(tmp_path / "out.tar.lzo"), "--quiet"]) == 0
    plain = tools.run(["lzop", "-dc"], stdin=(tmp_path / "out.tar.lzo").read_bytes())
    assert b"./etc/motd" in tools.run(["tar", "-t"], stdin=plain) or b"etc/motd" in tools.run(
        ["tar", "-t"], stdin=plain
    )
    busybox = tools.run(["busybox", "lzop", "-dc"], stdin=(tmp_path / "out.tar.lzo").read_bytes())
    assert busybox == plain


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_small(tmp_path, cgz=_lzop(build_archive(root_items())))
    codecs._load_codec.cache_clear()
    monkeypatch.setitem(codecs._LIBRARIES, "lzop", "no_such_library")
    with pytest.raises(LayerError, match=r"lzop \(which the extra cosremaster\[lzo\] opens\)"):
        cosremaster.remaster(image, tmp_path / "out.iso", add=[write_overlay(tmp_path)])
    codecs._load_codec.cache_clear()


def test_the_stored_sample_is_one_to_lzop_too() -> None:
    tools.require("lzop")
    plain = build_archive(root_items())
    assert tools.run(["lzop", "-dc"], stdin=stored_lzop(plain)) == plain
    assert _decoded(stored_lzop(plain)) == plain


def _blocks() -> bytes:
    return stored_lzop(b"x" * 1000, 400)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_blocks()[:20], r"x @0x14: ends \d+ bytes too early"),
        (_blocks()[:12] + b"\0" + _blocks()[13:], r"x @0x0: lzop header check does not fit"),
        (_blocks()[:-4], r"ends 4 bytes too early"),
        (_blocks()[:60] + b"y" + _blocks()[61:], r"x @0x[0-9A-F]+: check of an lzop block does not fit"),
        (_blocks() + b"more", r"bytes that are no lzop stream"),
        (_blocks()[:38] + b"\xff" * 4 + _blocks()[42:], r"lzop block of [\d,]+ bytes for 4,294,967,295"),
    ],
)
def test_damage_has_a_place(data: bytes, message: str) -> None:
    with pytest.raises(CorruptError, match=message):
        _decoded(data)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), size=st.integers(1, 5000))
def test_any_bytes_expand_to_no_more_than_asked_or_fail(data: bytes, size: int) -> None:
    with suppress(LzoError):
        assert len(expand(data, size)) == size
    with suppress(LzoError):
        assert len(expand_within(data, size)) <= size


@settings(max_examples=60, deadline=None)
@given(
    plain=st.binary(min_size=1, max_size=300),
    times=st.integers(1, 20),
    zeros=st.integers(0, 9),
    room=st.integers(0, 400),
)
def test_the_length_of_a_block_is_found(plain: bytes, times: int, zeros: int, room: int) -> None:
    """lzokay fills up with zeros: plain bytes that end with zeros are not cut, and zeros that are none are."""
    whole = plain * times + bytes(zeros)
    block = compress(whole)
    assert expand_within(block, len(whole) + room) == expand(block, len(whole)) == whole
    for size in {len(whole) + 1, max(0, len(whole) - 1)} - {len(whole)}:
        with pytest.raises(LzoError):
            expand(block, size)


def test_flipped_bits_never_pass_the_checks() -> None:
    plain = _mixed(60_000)
    sound = _lzop(plain, "-1")
    chance = random.Random(5)
    for _ in range(60):
        bad = bytearray(sound)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        try:
            assert _decoded(bytes(bad)) == plain
        except (CorruptError, UnsupportedError) as error:
            assert str(error).startswith("x")
