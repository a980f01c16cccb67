"""Archives as nodes: tar, zip, 7z, cpio and the data of a .deb.

An archive gives its files once, in order, and their bytes are needed later and in another order: they go into a spool.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.archives.reader import Archive, ArchiveEntry, open_archive_file
from cosremaster.errors import OverlayError, Place, SizeError, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable, Range, Zeros
from cosremaster.io.streams import hash_chunks
from cosremaster.overlay.items import ReadContext
from cosremaster.overlay.request import STANDARD_INPUT
from cosremaster.overlay.scan import clamp_mtime
from cosremaster.tree.limits import MAX_NUMBER
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import normal_name

MAX_CONTENT = 16 << 30
"""Bytes that one archive's files may come to, holes counted: four times what any layer's file can be packed to."""

MAX_ENTRIES = 1_000_000
_FORMATS = ("tar", "zip", "7zip", "cpio")
_AR = b"!<arch>\n"
_KINDS = frozenset(NodeKind)


class Spooled(Struct, frozen=True):
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


def read_archive(source: bytes, context: ReadContext, advance: Callable[[int], None]) -> tuple[Node, ...]:
    """Return the nodes in the archive ``source``, in its order; of several entries with one name the last.

    Nodes have the owners, modes and times of the archive, within the limits of ``context``. Contents go into its
    spool; ``advance`` is called with the size of each chunk.

    :raises OverlayError: the archive is unreadable or damaged, or has an entry that no image may get: an absolute
        name, one with ``..``, a hard link to nothing in the archive, a socket.
    :raises SizeError: a file is too large, or the archive has more than :data:`MAX_CONTENT` bytes or
        :data:`MAX_ENTRIES` entries.
    :raises UnsupportedError: there is no libarchive, or the file holds concatenated cpio archives.
    """
    piped = source == STANDARD_INPUT
    place = Place().inside("standard input" if piped else source)
    collector = _NodeCollector(place, context, advance)
    with open_archive_file(None if piped else source, place) as fd:
        status = os.fstat(fd)
        seekable = stat.S_ISREG(status.st_mode)
        if seekable and os.pread(fd, len(_AR), 0) == _AR:
            _read_deb(fd, collector)
        else:
            with Archive(("tar",) if piped else _FORMATS, place).open_fd(fd) as archive:
                collector.take_entries(archive)
                end = archive.cpio_end
            if end is not None and seekable:
                _only_zeros(fd, end, place)
        after = os.fstat(fd)
        if seekable and (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise OverlayError("changed while it was being read", place)
    return tuple(collector.nodes.values())


class _NodeCollector:
    """Collects the nodes of an archive while its entries are read."""

    def __init__(self, place: Place, context: ReadContext, advance: Callable[[int], None]) -> None:
        self.place = self.at = place
        self.nodes: dict[bytes, Node] = {}
        self.context = context
        self._advance = advance
        self._entries = self._bytes = 0

    def take_entries(self, archive: Archive) -> None:
        """Everything that is left in ``archive``."""
        for entry in archive.entries():
            self.at = self.place.inside(entry.name)
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise SizeError(f"an archive of more than {MAX_ENTRIES:,} entries is not added", self.place)
            if entry.warning:
                self.context.warn(f"{self.at}: {entry.warning}")
            self._take_one(archive, entry)

    def _take_one(self, archive: Archive, entry: ArchiveEntry) -> None:
        """The entry whose header was just read."""
        path, hard = self._path(entry.name, "it"), entry.hardlink
        node = self._plain(entry, path) if hard is None else self._linked(path, hard)
        if node.kind is NodeKind.FILE:
            self._check_size(entry.size)
            found = self._content(archive, entry.size if hard is None else 0)
            if found.size or hard is None:
                node = replace(node, content=found)
                if hard is not None:  # cpio may keep the data with the last of the names
                    group = [one for one, other in self.nodes.items() if other.link == node.link]
                    self.nodes |= {one: replace(self.nodes[one], content=found) for one in group}
        if path:
            self.nodes[path] = node

    def _path(self, name: bytes, what: str) -> bytes:
        """``name`` as a normal path. :raises OverlayError: no image may get it."""
        path = normal_name(name)
        if name.startswith(b"/"):
            raise OverlayError(f"cannot be added: {what} has an absolute name", self.at)
        if b".." in path.split(b"/"):
            raise OverlayError(f"cannot be added: {what} has a name with ..", self.at)
        if not name:
            raise OverlayError(f"cannot be added: {what} has no name", self.at)
        return path

    def _linked(self, path: bytes, hard: bytes) -> Node:
        """Another name of something that came before."""
        target = self._path(hard, f"the name {printable(hard)} it is a hard link to")
        found = self.nodes.get(target)
        if found is None or found.kind is NodeKind.DIRECTORY:
            raise OverlayError(
                f"cannot be added: it is a hard link to {printable(hard)}, no file of the archive", self.at
            )
        if found.kind is NodeKind.FILE and found.link is None:
            found = self.nodes[target] = replace(found, link=(str(self.place), target))
        return replace(found, path=path)

    def _plain(self, entry: ArchiveEntry, path: bytes) -> Node:
        """A node of its own, without content."""
        kind = NodeKind(entry.mode & 0o170000) if entry.mode & 0o170000 in _KINDS else None
        if kind is None or kind is NodeKind.SOCKET:
            raise OverlayError(f"cannot be added: it is {'a socket' if kind else 'of no known type'}", self.at)
        if not path and kind is not NodeKind.DIRECTORY:
            raise OverlayError("cannot be added: the root is a directory", self.at)
        if not (0 <= entry.uid <= MAX_NUMBER and 0 <= entry.gid <= MAX_NUMBER):
            raise OverlayError(f"cannot be added: a cpio archive has no owner {entry.uid}:{entry.gid}", self.at)
        link = kind is NodeKind.SYMLINK
        return Node(
            path=path, kind=kind, mode=0o777 if link else entry.mode & 0o7777, uid=entry.uid, gid=entry.gid,
            mtime=clamp_mtime(entry.mtime, self.context.max_mtime), target=entry.symlink if link else b"",
            rdev=entry.device if kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0),
        )  # fmt: skip

    def _check_size(self, size: int) -> None:
        """:raises SizeError: a file of ``size`` bytes, or all of them together, are too many."""
        self.context.check_file_size(size, self.at)
        if self._bytes + size > MAX_CONTENT:
            raise SizeError(f"the archive's files come to more than {MAX_CONTENT:,} bytes", self.place)

    def _content(self, archive: Archive, size: int) -> Spooled:
        """The bytes of the entry whose header was just read, holes filled to ``size`` bytes, into the spool."""
        digest = hashlib.sha256()
        found = self.context.spool.append(hash_chunks(self._counted(archive.data(self.at), size), digest), packed=False)
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


def _only_zeros(fd: int, end: int, place: Place) -> None:
    """:raises UnsupportedError: more than padding follows a cpio archive, whose trailer ends at plain byte ``end``.

    libarchive stops at the first trailer; the kernel and Debian's initramfs images do not.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    with Archive(("raw",), place).open_fd(fd) as archive:
        next(archive.entries())
        at = 0
        for chunk in archive.data(place):
            if chunk[max(end - at, 0) :].strip(b"\0"):
                raise UnsupportedError(
                    "data follows the end of the cpio archive (several archives in a row are not supported)", place
                )
            at += len(chunk)


def _read_deb(fd: int, collected: _NodeCollector) -> None:
    """The ``data.tar`` member of a Debian package (deb(5)); its control member is left alone."""
    place = collected.place
    with Archive(("ar",), place).open_fd(fd) as outer:
        for entry in outer.entries():
            if entry.name.startswith(b"data.tar"):
                collected.place = place.inside(entry.name)
                with Archive(("tar",), collected.place).open_data_of(outer) as inner:
                    collected.take_entries(inner)
                collected.context.warn(
                    f"{place}: only its files are added: its control scripts are not run, and dpkg in the image does"
                    " not know it"
                )
                return
    raise OverlayError("cannot be added: it is an ar archive, but no Debian package with a data.tar", place)
