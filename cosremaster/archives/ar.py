"""The members of an ar archive (ar(5)), of which Debian packages are made (deb(5))."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.errors import CorruptError
from cosremaster.io.streams import ByteReader
from cosremaster.records.tuples import NamedTuple

MAGIC = b"!<arch>\n"
_HEADER_SIZE = 60
_NAME, _SIZE, _END = slice(0, 16), slice(48, 58), slice(58, 60)


class ArMember(NamedTuple):
    """A member: its name, and how many bytes of data it has."""

    name: bytes
    size: int


def read_members(reader: ByteReader) -> Iterator[ArMember]:
    """Yield each member of the archive ``reader`` when the reader stands before its data, which may be read then.

    :raises CorruptError: damage, with its place.
    """
    reader.skip(len(MAGIC))
    while header := reader.read_upto(_HEADER_SIZE):
        size = header[_SIZE].strip()
        if len(header) < _HEADER_SIZE or header[_END] != b"`\n" or not size.isdigit():
            raise CorruptError("is no member of an ar archive", reader.place_at(reader.position - len(header)))
        end = reader.position + int(size)
        yield ArMember(header[_NAME].rstrip().removesuffix(b"/"), int(size))
        reader.skip(end - reader.position)
        reader.read_upto(end % 2)
