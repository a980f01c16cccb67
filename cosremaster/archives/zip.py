"""Read zip archives by the standard library: entries with Unix modes, owners and times where the archive has them.

Specification: PKWARE's APPNOTE, and Info-ZIP's extra fields (proginfo/extrafld.txt).
"""

from __future__ import annotations

import calendar
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from cosremaster.archives.entry import ArchiveEntry
from cosremaster.errors import OverlayError, Place
from cosremaster.io.streams import CHUNK

_METHODS = frozenset((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
_UNIX = 3
_DOS = frozenset((0, 6, 10, 14))
"""The systems of DOS, OS/2 and Windows (APPNOTE, 4.4.2.2): without modes, and some write backslashes in names."""

_FILE_MODE, _DIRECTORY_MODE, _READ_ONLY_MODE = 0o644, 0o755, 0o444
"""Of entries without modes, as for Info-ZIP's unzip."""

_READ_ONLY = 1  # in the attributes of DOS

_TIMES, _NEW_UNIX, _OLD_UNIX, _UNICODE_NAME = 0x5455, 0x7875, 0x5855, 0x7075
_UTF8, _ENCRYPTED = 0x800, 1
_MAX_TARGET = 1 << 16
_DAMAGE = (zipfile.BadZipFile, EOFError, zlib.error, OSError, ValueError, struct.error, RuntimeError)


class ZipReader:
    """A zip archive in ``file``; ``place`` is for errors."""

    def __init__(self, file: BinaryIO, place: Place) -> None:
        """Read its directory. :raises OverlayError: it has none."""
        self._place = place
        try:
            self._zip = zipfile.ZipFile(file)
        except (*_DAMAGE, NotImplementedError) as error:
            raise self._refuse(error, place) from error

    def _refuse(self, error: BaseException, place: Place) -> OverlayError:
        """Return the error for damage at ``place``."""
        return OverlayError(f"cannot be read as an archive: {str(error) or 'it is damaged'}".rstrip("."), place)

    @property
    def is_readable(self) -> bool:
        """Whether the standard library knows how each entry is compressed."""
        return all(info.compress_type in _METHODS for info in self._zip.infolist())

    def entries(self) -> Iterator[tuple[ArchiveEntry, Iterator[bytes]]]:
        """Yield each entry and its data, in the order of the directory. :raises OverlayError: damage."""
        for info in self._zip.infolist():
            name = _name_of(info)
            place = self._place.inside(name)
            if info.flag_bits & _ENCRYPTED:
                raise OverlayError("cannot be read: it is encrypted", place)
            entry = _describe(info, name)
            if stat.S_ISLNK(entry.mode):
                target = b"".join(self._read(info, place, _MAX_TARGET))
                yield _with_target(entry, target), iter(())
            else:
                yield entry, self._read(info, place) if stat.S_ISREG(entry.mode) else iter(())

    def _read(self, info: zipfile.ZipInfo, place: Place, limit: int | None = None) -> Iterator[bytes]:
        """Yield the data of ``info``. :raises OverlayError: damage, or more than ``limit`` bytes."""
        try:
            with self._zip.open(info) as data:
                if limit is not None and info.file_size > limit:
                    raise OverlayError(f"cannot be added: a symlink with a text of {info.file_size:,} bytes", place)
                while chunk := data.read(CHUNK):
                    yield chunk
        except (*_DAMAGE, NotImplementedError) as error:
            raise self._refuse(error, place) from error


def _name_of(info: zipfile.ZipInfo) -> bytes:
    """Return the bytes of the name: those in the archive, or the UTF-8 beside them, with slashes between its parts."""
    raw = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437", "surrogateescape")
    text = _extra_fields(info.extra).get(_UNICODE_NAME, b"")
    if len(text) > 5 and text[0] == 1 and int.from_bytes(text[1:5], "little") == zlib.crc32(raw):
        raw = text[5:]
    return raw.replace(b"\\", b"/") if info.create_system in _DOS and b"/" not in raw else raw


def _describe(info: zipfile.ZipInfo, name: bytes) -> ArchiveEntry:
    """Return the header of the entry ``info``, without the text of a symlink."""
    extra = _extra_fields(info.extra)
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    if not mode & 0o170000:
        is_directory = name.endswith(b"/")
        is_read_only = info.create_system in _DOS and info.external_attr & _READ_ONLY
        file_mode = _READ_ONLY_MODE if is_read_only else _FILE_MODE
        permissions = mode & 0o7777 or (_DIRECTORY_MODE if is_directory else file_mode)
        mode = permissions | (stat.S_IFDIR if is_directory else stat.S_IFREG)
    uid, gid = _owner_of(extra)
    size = info.file_size if stat.S_ISREG(mode) else 0
    return ArchiveEntry(name=name, mode=mode, uid=uid, gid=gid, mtime=_time_of(info, extra), size=size)


def _with_target(entry: ArchiveEntry, target: bytes) -> ArchiveEntry:
    """Return the symlink ``entry`` with its text."""
    return ArchiveEntry(
        name=entry.name, mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime, size=0, symlink=target
    )


def _extra_fields(data: bytes) -> dict[int, bytes]:
    """Return the extra fields of an entry by their number, as far as they are whole."""
    fields: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        number, size = struct.unpack_from("<HH", data, at)
        fields.setdefault(number, data[at + 4 : at + 4 + size])
        at += 4 + size
    return fields


def _owner_of(extra: dict[int, bytes]) -> tuple[int, int]:
    """Return the numbers of the owner and the group: those of root where the archive has none."""
    field = extra.get(_NEW_UNIX, b"")
    if len(field) > 2 and field[0] == 1:
        size = field[1]
        group = field[2 + size :]
        if group and len(group) > group[0]:
            return int.from_bytes(field[2 : 2 + size], "little"), int.from_bytes(group[1 : 1 + group[0]], "little")
    field = extra.get(_OLD_UNIX, b"")
    if len(field) >= 12:
        uid, gid = struct.unpack_from("<HH", field, 8)
        return uid, gid
    return 0, 0


def _time_of(info: zipfile.ZipInfo, extra: dict[int, bytes]) -> int:
    """Return the time of the last change; without a Unix one that of DOS, taken as UTC on every machine."""
    field = extra.get(_TIMES, b"")
    if len(field) >= 5 and field[0] & 1:
        return int.from_bytes(field[1:5], "little", signed=True)
    field = extra.get(_OLD_UNIX, b"")
    if len(field) >= 8:
        return int.from_bytes(field[4:8], "little", signed=True)
    year, month, day, *clock = info.date_time
    return calendar.timegm((year, max(month, 1), max(day, 1), *clock))
