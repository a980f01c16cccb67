"""EROFS as a layer format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cosremaster.errors import printable
from cosremaster.layers.formats import LayerFormat
from cosremaster.layers.on_demand_index import OnDemandIndex, load_inode_count
from cosremaster.tree.limits import Limits

if TYPE_CHECKING:
    from cosremaster.errors import Place
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.streams import ByteReader
    from cosremaster.layers.erofs.tree import ErofsTree
    from cosremaster.layers.formats import DeadBytes, EditResources, Repacking
    from cosremaster.layers.model import Layer
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.tree.nodes import Edits

_SUPERBLOCK = 1024
_MAGIC = b"\xe2\xe1\xf5\xe0"
_MAX_FILE = (1 << 63) - 1


class ErofsIndex(OnDemandIndex["ErofsTree"]):
    """An EROFS file system, which is read when it is needed."""

    def make_tree(self, table: PieceTable, layer: Layer) -> ErofsTree:
        """Return the nodes of ``layer``, whose plain bytes are ``table``."""
        from cosremaster.layers.erofs.tree import ErofsTree  # noqa: PLC0415 - only who looks inside needs it

        return ErofsTree(table, layer.place)

    def find_breaches(self, layer: Layer, *, with_data: bool) -> Iterator[tuple[str, Place]]:
        """Yield a sentence about each directory that Linux or fsck.erofs does not take, with its place.

        :raises CorruptError: an inode, or what leads to its data, is damaged.
        """
        if not with_data:
            self.open_tree(layer).check_inodes()
        for path, inode, fault in self.open_tree(layer).list_faulty_directories():
            message = f"the names of directory /{printable(path)} {fault}"
            yield message, layer.place if inode.is_in_metabox else layer.place.at(inode.position)

    def edit_warnings(self, layer: Layer, edits: Edits, repacking: Repacking) -> Iterator[str]:
        """Yield what stays of removed files, and which extended attributes go."""
        from cosremaster.layers.erofs.losses import describe_losses  # noqa: PLC0415 - only edits need it

        return describe_losses(self.open_tree(layer), edits, layer.place)

    def count_dead_bytes(self, layer: Layer, table: PieceTable) -> DeadBytes | None:
        """Return None: they are not counted, as nothing takes them out."""
        return None

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        """Return the bytes of the image after ``edits``; raises as :meth:`ArchiveIndex.edit`.

        :raises UnsupportedError: something else follows the file system in its file, or cannot be kept true.
        """
        from cosremaster.layers.erofs.edit import check_nothing_follows  # noqa: PLC0415 - only edits need it
        from cosremaster.layers.erofs.write import apply_edits  # noqa: PLC0415 - the same

        tree = self.open_tree(layer)
        check_nothing_follows(tree.filesystem)
        return tree.filesystem.table if edits.is_empty else apply_edits(tree, edits, layer.place)


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
        return ErofsIndex(load_inode_count(values))
