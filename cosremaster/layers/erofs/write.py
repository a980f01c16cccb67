"""The bytes of an edited EROFS image: places for new inodes, listings and data, and patches of what is there."""

from __future__ import annotations

import struct

from cosremaster.errors import Place, ProofError, SizeError, UnsupportedError
from cosremaster.io.pieces import Literal, Piece, PieceTable, Zeros
from cosremaster.layers.erofs.checksums import superblock_checksum
from cosremaster.layers.erofs.directories import ErofsEntry, pack_blocks
from cosremaster.layers.erofs.edit import (
    ChangedErofsDirectory,
    ErofsEditor,
    NewErofsInode,
    find_nid,
    list_names,
)
from cosremaster.layers.erofs.inodes import COMPACT, EXTENDED, IS_EXTENDED, LAYOUT_BIT, DataLayout, ErofsInode
from cosremaster.layers.erofs.kept_bytes import check_kept_bytes
from cosremaster.layers.erofs.superblock import (
    BLOCKS_AT,
    CHECKSUM_AT,
    COUNT_AT,
    OFFSET,
    ROOT_8_AT,
    ROOT_AT,
    SLOT,
    ErofsCompatible,
    ErofsFeature,
    checked_length,
)
from cosremaster.layers.erofs.tree import ErofsTree
from cosremaster.layers.erofs.xattrs import HEADER_SIZE, pack_xattrs
from cosremaster.records import Struct
from cosremaster.tree.nodes import Edits, NodeKind

_NLINK_AT = {True: 44, False: 6}
"""Where an inode has the number of its names: an extended one, and a compact one."""
_MIN_BEHIND = HEADER_SIZE
"""Bytes that follow each inode: fsck.erofs reads a header of attributes there, even where an inode has none."""
_BOOT_NID = 2
"""The number of an inode in the bytes before the superblock, which are free for boot loaders and mostly zeros."""


def apply_edits(tree: ErofsTree, edits: Edits, place: Place) -> PieceTable:
    """Return the bytes of the image after ``edits``.

    :raises OverlayError: the format cannot hold a node. :raises UnsupportedError: something cannot be kept true.
    :raises SizeError: the image would have too many blocks. :raises ProofError: the new image is not as planned.
    """
    editor = ErofsEditor(tree, place)
    editor.apply(edits)
    table = ErofsWriter(editor).write()
    _prove(table, place, edits)
    return table


class _PlacedInode(Struct):
    """A new inode: ``size`` of its data, ``start``, their first block, and ``tail``, those that stand behind it."""

    inode: NewErofsInode
    position: int
    xattrs: bytes
    size: int
    start: int
    tail: bytes


class ErofsWriter:
    """Gives places to what is new, and puts the image together."""

    def __init__(self, editor: ErofsEditor) -> None:
        """Begin behind the last block of the image."""
        self._editor = editor
        self._filesystem = editor.filesystem
        self._old = editor.filesystem.superblock
        self._block = self._old.block_size
        length = editor.filesystem.table.length
        self._end = (self._old.block_count or -(-length // self._block)) * self._block
        self._pieces: list[Piece] = []
        self._patches: list[tuple[int, bytes]] = []
        self._own: dict[int, range] = {}
        """By the byte of a patched inode, which of its bytes are."""
        self._placed: list[_PlacedInode] = []
        self._length = 0
        """Bytes of the new pieces, always whole blocks."""

    def write(self) -> PieceTable:
        """Return the bytes of the new image. :raises SizeError: it has too many blocks."""
        directories = self._editor.list_directories()
        for inode in self._editor.inodes:
            self._place_file(inode)
        sizes = [self._listing_size(directory) for directory in directories]
        starts = [self._reserve(size) for size in sizes]
        listings_end = self._length
        self._place_inodes(directories, sizes, starts)
        inodes = self._pack_inodes()
        for directory, size, start in zip(directories, sizes, starts, strict=True):
            listing = self._pack_listing(directory)
            self._pieces.append(Literal(listing + bytes(-size % self._block)))
            if directory.moved is None:
                self._patch_directory(directory, size, start)
        assert listings_end == sum(piece.length for piece in self._pieces)
        self._pieces.append(Literal(inodes))
        self._length = listings_end + len(inodes)
        self._patch_link_counts()
        return self._join()

    def _reserve(self, size: int) -> int:
        """Return the first block of ``size`` new bytes, which take whole blocks."""
        start = (self._end + self._length) // self._block
        self._length += -(-size // self._block) * self._block
        return start

    def _place_file(self, inode: NewErofsInode) -> None:
        """Give the data of ``inode`` blocks; their tail goes behind the inode where it fits into a block with it."""
        xattrs = pack_xattrs(inode.attributes.xattrs)
        table = inode.content.table() if inode.content is not None else PieceTable([Literal(inode.target)])
        size = table.length
        whole = size - size % self._block
        tail = b""
        if whole < size and EXTENDED.size + len(xattrs) + size - whole <= self._block:
            tail = table.read(whole, size - whole)
        else:
            whole = size
        start = self._reserve(whole) if whole else 0
        if whole:
            self._pieces += table.cut(0, whole).pieces
            self._pieces.append(Zeros(-whole % self._block))
        self._placed.append(_PlacedInode(inode, 0, xattrs, size, start, tail))

    def _listing_size(self, directory: ChangedErofsDirectory) -> int:
        """Return the bytes of the listing of ``directory``, which do not depend on numbers of inodes."""
        return len(pack_blocks((ErofsEntry(name, 0, kind) for name, kind in list_names(directory)), self._block))

    def _pack_listing(self, directory: ChangedErofsDirectory) -> bytes:
        """Return the listing of ``directory``."""
        entries = (ErofsEntry(name, find_nid(directory, name), kind) for name, kind in list_names(directory))
        return pack_blocks(entries, self._block)

    def _place_inodes(self, directories: list[ChangedErofsDirectory], sizes: list[int], starts: list[int]) -> None:
        """Give new inodes places and numbers, in which no inode crosses the border of a block without need."""
        for directory, size, start in zip(directories, sizes, starts, strict=True):
            if directory.moved is not None:
                directory.moved.nlink = directory.nlink
                xattrs = pack_xattrs(directory.moved.attributes.xattrs)
                self._placed.append(_PlacedInode(directory.moved, 0, xattrs, size, start, b""))
        root = self._editor.root.moved
        position = self._end + self._length
        for placed in self._placed:
            if placed.inode is root and not self._editor.can_move_root:
                self._place_root(placed)
                continue
            need = EXTENDED.size + len(placed.xattrs) + len(placed.tail)
            room = self._block - position % self._block
            if room < min(need, EXTENDED.size) or (room < need <= self._block):
                position += room
            placed.position = position
            placed.inode.nid = (position - self._old.metadata_start) // SLOT
            position += -(-need // SLOT) * SLOT

    def _place_root(self, placed: _PlacedInode) -> None:
        """Give the root a new inode before the superblock: the field of its number has 16 bits.

        :raises UnsupportedError: these bytes are used.
        """
        placed.position = SLOT * _BOOT_NID
        end = placed.position + EXTENDED.size + len(placed.xattrs)
        if self._old.metadata_start or end > OFFSET or any(self._filesystem.table.read(0, OFFSET)):
            message = (
                "is an EROFS file system whose root directory has no room for other extended attributes, owners above"
                " 65,535 or another time"
            )
            raise UnsupportedError(message, self._editor.place)
        placed.inode.nid = _BOOT_NID

    def _pack_inodes(self) -> bytes:
        """Return the area of new inodes, whole blocks, and patch those that stand elsewhere."""
        start = self._end + self._length
        area, needed = bytearray(), 0
        for placed in self._placed:
            raw = self._pack_inode(placed) + placed.xattrs + placed.tail
            if placed.position < start:
                self._patches.append((placed.position, raw))
            else:
                area += bytes(placed.position - start - len(area)) + raw
                needed = max(len(area), placed.position - start + EXTENDED.size + _MIN_BEHIND)
        return bytes(area) + bytes(needed + -needed % self._block - len(area))

    def _pack_inode(self, placed: _PlacedInode) -> bytes:
        """Return the 64 bytes of a new inode."""
        inode, attributes = placed.inode, placed.inode.attributes
        layout = DataLayout.FLAT_INLINE if placed.tail else DataLayout.FLAT_PLAIN
        low, high = placed.start & 0xFFFFFFFF, placed.start >> 32
        if attributes.mode & 0o170000 in (NodeKind.CHAR, NodeKind.BLOCK):
            major, minor = inode.rdev
            low = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
        count = (len(placed.xattrs) - 12) // 4 + 1 if placed.xattrs else 0
        return EXTENDED.pack(
            IS_EXTENDED | layout << LAYOUT_BIT, count, attributes.mode, high, placed.size, low, inode.nid & 0xFFFFFFFF,
            attributes.uid, attributes.gid, attributes.mtime, attributes.nanoseconds, inode.nlink,
        )  # fmt: skip

    def _patch_directory(self, directory: ChangedErofsDirectory, size: int, start: int) -> None:
        """Let the inode of ``directory`` lead to its new listing. :raises SizeError: it has no room for the place."""
        old, attributes = directory.old, directory.attributes
        assert old is not None
        raw = self._filesystem.metadata(is_in_metabox=False).read(old.position, old.head_size)
        owner = attributes if attributes is not None else old
        mode, uid, gid = owner.mode, owner.uid, owner.gid
        if old.is_extended:
            fields = list(EXTENDED.unpack(raw))
            fields[2:6] = [mode, start >> 32, size, start & 0xFFFFFFFF]
            fields[7:9] = [uid, gid]
            if attributes is not None:
                is_same = attributes.mtime == old.mtime
                fields[9:11] = [attributes.mtime, old.nanoseconds if is_same else attributes.nanoseconds]
            fields[11] = directory.nlink
        else:
            self._check_block(start)
            fields = list(COMPACT.unpack(raw))
            fields[2:5] = [mode, directory.nlink, size]
            fields[6] = start
            fields[8:10] = [uid, gid]
        fields[0] &= IS_EXTENDED
        self._patch_inode(old, 0, (EXTENDED if old.is_extended else COMPACT).pack(*fields))

    def _patch_inode(self, inode: ErofsInode, offset: int, data: bytes) -> None:
        """Give ``inode`` the bytes ``data`` from its byte ``offset`` on."""
        start = inode.position + offset
        self._patches.append((start, data))
        self._own[inode.position] = range(start, start + len(data))

    def _check_block(self, number: int) -> None:
        """Check that 32 bits hold the ``number`` of a block. :raises SizeError: they do not."""
        if number >= 0xFFFFFFFF:
            raise SizeError("the EROFS file system would have too many blocks", self._editor.place)

    def _patch_link_counts(self) -> None:
        """Write the number of names of inodes that lost one and keep another."""
        for nid, count in self._editor.link_counts.items():
            if count > 0:
                inode: ErofsInode = self._filesystem.inode(nid)
                form = "<I" if inode.is_extended else "<H"
                self._patch_inode(inode, _NLINK_AT[inode.is_extended], struct.pack(form, count))

    def _join(self) -> PieceTable:
        """Return old and new bytes with a new superblock."""
        blocks = (self._end + self._length) // self._block
        if not self._old.has(ErofsFeature.BITS48):
            self._check_block(blocks)
        self._patches.append((OFFSET + COUNT_AT, struct.pack("<Q", self._editor.count_inodes())))
        self._patches.append((OFFSET + BLOCKS_AT, struct.pack("<I", blocks & 0xFFFFFFFF)))
        self._patches += self._root_patches(blocks >> 32)
        old = self._filesystem.table
        self._check_kept_bytes(old)
        old_part = old.cut(0, min(self._end, old.length))
        table = PieceTable([*old_part.pieces, Zeros(self._end - old_part.length), *self._pieces]).patched(self._patches)
        if self._old.compatible & ErofsCompatible.CHECKSUM:
            head = table.read(OFFSET, checked_length(self._block) - OFFSET)
            table = table.patched([(OFFSET + CHECKSUM_AT, struct.pack("<I", superblock_checksum(head)))])
        return table

    def _check_kept_bytes(self, old: PieceTable) -> None:
        """Check that no patch changes what is kept of ``old``, the image. Raises as :func:`check_kept_bytes`."""
        patches = [range(start, start + len(data)) for start, data in self._patches]
        if self._old.compatible & ErofsCompatible.CHECKSUM:
            patches.append(range(OFFSET + CHECKSUM_AT, OFFSET + CHECKSUM_AT + 4))
        behind = range(self._end, max(self._end, old.length))
        replaced = {item.old.nid for item in self._editor.list_directories() if item.old is not None}
        check_kept_bytes(old, [*patches, behind], self._own, replaced, self._editor.place)

    def _root_patches(self, blocks_high: int) -> list[tuple[int, bytes]]:
        """Return the patches of the superblock that name the root, and the high bits of the number of blocks."""
        nid = self._editor.root.nid
        if not self._old.has(ErofsFeature.BITS48):
            return [(OFFSET + ROOT_AT, struct.pack("<H", nid))]
        return [(OFFSET + ROOT_AT, struct.pack("<H", blocks_high)), (OFFSET + ROOT_8_AT, struct.pack("<Q", nid))]


def _prove(table: PieceTable, place: Place, edits: Edits) -> None:
    """Look up all that ``edits`` change in the new image ``table``. :raises ProofError: it is not as it has to be."""
    tree = ErofsTree(table, place)
    added = {node.path for node, _ in edits.additions}
    for path in edits.removed_paths:
        if path not in added and path in tree:
            raise ProofError("is still there after its removal", place.inside(path))
    for node, _ in edits.additions:
        if not node.path:
            continue
        written = tree.get(node.path)
        if written is None:
            raise ProofError("is not there after it was added", place.inside(node.path))
        size = node.content.size if node.content is not None else None
        facts = (node.kind, node.mode, node.uid, node.gid, node.mtime, node.target, node.xattrs, size)
        if facts != (
            written.kind, written.mode, written.uid, written.gid, written.mtime, written.target, written.xattrs,
            written.content.size if written.content is not None else None,
        ):  # fmt: skip
            raise ProofError("is not written as it was planned", place.inside(node.path))
