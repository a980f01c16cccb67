"""Scanning: one pass over a file that finds every archive in it and notes every entry.

All values are tuples, and little is imported: a plain listing of an initramfs needs this alone (look/names.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cosremaster.codecs import PLAIN, SNIFF_SIZE, reading
from cosremaster.errors import CorruptError, Place, UnsupportedError
from cosremaster.io.streams import ByteReader, LastBytes, hash_chunks, sha256_of
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.identify import Identification, look

if TYPE_CHECKING:
    from cosremaster.codecs.base import Codec, Decoding, StreamParameters

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

# File types as in st_mode (POSIX <sys/stat.h>), each as the hexadecimal digit it is; nodes.Kind has their names.
_FILE, _SYMLINK, _OTHER = b"8", b"aA", b"1246cC"
_TYPES = _FILE + _SYMLINK + _OTHER


class Member(NamedTuple):
    """An entry with what its data told: a symlink's target, a regular file's SHA-256 (empty: no data)."""

    entry: cpio.NewcEntry
    target: bytes
    digest: bytes


Inner: TypeAlias = "tuple[tuple[cpio.NewcEntry, Codec, ScannedArchive], ...]"


class Contents(NamedTuple):
    """What one archive holds.

    ``inner``: archives in it, each with the entry that holds it and the codec it was read with. ``names``: the
    members' alone, where nothing else was asked for.
    """

    members: tuple[Member, ...]
    inner: Inner
    trailer: cpio.NewcEntry
    names: tuple[bytes, ...] = ()


class ScannedArchive(NamedTuple):
    """One indexed archive, before its place among the others is known.

    ``size`` and ``tail`` are of the whole plain stream; ``span`` is what the archive takes of it with the zeros
    behind it. The rest is its :class:`Contents`.
    """

    form: StreamParameters
    size: int
    members: tuple[Member, ...]
    trailer: cpio.NewcEntry
    tail: bytes
    inner: Inner
    span: tuple[int, int] | None = None
    names: tuple[bytes, ...] = ()


class ScannedStream(NamedTuple):
    """A stream behind the first of a file: where it stands in the file, in bytes, and its archives."""

    start: int
    end: int
    codec: Codec
    archives: tuple[ScannedArchive, ...]


class ScanOptions(NamedTuple):
    """How closely to look: ``digests`` of all data, and archives in archives down to ``nesting``.

    ``edits``: whether a layer may be packed anew; what only that needs is not noted otherwise. ``tail``: plain bytes
    that are kept from each layer's end. ``names``: nothing but the members' names, nor :attr:`ScannedArchive.members`.
    A stream that expands by more than ``max_expand``, beyond :data:`FREE_EXPANSION`, is taken for a bomb.
    """

    digests: bool = True
    nesting: int = NESTING
    edits: bool = True
    tail: int = TAIL
    max_expand: int = MAX_EXPAND
    names: bool = False


THOROUGH = ScanOptions()


def scan_streams(reader: ByteReader, codec: Codec, effort: ScanOptions, depth: int) -> Iterator[ScannedStream]:
    """Each stream of a file that begins with one of ``codec``; zeros between them belong to none, but behind an
    archive that is not compressed."""
    while True:
        reader.restart_position()
        archives = tuple(_archives(reader, codec, effort, depth))
        end = reader.position
        skip_zeros(reader)
        start = reader.origin
        yield ScannedStream(start, start + (reader.position if codec is PLAIN else end), codec, archives)
        if not reader.peek(1):
            return
        looked = look(reader.peek)
        if not looked.is_archive:
            raise UnsupportedError(
                "data follows the end of the cpio archive, and is no other archive", reader.next_place
            )
        codec = looked.codec


def _archives(packed: ByteReader, codec: Codec, effort: ScanOptions, depth: int) -> Iterator[ScannedArchive]:
    """The archives of the stream that begins where ``packed`` stands; reads to its end."""
    place = packed.place
    decoding = (codec if effort.edits else reading(codec)).decode(packed)
    tail = LastBytes(effort.tail)
    complete = False

    def plain() -> Iterator[bytes]:
        while True:
            yield from bounded(_ahead(decoding.next_stream(), effort), packed, decoding, effort.max_expand)
            if complete:
                return
            skip_zeros(packed)
            if not codec.sniff(packed.peek(SNIFF_SIZE)):
                return

    if codec is PLAIN:
        start = packed.position
        contents = read_contents(packed, start, effort, depth)
        skip_zeros(packed)
        size = packed.position - start
        yield ScannedArchive(form=decoding.parameters, size=size, tail=b"", span=(0, size), **contents._asdict())
        return
    reader = ByteReader(tail.watch(plain()) if effort.tail else plain(), place)
    parts: list[tuple[Contents, tuple[int, int]]] = []
    while not parts or reader.peek(len(cpio.NEWC)) in cpio.MAGICS:
        start = reader.position
        complete = False
        contents = read_contents(reader, 0, effort, depth)
        complete = True
        skip_zeros(reader)
        parts.append((contents, (start, reader.position)))
    if reader.peek(1):
        raise UnsupportedError("data follows the end of the cpio archive, and is no other archive", reader.next_place)
    for contents, span in parts:
        yield ScannedArchive(
            form=decoding.parameters, size=reader.position, tail=tail.bytes(), span=span, **contents._asdict()
        )


def _ahead(chunks: Iterator[bytes], effort: ScanOptions) -> Iterator[bytes]:
    """``chunks``, decoded on a thread of their own where there is more to do with them than to step over entries:
    handing them over would take longer than that."""
    if not (effort.digests or effort.nesting):
        return chunks
    from cosremaster.io.parallel import prefetch_batches  # noqa: PLC0415 - a plain listing needs none of it

    return prefetch_batches(chunks)


def bounded(chunks: Iterator[bytes], packed: ByteReader, decoding: Decoding, ratio: int) -> Iterator[bytes]:
    """``chunks``, which ``decoding`` makes of ``packed``. :raises CorruptError: they are too many for what was read."""
    start, plain = decoding.position, 0
    for chunk in chunks:
        plain += len(chunk)
        if plain > FREE_EXPANSION + ratio * (decoding.position - start):
            raise CorruptError(
                f"expands to more than {ratio:,} times its size, as a bomb does (--max-expand)",
                packed.place_at(decoding.position),
            )
        yield chunk


def read_contents(reader: ByteReader, origin: int, effort: ScanOptions, depth: int) -> Contents:
    """Notes every entry of one archive; looks into members while that is wanted."""
    if effort.names:
        return _read_names(reader, origin)
    members: list[Member] = []
    inner: list[tuple[cpio.NewcEntry, Codec, ScannedArchive]] = []
    deeper = depth < effort.nesting
    for entry in cpio.read_entries(reader, origin):
        header, name, _ = entry
        if name == cpio.TRAILER:
            break
        target = digest = b""
        kind = _checked_type(reader, entry)
        if kind in _SYMLINK:
            target = reader.read_exactly(header.size)
        elif kind in _FILE and (deeper or effort.digests) and (size := header.size):
            looked = _look_inside(reader, size) if deeper else None
            if looked and looked.is_archive:
                digest, nested = _index_member(reader, entry, looked.codec, effort, depth)
                if nested is not None:
                    inner.append((entry, looked.codec, nested))
            elif effort.digests:
                digest = sha256_of(reader.read_parts(size))
        members.append(Member(entry, target, digest))
    reader.skip(origin + entry.end - reader.position)
    return Contents(tuple(members), tuple(inner), entry)


def _read_names(reader: ByteReader, origin: int) -> Contents:
    """Notes the name of every entry of one archive, and nothing else."""
    names: list[bytes] = []
    while True:
        names += cpio.step_over(reader, _FILE + _OTHER)
        entry, end = cpio.read_entry(reader, origin)
        if entry.name != cpio.TRAILER:
            _checked_type(reader, entry)
            names.append(entry.name)
        cpio.skip_to(reader, end, entry.name)
        if entry.name == cpio.TRAILER:
            return Contents((), (), entry, tuple(names))


def _checked_type(reader: ByteReader, entry: cpio.NewcEntry) -> int:
    """The digit of the type of ``entry``. :raises CorruptError: there is no such type, or no such symlink."""
    header = entry.header
    kind = header.type_digit
    if kind not in _TYPES:
        raise CorruptError(f"no file type has mode {header.mode:o}", _at(reader, entry))
    if kind in _SYMLINK and header.size > MAX_TARGET:
        raise CorruptError(f"symlink target of {header.size:,} bytes", _at(reader, entry))
    return kind


def _look_inside(reader: ByteReader, size: int) -> Identification:
    """What the ``size`` bytes before ``reader`` are."""
    return look(lambda count: reader.peek(min(size, count)))


def _at(reader: ByteReader, entry: cpio.NewcEntry) -> Place:
    return reader.place.inside(entry.name).at(entry.offset)


def _index_member(
    reader: ByteReader, entry: cpio.NewcEntry, codec: Codec, effort: ScanOptions, depth: int
) -> tuple[bytes, ScannedArchive | None]:
    """Indexes the archive that is ``entry``'s data; its digest is taken on the way.

    A row of several is the system's own (``boot/initrd.img``), no layer to edit: None.
    """
    from hashlib import sha256  # noqa: PLC0415 - a plain listing needs none of it

    digest = sha256()
    chunks = reader.read_parts(entry.header.size)
    packed = ByteReader(hash_chunks(chunks, digest) if effort.digests else chunks, reader.place.inside(entry.name))
    nested: ScannedArchive | None = None
    with contextlib.suppress(UnsupportedError):
        row = tuple(scan_streams(packed, codec, effort, depth + 1))
        if len(row) == 1 and len(row[0].archives) == 1:
            nested = row[0].archives[0]
    for _ in packed.read_rest():
        pass
    return digest.digest() if effort.digests else b"", nested


def skip_zeros(reader: ByteReader) -> None:
    """Leaves out zero bytes."""
    for chunk in reader.read_rest():
        rest = chunk.lstrip(b"\0")
        if rest:
            reader.unread(rest)
            return
