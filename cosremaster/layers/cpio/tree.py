"""A layer seen as a file system: nodes by path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from cosremaster.io.pieces import Range
from cosremaster.layers.cpio.read import Member, index_of, link_key, with_values
from cosremaster.layers.model import Layer
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind

if TYPE_CHECKING:
    from cosremaster.layers.cpio.rules import Checked, FinalEntry


class CpioTree(Mapping[bytes, Node]):
    """The nodes of ``layer``, made when asked for; of several archives in a row also those unpacked before it. And
    what else edits have to know of all of it, found out once.

    Of two entries with one name the one that its unpacker leaves standing counts: the last for the
    kernel, the first for busybox cpio. A directory that no entry names is not there.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._members: dict[bytes, tuple[Layer, Member]] = {}
        first_stays = layer.parent is not None
        for one in (*layer.preceding, layer):
            for path, member in zip(one.paths, index_of(one).members, strict=True):
                if not (first_stays and path in self._members):
                    self._members[path] = (one, member)

    @cached_property
    def _carriers(self) -> dict[object, Member]:
        """By what linked names have in common: the member with the data."""
        return {
            key: member
            for layer in (*self.layer.preceding, self.layer)
            for member, (_, _, _, _, nlink, _, size, *_) in with_values(index_of(layer).members)
            if nlink > 1 and size and (key := _key(layer, member))
        }

    def __getitem__(self, path: bytes) -> Node:
        layer, member = self._members[path]
        header, key = member.entry.header, _key(layer, member)
        kind = NodeKind(header.mode & 0o170000)
        carrier = self._carriers.get(key, member) if key else member
        return Node(
            path=path, kind=kind, mode=header.mode & 0o7777, uid=header.uid, gid=header.gid,
            mtime=header.mtime, target=member.target, rdev=header.rdev,
            content=_content(layer, carrier) if kind is NodeKind.FILE else None, link=key,
        )  # fmt: skip

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @cached_property
    def name_prefix(self) -> bytes:
        """What the archive writes before a path: nothing, ``./`` or ``/``, whichever most entries have."""
        names = [
            member.entry.name
            for path, member in zip(self.layer.paths, index_of(self.layer).members, strict=True)
            if path
        ]
        styles = Counter(b"./" if name[:2] == b"./" else b"/" if name[:1] == b"/" else b"" for name in names)
        return max(styles, key=styles.__getitem__, default=b"")

    @cached_property
    def checked(self) -> Checked:
        """The entries as they are, checked."""
        from cosremaster.layers.cpio.rules import Checked  # noqa: PLC0415 - only edits need it

        return Checked(_final(self.layer), earlier=self.earlier)

    @property
    def earlier(self) -> Iterator[FinalEntry]:
        """The entries of the archives before this one in a row."""
        return (entry for layer in self.layer.preceding for entry in _final(layer))


def _final(layer: Layer) -> Iterator[FinalEntry]:
    """The entries of ``layer`` as they are."""
    from cosremaster.layers.cpio.rules import FinalEntry  # noqa: PLC0415 - only edits need it

    return (FinalEntry(one.entry.name, one.entry.header, one.target) for one in index_of(layer).members)


def _content(layer: Layer, carrier: Member) -> PieceContent:
    """Return the data of ``carrier``, the entry that holds a regular file's bytes in ``layer``."""
    entry = carrier.entry
    return PieceContent((Range(layer.decoded, entry.data_offset, entry.header.size),), carrier.digest)


def _key(layer: Layer, member: Member) -> object:
    """Equal for names of one file: hard links do not reach into another archive. None: not linked."""
    key = link_key(member)
    return (len(layer.preceding), *key) if key else None
