"""lzop: what lzop packs at each level is read as it was; whatever is wrong has a place."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.cli import main
from cosremaster.codecs.lzop.codec import LzopCodec
from cosremaster.codecs.lzop.lzo1x import LzoError, expand, expand_some
from cosremaster.demo.image import build_archive, root_items
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.streams import ByteReader
from tests.fixtures import tools
from tests.support.layers import identify_bytes
from tests.support.small import CGZ, stored_lzop, write_overlay, write_small

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


def test_looked_into_but_not_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_small(tmp_path, cgz=_lzop(build_archive(root_items()), "-9"))
    assert identify_bytes(_lzop(build_archive(root_items()))).format is not None
    assert main(["cat", f"{image}::{CGZ}::etc/hostname"]) == 0
    assert capsys.readouterr().out
    assert main(["inspect", "--deep", str(image)]) == 0
    assert "lzop" in capsys.readouterr().out
    with pytest.raises(UnsupportedError, match="is packed by lzop, which is read and not written"):
        cosremaster.remaster(image, tmp_path / "out.iso", add=[write_overlay(tmp_path)])
    assert not (tmp_path / "out.iso").exists()


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
    try:
        assert len(expand(data, size)) == size
    except LzoError as error:
        assert 0 <= error.at <= len(data)
    assert len(expand_some(data, size, 64)) <= 64


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
