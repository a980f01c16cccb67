"""Read archives through libarchive: entries and their data, once and in order. No other package imports it.

libarchive is loaded when the first archive is opened. Specification: its archive_read(3) and archive_entry(3).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from cosremaster.archives.entry import ArchiveEntry
from cosremaster.archives.locale import use_utf8_names
from cosremaster.errors import CosremasterError, OverlayError, Place, UnsupportedError, printable
from cosremaster.io.streams import CHUNK

FILTERS = ("gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "compress", "lzip")
_T = TypeVar("_T")
_ACL_KINDS = {"system.posix_acl_access": 0x100, "system.posix_acl_default": 0x200}
"""The kinds of ACLs of archive_entry_acl(3)."""

_ACL_TAGS = {
    10002: (0x01, False), 10001: (0x02, True), 10004: (0x04, False), 10003: (0x08, True), 10005: (0x10, False),
    10006: (0x20, False),
}  # fmt: skip
"""Its tags: what Linux calls each (owner, user, owning group, group, mask, others), and whether it has a number."""

_ACL_VERSION = 2
_MODES_OF_WINDOWS = {0o100666: 0o100644, 0o40777: 0o40755}
_NO_NUMBER = 0xFFFFFFFF


class Archive:
    """An archive that libarchive reads. Its entries and their data can be read once, in order.

    A context manager. Where the methods raise OverlayError they raise the class ``error`` instead, if one is given.
    """

    def __init__(
        self, formats: Sequence[str], place: Place, filters: Sequence[str] = FILTERS,
        error: type[CosremasterError] = OverlayError,
    ) -> None:  # fmt: skip
        """Prepare to read one of ``formats``, compressed by one of ``filters`` or not; ``place`` is for errors.

        :raises UnsupportedError: there is no libarchive.
        """
        self._ffi, self._failure = _library(place)
        self._place = place
        self._error = error
        self._callback_error: BaseException | None = None
        self._buffer = ctypes.create_string_buffer(CHUNK)
        self._callback: Any = None
        self._pointer: int = self._ffi.read_new()
        for name in filters:
            getattr(self._ffi, f"read_support_filter_{name}")(self._pointer)
        for name in formats:
            getattr(self._ffi, f"read_support_format_{name}")(self._pointer)

    def __enter__(self) -> Archive:
        """Return the archive."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free the memory of libarchive."""
        self._ffi.read_free(self._pointer)

    def open_fd(self, fd: int) -> Archive:
        """Read from the descriptor ``fd``. :raises OverlayError: it is no archive of these formats."""
        self._call(self._place, self._ffi.read_open_fd, self._pointer, fd, CHUNK)
        return self

    def open_chunks(self, chunks: Iterator[bytes]) -> Archive:
        """Read the bytes that ``chunks`` yields. Its exceptions pass through the method that reads.

        :raises OverlayError: they are no archive of these formats.
        """
        current = b""  # libarchive uses its memory until the next call

        def read(_archive: int, _context: int, buffer: Any) -> int:
            """Give the next chunk to libarchive: its address and its length, which is 0 at the end."""
            nonlocal current
            try:
                current = next((chunk for chunk in chunks if chunk), b"")
            except BaseException as error:  # C code would swallow it
                self._callback_error = error
                return -1
            buffer[0] = ctypes.cast(ctypes.c_char_p(current), ctypes.c_void_p)
            return len(current)

        ffi = self._ffi
        self._callback = ffi.READ_CALLBACK(read)  # must live as long as libarchive may call it
        self._call(self._place, ffi.read_open, self._pointer, None, ffi.NO_OPEN_CB, self._callback, ffi.NO_CLOSE_CB)
        return self

    def _call(self, place: Place, function: Callable[..., _T], *arguments: object) -> _T:
        """Call ``function`` and return its result. :raises OverlayError: it failed, at ``place``."""
        try:
            result = function(*arguments)
        except self._failure as error:
            if self._callback_error is not None:
                raise self._callback_error from None
            reason = printable(getattr(error, "msg", None) or "it is damaged").rstrip(".")
            raise self._error(f"cannot be read as an archive: {reason}", place) from error
        if self._callback_error is not None:
            raise self._callback_error
        return result

    def entries(self) -> Iterator[ArchiveEntry]:
        """Yield the remaining entries. The :meth:`data` of an entry can be read until the next entry is taken.

        :raises OverlayError: the archive is damaged.
        """
        ffi = self._ffi
        entry = ffi.entry_new()
        try:
            while (status := self._call(self._place, ffi.read_next_header2, self._pointer, entry)) != ffi.ARCHIVE_EOF:
                yield ArchiveEntry(
                    name=ffi.entry_pathname(entry) or b"",
                    mode=self._mode_of(ffi.entry_mode(entry)),
                    uid=ffi.entry_uid(entry),
                    gid=ffi.entry_gid(entry),
                    mtime=ffi.entry_mtime(entry),
                    size=ffi.entry_size(entry) if ffi.entry_size_is_set(entry) else 0,
                    symlink=ffi.entry_symlink(entry) or b"",
                    hardlink=ffi.entry_hardlink(entry),
                    device=(ffi.entry_rdevmajor(entry), ffi.entry_rdevminor(entry)),
                    inode=(ffi.entry_dev(entry), ffi.entry_ino64(entry)),
                    nlink=ffi.entry_nlink(entry),
                    xattrs=_read_xattrs(ffi, entry),
                    warning=""
                    if status != ffi.ARCHIVE_WARN
                    else printable(ffi.error_string(self._pointer) or b"").rstrip("."),
                )
        finally:
            ffi.entry_free(entry)

    def _mode_of(self, mode: int) -> int:
        """Return ``mode``, or what it stands for: libarchive lets all write to what has no mode in a 7-Zip archive."""
        is_7zip = mode in _MODES_OF_WINDOWS and b"7-Zip" in (self._ffi.format_name(self._pointer) or b"")
        return _MODES_OF_WINDOWS[mode] if is_7zip else mode

    def data(self, place: Place) -> Iterator[bytes]:
        """Yield the data of the current entry, with zeros for its holes, except for a hole at the end.

        :param place: of the entry, for errors.
        :raises OverlayError: the archive is damaged.
        """
        while count := self.read(place, self._buffer):
            yield ctypes.string_at(self._buffer, count)

    def read(self, place: Place, buffer: ctypes.Array[ctypes.c_char]) -> int:
        """Read the next bytes of the data of the current entry into ``buffer``. Return their number, 0 at the end."""
        count: int = self._call(place, self._ffi.read_data, self._pointer, buffer, len(buffer))
        return count

    @property
    def cpio_end(self) -> int | None:
        """Offset of the end of the trailer in the decompressed bytes of a cpio archive that was read; None: no cpio."""
        if b"cpio" not in (self._ffi.format_name(self._pointer) or b""):
            return None
        end: int = self._ffi.filter_bytes(self._pointer, 0)
        return end


def _read_xattrs(ffi: ModuleType, entry: object) -> tuple[tuple[str, bytes], ...]:
    """Return the extended attributes of ``entry``; ACLs under Linux' names, whatever the archive's."""
    count = ffi.entry_xattr_reset(entry)
    has_acls = ffi.entry_acl_types(entry) & sum(_ACL_KINDS.values())
    if not count and not has_acls:
        return ()
    xattrs = [(name, _read_acl(ffi, entry, kind)) for name, kind in _ACL_KINDS.items() if has_acls & kind]
    name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
    for _ in range(count):
        ffi.entry_xattr_next(entry, ctypes.byref(name), ctypes.byref(value), ctypes.byref(size))
        data = ctypes.string_at(value, size.value) if value.value and size.value else b""
        xattrs.append((os.fsdecode(name.value or b""), data))
    return tuple(xattrs)


def _read_acl(ffi: ModuleType, entry: object, kind: int) -> bytes:
    """Return the ACL of ``entry`` as Linux has it in an extended attribute (include/uapi/linux/posix_acl_xattr.h)."""
    ffi.entry_acl_reset(entry, kind)
    found, permissions, tag, number = (ctypes.c_int() for _ in range(4))
    name = ctypes.c_char_p()
    rules: list[tuple[int, int, int]] = []
    outputs = [ctypes.byref(value) for value in (found, permissions, tag, number, name)]
    while ffi.entry_acl_next(entry, kind, *outputs) == 0:
        if tag.value in _ACL_TAGS:
            code, has_number = _ACL_TAGS[tag.value]
            rules.append((code, number.value & _NO_NUMBER if has_number else _NO_NUMBER, permissions.value & 7))
    packed = (struct.pack("<HHI", code, rights, user) for code, user, rights in sorted(rules))
    return struct.pack("<I", _ACL_VERSION) + b"".join(packed)


def _library(place: Place) -> tuple[ModuleType, type[Exception]]:
    """Return the functions of libarchive-c and its exception. :raises UnsupportedError: there is no libarchive."""
    try:
        from libarchive import ArchiveError, ffi  # noqa: PLC0415 - it loads the C library, which may be missing
    except (ImportError, OSError, AttributeError, TypeError) as error:
        raise UnsupportedError(
            "such archives are read by libarchive, which is not installed here"
            " (Debian: libarchive13; Python: libarchive-c)",
            place,
        ) from error
    for name, c_type in (
        ("entry_dev", ctypes.c_uint64),
        ("entry_ino64", ctypes.c_int64),
        ("entry_nlink", ctypes.c_uint),
        ("entry_xattr_reset", ctypes.c_int),
    ):
        ffi.ffi(name, [ffi.c_archive_entry_p], c_type)  # libarchive-c does not declare them
    ffi.ffi("entry_acl_types", [ffi.c_archive_entry_p], ctypes.c_int)
    ffi.ffi("entry_acl_reset", [ffi.c_archive_entry_p, ctypes.c_int], ctypes.c_int)
    numbers = [ctypes.POINTER(ctypes.c_int)] * 4
    name_pointer = ctypes.POINTER(ctypes.c_char_p)
    ffi.ffi("entry_acl_next", [ffi.c_archive_entry_p, ctypes.c_int, *numbers, name_pointer], ctypes.c_int)
    pointers = [ctypes.POINTER(kind) for kind in (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)]
    ffi.ffi("entry_xattr_next", [ffi.c_archive_entry_p, *pointers], ctypes.c_int)
    import logging  # noqa: PLC0415 - loaded with libarchive, which few runs need

    logging.getLogger("libarchive").addHandler(logging.NullHandler())  # or its warnings go to standard error
    return ffi, ArchiveError


@contextmanager
def open_archive_file(source: bytes | None, place: Place) -> Iterator[int]:
    """Open the archive ``source`` (None: standard input) and yield its descriptor; names are UTF-8 meanwhile.

    :raises OverlayError: it cannot be opened.
    """
    with use_utf8_names():
        if source is None:
            yield 0
            return
        try:
            fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OverlayError(f"cannot be opened: {error.strerror}", place) from error
        try:
            yield fd
        finally:
            os.close(fd)
