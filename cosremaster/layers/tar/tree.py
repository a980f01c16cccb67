"""A tar layer as a file system: nodes by path."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from functools import cached_property

from cosremaster.archives.owner_numbers import MAX_DATABASE, OwnerNumbers, parse_database
from cosremaster.errors import CorruptError, Place, printable
from cosremaster.io.pieces import Piece, PieceTable, Range, Zeros
from cosremaster.layers.model import Layer
from cosremaster.layers.tar.entries import TarEntry
from cosremaster.layers.tar.index import index_of
from cosremaster.layers.tar.links import NO_SOURCE, find_sources
from cosremaster.records import Struct
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import ArchiveTree, Content, Node, NodeKind, Xattrs

_TYPE_BITS = 0o170000


class MissingContent(Struct, frozen=True):
    """The content of a hard link to a name that no earlier entry has: it cannot be read.

    See :class:`~cosremaster.tree.nodes.Content`.
    """

    place: Place
    link: bytes
    size: int = 0

    def _refuse(self) -> CorruptError:
        """Return the error for reading it."""
        return CorruptError(f"is a hard link to {printable(self.link)}, which no entry before it has", self.place)

    def digest(self) -> bytes:
        """Raise CorruptError."""
        raise self._refuse()

    def table(self) -> PieceTable:
        """Raise CorruptError."""
        raise self._refuse()

    def head(self, count: int) -> bytes:
        """Raise CorruptError."""
        raise self._refuse()


class TarTree(ArchiveTree):
    """The nodes of ``layer`` by path, each made when it is read.

    Of several entries with one name the last counts, as for all who unpack it. A directory that no entry names is
    missing.
    """

    def __init__(self, layer: Layer) -> None:
        """Find the entry that counts for each path."""
        self.layer = layer
        self._entries = index_of(layer).entries
        self._numbers = dict(zip(layer.paths, range(len(self._entries)), strict=True))
        self.sources = find_sources(self._entries, layer.paths)

    @cached_property
    def _names(self) -> Counter[int]:
        """How many paths lead to each entry that hard links lead to."""
        numbers = array("q", self._numbers.values())
        return Counter(self.sources.get(number, number) for number in numbers) if self.sources else Counter()

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: no entry has this path."""
        number = self._numbers[path]
        source = self.sources.get(number, number)
        entry = self._entries[number if source == NO_SOURCE else source]
        kind = NodeKind(entry.mode & _TYPE_BITS)
        return Node(
            path=path, kind=kind, mode=entry.mode & 0o7777, uid=entry.uid, gid=entry.gid, mtime=entry.mtime,
            target=entry.target, rdev=entry.rdev, xattrs=self._xattrs(entry) if entry.xattrs else (),
            content=self._content(source, entry) if kind is NodeKind.FILE else None,
            link=source if self._names[source] > 1 and source != NO_SOURCE else None,
        )  # fmt: skip

    def list_link_faults(self) -> Iterator[tuple[str, Place]]:
        """Yield a sentence about each hard link at which GNU tar and bsdtar end with an error, with its place."""
        for number, source in self.sources.items():
            entry = self._entries[number]
            if source == NO_SOURCE:
                fault = "which no entry before it has"
            elif self._entries[source].mode & _TYPE_BITS == NodeKind.DIRECTORY:
                fault = "a directory, which can have no such name"
            else:
                continue
            message = f"{printable(self.layer.paths[number])} is a hard link to {printable(entry.link or b'')}, {fault}"
            yield message, self.layer.place.at(entry.start)

    def _xattrs(self, entry: TarEntry) -> Xattrs:
        """Return the extended attributes of ``entry``; names in ACLs are those of the system in the archive."""
        from cosremaster.layers.tar.acl import has_named_acl, resolve_acls  # noqa: PLC0415 - few entries have some

        return resolve_acls(entry.xattrs, self._owner_numbers) if has_named_acl(entry.xattrs) else entry.xattrs

    def list_lost_acls(self) -> list[bytes]:
        """Return the paths whose ACLs name users or groups that the system in the archive has not."""
        from cosremaster.layers.tar.acl import KEYWORDS, has_named_acl  # noqa: PLC0415 - few entries have some

        named = {number for number, xattrs in self._entries.xattrs.items() if has_named_acl(xattrs)}
        lost = {
            number
            for number in named
            if {KEYWORDS[name] for name, _ in self._entries.xattrs[number] if name in KEYWORDS}
            - dict(self._xattrs(self._entries[number])).keys()
        }
        return [path for path, number in self._numbers.items() if lost and self.sources.get(number, number) in lost]

    @cached_property
    def _owner_numbers(self) -> OwnerNumbers:
        """The numbers of users and groups by their names, as the system in the archive has them."""
        return {b"user": self._read_database(b"etc/passwd"), b"group": self._read_database(b"etc/group")}

    def _read_database(self, path: bytes) -> dict[bytes, int]:
        """Return the numbers by the names in a file like ``/etc/passwd``, as far as there is one."""
        number = self._numbers.get(path, NO_SOURCE)
        source = self.sources.get(number, number)
        if source == NO_SOURCE or not self._entries[source].is_regular:
            return {}
        return parse_database(self._content(source, self._entries[source]).head(MAX_DATABASE))

    def _content(self, source: int, entry: TarEntry) -> Content:
        """Return the data of ``entry``, whose number is ``source``."""
        if source == NO_SOURCE:
            return MissingContent(self.layer.place.inside(entry.name).at(entry.start), entry.link or b"")
        stored = Range(self.layer.decoded, entry.data, entry.stored)
        if entry.sparse is None:
            return PieceContent((stored,), self._entries.digest(source))
        pieces: list[Piece] = []
        reached = taken = 0
        numbers = iter(entry.sparse.segments)
        for offset, size in zip(numbers, numbers, strict=True):
            pieces += [Zeros(offset - reached), stored.cut(taken, taken + size)]
            reached, taken = offset + size, taken + size
        return PieceContent((*pieces, Zeros(entry.sparse.size - reached)))

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return how many paths there are."""
        return len(self._numbers)
