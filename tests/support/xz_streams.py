"""xz streams that are spliced and judged."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosremaster.codecs import find_codec
from cosremaster.codecs.base import RepackJob, RepackResult
from cosremaster.codecs.xz.repack import XzParameters
from cosremaster.errors import Place
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers.decoded import DecodedSource
from tests.fixtures import tools

PLACE = Place(("a.xz",))


CHANCE = random.Random(7)


def mixed(size: int, seed: int) -> bytes:
    """Text and noise in turns, so that LZMA2 makes chunks of several kinds."""
    chance, out = random.Random(seed), bytearray()
    while len(out) < size:
        out += chance.randbytes(chance.randrange(40_000))
        out += b"".join(b"line %d of some text\n" % chance.randrange(999) for _ in range(chance.randrange(2000)))
    return bytes(out[:size])


PLAIN = mixed(900_000, 1)


@dataclass(frozen=True)
class Old:
    """An old stream, decoded by us."""

    packed: bytes
    form: XzParameters
    decoded: DecodedSource
    table: PieceTable


def xz(data: bytes, *options: str) -> bytes:
    """``data`` packed by xz."""
    tools.require("xz")
    return tools.run(["xz", "-c", *options], stdin=data)


def old_stream(packed: bytes) -> Old:
    """``packed`` indexed; its decoded source decodes by our codec, as in the product."""
    table = PieceTable([Literal(packed)])
    codec = find_codec(packed)
    assert codec is not None
    decoding = codec.decode(ByteReader(table.chunks(), PLACE))
    size = sum(len(chunk) for chunk in decoding.chunks())
    assert isinstance(decoding.parameters, XzParameters)
    return Old(packed, decoding.parameters, DecodedSource(table, decoding.parameters, PLACE, b"", size), table)


def splice(old: Old, pieces: Sequence[Piece], threads: int = 2) -> tuple[bytes, RepackResult]:
    """The new stream for ``pieces``, and how it was made."""
    told: list[int] = []
    plain = PieceTable(pieces)
    with tempfile.TemporaryDirectory() as folder, Spool(Path(folder)) as spool:
        job = RepackJob(
            packed=old.table, decoded=old.decoded, plain=plain, spool=spool, threads=threads, advance=told.append
        )
        packed = old.form.repack(job)
        new = b"".join(packed.table.chunks())
    assert len(new) == packed.table.length
    assert sum(told) == plain.length
    return new, packed


def judge(new: bytes, pieces: Sequence[Piece], plain: bytes, *, busybox: bool = True) -> None:
    """xz and busybox make of ``new`` what the pieces say of ``plain``."""
    wanted = b"".join(
        plain[piece.offset : piece.offset + piece.length] if isinstance(piece, Range) else b"".join(piece.chunks())
        for piece in pieces
    )
    with tempfile.NamedTemporaryFile(suffix=".xz") as file:
        file.write(new)
        file.flush()
        tools.run(["xz", "-t", file.name])
        tools.run(["xz", "-lvv", file.name])
    assert tools.run(["xz", "-dc"], stdin=new) == wanted
    if busybox:
        assert tools.run(["busybox", "unxz", "-c"], stdin=new) == wanted
