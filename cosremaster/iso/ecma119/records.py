"""Read volume descriptors and directory records, each with its place (ECMA-119; section numbers are its)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from cosremaster.errors import ImageError, Place
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.limits import TreeLimits
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, Lba, blocks_for, lba_offset

IMAGE_START = Lba(0)
_VERSION = lazy_regex(rb";[0-9]{1,5}\Z")
NEGATIVE = 1 << 31
"""libarchive writes and reads block numbers from here on as negative ones, which records without data have there."""
PRIMARY, SUPPLEMENTARY, TERMINATOR = 1, 2, 255
MAX_DESCRIPTORS = 64
MAX_DIRECTORY = 1 << 28
"""The most bytes of a directory that is read; a longer one is damage."""
VOLUME_ID = 40
"""The byte of a volume descriptor at which the volume id begins (8.4.6)."""
ROOT_RECORD = 156
"""The byte of a volume descriptor at which the root directory's record begins (8.4.18)."""
PATH_TABLE_SIZE = 132
"""The byte of a volume descriptor that begins the path tables' size, in bytes (8.4.13)."""
VOLUME_SPACE_SIZE = 80
"""The byte of a volume descriptor that begins the volume space size, in blocks (8.4.8)."""


DIRECTORY, ASSOCIATED, MULTI_EXTENT = 0x02, 0x04, 0x80
"""File flags of a directory record (9.1.6)."""
MIN_RECORD = 34
"""Bytes of the shortest directory record (9.1)."""
RECORD_HEAD = struct.Struct("<BBL4xL4x7xBBB4xB")
"""Of a directory record (9.1): its length, the blocks of its extended attribute record, block and length of the data,
flags, file unit size, interleave gap, and the length of the identifier that follows."""


class DirectoryRecord(Struct, frozen=True, checked=False):
    """A directory record (9.1).

    ``offset``: the byte offset of the record in the image. ``lba`` and ``length``: the first block and the bytes of the
    data. ``parent``: the identifiers of the directory's path; ``identifier``: that of the record itself. ``is_plain``:
    the data have no extended attribute record and are not interleaved (9.1.2, 9.1.7).
    """

    offset: int
    lba: Lba
    length: int
    flags: int
    parent: tuple[bytes, ...]
    identifier: bytes
    is_plain: bool = True

    @property
    def blocks(self) -> int:
        """The number of blocks of data."""
        return blocks_for(self.length)

    @property
    def is_dot(self) -> bool:
        """Whether this is the ``.`` or the ``..`` of its directory (6.8.2.2)."""
        return self.identifier in (b"\0", b"\1")


class Extent(Struct, frozen=True, checked=False):
    """The first block and the bytes of a directory or of a path table."""

    lba: Lba
    length: int


class VolumeDescriptor(Struct, frozen=True):
    """A volume descriptor (8.1): its 2,048 bytes, and the block that holds them."""

    lba: Lba
    raw: bytes

    @property
    def type(self) -> int:
        """The volume descriptor type: 0 boot record, 1 primary, 2 supplementary, 255 set terminator (8.1.1)."""
        return self.raw[0]

    @property
    def blocks(self) -> int:
        """The volume space size (8.4.8) in blocks."""
        return int.from_bytes(self.raw[VOLUME_SPACE_SIZE : VOLUME_SPACE_SIZE + 4], "little")

    @property
    def root(self) -> Extent:
        """The root directory's extent (8.4.18); its block counts as the descriptor counts."""
        record = self.raw[ROOT_RECORD : ROOT_RECORD + 34]
        return Extent(Lba(int.from_bytes(record[2:6], "little")), int.from_bytes(record[10:14], "little"))

    @property
    def path_tables(self) -> tuple[Extent, ...]:
        """The extents of up to four path tables (8.4.13 to 8.4.17)."""
        size = int.from_bytes(self.raw[132:136], "little")
        blocks = [int.from_bytes(self.raw[at : at + 4], "little") for at in (140, 144)]
        blocks += [int.from_bytes(self.raw[at : at + 4], "big") for at in (148, 152)]
        return tuple(Extent(Lba(lba), size) for lba in blocks if lba)


def pack_both_endian(value: int) -> bytes:
    """Return a 32-bit number in both byte orders, little-endian first (7.3.3)."""
    return value.to_bytes(4, "little") + value.to_bytes(4, "big")


def read_descriptors(source: ByteSource, first: Lba = FIRST_DESCRIPTOR) -> tuple[VolumeDescriptor, ...]:
    """Read the volume descriptors from block ``first`` on; the set terminator is the last one.

    :raises ImageError: when block ``first`` is not a volume descriptor, or there is no set terminator.
    """
    descriptors: list[VolumeDescriptor] = []
    for index in range(MAX_DESCRIPTORS):
        lba = Lba(first + index)
        raw = source.read(lba_offset(lba), BLOCK)
        if raw[1:6] != b"CD001":
            if descriptors:
                raise ImageError("volume descriptors end without a terminator", source.place.at(lba_offset(lba)))
            raise ImageError("is no ISO 9660 image (no volume descriptor at block 16)", source.place)
        if len(raw) < BLOCK:
            raise ImageError("is cut off inside its volume descriptors", source.place.at(lba_offset(lba)))
        descriptors.append(VolumeDescriptor(lba, raw))
        if raw[0] == TERMINATOR:
            return tuple(descriptors)
    raise ImageError(f"has more than {MAX_DESCRIPTORS} volume descriptors", source.place)


def walk_directories(
    source: ByteSource, root: Extent, base: Lba = IMAGE_START
) -> tuple[tuple[Extent, ...], tuple[DirectoryRecord, ...]]:
    """Read all directories from ``root`` on, by their identifiers alone.

    Returns the extents of the directories, ``root`` first, and their records except ``.`` and ``..``. All blocks of the
    result count from the image's start.

    :param base: the block from which ``root`` and the tree's records count their blocks.
    :raises ImageError: when a record is malformed, or a directory lies outside the image or inside itself.
    """
    root = Extent(Lba(base + root.lba), root.length)
    directories, records = [root], list[DirectoryRecord]()
    waiting: list[tuple[Extent, tuple[bytes, ...]]] = [(root, ())]
    seen, limits = {root.lba}, TreeLimits(source)
    while waiting:
        parent, path = waiting.pop()
        limits.count_directory(parent.lba, parent.length)
        for record, _ in read_directory(source, parent, path, base):
            records.append(record)
            if record.flags & DIRECTORY:
                directory = Extent(record.lba, record.length)
                if directory.lba in seen:
                    raise ImageError("directory tree leads into itself", source.place.at(record.offset))
                seen.add(directory.lba)
                directories.append(directory)
                limits.count_path(b"", len(path))
                waiting.append((directory, (*path, record.identifier)))
    return tuple(directories), tuple(records)


def read_directory(
    source: ByteSource, directory: Extent, path: tuple[bytes, ...], base: Lba
) -> Iterator[tuple[DirectoryRecord, bytes]]:
    """Yield the records of a directory except ``.`` and ``..``, each with its bytes; see :func:`read_all_records`."""
    for record, raw in read_all_records(source, directory, path, base):
        if not record.is_dot:
            yield record, raw


def read_directory_bytes(source: ByteSource, directory: Extent, path: tuple[bytes, ...]) -> bytes:
    """Return the bytes of a directory. :raises ImageError: it lies outside the image; ``path`` as below."""
    start = lba_offset(directory.lba)
    if directory.length > MAX_DIRECTORY or start + directory.length > source.size:
        raise ImageError("directory lies outside the image; it may be cut off", _inside(source.place, path).at(start))
    return source.read(start, directory.length)


def begins_with_dots(data: bytes) -> bool:
    """Return whether the first two records of the directory with the bytes ``data`` are ``.`` and ``..`` (6.8.2.2)."""
    dot = data[: data[0]] if data else b""
    dot_dot = data[len(dot) : len(dot) + data[len(dot)]] if dot and len(data) > len(dot) else b""
    return (dot[32:34], dot_dot[32:34]) == (b"\1\0", b"\1\1")


def read_all_records(
    source: ByteSource, directory: Extent, path: tuple[bytes, ...], base: Lba
) -> Iterator[tuple[DirectoryRecord, bytes]]:
    """Yield the records of a directory, ``.`` and ``..`` too, each with its bytes.

    A record does not cross the end of a block (6.8.1.1).

    :param path: the identifiers of the directory's path, for the records and for messages.
    :param base: the block from which the records count their blocks.
    :raises ImageError: when a record is malformed, or the directory lies outside the image.
    """
    start, data = lba_offset(directory.lba), read_directory_bytes(source, directory, path)
    for block in range(0, len(data), BLOCK):
        at, end = block, min(block + BLOCK, len(data))
        while at < end and data[at]:
            length = data[at]
            if length < MIN_RECORD or at + length > end or 33 + data[at + 32] > length:
                raise ImageError("malformed directory record", _inside(source.place, path).at(start + at))
            _, attributes, lba, size, flags, unit, gap, name_length = RECORD_HEAD.unpack_from(data, at)
            record = DirectoryRecord(
                start + at,
                base + lba + attributes,  # data follow the extended attribute record
                size, flags, path, data[at + 33 : at + 33 + name_length], not (attributes or unit or gap),
            )  # fmt: skip
            yield record, data[at : at + length]
            at += length


def locate_record(place: Place, record: DirectoryRecord) -> Place:
    """Return the place of ``record``'s file inside the image at ``place``."""
    return _inside(place, (*record.parent, record.identifier))


def _inside(place: Place, path: Iterable[bytes]) -> Place:
    """Return the place of the entry with the identifiers of ``path`` inside ``place``."""
    for identifier in path:
        place = place.inside(identifier)
    return place


def decode_identifier(identifier: bytes, *, joliet: bool) -> bytes:
    """Return the name that readers show for an identifier without Rock Ridge; it ends at the first NUL."""
    return (decode_joliet(identifier) if joliet else decode_plain(identifier)).partition(b"\0")[0]


def split_version(identifier: bytes) -> tuple[bytes, bytes]:
    """Return an identifier without its version, and the version with its separator, empty without one (7.5.1).

    Only the last one is a version: ``FOO;1.;1`` (genisoimage -relaxed-filenames) is a file called ``FOO;1``.
    """
    match = _VERSION.search(identifier) if b";" in identifier else None
    return (identifier[: match.start()], match[0]) if match else (identifier, b"")


def decode_plain(identifier: bytes) -> bytes:
    """Return an ISO 9660 file identifier (7.5) without its version and an empty extension."""
    return split_version(identifier)[0].removesuffix(b".") or identifier


def decode_joliet(identifier: bytes) -> bytes:
    """Return a Joliet identifier, big-endian UCS-2, as UTF-8 without its version."""
    name = identifier.decode("utf-16-be", "replace").encode("utf-8", "surrogatepass")
    return split_version(name)[0] or name


_is_odd = (1).__and__


def join_joliet(identifiers: Sequence[bytes]) -> bytes | None:
    """Return the Joliet ``identifiers`` as UTF-8 with slashes between them; None if one has halves of characters."""
    if any(map(_is_odd, map(len, identifiers))):
        return None
    try:
        return b"\0/".join(identifiers).decode("utf-16-be").encode()
    except UnicodeError:
        return None


def decode_joliet_identifiers(identifiers: Sequence[bytes]) -> list[bytes]:
    """Return the names that readers show for Joliet identifiers, which may be very many.

    They are decoded together, with a character between them that names do not have, where each has whole characters and
    neither a version nor a NUL.
    """
    names = join_joliet(identifiers)
    if names is not None and b";" not in names and b"\0" not in names:
        parts = names.split(b"/")
        if len(parts) == len(identifiers):
            return parts
    return [decode_identifier(identifier, joliet=True) for identifier in identifiers]
