"""Indexing: one pass over a file of the image that finds every archive in it and notes every entry."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.codecs.base import Codec, StreamParameters
from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.streams import ByteReader, count_chunks, hash_chunks
from cosremaster.layers.address import Address, number_part
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.scan import THOROUGH, Member, ScannedArchive, ScannedStream, ScanOptions, scan_streams
from cosremaster.layers.decoded import DecodedSource
from cosremaster.tree.paths import normal_name, normal_names

_INITS = (b"sbin/init", b"usr/sbin/init", b"bin/init", b"usr/lib/systemd/systemd", b"lib/systemd/systemd")
_TOPS = frozenset((b"bin", b"dev", b"etc", b"lib", b"root", b"sbin", b"usr", b"var", b"init", b"linuxrc"))


class RootfsLikelihood(enum.IntEnum):
    """How much an archive looks like a root filesystem."""

    NOT = 0
    SOME = 1
    """Its top level has two of the usual names: an initramfs, or a small system."""
    SYSTEM = 2
    """It has /etc and an init program of an installed system."""


class ConcatenatedFile(Struct, frozen=True):
    """A file of several archives, one after another: its bytes, and where each of its streams stands in it.

    A stream is an archive as it is, or compressed data that hold one or more.
    """

    file: PieceTable
    streams: tuple[tuple[int, int], ...]


class Layer(Struct, frozen=True, kw_only=True, dict=True):  # no slots, so that a cached property has where to be kept
    """A cpio archive somewhere in the image, indexed.

    ``packed``: its stream's compressed bytes; ``decoded``: the plain ones, ``size`` of them, of which ``span`` are
    this archive and the zeros behind it. ``members`` are the entries before the trailer. ``parent`` is the archive
    this one is a file of, ``holder`` its entry there. Of several archives in one file ``row`` tells where they
    stand, ``stream`` in which of its streams this one is, ``before`` which archives are unpacked before it.
    """

    address: Address
    place: Place
    packed: PieceTable
    parameters: StreamParameters
    decoded: DecodedSource
    size: int
    span: tuple[int, int]
    members: tuple[Member, ...]
    trailer: cpio.NewcEntry
    parent: Layer | None = None
    holder: cpio.NewcEntry | None = None
    concatenation: ConcatenatedFile | None = None
    stream: int = 0
    preceding: tuple[Layer, ...] = ()

    @cached_property
    def likelihood(self) -> RootfsLikelihood:
        """How much it looks like a root filesystem."""
        return judge_rootfs(self.paths)

    @cached_property
    def paths(self) -> Sequence[bytes]:
        """The normal name of each of ``members``."""
        return normal_names([member.entry.name for member in self.members])


class IndexedFile(Struct, frozen=True, kw_only=True):
    """A file of the image that is an archive, indexed: its path, codec, and the SHA-256 of its bytes.

    ``row``: all its streams when it holds more than one archive; ``found`` is the first archive.
    """

    path: bytes
    codec: Codec
    digest: bytes
    archive: ScannedArchive
    streams: tuple[ScannedStream, ...] = ()


def index_file(
    path: bytes, packed: PieceTable, codec: Codec, place: Place, advance: Callable[[int], None],
    effort: ScanOptions = THOROUGH,
) -> IndexedFile:  # fmt: skip
    """Indexes all archives in a file that is one itself, or several in a row, as the kernel reads them.

    ``packed`` is read once, front to back; ``advance`` hears of each of its bytes.

    :raises CorruptError: damage, with its place. :raises UnsupportedError: something else stands behind an archive.
    """
    digest = hashlib.sha256()
    chunks = count_chunks(packed.chunks(), advance)
    reader = ByteReader(hash_chunks(chunks, digest) if effort.digests else chunks, place)
    row = tuple(scan_streams(reader, codec, effort, 1))
    single = len(row) == 1 and len(row[0].archives) == 1
    return IndexedFile(
        path=path, codec=codec, digest=digest.digest(), archive=row[0].archives[0], streams=() if single else row
    )


def build_layers(indexed: IndexedFile, packed: PieceTable, place: Place) -> tuple[Layer, ...]:
    """The archives of an indexed file whose bytes are ``packed``, outer before inner, in the order of the file."""
    if not indexed.streams:
        return tuple(_layers((indexed.path,), packed, place, (indexed.archive,)))
    row = ConcatenatedFile(packed, tuple((stream.start, stream.end) for stream in indexed.streams))
    layers: list[Layer] = []
    before: list[Layer] = []
    for number, stream in enumerate(indexed.streams):
        inside = packed.cut(stream.start, stream.end)
        for layer in _layers((indexed.path,), inside, place, stream.archives, len(before)):
            if layer.parent is None:
                layer = replace(layer, concatenation=row, stream=number, preceding=tuple(before))  # noqa: PLW2901
                before.append(layer)
            layers.append(layer)
    return tuple(layers)


def _layers(
    address: Address, packed: PieceTable, place: Place, archives: Sequence[ScannedArchive],
    numbered: int | None = None,
) -> Iterator[Layer]:  # fmt: skip
    """The archives of one stream; ``numbered``: how many of their row stand before them."""
    last = archives[-1]
    decoded = DecodedSource(packed, last.form, place, last.tail, last.size)
    for number, found in enumerate(archives):
        own = address if numbered is None else (*address, number_part(numbered + number + 1))
        outer = _layer(own, place, packed, decoded, found)
        yield outer
        for entry, _, inner in found.inner:
            inside = PieceTable([Range(decoded, entry.data_offset, entry.header.size)])
            below = place.inside(entry.name)
            source = DecodedSource(inside, inner.form, below, inner.tail, inner.size)
            name = (*own, normal_name(entry.name))
            yield replace(_layer(name, below, inside, source, inner), parent=outer, holder=entry)


def _layer(address: Address, place: Place, packed: PieceTable, decoded: DecodedSource, found: ScannedArchive) -> Layer:
    return Layer(
        address=address, place=place, packed=packed, parameters=found.form, decoded=decoded, size=found.size,
        span=found.span or (0, found.size), members=found.members, trailer=found.trailer,
    )  # fmt: skip


def judge_rootfs(paths: Sequence[bytes]) -> RootfsLikelihood:
    """How much an archive with ``paths``, as normal names, looks like a root filesystem."""
    names = set(paths)
    tops = {name.partition(b"/")[0] for name in names}
    if b"etc" in tops and any(name in names for name in _INITS):
        return RootfsLikelihood.SYSTEM
    return RootfsLikelihood.SOME if len(tops & _TOPS) >= 2 else RootfsLikelihood.NOT
