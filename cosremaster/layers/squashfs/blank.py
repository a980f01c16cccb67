"""A squashfs file system without files, from nothing: edits of it make a whole new one."""

from __future__ import annotations

import struct
from importlib import import_module

from cosremaster.errors import UnsupportedError, UsageError
from cosremaster.layers.formats import NewStyle
from cosremaster.layers.squashfs.directories import EMPTY_SIZE
from cosremaster.layers.squashfs.filesystem import SquashfsFilesystem
from cosremaster.layers.squashfs.format import MAGIC
from cosremaster.layers.squashfs.inodes import DIRECTORY, NO_XATTR, Inode
from cosremaster.layers.squashfs.metadata import METADATA_SIZE, pack_table
from cosremaster.layers.squashfs.superblock import ABSENT, PADDING, SUPERBLOCK_SIZE, Compression, Flags, Superblock
from cosremaster.records import Struct
from cosremaster.tree.nodes import Node

_STORED = 0x8000
_COMPRESSIONS = {
    "zstd": Compression.ZSTD, "xz": Compression.XZ, "gzip": Compression.GZIP, "lz4": Compression.LZ4,
    "lzo": Compression.LZO,
}  # fmt: skip
_LIBRARIES = {"lz4": "lz4.block", "lzo": "lzokay"}
"""What a compression needs that comes with the extra of its name."""

_LZ4_OPTIONS = struct.pack("<II", 1, 0)
"""The version of the format, and the quicker compression: unsquashfs wants them even where they are the default."""

_BLOCK_SIZES = tuple(1 << log for log in range(12, 21))  # SQUASHFS_FILE_MAX_LOG
_DEFAULT_BLOCK = 128 << 10


class ImageStyle(Struct, frozen=True, kw_only=True):
    """How a new file system is written.

    ``compression``: the number in its superblock, with the compressor's ``options`` (empty for its own defaults);
    ``made_at``: seconds since 1970.
    """

    compression: int
    options: bytes
    block_size: int
    flags: int
    made_at: int


def style_of(filesystem: SquashfsFilesystem) -> ImageStyle:
    """Return how ``filesystem`` is written."""
    superblock = filesystem.superblock
    return ImageStyle(
        compression=superblock.compression, options=filesystem.read_options(), block_size=superblock.block_size,
        flags=superblock.flags, made_at=superblock.made_at,
    )  # fmt: skip


def make_blank(style: ImageStyle, root: Inode, uid: int, gid: int) -> bytes:
    """Return a file system with nothing but a root directory.

    :param root: whose mode and time the root gets, and ``uid`` and ``gid`` its owners.
    """
    ids = list(dict.fromkeys((uid, gid)))
    inode = Inode(
        type=DIRECTORY, mode=root.mode, uid=ids.index(uid), gid=ids.index(gid), mtime=root.mtime, number=1, nlink=2,
        size=EMPTY_SIZE, parent=2, xattr=NO_XATTR,
    )  # fmt: skip
    flags = style.flags & ~Flags.COMPRESSOR_OPTIONS
    body = b""
    if style.options:
        flags |= Flags.COMPRESSOR_OPTIONS
        body = struct.pack("<H", len(style.options) | _STORED) + style.options
    inode_table = SUPERBLOCK_SIZE + len(body)
    packed = inode.pack()
    assert len(packed) <= METADATA_SIZE
    body += struct.pack("<H", len(packed) | _STORED) + packed
    directory_table = SUPERBLOCK_SIZE + len(body)
    lookup_table = ABSENT
    if flags & Flags.EXPORTABLE:
        blocks, lookup_table = pack_table(struct.pack("<Q", 0), _store, directory_table)
        body += blocks
    blocks, id_table = pack_table(struct.pack(f"<{len(ids)}I", *ids), _store, SUPERBLOCK_SIZE + len(body))
    body += blocks
    superblock = Superblock(
        magic=int.from_bytes(MAGIC, "little"), inodes=1, made_at=style.made_at, block_size=style.block_size,
        fragments=0, compression=style.compression, block_log=style.block_size.bit_length() - 1, flags=flags,
        ids=len(ids), major=4, minor=0, root=0, bytes_used=SUPERBLOCK_SIZE + len(body), id_table=id_table,
        xattr_table=ABSENT, inode_table=inode_table, directory_table=directory_table, fragment_table=directory_table,
        lookup_table=lookup_table,
    )  # fmt: skip
    image = superblock.pack() + body
    return image + bytes(-len(image) % PADDING)


def make_blank_like(filesystem: SquashfsFilesystem) -> bytes:
    """Return a file system without files that is written as ``filesystem``, with its root directory's attributes."""
    root = filesystem.root
    return make_blank(style_of(filesystem), root, filesystem.owner(root.uid), filesystem.owner(root.gid))


def _store(plain: bytes) -> None:
    """Return None: the block is stored."""
    return


def make_new(root: Node, style: NewStyle) -> bytes:
    """Return a file system with the directory ``root`` alone, under zstd in blocks of 128 KiB unless ``style`` differs.

    :raises UsageError: there is no such compression or block size. :raises UnsupportedError: its library is missing.
    """
    name = style.compression or "zstd"
    if name not in _COMPRESSIONS:
        raise UsageError(f"squashfs has no compression {name!r}; there are {', '.join(_COMPRESSIONS)}")
    block_size = _DEFAULT_BLOCK if style.block_size is None else style.block_size
    if block_size not in _BLOCK_SIZES:
        raise UsageError(f"blocks of {block_size:,} bytes: squashfs has powers of two from 4 KiB to 1 MiB")
    try:
        import_module(_LIBRARIES.get(name, "struct"))
    except ImportError as error:
        raise UnsupportedError(f"squashfs under {name} needs the extra cosremaster[{name}]") from error
    image = ImageStyle(
        compression=_COMPRESSIONS[name], options=_LZ4_OPTIONS if name == "lz4" else b"", block_size=block_size,
        flags=Flags.EXPORTABLE | Flags.NO_XATTRS, made_at=style.made_at,
    )  # fmt: skip
    inode = Inode(type=DIRECTORY, mode=root.mode, uid=0, gid=0, mtime=root.mtime, number=1)
    return make_blank(image, inode, root.uid, root.gid)
