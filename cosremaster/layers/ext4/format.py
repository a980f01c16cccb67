"""Ext4, ext3 and ext2 as a layer format that is read only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cosremaster.layers.formats import LayerFormat
from cosremaster.layers.on_demand_index import OnDemandIndex, load_inode_count
from cosremaster.tree.limits import Limits

if TYPE_CHECKING:
    from cosremaster.io.pieces import PieceTable
    from cosremaster.io.streams import ByteReader
    from cosremaster.layers.blobs import Blobs
    from cosremaster.layers.ext4.tree import Ext4Tree
    from cosremaster.layers.formats import EditResources
    from cosremaster.layers.model import Layer
    from cosremaster.layers.scan import MemberScanner
    from cosremaster.tree.nodes import Edits, Node

_SUPERBLOCK = 1024
_MAGIC_AT, _MAGIC = 56, b"\x53\xef"
_USED_FIELDS = 96
_MAX_FILE = (1 << 44) - 1


class Ext4Index(OnDemandIndex["Ext4Tree"]):
    """An ext4 file system, which is read when it is needed."""

    def __init__(self, inode_count: int, *, is_replayed: bool) -> None:
        """Remember the number of inodes, used or not, and whether the journal had to be applied."""
        super().__init__(inode_count)
        self._is_replayed = is_replayed

    @property
    def oddity(self) -> str:
        """What is odd: the file system was not unmounted."""
        return "was not unmounted: it is read with what its journal holds" if self._is_replayed else ""

    def make_tree(self, table: PieceTable, layer: Layer) -> Ext4Tree:
        """Return the nodes of ``layer``, whose plain bytes are ``table``."""
        from cosremaster.layers.ext4.tree import Ext4Tree  # noqa: PLC0415 - only who looks inside needs it

        return Ext4Tree(table, layer.place)

    def check_data(self, layer: Layer, visit: Callable[[Node], None] = lambda node: None) -> None:
        """Read every inode, directory and map of blocks. :raises CorruptError: damage, with its place.

        Data of files have no checksums.
        """
        for node in self.open_tree(layer).walk_nodes():
            if node.content is not None:
                visit(node)
                node.content.table()

    def edit(self, layer: Layer, edits: Edits, resources: EditResources) -> PieceTable:
        """Refuse the edit. :raises UnsupportedError: always, for ext4 is only read."""
        from cosremaster.errors import UnsupportedError  # noqa: PLC0415 - only a refusal needs it

        raise UnsupportedError(Ext4Format.refusal, layer.place)

    def dump(self, blobs: Blobs) -> dict[str, Any]:
        """Return the number of inodes and the state of the journal: all else is read from the image."""
        return super().dump(blobs) | {"replayed": self._is_replayed}


class Ext4Format(LayerFormat):
    """The file system of most disk images."""

    name = "ext4"
    random_access = True
    reads_on_demand = True
    magic_end = _SUPERBLOCK + _MAGIC_AT + len(_MAGIC)
    limits = Limits("an ext4 file system", _MAX_FILE, (b"",))
    refusal: str = (
        "is an ext4 file system, which can be read and exported but not changed in place; an output called NAME.tar.gz"
        " takes what is in it"
    )

    def identify(self, head: bytes) -> str | None:
        """Return ``""`` for ext2, ext3 and ext4.

        The magic has two bytes, so some more fields of the superblock are looked at (fs/ext4/ext4.h).
        """
        superblock = head[_SUPERBLOCK : _SUPERBLOCK + _USED_FIELDS]
        if superblock[_MAGIC_AT : _MAGIC_AT + 2] != _MAGIC or len(superblock) < _USED_FIELDS:
            return None
        inodes, log_block_size, state, revision = (
            int.from_bytes(superblock[at : at + size], "little") for at, size in ((0, 4), (24, 4), (58, 2), (76, 4))
        )
        return "" if inodes > 0 and log_block_size <= 6 and state < 8 and revision <= 1 else None

    def index(self, reader: ByteReader, origin: int, members: MemberScanner, table: PieceTable | None) -> Ext4Index:
        """Read the superblock and the root of the file system ``table``. :raises CorruptError: damage, located."""
        from cosremaster.layers.ext4.filesystem import Ext4Filesystem  # noqa: PLC0415 - only ext4 needs it

        assert table is not None
        filesystem = Ext4Filesystem(table, reader.place)
        filesystem.listing(filesystem.root)
        return Ext4Index(filesystem.superblock.inode_count, is_replayed=filesystem.is_replayed)

    def load(self, values: dict[str, Any], blobs: memoryview) -> Ext4Index:
        """Return the index that ``dump`` made values of. :raises KeyError, TypeError: it did not."""
        is_replayed = values["replayed"]
        if type(is_replayed) is not bool:
            raise TypeError("whether the journal was applied is neither true nor false")
        return Ext4Index(load_inode_count(values), is_replayed=is_replayed)
