"""Archives as nodes: tar, zip, 7z, cpio and the data of a .deb. The only room that knows libarchive.

libarchive is loaded when the first archive is opened. It gives an archive's files once, in order, and their bytes are
needed later and in another order: they go into a spool.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from cosremaster import cpio
from cosremaster.errors import OverlayError, Place, SizeError, UnsupportedError, show
from cosremaster.files import Spool
from cosremaster.nodes import Kind, Node
from cosremaster.overlay.locale import utf8_names
from cosremaster.overlay.scan import bounded
from cosremaster.pieces import PieceTable, Range, Zeros
from cosremaster.streams import CHUNK, hashed

STANDARD_INPUT = b"-"
MAX_CONTENT = 16 << 30
"""Bytes that one archive's files may come to, holes counted: four times what any layer's file can be packed to."""

MAX_ENTRIES = 1_000_000
_ENDING = re.compile(rb"\.((tar|cpio)(\.(gz|bz2|xz|zst|lz4|lzma|lz|Z))?|tgz|tbz2?|txz|tlz|tzst|zip|7z|deb)$", re.I)
_FORMATS = ("tar", "zip", "7zip", "cpio")
_FILTERS = ("gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "compress", "lzip")
_AR = b"!<arch>\n"
_KINDS = frozenset(Kind)


def is_archive_name(source: bytes) -> bool:
    """True when the name ends as those of archives do, or stands for standard input."""
    return source == STANDARD_INPUT or _ENDING.search(source) is not None


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file's content that lies in a spool."""

    range: Range
    sha256: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return self.range.length

    def digest(self) -> bytes:
        """SHA-256, taken while spooling."""
        return self.sha256

    def table(self) -> PieceTable:
        """The bytes."""
        return PieceTable([self.range])

    def head(self, count: int) -> bytes:
        """The first ``count`` bytes."""
        return b"".join(self.range.cut(0, min(count, self.size)).chunks()) if self.size else b""


def read_archive(
    source: bytes, newest: int | None, largest: int, spool: Spool, advance: Callable[[int], None]
) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """What the archive ``source`` holds, in its order (of entries with one name the last), and warnings.

    ``newest``: as for ``scan``. Nodes keep owners, modes and times. Contents go into ``spool``; ``advance`` hears of
    each of their bytes. :raises OverlayError: unreadable, damaged, or an entry that no image may get: an absolute
    name, one with ``..``, a hard link to nothing in the archive, a socket. :raises SizeError: a file of more than
    ``largest`` bytes, or an archive of more than :data:`MAX_CONTENT` or :data:`MAX_ENTRIES`.
    """
    place = Place().inside("standard input" if source == STANDARD_INPUT else source)
    collected = _Collected(place, newest, largest, spool, advance)
    ffi, failure = _library(place)
    with utf8_names(), _opened(source, place) as fd:
        before = os.fstat(fd)
        try:
            if stat.S_ISREG(before.st_mode) and os.pread(fd, len(_AR), 0) == _AR:
                _read_deb(ffi, fd, collected)
            else:
                formats = ("tar",) if source == STANDARD_INPUT else _FORMATS
                with _reading(ffi, formats) as archive:
                    ffi.read_open_fd(archive, fd, CHUNK)
                    collected.take(ffi, archive)
                    used = ffi.filter_bytes(archive, 0) if b"cpio" in (ffi.format_name(archive) or b"") else None
                if used is not None and stat.S_ISREG(before.st_mode):
                    _only_zeros(ffi, fd, used, place)
        except failure as error:
            told = show(getattr(error, "msg", None) or "it is damaged").rstrip(".")
            raise OverlayError(f"cannot be read as an archive: {told}", collected.at) from error
        after = os.fstat(fd)
        if stat.S_ISREG(after.st_mode) and (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise OverlayError("changed while it was being read", place)
    return tuple(collected.nodes.values()), tuple(collected.warnings)


class _Collected:
    """The nodes of an archive so far."""

    def __init__(
        self, place: Place, newest: int | None, largest: int, spool: Spool, advance: Callable[[int], None]
    ) -> None:
        self.place = self.at = self.outermost = place
        self.nodes: dict[bytes, Node] = {}
        self.warnings: list[str] = []
        self._newest = newest
        self._largest = largest
        self._spool = spool
        self._advance = advance
        self._entries = self._bytes = 0

    def take(self, ffi: ModuleType, archive: int) -> None:
        """Everything that is left in ``archive``."""
        entry = ffi.entry_new()
        try:
            while (told := ffi.read_next_header2(archive, entry)) != ffi.ARCHIVE_EOF:
                self._take_one(ffi, archive, entry)
                if told == ffi.ARCHIVE_WARN:
                    self.warnings.append(f"{self.at}: {show(ffi.error_string(archive) or b'').rstrip('.')}")
                self.at = self.place
        finally:
            ffi.entry_free(entry)

    def _take_one(self, ffi: ModuleType, archive: int, entry: int) -> None:
        """The entry whose header was just read."""
        name = ffi.entry_pathname(entry) or b""
        self.at = self.place.inside(name)
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise SizeError(f"an archive of more than {MAX_ENTRIES:,} entries is not added", self.place)
        path = self._path(name, "it")
        hard = ffi.entry_hardlink(entry)
        node = self._linked(path, hard) if hard is not None else self._plain(ffi, entry, path)
        if node.kind is Kind.FILE:
            size = ffi.entry_size(entry) if ffi.entry_size_is_set(entry) else 0
            self._check_size(size)
            found = self._content(ffi, archive, size if hard is None else 0)
            if found.size or hard is None:
                node = replace(node, content=found)
                if hard is not None:  # cpio may keep the data with the last of the names
                    group = [one for one, other in self.nodes.items() if other.link == node.link]
                    self.nodes |= {one: replace(self.nodes[one], content=found) for one in group}
        if path:
            self.nodes[path] = node

    def _path(self, name: bytes, what: str) -> bytes:
        """``name`` as a normal path. :raises OverlayError: no image may get it."""
        path = cpio.normal_name(name)
        if name.startswith(b"/"):
            raise OverlayError(f"cannot be added: {what} has an absolute name", self.at)
        if b".." in path.split(b"/"):
            raise OverlayError(f"cannot be added: {what} has a name with ..", self.at)
        if not name:
            raise OverlayError(f"cannot be added: {what} has no name", self.at)
        return path

    def _linked(self, path: bytes, hard: bytes) -> Node:
        """Another name of something that came before."""
        target = self._path(hard, f"the name {show(hard)} it is a hard link to")
        found = self.nodes.get(target)
        if found is None or found.kind is Kind.DIRECTORY:
            raise OverlayError(f"cannot be added: it is a hard link to {show(hard)}, no file of the archive", self.at)
        if found.kind is Kind.FILE and found.link is None:
            found = self.nodes[target] = replace(found, link=(str(self.place), target))
        return replace(found, path=path)

    def _plain(self, ffi: ModuleType, entry: int, path: bytes) -> Node:
        """A node of its own, without content."""
        mode = ffi.entry_mode(entry)
        kind = Kind(mode & 0o170000) if mode & 0o170000 in _KINDS else None
        if kind is None or kind is Kind.SOCKET:
            raise OverlayError(f"cannot be added: it is {'a socket' if kind else 'of no known type'}", self.at)
        if not path and kind is not Kind.DIRECTORY:
            raise OverlayError("cannot be added: the root is a directory", self.at)
        uid, gid = ffi.entry_uid(entry), ffi.entry_gid(entry)
        if not (0 <= uid <= cpio.MAX_FIELD and 0 <= gid <= cpio.MAX_FIELD):
            raise OverlayError(f"cannot be added: a cpio archive has no owner {uid}:{gid}", self.at)
        device = kind in (Kind.CHAR, Kind.BLOCK)
        return Node(
            path=path, kind=kind, mode=0o777 if kind is Kind.SYMLINK else mode & 0o7777, uid=uid, gid=gid,
            mtime=bounded(ffi.entry_mtime(entry), self._newest),
            target=(ffi.entry_symlink(entry) or b"") if kind is Kind.SYMLINK else b"",
            rdev=(ffi.entry_rdevmajor(entry), ffi.entry_rdevminor(entry)) if device else (0, 0),
        )  # fmt: skip

    def _check_size(self, size: int) -> None:
        """:raises SizeError: a file of ``size`` bytes, or all of them together, are too many."""
        if size > self._largest:
            raise SizeError(
                f"{size:,} bytes do not fit a cpio archive (4 GiB - 1 at most); put the file on the ISO's own file"
                " tree instead",
                self.at,
            )
        if self._bytes + size > MAX_CONTENT:
            raise SizeError(f"the archive's files come to more than {MAX_CONTENT:,} bytes", self.place)

    def _content(self, ffi: ModuleType, archive: int, size: int) -> Spooled:
        """The bytes of the entry whose header was just read, holes filled to ``size`` bytes, into the spool."""
        digest = hashlib.sha256()
        found = self._spool.append(hashed(self._counted(_data(ffi, archive), size), digest), packed=False)
        self._bytes += found.length
        return Spooled(found, digest.digest())

    def _counted(self, chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
        """``chunks``, while their sum stays within what is allowed: a header may lie. Then zeros up to ``size``."""
        have = 0
        for chunk in chunks:
            have += len(chunk)
            self._check_size(have)
            self._advance(len(chunk))
            yield chunk
        yield from Zeros(max(size - have, 0)).chunks()  # a hole at the end is no data to libarchive


def _data(ffi: ModuleType, archive: int) -> Iterator[bytes]:
    """The data of the entry whose header was just read, holes filled with zeros."""
    buffer = ctypes.create_string_buffer(CHUNK)
    while count := ffi.read_data(archive, buffer, CHUNK):
        yield ctypes.string_at(buffer, count)


def _library(place: Place) -> tuple[ModuleType, type[Exception]]:
    """libarchive-c's function table and its error. :raises UnsupportedError: there is no libarchive."""
    try:
        from libarchive import ArchiveError, ffi  # noqa: PLC0415 - it loads the C library, which may be missing
    except (ImportError, OSError, AttributeError, TypeError) as error:
        raise UnsupportedError(
            "archives are read by libarchive, which is not installed here (Debian: libarchive13; Python: libarchive-c)",
            place,
        ) from error
    logging.getLogger("libarchive").addHandler(logging.NullHandler())  # or its warnings go to standard error
    return ffi, ArchiveError


@contextmanager
def _opened(source: bytes, place: Place) -> Iterator[int]:
    if source == STANDARD_INPUT:
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


@contextmanager
def _reading(ffi: ModuleType, formats: tuple[str, ...]) -> Iterator[int]:
    """A new libarchive reader that knows ``formats`` under any compression."""
    archive: int = ffi.read_new()
    try:
        for name in _FILTERS:
            getattr(ffi, f"read_support_filter_{name}")(archive)
        for name in formats:
            getattr(ffi, f"read_support_format_{name}")(archive)
        yield archive
    finally:
        ffi.read_free(archive)


def _only_zeros(ffi: ModuleType, fd: int, used: int, place: Place) -> None:
    """:raises UnsupportedError: more than padding follows a cpio archive, which took ``used`` plain bytes of ``fd``.

    libarchive stops at the first trailer; the kernel and Debian's initramfs images do not.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    entry = ffi.entry_new()
    try:
        with _reading(ffi, ("raw",)) as archive:
            ffi.read_open_fd(archive, fd, CHUNK)
            ffi.read_next_header2(archive, entry)
            at = 0
            for chunk in _data(ffi, archive):
                if chunk[max(used - at, 0) :].strip(b"\0"):
                    raise UnsupportedError(
                        "data follows the end of the cpio archive (several archives in a row are not supported)", place
                    )
                at += len(chunk)
    finally:
        ffi.entry_free(entry)


class _Member:
    """The data of the entry just read from ``archive``, as a stream that libarchive can read again."""

    def __init__(self, ffi: ModuleType, archive: int) -> None:
        self._ffi = ffi
        self._archive = archive
        self.failure: BaseException | None = None
        self._buffer = ctypes.create_string_buffer(CHUNK)
        self.callback = ffi.READ_CALLBACK(self._read)

    def _read(self, _archive: int, _context: int, where: Any) -> int:
        """libarchive's read callback: bytes and their number; an exception must not leave it."""
        try:
            count: int = self._ffi.read_data(self._archive, self._buffer, CHUNK)
        except BaseException as error:
            self.failure = error
            return -1
        where[0] = ctypes.cast(self._buffer, ctypes.c_void_p)
        return count


def _read_deb(ffi: ModuleType, fd: int, collected: _Collected) -> None:
    """The ``data.tar`` member of a Debian package (deb(5)); its control member is left alone."""
    entry = ffi.entry_new()
    try:
        with _reading(ffi, ("ar",)) as outer:
            ffi.read_open_fd(outer, fd, CHUNK)
            while ffi.read_next_header2(outer, entry) != ffi.ARCHIVE_EOF:
                name = ffi.entry_pathname(entry) or b""
                if not name.startswith(b"data.tar"):
                    continue
                member = _Member(ffi, outer)
                with _reading(ffi, ("tar",)) as inner:
                    collected.place = collected.at = collected.place.inside(name)
                    try:
                        ffi.read_open(inner, None, ffi.NO_OPEN_CB, member.callback, ffi.NO_CLOSE_CB)
                        collected.take(ffi, inner)
                    except Exception as error:
                        raise member.failure or error from None
                    if member.failure is not None:
                        raise member.failure
                collected.warnings.append(
                    f"{collected.outermost}: only its files are added: its control scripts are not run, and dpkg in the"
                    " image does not know it"
                )
                return
    finally:
        ffi.entry_free(entry)
    raise OverlayError("cannot be added: it is an ar archive, but no Debian package with a data.tar", collected.place)
