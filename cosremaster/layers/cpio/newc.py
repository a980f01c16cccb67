"""The "new ASCII" cpio format: 070701 (newc) and 070702 (crc), as bytes and as values.

Specification: cpio(5) of libarchive, "New ASCII Format" and "New CRC Format"; the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable, Iterator

from cosremaster.errors import CorruptError
from cosremaster.io.streams import ByteReader
from cosremaster.records.tuples import NamedTuple

HEADER_SIZE = 110
NEWC = b"070701"
CRC = b"070702"
MAGICS = (NEWC, CRC)
TRAILER = b"TRAILER!!!"
BLOCKING = 512
"""GNU cpio pads an archive to a multiple of this many bytes."""

_NO_TRAILER = f"cpio archive ends without its {TRAILER.decode()} entry"

MAX_FIELD = 0xFFFFFFFF
MAX_NAME = 4096
"""Bytes of a name with its NUL; the kernel's PATH_MAX."""

_FIELDS = (
    "inode number", "mode", "user id", "group id", "link count", "mtime", "file size",
    "device major", "device minor", "rdev major", "rdev minor", "name size", "check",
)  # fmt: skip
_INO, _MODE, _UID, _GID, _NLINK, _MTIME, _SIZE, _DEVMAJOR, _DEVMINOR, _RMAJOR, _RMINOR, _NAMESIZE, _CHECK = range(13)
_TYPE_AT = 18  # the digit that is the file type's four bits of the mode
_unpack_fields = struct.Struct(">13I").unpack
_unpack = struct.Struct(">24x I 16x I 4x").unpack  # of data and name, in the fields as numbers
_unhexlify = binascii.unhexlify


ALIGNMENT = 4
"""Headers, data, and archives behind the first begin at a multiple of this many bytes."""


def padding_size(length: int) -> int:
    """Return how many zero bytes bring ``length`` to a multiple of 4."""
    return -length % ALIGNMENT


POSTDATED = 0x7FFFFFFF
"""An mtime (January 2038) after every clock, and the last that programs with a time of 32 bits take for no negative."""


class HeaderFields(NamedTuple):
    """The fields of a header that is made here; the device of the file is 0. Every value must fit 32 bits.

    ``name_size``: bytes of the name with its NUL; ``check``: the sum of all data bytes, in a 070702 archive;
    ``is_postdated``: the time in the entry is later than every clock, and ``mtime`` that of what was packed.
    """

    ino: int
    mode: int
    name_size: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    mtime: int = 0
    size: int = 0
    rdev: tuple[int, int] = (0, 0)
    check: int = 0
    is_postdated: bool = False

    def encode(self, magic: bytes = NEWC) -> Header:
        """Return the header with these fields."""
        mtime, check = self.mtime, self.check
        if self.is_postdated:
            mtime, check = POSTDATED, check if magic == CRC else max(mtime, 1)
        values = (
            self.ino, self.mode, self.uid, self.gid, self.nlink, mtime, self.size, 0, 0, *self.rdev,
            self.name_size, check,
        )  # fmt: skip
        return Header(magic + b"".join(b"%08X" % value for value in values))


class Header(NamedTuple):
    """The 110 bytes before a name, as they are in the archive; fields are decoded when they are read.

    Compact on purpose: an index keeps one for every entry of an archive.
    """

    raw: bytes

    def _field(self, index: int) -> int:
        """Return field ``index`` of the 13."""
        return int(self.raw[6 + 8 * index : 14 + 8 * index], 16)

    @property
    def fields(self) -> tuple[int, ...]:
        """All 13 fields."""
        return _unpack_fields(_unhexlify(self.raw[6:]))

    def with_data(self, size: int, check: int) -> Header:
        """Return this header for ``size`` bytes of data with the sum ``check``."""
        raw = self.raw
        return Header(raw[:54] + b"%08X" % size + raw[62:102] + b"%08X" % check)

    def with_name(self, name: bytes) -> Header:
        """Return this header for an entry called ``name``."""
        raw = self.raw
        return Header(raw[:94] + b"%08X" % (len(name) + 1) + raw[102:])

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
        """The file type in :attr:`mode`, as the ASCII code of its hexadecimal digit."""
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
    def source_mtime(self) -> int:
        """The time of what was packed: of a postdated entry of ours it stands where 070701 has no use for a check."""
        mtime = self.mtime
        return self.check if mtime == POSTDATED and self.magic == NEWC and self.check else mtime

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


class MissingTrailerError(CorruptError):
    """An archive ends where its next entry would begin: it has no trailer. The kernel does without."""


def _is_hex(digits: bytes) -> bool:
    """Return whether ``digits`` are pairs of hexadecimal digits."""
    try:
        binascii.unhexlify(digits)
    except binascii.Error:
        return False
    return True


def _describe_fault(raw: bytes) -> str:
    """Return what is wrong with 110 bytes that are no header."""
    if raw[:6] not in MAGICS:
        return f"no cpio header here (magic is {raw[:6]!r})"
    wrong = (name for at, name in enumerate(_FIELDS) if not _is_hex(raw[6 + 8 * at : 14 + 8 * at]))
    return f"{next(wrong)} field is not hexadecimal"


class NewcEntry(NamedTuple):
    """A header, the name without its NUL, and the byte offset of the header in the archive.

    A tuple, as one is made for every entry of an archive that is only listed.
    """

    header: Header
    name: bytes
    offset: int

    @property
    def data_offset(self) -> int:
        """The byte offset of the data."""
        length = HEADER_SIZE + self.header.namesize
        return self.offset + length + padding_size(length)

    @property
    def end(self) -> int:
        """The byte offset of the next header."""
        return self.data_offset + self.header.size + padding_size(self.header.size)


def read_entries(reader: ByteReader, origin: int | None = None) -> Iterator[NewcEntry]:
    """Yield the entries of one archive, the trailer last.

    At each of them ``reader`` stands at the entry's data, and the caller may read these in part or whole.

    :param origin: the position from which offsets count; where the reader stands at first when None.
    :raises CorruptError: the archive is malformed.
    """
    base = reader.position if origin is None else origin
    while True:
        entry, end = read_entry(reader, base)
        yield entry
        if entry.name == TRAILER:
            return
        if end != reader.position:
            skip_data(reader, end, entry.name)


def read_entry(reader: ByteReader, origin: int) -> tuple[NewcEntry, int]:
    """Return the entry that begins where ``reader`` stands, and the position where its data and their padding end.

    The reader stands at the data then. :raises CorruptError: as :func:`read_entries`.
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
        _check_no_end(reader, head)
        if len(head) < HEADER_SIZE:
            reader.skip(len(head))
            raise CorruptError(_NO_TRAILER, reader.next_place)
        raise CorruptError(_describe_fault(head), reader.place_at(start))
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
        gap = data - HEADER_SIZE - length
        if len(reader.peek(gap)) < gap:
            skip_data(reader, end, name)  # this error says how much of the entry is missing
        reader.skip(gap)
    return NewcEntry(Header(head), name, start - origin), end


def _check_no_end(reader: ByteReader, head: bytes) -> None:
    """Check that the archive goes on with ``head``, which is no header and where ``reader`` stands.

    :raises MissingTrailerError: nothing but zeros follows, or zeros and another archive. The reader stands behind them.
    """
    if head[:1] not in (b"", b"\0"):
        return
    place = reader.next_place
    reader.skip_zeros()
    following = reader.peek(len(NEWC))
    if not following or following in MAGICS:
        raise MissingTrailerError(_NO_TRAILER, place)
    raise CorruptError(_NO_TRAILER if len(head) < HEADER_SIZE else _describe_fault(head), place)


def missing_trailer(magic: bytes, offset: int) -> NewcEntry:
    """Return the trailer that an archive lacks whose last entry ends at ``offset``."""
    return NewcEntry(Header(encode_trailer(magic)[:HEADER_SIZE]), TRAILER, offset)


def skip_entries(reader: ByteReader, types: bytes) -> list[bytes]:
    """Skip the next entries of ``types`` (:attr:`Header.type_digit`), and return their names; fast, for listings.

    Stops before the trailer, before an entry whose name the end of a chunk cuts, and before anything odd: these are
    for :func:`read_entry`. The reader stands behind the data of the last skipped entry then.
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
        if name.find(0) != length - 1 or name.startswith(TRAILER):  # no NUL: the chunk's end cuts the name
            break
        names.append(name[:-1])
        at = end
        data += -(data - at) % ALIGNMENT
        end = data + size + -size % ALIGNMENT
    if names:
        reader.skip(at - begin)
        skip_data(reader, reader.position + end - at, names[-1])
    return names


def skip_data(reader: ByteReader, end: int, name: bytes) -> None:
    """Skip the rest of the data of the entry ``name``, up to position ``end``.

    :raises CorruptError: the stream ends before.
    """
    try:
        reader.skip(end - reader.position)
    except CorruptError as error:
        raise CorruptError(error.message, reader.place.inside(name).at(reader.origin + reader.position)) from error


def encode_head(header: Header, name: bytes) -> bytes:
    """Return ``header`` and ``name`` as bytes of an archive: as many as ``header`` says, and padding."""
    length = HEADER_SIZE + header.namesize
    return (header.raw + name).ljust(length + padding_size(length), b"\0")


def encode_trailer(magic: bytes = NEWC) -> bytes:
    """Return the entry that ends an archive."""
    return encode_head(HeaderFields(ino=0, mode=0, name_size=len(TRAILER) + 1).encode(magic), TRAILER)


def sum_data(chunks: Iterable[bytes]) -> int:
    """Return the check of a 070702 archive for the data ``chunks``: the sum of all bytes, modulo 2**32."""
    return sum(sum(chunk) for chunk in chunks) & MAX_FIELD
