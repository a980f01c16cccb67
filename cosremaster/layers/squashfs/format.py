"""Squashfs as a layer format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cosremaster.layers.formats import LayerFormat, Repacking
from cosremaster.layers.on_demand_index import OnDemandIndex, load_inode_count
from cosremaster.tree.limits import Limits

if TYPE_CHECKING:
    from cosremaster.errors import Place
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.streams import ByteReader
    from cosremaster.layers.formats import DeadBytes, EditResources, NewStyle
    from cosremaster.layers.model import Layer
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.layers.squashfs.tree import SquashfsTree
    from cosremaster.tree.nodes import Edits, Node

MAGIC = b"hsqs"
_MAX_FILE = (1 << 63) - 1


class SquashfsIndex(OnDemandIndex["SquashfsTree"]):
    """A squashfs file system, which is read when it is needed.

    Files inside it that are archives are layers where an address names them (layers/inner.py).
    """

    @property
    def version(self) -> str:
        """The version of the format."""
        return "4.0"

    def make_tree(self, table: PieceTable, layer: Layer) -> SquashfsTree:
        """Return the nodes of ``layer``, whose plain bytes are ``table``."""
        from cosremaster.layers.squashfs.tree import SquashfsTree  # noqa: PLC0415 - only who looks inside needs it

        return SquashfsTree(table, layer.place)

    def find_breaches(self, layer: Layer, *, with_data: bool) -> Iterator[tuple[str, Place]]:
        """Yield a sentence about each rule of Linux, unsquashfs or 7-Zip that the image breaks, with its place."""
        from cosremaster.layers.squashfs.check import find_breaches  # noqa: PLC0415 - only verification needs it

        for breach in find_breaches(self.open_tree(layer).filesystem, with_data=with_data):
            yield breach.message, layer.place if breach.position is None else layer.place.at(breach.position)

    def check_kept(self, layer: Layer) -> None:
        """Check that all data stand where an edit leaves them. Raises as :meth:`ArchiveIndex.check_kept`."""
        from cosremaster.layers.squashfs.check import check_kept_data  # noqa: PLC0415 - only edits need it

        check_kept_data(self.open_tree(layer).filesystem)

    def edit_warnings(self, layer: Layer, edits: Edits, repacking: Repacking) -> Iterator[str]:
        """Yield what stays of removed files, and which extended attributes go."""
        from cosremaster.layers.squashfs.losses import describe_losses  # noqa: PLC0415 - only edits need it

        return describe_losses(self.open_tree(layer), edits, layer.place, repacking)

    def count_dead_bytes(self, layer: Layer, table: PieceTable) -> DeadBytes | None:
        """Return what a repack would drop of the image ``table``; None where it has very many inodes."""
        from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem  # noqa: PLC0415 - few reports need it
        from cosremaster.layers.squashfs.live import count_dead_bytes  # noqa: PLC0415 - the same

        return count_dead_bytes(SquashfsFilesystem(table, layer.place))

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        """Return the bytes of the image after ``edits``; raises as :meth:`ArchiveIndex.edit`.

        :raises UnsupportedError: something else follows the file system in its file.
        """
        from cosremaster.layers.squashfs.append import apply_edits, check_nothing_follows  # noqa: PLC0415 - only edits need it

        tree = self.open_tree(layer)
        check_nothing_follows(tree.filesystem)
        table = tree.filesystem.table if edits.is_empty else apply_edits(tree, edits, resources, layer.place)
        if resources.repacking is Repacking.NOTHING:
            return table
        from cosremaster.layers.squashfs.repack import repack  # noqa: PLC0415 - few edits need it

        return repack(table, layer.place, tree.filesystem, resources)

    def make_blank(self, layer: Layer) -> bytes:
        """Return an image without files, with the compressor, block size and root directory of ``layer``."""
        from cosremaster.layers.squashfs.blank import make_blank_like  # noqa: PLC0415 - only a new layer needs it

        return make_blank_like(self.open_tree(layer).filesystem)


class SquashfsFormat(LayerFormat):
    """The file system of most live images."""

    name = "squashfs"
    random_access = True
    reads_on_demand = True
    can_repack = True
    magic_end = len(MAGIC)
    limits = Limits("a squashfs file system", _MAX_FILE, (b"user.", b"trusted.", b"security."))

    def identify(self, head: bytes) -> str | None:
        """Return ``""`` for squashfs."""
        return "" if head.startswith(MAGIC) else None

    def index(self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None) -> SquashfsIndex:
        """Read the superblock of the image ``table``. :raises CorruptError: damage, with its place."""
        from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem  # noqa: PLC0415 - only squashfs needs it

        assert table is not None
        filesystem = SquashfsFilesystem(table, reader.place)
        filesystem.listing(filesystem.root)
        return SquashfsIndex(filesystem.superblock.inodes)

    def make_empty(self, root: Node, style: NewStyle) -> bytes:
        """Return a file system with the directory ``root`` alone. Raises as :meth:`LayerFormat.make_empty`."""
        from cosremaster.layers.squashfs.blank import make_new  # noqa: PLC0415 - few need it

        return make_new(root, style)

    def load(self, values: dict[str, Any], blobs: memoryview) -> SquashfsIndex:
        """Return the index that ``dump`` made values of. :raises KeyError, TypeError: it did not."""
        return SquashfsIndex(load_inode_count(values))
