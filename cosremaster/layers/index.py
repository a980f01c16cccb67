"""Indexing: one pass over a file of the image that finds every archive in it and notes every entry."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cosremaster import cpio
from cosremaster.codecs import PLAIN, find_codec, foreign_codec
from cosremaster.codecs.base import Codec, Form
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.layers.address import Address
from cosremaster.layers.decoded import DecodedSource
from cosremaster.nodes import Kind
from cosremaster.parallel import prefetch
from cosremaster.pieces import PieceTable, Range
from cosremaster.streams import ByteReader, Tail, counted, hashed, sha256_of

HEAD_SIZE = 4096
"""Bytes of a file that are looked at to tell what it is."""

MAX_TARGET = 65536
"""A longer symlink target is taken for damage."""

TAIL = 4 << 20
"""Plain bytes kept from a layer's end: twice what an LZMA2 chunk holds, so that additions decode nothing again."""

NESTING = 2
"""The image's file is one archive, an archive inside it the second; deeper ones are the system's own."""

_KINDS = frozenset(Kind)
_INITS = (b"sbin/init", b"usr/sbin/init", b"bin/init", b"usr/lib/systemd/systemd", b"lib/systemd/systemd")
_TOPS = frozenset((b"bin", b"dev", b"etc", b"lib", b"root", b"sbin", b"usr", b"var", b"init", b"linuxrc"))


class Rootness(enum.IntEnum):
    """How much an archive looks like a root filesystem."""

    NOT = 0
    SOME = 1
    """Its top level has two of the usual names: an initramfs, or a small system."""
    SYSTEM = 2
    """It has /etc and an init program of an installed system."""


@dataclass(frozen=True, slots=True)
class Member:
    """An entry with what its data told: a symlink's target, a regular file's SHA-256 (empty: no data)."""

    entry: cpio.Entry
    target: bytes
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A cpio archive somewhere in the image, indexed.

    ``packed``: its compressed bytes; ``decoded``: the plain ones, ``size`` of them. ``members`` are the
    entries before the trailer. ``parent`` is the archive this one is a file of, ``holder`` its entry there.
    """

    address: Address
    place: Place
    packed: PieceTable
    form: Form
    decoded: DecodedSource
    size: int
    members: tuple[Member, ...]
    trailer: cpio.Entry
    rootness: Rootness
    parent: Layer | None = None
    holder: cpio.Entry | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """What the first bytes of a file say: the codec to read it with and whether an archive begins."""

    codec: Codec
    is_archive: bool
    foreign: str | None
    """Something recognized that this version cannot open, for people."""


def probe(head: bytes) -> Probe:
    """Looks at the first :data:`HEAD_SIZE` bytes of a file (fewer when it is shorter)."""
    codec = find_codec(head) or PLAIN
    plain = codec.first(head, 8)
    foreign = foreign_codec(head)
    foreign = f"{foreign} compressed data" if foreign else _foreign_archive(plain)
    return Probe(codec, plain.startswith(cpio.MAGICS), foreign)


def _foreign_archive(plain: bytes) -> str | None:
    if plain.startswith(b"hsqs"):
        return "a squashfs file system"
    if plain.startswith((b"070707", b"\xc7\x71", b"\x71\xc7")):
        return "a cpio archive in an old format (odc or binary)"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundArchive:
    """One indexed archive, before its place among the others is known.

    ``inner``: archives in it, each with the entry that holds it and the codec it was read with.
    """

    form: Form
    size: int
    members: tuple[Member, ...]
    trailer: cpio.Entry
    tail: bytes
    inner: tuple[tuple[cpio.Entry, Codec, FoundArchive], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFile:
    """A file of the image that is an archive, indexed: its path, codec, and the SHA-256 of its bytes."""

    path: bytes
    codec: Codec
    digest: bytes
    found: FoundArchive


def index_file(
    path: bytes, packed: PieceTable, codec: Codec, place: Place, advance: Callable[[int], None]
) -> IndexedFile:
    """Indexes all archives in a file of the image that is one itself.

    ``packed`` is read once, front to back; ``advance`` hears of each of its bytes.

    :raises CorruptError: damage, with its place. :raises UnsupportedError: several archives in a row.
    """
    digest = hashlib.sha256()
    reader = ByteReader(hashed(counted(packed.chunks(), advance), digest), place)
    found = _index(reader, codec, 1)
    return IndexedFile(path=path, codec=codec, digest=digest.digest(), found=found)


def layers_of(indexed: IndexedFile, packed: PieceTable, place: Place) -> tuple[Layer, ...]:
    """The archives of an indexed file whose bytes are ``packed``, the outer first."""
    return tuple(_layers(indexed.path, packed, place, indexed.found))


def _layers(name: bytes, packed: PieceTable, place: Place, found: FoundArchive) -> Iterator[Layer]:
    outer = _layer((name,), packed, place, found, None, None)
    yield outer
    for entry, _, inner in found.inner:
        inside = PieceTable([Range(outer.decoded, entry.data_offset, entry.header.size)])
        address = (name, cpio.normal_name(entry.name))
        yield _layer(address, inside, place.inside(entry.name), inner, outer, entry)


def _layer(
    address: Address, packed: PieceTable, place: Place, found: FoundArchive,
    parent: Layer | None, holder: cpio.Entry | None,
) -> Layer:  # fmt: skip
    return Layer(
        address=address, place=place, packed=packed, form=found.form, size=found.size,
        decoded=DecodedSource(packed, found.form, place, found.tail, found.size), members=found.members,
        trailer=found.trailer, rootness=rootness(found.members), parent=parent, holder=holder,
    )  # fmt: skip


def _index(packed: ByteReader, codec: Codec, depth: int) -> FoundArchive:
    """Decodes ``packed`` to its end and notes every entry; looks into members down to :data:`NESTING`."""
    place = packed.place
    decoding = codec.decode(packed)
    tail = Tail(TAIL)
    reader = ByteReader(tail.watch(prefetch(decoding.chunks())), place)
    members: list[Member] = []
    inner: list[tuple[cpio.Entry, Codec, FoundArchive]] = []
    for entry in cpio.read_entries(reader):
        if entry.is_trailer:
            break
        target = digest = b""
        size, kind = entry.header.size, entry.header.mode & 0o170000
        if kind not in _KINDS:
            raise CorruptError(f"no file type has mode {entry.header.mode:o}", _at(reader, entry))
        if kind == Kind.SYMLINK:
            if size > MAX_TARGET:
                raise CorruptError(f"symlink target of {size:,} bytes", _at(reader, entry))
            target = reader.exactly(size)
        elif kind == Kind.FILE and size:
            looked = probe(reader.peek(min(size, HEAD_SIZE))) if depth < NESTING else None
            if looked and looked.is_archive:
                digest, nested = _index_member(reader, entry, looked.codec, depth)
                inner.append((entry, looked.codec, nested))
            else:
                digest = sha256_of(reader.pieces(size))
        members.append(Member(entry, target, digest))
    _only_zeros(reader)
    return FoundArchive(
        form=decoding.form,
        size=reader.position,
        members=tuple(members),
        trailer=entry,
        tail=tail.bytes(),
        inner=tuple(inner),
    )


def _at(reader: ByteReader, entry: cpio.Entry) -> Place:
    return reader.place.inside(entry.name).at(entry.offset)


def _index_member(reader: ByteReader, entry: cpio.Entry, codec: Codec, depth: int) -> tuple[bytes, FoundArchive]:
    """Indexes the archive that is ``entry``'s data; its digest is taken on the way."""
    digest = hashlib.sha256()
    packed = ByteReader(hashed(reader.pieces(entry.header.size), digest), reader.place.inside(entry.name))
    nested = _index(packed, codec, depth + 1)
    for _ in packed.rest():
        pass
    return digest.digest(), nested


def _only_zeros(reader: ByteReader) -> None:
    """Reads what follows a trailer. :raises UnsupportedError: it is not zeros."""
    for chunk in reader.rest():
        start = len(chunk) - len(chunk.lstrip(b"\0"))
        if start < len(chunk):
            where = reader.place.at(reader.position - len(chunk) + start)
            raise UnsupportedError(
                "data follows the end of the cpio archive (several archives in a row, as with CPU microcode,"
                " are not supported yet)",
                where,
            )


def rootness(members: tuple[Member, ...]) -> Rootness:
    """How much an archive of ``members`` looks like a root filesystem."""
    names = {cpio.normal_name(member.entry.name) for member in members}
    tops = {name.partition(b"/")[0] for name in names}
    if b"etc" in tops and any(name in names for name in _INITS):
        return Rootness.SYSTEM
    return Rootness.SOME if len(tops & _TOPS) >= 2 else Rootness.NOT
