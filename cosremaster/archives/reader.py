"""Archives read through libarchive: entries and their data, once and in order. The only room that knows it.

It is loaded when the first archive is opened. Specification: libarchive's archive_read(3) and archive_entry(3).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from msgspec import Struct

from cosremaster.archives.locale import use_utf8_names
from cosremaster.errors import CosremasterError, OverlayError, Place, UnsupportedError, printable
from cosremaster.io.streams import CHUNK

FILTERS = ("gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "compress", "lzip")
_T = TypeVar("_T")


class ArchiveEntry(Struct, frozen=True, kw_only=True):
    """A header as the archive has it: names as bytes, ``mode`` as st_mode, ``mtime`` in seconds, ``size`` in bytes.

    ``hardlink``: the name of an entry before, of which this is another name; names of one file have ``inode`` (device
    and number) in common, and there are ``nlink`` of them. ``warning``: what libarchive could not make sense of.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    symlink: bytes
    hardlink: bytes | None
    device: tuple[int, int]
    inode: tuple[int, int]
    nlink: int
    warning: str


class Archive:
    """An archive that libarchive reads, compressed by one of ``filters`` or not. Entries and data come once, in order.

    What the methods raise as OverlayError is ``error``, where another is given.
    :raises UnsupportedError: there is no libarchive.
    """

    def __init__(
        self, formats: Sequence[str], place: Place, filters: Sequence[str] = FILTERS,
        error: type[CosremasterError] = OverlayError,
    ) -> None:  # fmt: skip
        self._ffi, self._failure = _library(place)
        self._place = place
        self._error = error
        self._within: BaseException | None = None
        self._buffer = ctypes.create_string_buffer(CHUNK)
        self._callback: Any = None
        self._pointer: int = self._ffi.read_new()
        for name in filters:
            getattr(self._ffi, f"read_support_filter_{name}")(self._pointer)
        for name in formats:
            getattr(self._ffi, f"read_support_format_{name}")(self._pointer)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._ffi.read_free(self._pointer)

    def open_fd(self, fd: int) -> Archive:
        """Reads from the descriptor ``fd``. :raises OverlayError: no known archive."""
        self._call(self._place, self._ffi.read_open_fd, self._pointer, fd, CHUNK)
        return self

    def open_data_of(self, outer: Archive) -> Archive:
        """Reads from the data of the entry that ``outer`` stands at. :raises OverlayError: no known archive."""
        return self.open_chunks(outer.data(self._place))

    def open_chunks(self, chunks: Iterator[bytes]) -> Archive:
        """Reads what ``chunks`` yields; what that raises is raised by whatever reads. :raises OverlayError: no known
        archive."""
        held = b""

        def read(_archive: int, _context: int, where: Any) -> int:
            nonlocal held
            try:
                held = next((chunk for chunk in chunks if chunk), b"")  # kept until the next is asked for
            except BaseException as error:  # C code would swallow it
                self._within = error
                return -1
            where[0] = ctypes.cast(ctypes.c_char_p(held), ctypes.c_void_p)
            return len(held)

        ffi = self._ffi
        self._callback = ffi.READ_CALLBACK(read)  # kept as long as libarchive may call it
        self._call(self._place, ffi.read_open, self._pointer, None, ffi.NO_OPEN_CB, self._callback, ffi.NO_CLOSE_CB)
        return self

    def _call(self, place: Place, function: Callable[..., _T], *arguments: object) -> _T:
        """What ``function`` returns. :raises OverlayError: it failed, at ``place``."""
        try:
            result = function(*arguments)
        except self._failure as error:
            if self._within is not None:
                raise self._within from None
            told = printable(getattr(error, "msg", None) or "it is damaged").rstrip(".")
            raise self._error(f"cannot be read as an archive: {told}", place) from error
        if self._within is not None:
            raise self._within
        return result

    def entries(self) -> Iterator[ArchiveEntry]:
        """Every header that is left; :meth:`data` of one can be had before the next. :raises OverlayError: damage."""
        ffi = self._ffi
        entry = ffi.entry_new()
        try:
            while (told := self._call(self._place, ffi.read_next_header2, self._pointer, entry)) != ffi.ARCHIVE_EOF:
                yield ArchiveEntry(
                    name=ffi.entry_pathname(entry) or b"",
                    mode=ffi.entry_mode(entry),
                    uid=ffi.entry_uid(entry),
                    gid=ffi.entry_gid(entry),
                    mtime=ffi.entry_mtime(entry),
                    size=ffi.entry_size(entry) if ffi.entry_size_is_set(entry) else 0,
                    symlink=ffi.entry_symlink(entry) or b"",
                    hardlink=ffi.entry_hardlink(entry),
                    device=(ffi.entry_rdevmajor(entry), ffi.entry_rdevminor(entry)),
                    inode=(ffi.entry_dev(entry), ffi.entry_ino64(entry)),
                    nlink=ffi.entry_nlink(entry),
                    warning=""
                    if told != ffi.ARCHIVE_WARN
                    else printable(ffi.error_string(self._pointer) or b"").rstrip("."),
                )
        finally:
            ffi.entry_free(entry)

    def data(self, place: Place) -> Iterator[bytes]:
        """The data of the entry whose header came last, holes between them filled with zeros; one at the end is not.

        ``place`` is the entry's. :raises OverlayError: damage.
        """
        while count := self.read(place, self._buffer):
            yield ctypes.string_at(self._buffer, count)

    def read(self, place: Place, buffer: ctypes.Array[ctypes.c_char]) -> int:
        """Puts the next of that data into ``buffer``; returns how many bytes, 0 at the end."""
        count: int = self._call(place, self._ffi.read_data, self._pointer, buffer, len(buffer))
        return count

    @property
    def cpio_end(self) -> int | None:
        """Where, in plain bytes, the trailer of a cpio archive ends that was read to its end; None: another format."""
        if b"cpio" not in (self._ffi.format_name(self._pointer) or b""):
            return None
        end: int = self._ffi.filter_bytes(self._pointer, 0)
        return end


def _library(place: Place) -> tuple[ModuleType, type[Exception]]:
    """libarchive-c's function table and its error. :raises UnsupportedError: there is no libarchive."""
    try:
        from libarchive import ArchiveError, ffi  # noqa: PLC0415 - it loads the C library, which may be missing
    except (ImportError, OSError, AttributeError, TypeError) as error:
        raise UnsupportedError(
            "archives are read by libarchive, which is not installed here (Debian: libarchive13; Python: libarchive-c)",
            place,
        ) from error
    for name, kind in (("entry_dev", ctypes.c_uint64), ("entry_ino64", ctypes.c_int64), ("entry_nlink", ctypes.c_uint)):
        ffi.ffi(name, [ffi.c_archive_entry_p], kind)  # libarchive-c does not declare them
    import logging  # noqa: PLC0415 - loaded with libarchive, which few runs need

    logging.getLogger("libarchive").addHandler(logging.NullHandler())  # or its warnings go to standard error
    return ffi, ArchiveError


@contextmanager
def open_archive_file(source: bytes | None, place: Place) -> Iterator[int]:
    """A descriptor of the archive ``source`` (None: standard input), with names read as UTF-8 meanwhile.

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
