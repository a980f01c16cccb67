"""A cpio layer as a file system: nodes by path."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from cosremaster.io.pieces import Range
from cosremaster.layers.cpio.members import Member
from cosremaster.layers.cpio.read import index_of, link_key, link_key_of
from cosremaster.layers.model import Layer
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind

if TYPE_CHECKING:
    from cosremaster.layers.cpio.rules import CheckedEntries, FinalEntry


class CpioTree(Mapping[bytes, Node]):
    """The nodes of ``layer`` by path, each made when it is read; and what edits need to know of all entries, made once.

    Archives that are unpacked before it from the same file count too. Of two entries with one name that counts which
    its unpacker keeps: the last for the kernel, the first for busybox cpio. A directory that no entry names is missing.
    """

    def __init__(self, layer: Layer) -> None:
        """Find the entry that counts for each path."""
        self.layer = layer
        self._archives = (*layer.preceding, layer)
        counts = [index_of(archive).entry_count for archive in self._archives]
        self._starts = [0, *accumulate(counts[:-1])]
        self._numbers: dict[bytes, int] = {}  # by path: the number of its member, counted through all archives
        for archive, start in zip(self._archives, self._starts, strict=True):
            numbers = range(start, start + len(archive.paths))
            if not layer.is_in_archive:
                self._numbers.update(zip(archive.paths, numbers, strict=True))
            else:
                for path, number in zip(archive.paths, numbers, strict=True):
                    self._numbers.setdefault(path, number)

    @cached_property
    def _carriers(self) -> dict[object, Member]:
        """By link key: the member with the data."""
        return {
            (len(layer.preceding), *key): index_of(layer).members[number]
            for layer in self._archives
            for number, fields in enumerate(index_of(layer).members.all_fields())
            if fields[4] > 1 and fields[6] and (key := link_key_of(fields))
        }

    def __getitem__(self, path: bytes) -> Node:
        """Return the node at ``path``. :raises KeyError: no entry has this path."""
        number = self._numbers[path]
        archive = bisect_right(self._starts, number) - 1
        layer = self._archives[archive]
        member = index_of(layer).members[number - self._starts[archive]]
        header, key = member.entry.header, _layer_link_key(layer, member)
        kind = NodeKind(header.mode & 0o170000)
        carrier = self._carriers.get(key, member) if key else member
        return Node(
            path=path, kind=kind, mode=header.mode & 0o7777, uid=header.uid, gid=header.gid,
            mtime=header.mtime, target=member.target, rdev=header.rdev,
            content=_content(layer, carrier) if kind is NodeKind.FILE else None, link=key,
        )  # fmt: skip

    def __iter__(self) -> Iterator[bytes]:
        """Yield every path."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Return how many paths there are."""
        return len(self._numbers)

    @cached_property
    def name_prefix(self) -> bytes:
        """What most names begin with before the path: nothing, ``./`` or ``/``."""
        paths_and_names = zip(self.layer.paths, index_of(self.layer).members.names, strict=True)
        names = (name for path, name in paths_and_names if path)
        styles = Counter(b"./" if name[:2] == b"./" else b"/" if name[:1] == b"/" else b"" for name in names)
        return max(styles, key=styles.__getitem__, default=b"")

    @cached_property
    def checked_entries(self) -> CheckedEntries:
        """The entries of the archive as it is, checked."""
        from cosremaster.layers.cpio.columns import unpack_columns  # noqa: PLC0415 - only edits need it
        from cosremaster.layers.cpio.rules import CheckedEntries  # noqa: PLC0415 - the same

        unpacked = None if self.layer.preceding else unpack_columns(index_of(self.layer).members, self.layer.paths)
        if unpacked is not None:
            return CheckedEntries.from_tree(unpacked)
        return CheckedEntries(_final_entries(self.layer), earlier=self.preceding_entries)

    @property
    def preceding_entries(self) -> Iterator[FinalEntry]:
        """The entries of the archives before this one in the file."""
        return (entry for layer in self.layer.preceding for entry in _final_entries(layer))


def _final_entries(layer: Layer) -> Iterator[FinalEntry]:
    """Return the entries of ``layer`` as they are."""
    from cosremaster.layers.cpio.rules import FinalEntry  # noqa: PLC0415 - only edits need it

    members = index_of(layer).members
    targets = (members.targets.get(number, b"") for number in range(len(members)))
    return map(FinalEntry, members.names, members.all_fields(), targets)


def _content(layer: Layer, carrier: Member) -> PieceContent:
    """Return the data of ``carrier``, the entry that holds a regular file's bytes in ``layer``."""
    entry = carrier.entry
    return PieceContent((Range(layer.decoded, entry.data_offset, entry.header.size),), carrier.digest)


def _layer_link_key(layer: Layer, member: Member) -> object:
    """Return a key that is equal for names of one file, None for no hard link.

    Hard links do not reach into another archive.
    """
    key = link_key(member)
    return (len(layer.preceding), *key) if key else None
