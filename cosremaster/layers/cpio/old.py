"""Cpio archives in the older forms, octal (odc, 070707) and binary, as the newc archives they are equal to.

A layer in one of them is converted to newc while it is read, and an edited one is written as newc: no unpacker of an
initramfs reads the old forms. libarchive reads them. Specification: cpio(5) of libarchive, "Old Binary Format" and
"Portable ASCII Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosremaster.errors import CorruptError, Place, SizeError, UnsupportedError
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.format import OLD_MAGICS
from cosremaster.lazy_regex import lazy_regex
from cosremaster.tree.nodes import NodeKind

if TYPE_CHECKING:
    from cosremaster.archives.entry import ArchiveEntry
    from cosremaster.archives.reader import Archive

ODC, BINARY = "odc", "bin"
_KINDS = frozenset(NodeKind)
_ODC = lazy_regex(rb"070707[0-7]{12}([0-7]{6})[0-7]{35}([0-7]{6})[0-7]{11}")
_BINARY = 26
"""Bytes of a binary header: thirteen 16-bit words, mode the fourth, name size the eleventh."""


def old_variant(plain: bytes) -> str | None:
    """Return the old form of the archive that begins with ``plain``: ``odc`` or ``bin``; None for no such archive.

    Two bytes of magic are few, so the first entry's type and name must be plausible too.
    """
    if (octal := _ODC.match(plain)) is not None:
        return ODC if _is_plausible(int(octal[1], 8), int(octal[2], 8), plain[octal.end() :]) else None
    if plain.startswith(OLD_MAGICS[1:]) and len(plain) >= _BINARY:
        order = "<" if plain.startswith(OLD_MAGICS[1]) else ">"
        fields = struct.unpack_from(order + "13H", plain)
        return BINARY if _is_plausible(fields[3], fields[10], plain[_BINARY:]) else None
    return None


def _is_plausible(mode: int, namesize: int, rest: bytes) -> bool:
    """Return whether an entry can have this mode and name; ``rest``: bytes from the name on."""
    name = rest[:namesize]
    if not 1 < namesize <= cpio.MAX_NAME or not (mode & 0o170000 in _KINDS or name == cpio.TRAILER + b"\0"):
        return False
    return name.find(b"\0") == (namesize - 1 if len(name) == namesize else -1)


def convert_to_newc(chunks: Iterator[bytes], place: Place) -> Iterator[bytes]:
    """Yield the archive in an old form that ``chunks`` hold as a newc archive of the same entries in the same order.

    Inode numbers are counted anew, since newc's readers match hard links by the number alone; of hard links the
    first that has data carries them.

    :raises CorruptError: damage. :raises UnsupportedError: more than zeros follows the archive.
    :raises SizeError: a file that newc cannot hold.
    """
    length = 0
    last = b""

    def count_chunks() -> Iterator[bytes]:
        """Yield ``chunks``; count their bytes and keep the last."""
        nonlocal length, last
        for chunk in chunks:
            length, last = length + len(chunk), chunk
            yield chunk

    from cosremaster.archives.reader import Archive  # noqa: PLC0415 - only the old forms need it

    writer = _NewcWriter(place)
    counted = count_chunks()
    with Archive(("cpio",), place, filters=(), error=CorruptError) as archive:
        archive.open_chunks(counted)
        for entry in archive.entries():
            yield from writer.convert(entry, archive)
        end = archive.cpio_end
    if end is None:
        raise CorruptError("is no cpio archive", place)
    for chunk in (last[len(last) - (length - end) :], *counted):
        if chunk.strip(b"\0"):
            raise UnsupportedError("data follows the end of the cpio archive, which is in an old form", place)
    trailer = cpio.encode_trailer()
    yield trailer + bytes(-(writer.length + len(trailer)) % cpio.BLOCKING)


class _NewcWriter:
    """Writes entries of libarchive as newc; ``length``: bytes written so far."""

    def __init__(self, place: Place) -> None:
        """:param place: of the archive, for errors."""
        self.length = 0
        self._place = place
        self._inodes: dict[tuple[int, int], int] = {}
        self._carried: set[int] = set()
        self._count = 0

    def convert(self, entry: ArchiveEntry, archive: Archive) -> Iterator[bytes]:
        """Yield ``entry``, whose header ``archive`` read last, as newc.

        :raises CorruptError: it is damaged. :raises SizeError: newc cannot hold it.
        """
        place = self._place.inside(entry.name)
        self._check(entry, place)
        kind = entry.mode & 0o170000
        is_linked = kind == NodeKind.FILE and entry.nlink > 1
        number = self._number(entry.inode if is_linked else None)
        size = len(entry.symlink) if kind == NodeKind.SYMLINK else entry.size if kind == NodeKind.FILE else 0
        if is_linked and number in self._carried:
            size = 0
        elif is_linked and size:
            self._carried.add(number)
        fields = cpio.HeaderFields(
            ino=number, mode=entry.mode, uid=entry.uid, gid=entry.gid, nlink=entry.nlink, mtime=entry.mtime, size=size,
            rdev=entry.device if kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0), name_size=len(entry.name) + 1,
        )  # fmt: skip
        head = cpio.encode_head(fields.encode(), entry.name)
        yield head
        written = 0
        if size:
            for chunk in (entry.symlink,) if kind == NodeKind.SYMLINK else archive.data(place):
                written += len(chunk)
                yield chunk
        if written != size:
            raise CorruptError(f"has {written:,} bytes where its header says {size:,}", place)
        yield bytes(cpio.padding_size(size))
        self.length += len(head) + size + cpio.padding_size(size)

    def _number(self, inode: tuple[int, int] | None) -> int:
        """Return an inode number of the new archive: the same for equal ``inode``, a new one for None."""
        if inode is not None and inode in self._inodes:
            return self._inodes[inode]
        self._count += 1
        if inode is not None:
            self._inodes[inode] = self._count
        return self._count

    def _check(self, entry: ArchiveEntry, place: Place) -> None:
        """Check the header. :raises CorruptError: it is damaged. :raises SizeError: a number does not fit newc."""
        if entry.warning:
            raise CorruptError(f"cannot be read as an archive: {entry.warning}", place)
        if not 0 < len(entry.name) < cpio.MAX_NAME:
            raise CorruptError(f"name of {len(entry.name) + 1:,} bytes", place)
        for field, value in (("size", entry.size), ("mtime", entry.mtime)):
            if not 0 <= value <= cpio.MAX_FIELD:
                raise SizeError(f"a {field} of {value:,} does not fit a newc archive, which it is read as", place)
