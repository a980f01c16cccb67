"""EROFS as a layer format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from cosremaster.errors import printable
from cosremaster.layers.formats import ArchiveIndex, LayerFormat
from cosremaster.tree.limits import Limits

if TYPE_CHECKING:
    from cosremaster.errors import Place
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.streams import ByteReader
    from cosremaster.layers.blobs import Blobs
    from cosremaster.layers.erofs.tree import ErofsTree
    from cosremaster.layers.formats import DeadBytes, EditResources, Repacking
    from cosremaster.layers.model import Layer
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.tree.nodes import Edits, Node

_SUPERBLOCK = 1024
_MAGIC = b"\xe2\xe1\xf5\xe0"
_MAX_FILE = (1 << 63) - 1


class ErofsIndex(ArchiveIndex):
    """An EROFS file system, which is read when it is needed."""

    def __init__(self, inode_count: int) -> None:
        """Remember the number of inodes."""
        self._inode_count = inode_count

    @property
    def entry_count(self) -> int:
        """How many inodes it has."""
        return self._inode_count

    def find_landmarks(self, layer: Layer, paths: Sequence[bytes]) -> Sequence[bytes]:
        """Return the paths at the top, and those of ``paths`` that exist."""
        tree = open_tree(layer)
        return [*(tree.directory(b"") or ()), *(path for path in paths if path in tree)]

    def tree(self, layer: Layer) -> Mapping[bytes, Node]:
        """Return the nodes of ``layer`` by path."""
        from cosremaster.io.pieces import PieceTable, Range  # noqa: PLC0415 - only who looks inside needs it
        from cosremaster.layers.erofs.tree import ErofsTree  # noqa: PLC0415 - the same

        return ErofsTree(PieceTable([Range(layer.decoded, 0, layer.size)]), layer.place)

    def check_data(self, layer: Layer, visit: Callable[[Node], None] = lambda node: None) -> None:
        """Read every file to its end, holes apart. :raises CorruptError: damage, with its place."""
        from cosremaster.io.pieces import Zeros  # noqa: PLC0415 - as all that looks inside

        for node in open_tree(layer).values():
            if node.content is not None:
                visit(node)
            for piece in node.content.table().pieces if node.content is not None else ():
                for _ in piece.chunks() if not isinstance(piece, Zeros) else ():
                    pass

    def find_breaches(self, layer: Layer, *, with_data: bool) -> Iterator[tuple[str, Place]]:
        """Yield a sentence about each directory in which Linux does not find all names, with its place.

        :raises CorruptError: an inode, or what leads to its data, is damaged.
        """
        if not with_data:
            open_tree(layer).check_inodes()
        for path, inode in open_tree(layer).list_unsorted():
            message = (
                f"the names of directory /{printable(path)} are not sorted, or not all different, so that Linux does"
                " not find all of them"
            )
            yield message, layer.place if inode.is_in_metabox else layer.place.at(inode.position)

    def edit_warnings(self, layer: Layer, edits: Edits, repacking: Repacking) -> Iterator[str]:
        """Yield what stays of removed files, and which extended attributes go."""
        from cosremaster.layers.erofs.losses import describe_losses  # noqa: PLC0415 - only edits need it

        return describe_losses(open_tree(layer), edits, layer.place)

    def count_dead_bytes(self, layer: Layer, table: PieceTable) -> DeadBytes | None:
        """Return None: they are not counted, as nothing takes them out."""
        return None

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        """Return the bytes of the image after ``edits``; raises as :meth:`ArchiveIndex.edit`.

        :raises UnsupportedError: something else follows the file system in its file, or cannot be kept true.
        """
        from cosremaster.layers.erofs.edit import check_nothing_follows  # noqa: PLC0415 - only edits need it
        from cosremaster.layers.erofs.write import apply_edits  # noqa: PLC0415 - the same

        tree = open_tree(layer)
        check_nothing_follows(tree.filesystem)
        return tree.filesystem.table if edits.is_empty else apply_edits(tree, edits, layer.place)

    def dump(self, blobs: Blobs) -> dict[str, Any]:
        """Return the number of inodes: all else is read from the image."""
        return {"inodes": self._inode_count}


def open_tree(layer: Layer) -> ErofsTree:
    """Return the file system of ``layer``, which all that look at the layer share."""
    return cast("ErofsTree", layer.tree())


class ErofsFormat(LayerFormat):
    """The read-only file system of Android, and of live images of Fedora."""

    name = "erofs"
    random_access = True
    reads_on_demand = True
    magic_end = _SUPERBLOCK + len(_MAGIC)
    limits = Limits(
        "an EROFS file system", _MAX_FILE,
        (b"user.", b"trusted.", b"security.", b"system.posix_acl_access", b"system.posix_acl_default"),
    )  # fmt: skip

    def identify(self, head: bytes) -> str | None:
        """Return ``""`` for EROFS."""
        return "" if head.startswith(_MAGIC, _SUPERBLOCK) else None

    def index(self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None) -> ErofsIndex:
        """Read the superblock and the root of the file system ``table``. :raises CorruptError: damage, located."""
        from cosremaster.layers.erofs.filesystem import ErofsFilesystem  # noqa: PLC0415 - only EROFS needs it

        assert table is not None
        filesystem = ErofsFilesystem(table, reader.place)
        for _ in filesystem.listing(filesystem.root):
            pass
        return ErofsIndex(filesystem.superblock.inode_count)

    def load(self, values: dict[str, Any], blobs: memoryview) -> ErofsIndex:
        """Return the index that ``dump`` made values of. :raises KeyError, TypeError: it did not."""
        count = values["inodes"]
        if type(count) is not int:
            raise TypeError("the number of inodes is none")
        return ErofsIndex(count)
