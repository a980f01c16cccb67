"""The index of a file system that is read on demand: how many inodes it has, as all else is read when it is needed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from cosremaster.layers.formats import ArchiveIndex

if TYPE_CHECKING:
    from cosremaster.io.pieces import PieceTable
    from cosremaster.layers.blobs import Blobs
    from cosremaster.layers.model import Layer
    from cosremaster.layers.on_demand import OnDemandTree
    from cosremaster.tree.nodes import Node

AnyTree = TypeVar("AnyTree", bound="OnDemandTree[Any, Any]")


class OnDemandIndex(ArchiveIndex, Generic[AnyTree]):
    """A file system, which is read when it is needed."""

    def __init__(self, inode_count: int) -> None:
        """Remember the number of inodes."""
        self._inode_count = inode_count

    @property
    def entry_count(self) -> int:
        """How many inodes it has."""
        return self._inode_count

    @abstractmethod
    def make_tree(self, table: PieceTable, layer: Layer) -> AnyTree:
        """Return the nodes of ``layer``, whose plain bytes are ``table``."""

    def tree(self, layer: Layer) -> Mapping[bytes, Node]:
        """Return the nodes of ``layer`` by path."""
        from cosremaster.io.pieces import PieceTable, Range  # noqa: PLC0415 - only who looks inside needs it

        return self.make_tree(PieceTable([Range(layer.decoded, 0, layer.size)]), layer)

    def open_tree(self, layer: Layer) -> AnyTree:
        """Return the file system of ``layer``, which all that look at the layer share."""
        return cast("AnyTree", layer.tree())

    def find_landmarks(self, layer: Layer, paths: Sequence[bytes]) -> Sequence[bytes]:
        """Return the paths at the top, and those of ``paths`` that exist."""
        tree = self.open_tree(layer)
        return [*tree.list_directory(b""), *(path for path in paths if path in tree)]

    def check_data(self, layer: Layer, visit: Callable[[Node], None] = lambda node: None) -> None:
        """Read every file to its end, holes apart. :raises CorruptError: damage, with its place."""
        from cosremaster.io.pieces import Zeros  # noqa: PLC0415 - as all that looks inside

        for node in self.open_tree(layer).walk_nodes():
            if node.content is not None:
                visit(node)
            for piece in node.content.table().pieces if node.content is not None else ():
                for _ in piece.chunks() if not isinstance(piece, Zeros) else ():
                    pass

    def dump(self, blobs: Blobs) -> dict[str, Any]:
        """Return the number of inodes: all else is read from the image."""
        return {"inodes": self._inode_count}


def load_inode_count(values: dict[str, Any]) -> int:
    """Return the number of inodes that :meth:`OnDemandIndex.dump` wrote. :raises KeyError, TypeError: it did not."""
    count = values["inodes"]
    if type(count) is not int:
        raise TypeError("the number of inodes is none")
    return count
