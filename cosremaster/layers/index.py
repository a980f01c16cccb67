"""Indexing: one pass over a file of the image that finds every archive in it and notes every entry."""

from __future__ import annotations

import contextlib
import enum
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias

from cosremaster import cpio
from cosremaster.codecs import PLAIN, SNIFF_SIZE, reading
from cosremaster.codecs.base import Codec, Form
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.layers.address import Address, nth
from cosremaster.layers.decoded import DecodedSource
from cosremaster.layers.probe import Probe, look
from cosremaster.nodes import Kind
from cosremaster.parallel import prefetch
from cosremaster.pieces import PieceTable, Range
from cosremaster.streams import ByteReader, Tail, counted, hashed, sha256_of

MAX_TARGET = 65536
"""A longer symlink target is taken for damage."""

TAIL = 4 << 20
"""Plain bytes kept from a layer's end: twice what an LZMA2 chunk holds, so that additions decode nothing again."""

NESTING = 2
"""The image's file is one archive, an archive inside it the second; deeper ones are the system's own."""

MAX_EXPAND = 1000
"""No root filesystem compresses so well as a whole; deflate cannot (1,032), xz and zstd can on zeros alone."""

FREE_EXPANSION = 1 << 30
"""So many plain bytes a stream may have at any ratio: a large file of zeros may stand first."""

_KINDS = frozenset(map(int, Kind))
_SYMLINK, _FILE = int(Kind.SYMLINK), int(Kind.FILE)
_INITS = (b"sbin/init", b"usr/sbin/init", b"bin/init", b"usr/lib/systemd/systemd", b"lib/systemd/systemd")
_TOPS = frozenset((b"bin", b"dev", b"etc", b"lib", b"root", b"sbin", b"usr", b"var", b"init", b"linuxrc"))


class Rootness(enum.IntEnum):
    """How much an archive looks like a root filesystem."""

    NOT = 0
    SOME = 1
    """Its top level has two of the usual names: an initramfs, or a small system."""
    SYSTEM = 2
    """It has /etc and an init program of an installed system."""


class Member(NamedTuple):
    """An entry with what its data told: a symlink's target, a regular file's SHA-256 (empty: no data)."""

    entry: cpio.Entry
    target: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A file of several archives, one after another: its bytes, and where each of its streams stands in it.

    A stream is an archive as it is, or compressed data that hold one or more.
    """

    file: PieceTable
    streams: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)  # no slots, so that a cached property has where to be kept
class Layer:
    """A cpio archive somewhere in the image, indexed.

    ``packed``: its stream's compressed bytes; ``decoded``: the plain ones, ``size`` of them, of which ``span`` are
    this archive and the zeros behind it. ``members`` are the entries before the trailer. ``parent`` is the archive
    this one is a file of, ``holder`` its entry there. Of several archives in one file ``row`` tells where they
    stand, ``stream`` in which of its streams this one is, ``before`` which archives are unpacked before it.
    """

    address: Address
    place: Place
    packed: PieceTable
    form: Form
    decoded: DecodedSource
    size: int
    span: tuple[int, int]
    members: tuple[Member, ...]
    trailer: cpio.Entry
    parent: Layer | None = None
    holder: cpio.Entry | None = None
    row: Row | None = None
    stream: int = 0
    before: tuple[Layer, ...] = ()

    @cached_property
    def rootness(self) -> Rootness:
        """How much it looks like a root filesystem."""
        return rootness(self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundArchive:
    """One indexed archive, before its place among the others is known.

    ``size`` and ``tail`` are of the whole plain stream; ``span`` is what the archive takes of it with the zeros
    behind it. ``inner``: archives in it, each with the entry that holds it and the codec it was read with.
    """

    form: Form
    size: int
    members: tuple[Member, ...]
    trailer: cpio.Entry
    tail: bytes
    inner: tuple[tuple[cpio.Entry, Codec, FoundArchive], ...]
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class FoundStream:
    """A stream behind the first of a file: where it stands in the file, in bytes, and its archives."""

    start: int
    end: int
    codec: Codec
    archives: tuple[FoundArchive, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFile:
    """A file of the image that is an archive, indexed: its path, codec, and the SHA-256 of its bytes.

    ``row``: all its streams when it holds more than one archive; ``found`` is the first archive.
    """

    path: bytes
    codec: Codec
    digest: bytes
    found: FoundArchive
    row: tuple[FoundStream, ...] = ()


@dataclass(frozen=True, slots=True)
class Effort:
    """How closely to look: ``digests`` of all data, and archives in archives down to ``nesting``.

    ``edits``: whether a layer may be packed anew; what only that needs is not noted otherwise.
    A stream that expands by more than ``max_expand``, beyond :data:`FREE_EXPANSION`, is taken for a bomb.
    """

    digests: bool = True
    nesting: int = NESTING
    edits: bool = True
    max_expand: int = MAX_EXPAND


def index_file(
    path: bytes, packed: PieceTable, codec: Codec, place: Place, advance: Callable[[int], None],
    effort: Effort = Effort(),
) -> IndexedFile:  # fmt: skip
    """Indexes all archives in a file that is one itself, or several in a row, as the kernel reads them.

    ``packed`` is read once, front to back; ``advance`` hears of each of its bytes.

    :raises CorruptError: damage, with its place. :raises UnsupportedError: something else stands behind an archive.
    """
    digest = hashlib.sha256()
    chunks = counted(packed.chunks(), advance)
    reader = ByteReader(hashed(chunks, digest) if effort.digests else chunks, place)
    row = tuple(_streams(reader, codec, effort, 1))
    single = len(row) == 1 and len(row[0].archives) == 1
    return IndexedFile(
        path=path, codec=codec, digest=digest.digest(), found=row[0].archives[0], row=() if single else row
    )


def layers_of(indexed: IndexedFile, packed: PieceTable, place: Place) -> tuple[Layer, ...]:
    """The archives of an indexed file whose bytes are ``packed``, outer before inner, in the order of the file."""
    if not indexed.row:
        return tuple(_layers((indexed.path,), packed, place, (indexed.found,)))
    row = Row(packed, tuple((stream.start, stream.end) for stream in indexed.row))
    layers: list[Layer] = []
    before: list[Layer] = []
    for number, stream in enumerate(indexed.row):
        inside = packed.cut(stream.start, stream.end)
        for layer in _layers((indexed.path,), inside, place, stream.archives, len(before)):
            if layer.parent is None:
                layer = replace(layer, row=row, stream=number, before=tuple(before))  # noqa: PLW2901
                before.append(layer)
            layers.append(layer)
    return tuple(layers)


def _layers(
    address: Address, packed: PieceTable, place: Place, archives: Sequence[FoundArchive],
    numbered: int | None = None,
) -> Iterator[Layer]:  # fmt: skip
    """The archives of one stream; ``numbered``: how many of their row stand before them."""
    last = archives[-1]
    decoded = DecodedSource(packed, last.form, place, last.tail, last.size)
    for number, found in enumerate(archives):
        own = address if numbered is None else (*address, nth(numbered + number + 1))
        outer = _layer(own, place, packed, decoded, found)
        yield outer
        for entry, _, inner in found.inner:
            inside = PieceTable([Range(decoded, entry.data_offset, entry.header.size)])
            below = place.inside(entry.name)
            source = DecodedSource(inside, inner.form, below, inner.tail, inner.size)
            name = (*own, cpio.normal_name(entry.name))
            yield replace(_layer(name, below, inside, source, inner), parent=outer, holder=entry)


def _layer(address: Address, place: Place, packed: PieceTable, decoded: DecodedSource, found: FoundArchive) -> Layer:
    return Layer(
        address=address, place=place, packed=packed, form=found.form, decoded=decoded, size=found.size,
        span=found.span or (0, found.size), members=found.members, trailer=found.trailer,
    )  # fmt: skip


def _streams(reader: ByteReader, codec: Codec, effort: Effort, depth: int) -> Iterator[FoundStream]:
    """Each stream of a file that begins with one of ``codec``; zeros between them belong to none, but behind an
    archive that is not compressed."""
    while True:
        reader.count_anew()
        archives = tuple(_archives(reader, codec, effort, depth))
        end = reader.position
        skip_zeros(reader)
        start = reader.origin
        yield FoundStream(start, start + (reader.position if codec is PLAIN else end), codec, archives)
        if not reader.peek(1):
            return
        looked = look(reader.peek)
        if not looked.is_archive:
            raise UnsupportedError("data follows the end of the cpio archive, and is no other archive", reader.here)
        codec = looked.codec


def _archives(packed: ByteReader, codec: Codec, effort: Effort, depth: int) -> Iterator[FoundArchive]:
    """The archives of the stream that begins where ``packed`` stands; reads to its end."""
    place = packed.place
    decoding = (codec if effort.edits else reading(codec)).decode(packed)
    tail = Tail(TAIL)
    complete = False

    def plain() -> Iterator[bytes]:
        while True:
            yield from bounded(prefetch(decoding.stream()), packed, effort.max_expand)
            if complete:
                return
            skip_zeros(packed)
            if not codec.sniff(packed.peek(SNIFF_SIZE)):
                return

    if codec is PLAIN:
        start = packed.position
        members, inner, trailer = read_members(packed, start, effort, depth)
        skip_zeros(packed)
        size = packed.position - start
        yield FoundArchive(
            form=decoding.form, size=size, members=members, trailer=trailer, tail=b"", inner=inner, span=(0, size)
        )
        return
    reader = ByteReader(tail.watch(plain()), place)
    parts: list[tuple[tuple[tuple[Member, ...], Inner, cpio.Entry], tuple[int, int]]] = []
    while not parts or reader.peek(len(cpio.NEWC)) in cpio.MAGICS:
        start = reader.position
        complete = False
        read = read_members(reader, 0, effort, depth)
        complete = True
        skip_zeros(reader)
        parts.append((read, (start, reader.position)))
    if reader.peek(1):
        raise UnsupportedError("data follows the end of the cpio archive, and is no other archive", reader.here)
    for (members, inner, trailer), span in parts:
        yield FoundArchive(
            form=decoding.form, size=reader.position, members=members, trailer=trailer, tail=tail.bytes(),
            inner=inner, span=span,
        )  # fmt: skip


def bounded(chunks: Iterator[bytes], packed: ByteReader, ratio: int) -> Iterator[bytes]:
    """``chunks``, decoded from ``packed``. :raises CorruptError: they are too many for what was read there."""
    start, plain = packed.position, 0
    for chunk in chunks:
        plain += len(chunk)
        if plain > FREE_EXPANSION + ratio * (packed.position - start):
            raise CorruptError(
                f"expands to more than {ratio:,} times its size, as a bomb does (--max-expand)", packed.here
            )
        yield chunk


Inner: TypeAlias = tuple[tuple[cpio.Entry, Codec, FoundArchive], ...]


def read_members(
    reader: ByteReader, origin: int, effort: Effort, depth: int
) -> tuple[tuple[Member, ...], Inner, cpio.Entry]:
    """Notes every entry of one archive; looks into members while that is wanted."""
    members: list[Member] = []
    inner: list[tuple[cpio.Entry, Codec, FoundArchive]] = []
    deeper = depth < effort.nesting
    for entry in cpio.read_entries(reader, origin):
        header, name, _ = entry
        if name == cpio.TRAILER:
            break
        target = digest = b""
        kind = int(header.raw[14:22], 16) & 0o170000  # as header.mode, which takes three times as long
        if kind not in _KINDS:
            raise CorruptError(f"no file type has mode {header.mode:o}", _at(reader, entry))
        if kind == _SYMLINK:
            size = header.size
            if size > MAX_TARGET:
                raise CorruptError(f"symlink target of {size:,} bytes", _at(reader, entry))
            target = reader.exactly(size)
        elif kind == _FILE and (deeper or effort.digests) and (size := header.size):
            looked = _look_inside(reader, size) if deeper else None
            if looked and looked.is_archive:
                digest, nested = _index_member(reader, entry, looked.codec, effort, depth)
                if nested is not None:
                    inner.append((entry, looked.codec, nested))
            elif effort.digests:
                digest = sha256_of(reader.pieces(size))
        members.append(Member(entry, target, digest))
    reader.skip(origin + entry.end - reader.position)
    return tuple(members), tuple(inner), entry


def _look_inside(reader: ByteReader, size: int) -> Probe:
    """What the ``size`` bytes before ``reader`` are."""
    return look(lambda count: reader.peek(min(size, count)))


def _at(reader: ByteReader, entry: cpio.Entry) -> Place:
    return reader.place.inside(entry.name).at(entry.offset)


def _index_member(
    reader: ByteReader, entry: cpio.Entry, codec: Codec, effort: Effort, depth: int
) -> tuple[bytes, FoundArchive | None]:
    """Indexes the archive that is ``entry``'s data; its digest is taken on the way.

    A row of several is the system's own (``boot/initrd.img``), no layer to edit: None.
    """
    digest = hashlib.sha256()
    chunks = reader.pieces(entry.header.size)
    packed = ByteReader(hashed(chunks, digest) if effort.digests else chunks, reader.place.inside(entry.name))
    nested: FoundArchive | None = None
    with contextlib.suppress(UnsupportedError):
        row = tuple(_streams(packed, codec, effort, depth + 1))
        if len(row) == 1 and len(row[0].archives) == 1:
            nested = row[0].archives[0]
    for _ in packed.rest():
        pass
    return digest.digest() if effort.digests else b"", nested


def skip_zeros(reader: ByteReader) -> None:
    """Leaves out zero bytes."""
    for chunk in reader.rest():
        rest = chunk.lstrip(b"\0")
        if rest:
            reader.unread(rest)
            return


def rootness(members: tuple[Member, ...]) -> Rootness:
    """How much an archive of ``members`` looks like a root filesystem."""
    names = {cpio.normal_name(member.entry.name) for member in members}
    tops = {name.partition(b"/")[0] for name in names}
    if b"etc" in tops and any(name in names for name in _INITS):
        return Rootness.SYSTEM
    return Rootness.SOME if len(tops & _TOPS) >= 2 else Rootness.NOT
