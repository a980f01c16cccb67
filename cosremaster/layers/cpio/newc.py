"""The "new ASCII" cpio format: 070701 (newc) and 070702 (crc), as bytes and as values.

Specification: cpio(5) of libarchive, "New ASCII Format" and "New CRC Format"; the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from cosremaster.errors import CorruptError, Place
from cosremaster.io.streams import ByteReader

HEADER_SIZE = 110
NEWC = b"070701"
CRC = b"070702"
MAGICS = (NEWC, CRC)
TRAILER = b"TRAILER!!!"
BLOCKING = 512
"""GNU cpio pads an archive to a multiple of this many bytes."""

MAX_FIELD = 0xFFFFFFFF
MAX_NAME = 4096
"""Bytes of a name with its NUL; the kernel's PATH_MAX."""

_FIELDS = (
    "inode number", "mode", "user id", "group id", "link count", "mtime", "file size",
    "device major", "device minor", "rdev major", "rdev minor", "name size", "check",
)  # fmt: skip
_INO, _MODE, _UID, _GID, _NLINK, _MTIME, _SIZE, _DEVMAJOR, _DEVMINOR, _RMAJOR, _RMINOR, _NAMESIZE, _CHECK = range(13)
_TYPE_AT = 18  # the digit that is the file type's four bits of the mode
_unpack_all = struct.Struct(">13I").iter_unpack
_unpack = struct.Struct(">24x I 16x I 4x").unpack  # of data and name, in the fields as numbers
_unhexlify = binascii.unhexlify
_AT_ONCE = 4096  # headers


ALIGNMENT = 4
"""Headers, data, and archives behind the first begin at a multiple of this many bytes."""


def padding(length: int) -> int:
    """How many zero bytes bring ``length`` to a multiple of 4."""
    return -length % ALIGNMENT


class Header(NamedTuple):
    """The 110 bytes before a name, kept as they were found; fields are read on demand.

    Compact on purpose: an index keeps one for every entry of an archive.
    """

    raw: bytes

    @classmethod
    def parse(cls, raw: bytes, place: Place) -> Header:
        """Checks and wraps 110 bytes. :raises CorruptError: bad magic, or a field is not hexadecimal."""
        if len(raw) != HEADER_SIZE or raw[:6] not in MAGICS or not _is_hex(raw[6:]):
            raise CorruptError(_what_is_wrong(raw), place)
        return cls(raw)

    @classmethod
    def make(
        cls, *, ino: int, mode: int, uid: int, gid: int, nlink: int, mtime: int, size: int,
        rdev: tuple[int, int], namesize: int, magic: bytes = NEWC, check: int = 0,
    ) -> Header:  # fmt: skip
        """A header of our own; device numbers are zero. Every value must fit 32 bits."""
        fields = (ino, mode, uid, gid, nlink, mtime, size, 0, 0, *rdev, namesize, check)
        return cls(magic + b"".join(b"%08X" % value for value in fields))

    def pack(self) -> bytes:
        """The 110 bytes."""
        return self.raw

    def _field(self, index: int) -> int:
        return int(self.raw[6 + 8 * index : 14 + 8 * index], 16)

    def with_data(self, size: int, check: int) -> Header:
        """This header for an entry that carries ``size`` bytes with cpio sum ``check``."""
        raw = self.raw
        return Header(raw[:54] + b"%08X" % size + raw[62:102] + b"%08X" % check)

    @property
    def magic(self) -> bytes:
        """070701 or 070702."""
        return self.raw[:6]

    @property
    def ino(self) -> int:
        """Inode number."""
        return self._field(_INO)

    @property
    def mode(self) -> int:
        """File type and permission bits, as st_mode."""
        return self._field(_MODE)

    @property
    def type_digit(self) -> int:
        """The file type in :attr:`mode`, as the character (ASCII) that stands in the field."""
        return self.raw[_TYPE_AT]

    @property
    def uid(self) -> int:
        """Numeric owner."""
        return self._field(_UID)

    @property
    def gid(self) -> int:
        """Numeric group."""
        return self._field(_GID)

    @property
    def nlink(self) -> int:
        """Link count."""
        return self._field(_NLINK)

    @property
    def mtime(self) -> int:
        """Seconds since 1970."""
        return self._field(_MTIME)

    @property
    def size(self) -> int:
        """Bytes of data behind the name."""
        return self._field(_SIZE)

    @property
    def dev(self) -> tuple[int, int]:
        """Major and minor of the device the file was on."""
        return self._field(_DEVMAJOR), self._field(_DEVMINOR)

    @property
    def rdev(self) -> tuple[int, int]:
        """Major and minor of a device node."""
        return self._field(_RMAJOR), self._field(_RMINOR)

    @property
    def namesize(self) -> int:
        """Bytes of the name with its NUL."""
        return self._field(_NAMESIZE)

    @property
    def check(self) -> int:
        """070702: the sum of all data bytes, modulo 2**32. 070701: zero."""
        return self._field(_CHECK)


def values_of(headers: Iterable[Header]) -> Iterator[tuple[int, ...]]:
    """All fields of each of ``headers``, in their order. What looks at every entry of an archive lives on this."""
    rest = iter(headers)
    while group := [header.raw[6:] for header in islice(rest, _AT_ONCE)]:
        yield from _unpack_all(_unhexlify(b"".join(group)))


def _is_hex(digits: bytes) -> bool:
    try:
        binascii.unhexlify(digits)
    except binascii.Error:
        return False
    return True


def _what_is_wrong(raw: bytes) -> str:
    """With 110 bytes that are no header."""
    if raw[:6] not in MAGICS:
        return f"no cpio header here (magic is {raw[:6]!r})"
    wrong = (
        name for at, name in enumerate(_FIELDS) if not _is_hex(raw[6 + 8 * at : 14 + 8 * at])
    )  # fmt: skip
    return f"{next(wrong)} field is not hexadecimal"


class NewcEntry(NamedTuple):
    """A header, its name as bytes without the NUL, and its byte offset in the archive.

    A tuple, as one is made for every entry of an archive that is only listed.
    """

    header: Header
    name: bytes
    offset: int

    @property
    def data_offset(self) -> int:
        """Where the data begins."""
        end = self.offset + HEADER_SIZE + self.header.namesize
        return end + padding(HEADER_SIZE + self.header.namesize)

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.data_offset + self.header.size + padding(self.header.size)

    @property
    def is_trailer(self) -> bool:
        """True for the entry that ends an archive."""
        return self.name == TRAILER


def read_entries(reader: ByteReader, origin: int | None = None) -> Iterator[NewcEntry]:
    """The entries of one archive, the trailer last.

    At each yield ``reader`` stands at the entry's data, which the caller may consume in part or whole.
    Offsets count from ``origin``, where the reader stood at first when None. :raises CorruptError: anything malformed.
    """
    base = reader.position if origin is None else origin
    while True:
        entry, end = read_entry(reader, base)
        yield entry
        if entry.name == TRAILER:
            return
        if end != reader.position:
            skip_to(reader, end, entry.name)


def read_entry(reader: ByteReader, origin: int) -> tuple[NewcEntry, int]:
    """The entry that begins where ``reader`` stands, and the position where its data end, padding included.

    ``reader`` stands at the data then. :raises CorruptError: as :func:`read_entries`.
    """
    start = reader.position
    buffer, at = reader.buffered()
    if at + HEADER_SIZE > len(buffer):
        buffer, at = reader.peek(HEADER_SIZE), 0
    head = buffer[at : at + HEADER_SIZE]
    try:
        size, length = _unpack(_unhexlify(head[6:]))
    except (struct.error, binascii.Error):
        length = -1
    if length < 0 or not head.startswith(MAGICS):
        if len(head) < HEADER_SIZE:
            reader.skip(len(head))
            raise CorruptError(f"cpio archive ends without its {TRAILER.decode()} entry", reader.next_place)
        raise CorruptError(_what_is_wrong(head), reader.place_at(start))
    if not 0 < length <= MAX_NAME:
        raise CorruptError(f"name of {length:,} bytes", reader.place_at(start))
    data = HEADER_SIZE + length
    data += -data % ALIGNMENT
    end = start + data + size + -size % ALIGNMENT
    is_buffered = at + data <= len(buffer)
    if is_buffered:
        raw = buffer[at + HEADER_SIZE : at + data]
        reader.skip(data)
    else:
        reader.skip(HEADER_SIZE)
        raw = reader.read_exactly(length)
    if raw[length - 1]:
        raise CorruptError("name does not end with a NUL", reader.place_at(start))
    name = raw[: raw.index(0)]
    if not is_buffered:
        padding_size = data - HEADER_SIZE - length
        if len(reader.peek(padding_size)) < padding_size:
            skip_to(reader, end, name)  # which says how much of the entry is missing
        reader.skip(padding_size)
    return NewcEntry(Header(head), name, start - origin), end


def step_over(reader: ByteReader, types: bytes) -> list[bytes]:
    """The names of the next entries of ``types`` (:attr:`Header.type_digit`) that are sound and at hand.

    ``reader`` stands behind the data of the last then. It stops before the trailer, before what a chunk's end cuts,
    and before anything odd: :func:`read_entry` knows what to do about it. Listing names alone lives on this.
    """
    names = []
    buffer, at = reader.buffered()
    begin = end = at
    last = len(buffer) - HEADER_SIZE
    while end <= last:
        head = buffer[end : end + HEADER_SIZE]
        try:
            size, length = _unpack(_unhexlify(head[6:]))
        except binascii.Error:
            break
        data = end + HEADER_SIZE + length
        name = buffer[end + HEADER_SIZE : data]
        if head[_TYPE_AT] not in types or not head.startswith(MAGICS) or length > MAX_NAME:
            break
        if name.find(0) != length - 1 or name.startswith(TRAILER):  # the first also when the chunk's end cuts it
            break
        names.append(name[:-1])
        at = end
        data += -(data - at) % ALIGNMENT
        end = data + size + -size % ALIGNMENT
    if names:
        reader.skip(at - begin)
        skip_to(reader, reader.position + end - at, names[-1])
    return names


def skip_to(reader: ByteReader, end: int, name: bytes) -> None:
    """Leaves out what is left of the data of the entry ``name``, up to position ``end``."""
    try:
        reader.skip(end - reader.position)
    except CorruptError as error:
        raise CorruptError(error.message, reader.place.inside(name).at(reader.origin + reader.position)) from error


def encode_name(header: Header, name: bytes) -> bytes:
    """``header`` and ``name`` as they stand in an archive: as many bytes as ``header`` says, padding included."""
    length = HEADER_SIZE + header.namesize
    return (header.pack() + name).ljust(length + padding(length), b"\0")


def trailer(magic: bytes = NEWC) -> bytes:
    """The entry that ends an archive."""
    header = Header.make(
        ino=0, mode=0, uid=0, gid=0, nlink=1, mtime=0, size=0, rdev=(0, 0),
        namesize=len(TRAILER) + 1, magic=magic,
    )  # fmt: skip
    return encode_name(header, TRAILER)


def data_sum(chunks: Iterable[bytes]) -> int:
    """The 070702 check of ``chunks``: all bytes added up, modulo 2**32."""
    return sum(sum(chunk) for chunk in chunks) & MAX_FIELD
