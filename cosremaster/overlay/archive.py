"""Read archives as nodes: tar, zip and the data of a Debian package, and by libarchive 7z, cpio and others.

An archive yields its files once, in order. Their bytes are needed later and in another order, so they go into a spool.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from cosremaster.archives import ar
from cosremaster.archives.entry import ArchiveEntry, NamedAcl
from cosremaster.archives.owner_numbers import MAX_DATABASE, parse_database
from cosremaster.archives.reader import Archive, open_archive_file
from cosremaster.errors import CorruptError, OverlayError, Place, SizeError, UnsupportedError, printable
from cosremaster.io.pieces import Zeros
from cosremaster.io.streams import CHUNK, ByteReader, hash_chunks
from cosremaster.layers.streamed import open_stream, read_streams
from cosremaster.overlay.addition import AttributedPath
from cosremaster.overlay.attributes import DEFAULT_CHOICE, XattrChoice, name_some, skipped_names
from cosremaster.overlay.items import ReadContext
from cosremaster.overlay.request import STANDARD_INPUT
from cosremaster.overlay.scan import SourceScan, clamp_mtime, is_mtime_held
from cosremaster.records import replace
from cosremaster.tree.content import PieceContent
from cosremaster.tree.limits import MAX_NUMBER
from cosremaster.tree.nodes import Node, NodeKind, Xattrs
from cosremaster.tree.paths import normal_name

if TYPE_CHECKING:
    from cosremaster.layers.formats import EntryStream

MAX_CONTENT = 16 << 30
"""Bytes that the files of one archive may have together, with their holes: four times the largest file of a layer."""

MAX_ENTRIES = 1_000_000
_MAX_XATTR_NAME, _MAX_XATTR_VALUE = 255, 1 << 16
"""Bytes that Linux takes (include/uapi/linux/limits.h)."""

_FORMATS = ("tar", "zip", "7zip", "cpio")
_EMPTY_TAR = 1024
"""Bytes of a tar archive without entries; as many are looked at to tell the kind of an archive."""

_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_KINDS = frozenset(NodeKind)


def read_archive(
    source: bytes, context: ReadContext, advance: Callable[[int], None], choice: XattrChoice = DEFAULT_CHOICE
) -> SourceScan:  # fmt: skip
    """Return the nodes in the archive ``source``, in its order; of several entries with one name the last.

    Nodes have the owners, modes and times of the archive, within the limits of ``context``. Contents go into its
    spool; ``advance`` is called with the size of each chunk. ``choice``: the extended attributes that they have.

    :raises OverlayError: the archive is unreadable or damaged, or has an entry that no image may get: an absolute
        name, one with ``..``, a hard link to nothing in the archive, a socket.
    :raises SizeError: a file is too large, or the archive has more than :data:`MAX_CONTENT` bytes or
        :data:`MAX_ENTRIES` entries.
    :raises UnsupportedError: there is no libarchive, or the file holds concatenated cpio archives.
    """
    piped = source == STANDARD_INPUT
    place = Place().inside("standard input" if piped else source)
    collector = _NodeCollector(place, context, choice, advance)
    with open_archive_file(None if piped else source, place) as fd:
        status = os.fstat(fd)
        seekable = stat.S_ISREG(status.st_mode)
        try:
            _read_by_kind(fd, collector, piped=piped, seekable=seekable)
        except CorruptError as error:
            raise OverlayError(f"cannot be read as an archive: {error.message}", error.place or place) from error
        collector.resolve_named_acls()
        after = os.fstat(fd)
        if seekable and (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise OverlayError("changed while it was being read", place)
    skipped = tuple(AttributedPath(path, names) for path, names in collector.skipped_xattrs.items())
    nodes = tuple(collector.nodes.values())
    return SourceScan(nodes, False, skipped, out_of_time=tuple(collector.out_of_time), root=collector.root)


class _NodeCollector:
    """The nodes of the archive ``place``, collected while its entries are read."""

    def __init__(
        self, place: Place, context: ReadContext, choice: XattrChoice, advance: Callable[[int], None]
    ) -> None:  # fmt: skip
        """Collect within the limits of ``context``; ``advance`` is called with the size of each chunk."""
        self.place = self._entry_place = place
        self.nodes: dict[bytes, Node] = {}
        self.root: Node | None = None
        self.skipped_xattrs: dict[bytes, tuple[bytes, ...]] = {}
        self.out_of_time: dict[bytes, None] = {}
        self._named_acls: dict[bytes, tuple[NamedAcl, ...]] = {}
        self.context = context
        self._choice = choice
        self._advance = advance
        self._entries = self._bytes = 0

    def take_entries(self, entries: Iterable[tuple[ArchiveEntry, Iterator[bytes]]]) -> None:
        """Collect all ``entries``, each with its data."""
        for entry, data in entries:
            self._entry_place = self.place.inside(entry.name)
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                raise SizeError(f"an archive of more than {MAX_ENTRIES:,} entries is not added", self.place)
            if entry.warning:
                self.context.warn(f"{self._entry_place}: {entry.warning}")
            self._take_entry(entry, data)

    def take_stream(self, entries: EntryStream) -> None:
        """Collect all ``entries``, and warn of what is odd about the archive."""
        oddity = ""

        def note_oddity() -> Iterator[tuple[ArchiveEntry, Iterator[bytes]]]:
            """Yield the entries."""
            nonlocal oddity
            oddity = yield from entries

        self.take_entries(note_oddity())
        if oddity:
            self.context.warn(f"{self.place} {oddity}")

    def _take_entry(self, entry: ArchiveEntry, data: Iterator[bytes]) -> None:
        """Collect ``entry`` with its ``data``."""
        path, link_name = self._normal_path(entry.name, "it"), entry.hardlink
        node = self._make_node(entry, path) if link_name is None else self._make_hard_link(path, link_name)
        if node.kind is NodeKind.FILE:
            self._check_size(entry.size)
            content = self._spool_content(data, entry.size if link_name is None else 0)
            if content.size or link_name is None:
                node = replace(node, content=content)
                if link_name is not None:  # cpio may keep the data with the last name of a hard-linked file
                    names = [name for name, other in self.nodes.items() if other.link == node.link]
                    self.nodes |= {name: replace(self.nodes[name], content=content) for name in names}
        if path:
            self.nodes[path] = node
            self.skipped_xattrs.pop(path, None)
            self.out_of_time.pop(path, None)
            self._named_acls.pop(path, None)
            if link_name is None and not is_mtime_held(entry.mtime, self.context.max_mtime):
                self.out_of_time[path] = None
            known = {name for name, _ in entry.xattrs}
            named = [acl for acl in entry.named_acls if acl.name not in known] if link_name is None else ()
            skipped = skipped_names((*known, *(acl.name for acl in named)), self._choice)
            if skipped:
                self.skipped_xattrs[path] = skipped
            if wanted := tuple(acl for acl in named if self._choice.takes(acl.name)):
                self._named_acls[path] = wanted
        elif node.kind is NodeKind.DIRECTORY:
            self.root = node

    def resolve_named_acls(self) -> None:
        """Give nodes their ACLs that name users and groups, by the numbers that the archive's own system has for them.

        Those with a name that it lacks are warned of.
        """
        if not self._named_acls:
            return
        files = ((b"user", b"etc/passwd"), (b"group", b"etc/group"))
        numbers = {word: self._read_database(path) for word, path in files}
        names = dict[object, list[bytes]]()
        for path, node in self.nodes.items():
            names.setdefault(path if node.link is None else node.link, []).append(path)
        lost = []
        for path, acls in self._named_acls.items():
            node = self.nodes[path]
            resolved = [(os.fsencode(acl.name), value) for acl in acls if (value := acl.resolve(numbers)) is not None]
            if len(resolved) < len(acls):
                lost.append(path)
            xattrs = tuple(sorted((*node.xattrs, *resolved)))
            for name in names[path if node.link is None else node.link]:
                self.nodes[name] = replace(self.nodes[name], xattrs=xattrs)
        if lost:
            self.context.warn(
                f"{self.place}: access control lists name users or groups that its own /etc/passwd and /etc/group"
                f" lack, and are not taken over: {name_some(lost)}"
            )

    def _read_database(self, path: bytes) -> dict[bytes, int]:
        """Return the numbers by the names in a file like ``/etc/passwd``, as far as the archive has it."""
        node = self.nodes.get(path)
        return {} if node is None or node.content is None else parse_database(node.content.head(MAX_DATABASE))

    def _normal_path(self, name: bytes, what: str) -> bytes:
        """Return ``name`` as a normal path. :raises OverlayError: no image may get it; the message names ``what``."""
        path = normal_name(name)
        if name.startswith(b"/"):
            raise OverlayError(f"cannot be added: {what} has an absolute name", self._entry_place)
        if b".." in path.split(b"/"):
            raise OverlayError(f"cannot be added: {what} has a name with ..", self._entry_place)
        if not name:
            raise OverlayError(f"cannot be added: {what} has no name", self._entry_place)
        return path

    def _make_hard_link(self, path: bytes, link_name: bytes) -> Node:
        """Return a node for another name of the earlier entry ``link_name``."""
        target = self._normal_path(link_name, f"the name {printable(link_name)} it is a hard link to")
        target_node = self.nodes.get(target)
        if target_node is None or target_node.kind is NodeKind.DIRECTORY:
            raise OverlayError(
                f"cannot be added: it is a hard link to {printable(link_name)}, no file of the archive",
                self._entry_place,
            )
        if target_node.kind is NodeKind.FILE and target_node.link is None:
            target_node = self.nodes[target] = replace(target_node, link=(str(self.place), self._entries))
        return replace(target_node, path=path)

    def _make_node(self, entry: ArchiveEntry, path: bytes) -> Node:
        """Return the node of an entry that is no hard link, without content."""
        kind = NodeKind(entry.mode & 0o170000) if entry.mode & 0o170000 in _KINDS else None
        if kind is None or kind is NodeKind.SOCKET:
            raise OverlayError(
                f"cannot be added: it is {'a socket' if kind else 'of no known type'}", self._entry_place
            )
        if not path and kind is not NodeKind.DIRECTORY:
            raise OverlayError("cannot be added: the root is a directory", self._entry_place)
        if not (0 <= entry.uid <= MAX_NUMBER and 0 <= entry.gid <= MAX_NUMBER):
            raise OverlayError(
                f"cannot be added: a cpio archive has no owner {entry.uid}:{entry.gid}", self._entry_place
            )
        is_symlink = kind is NodeKind.SYMLINK
        return Node(
            path=path, kind=kind, mode=0o777 if is_symlink else entry.mode & 0o7777, uid=entry.uid, gid=entry.gid,
            mtime=clamp_mtime(entry.mtime, self.context.max_mtime), target=entry.symlink if is_symlink else b"",
            rdev=entry.device if kind in (NodeKind.CHAR, NodeKind.BLOCK) else (0, 0),
            xattrs=self._select_xattrs(entry) if entry.xattrs else (),
        )  # fmt: skip

    def _select_xattrs(self, entry: ArchiveEntry) -> Xattrs:
        """Return the extended attributes of ``entry`` that are taken. :raises OverlayError: Linux takes no such."""
        taken = {os.fsencode(name): value for name, value in entry.xattrs if self._choice.takes(name)}
        for name, value in taken.items():
            if len(name) > _MAX_XATTR_NAME or len(value) > _MAX_XATTR_VALUE:
                text = printable(name[:_MAX_XATTR_NAME])
                raise OverlayError(f"cannot be added: its extended attribute {text} is too long", self._entry_place)
        return tuple(sorted(taken.items()))

    def _check_size(self, size: int) -> None:
        """Check that one more file of ``size`` bytes fits. :raises SizeError: it or all files together do not."""
        if self.context.limits is not None:  # whatever the layer holds: the contents go to the spool
            self.context.limits.check_file_size(size, self._entry_place)
        if self._bytes + size > MAX_CONTENT:
            raise SizeError(f"the archive's files come to more than {MAX_CONTENT:,} bytes", self.place)

    def _spool_content(self, data: Iterator[bytes], size: int) -> PieceContent:
        """Copy the ``data`` of an entry, filled with zeros up to ``size`` bytes."""
        digest = hashlib.sha256()
        chunks = self._limit_chunks(data, size)
        spooled_range = self.context.spool.append(hash_chunks(chunks, digest), packed=False)
        self._bytes += spooled_range.length
        return PieceContent((spooled_range,), digest.digest())

    def _limit_chunks(self, chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
        """Yield ``chunks`` and check their sum, as a header may be wrong, then zeros up to ``size`` bytes."""
        length = 0
        for chunk in chunks:
            length += len(chunk)
            self._check_size(length)
            self._advance(len(chunk))
            yield chunk
        yield from Zeros(max(size - length, 0)).chunks()  # libarchive does not return a hole at the end as data


def _check_padding(fd: int, end: int, place: Place) -> None:
    """Check that only padding follows a cpio archive, whose trailer ends at byte ``end`` of the decompressed data.

    libarchive stops at the first trailer; the kernel and Debian's initramfs images do not.

    :raises UnsupportedError: something else follows.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    with Archive(("raw",), place).open_fd(fd) as archive:
        next(archive.entries())
        offset = 0
        for chunk in archive.data(place):
            if chunk[max(end - offset, 0) :].strip(b"\0"):
                raise UnsupportedError(
                    "data follows the end of the cpio archive (several archives in a row are not supported)", place
                )
            offset += len(chunk)


def _read_chunks(fd: int, place: Place) -> Iterator[bytes]:
    """Yield the bytes of ``fd`` up to its end. :raises OverlayError: it cannot be read, as a closed standard input."""
    while True:
        try:
            chunk = os.read(fd, CHUNK)
        except OSError as error:
            raise OverlayError(f"cannot be read: {error.strerror}", place) from error
        if not chunk:
            return
        yield chunk


def _read_by_kind(fd: int, collector: _NodeCollector, *, piped: bool, seekable: bool) -> None:
    """Collect the entries of the archive in ``fd``, by the reader for its kind.

    :raises CorruptError: an archive that is not read by libarchive is damaged.
    """
    place = collector.place
    packed = ByteReader(_read_chunks(fd, place), place)
    head = packed.peek(_EMPTY_TAR)
    if seekable and head.startswith(ar.MAGIC):
        _read_deb(packed, collector)
        return
    if len(head) == _EMPTY_TAR and not any(head):
        return  # two blocks of zeros: a tar archive without entries
    entries = open_stream(packed)
    if entries is not None:
        collector.take_stream(entries)
        return
    if seekable and not piped and head.startswith(_ZIP_MAGICS):
        from cosremaster.archives.zip import ZipReader  # noqa: PLC0415 - few overlays are zip archives

        with open(fd, "rb", closefd=False) as file:
            archive = ZipReader(file, place)
            if archive.is_readable:
                collector.take_entries(archive.entries())
                return
    _read_by_libarchive(packed, fd, collector, piped=piped, seekable=seekable)


def _read_by_libarchive(packed: ByteReader, fd: int, collector: _NodeCollector, *, piped: bool, seekable: bool) -> None:
    """Collect the entries of an archive that libarchive alone reads; nothing of ``packed`` was consumed.

    :raises CorruptError: a checksum of the streams around it is wrong.
    """
    place = collector.place
    with Archive(("tar",) if piped else _FORMATS, place) as archive:
        if seekable:
            os.lseek(fd, 0, os.SEEK_SET)
            archive.open_fd(fd)
        else:
            archive.open_chunks(packed.read_rest())
        collector.take_entries(_entries_of(archive, place))
        end = archive.cpio_end
    if end is not None and seekable:
        _check_padding(fd, end, place)
    if seekable:  # libarchive compares no checksum of gzip
        os.lseek(fd, 0, os.SEEK_SET)
        read_streams(ByteReader(_read_chunks(fd, place), place))


def _entries_of(archive: Archive, place: Place) -> Iterator[tuple[ArchiveEntry, Iterator[bytes]]]:
    """Yield each entry of ``archive`` with its data."""
    for entry in archive.entries():
        yield entry, archive.data(place.inside(entry.name))


def _read_deb(packed: ByteReader, collector: _NodeCollector) -> None:
    """Collect the entries of ``data.tar`` in a Debian package (deb(5)); its control member is not read.

    :raises CorruptError: it is damaged.
    """
    place = collector.place
    for member in ar.read_members(packed):
        if member.name.startswith(b"data.tar"):
            collector.place = place.inside(member.name)
            inside = ByteReader(packed.read_parts(member.size), collector.place)
            entries = open_stream(inside)
            if entries is not None:
                collector.take_stream(entries)
            else:
                with Archive(("tar",), collector.place).open_chunks(inside.read_rest()) as archive:
                    collector.take_entries(_entries_of(archive, collector.place))
            collector.context.warn(
                f"{place}: only its files are added: its control scripts are not run, and dpkg in the image does"
                " not know it"
            )
            return
    raise OverlayError("cannot be added: it is an ar archive, but no Debian package with a data.tar", place)
