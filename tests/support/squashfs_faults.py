"""Squashfs images that keep all rules, and images that break one, with the readers that refuse them."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

from cosremaster.layers.squashfs.directories import SquashfsEntry
from cosremaster.layers.squashfs.inodes import Inode
from cosremaster.records import replace
from tests.fixtures.tools import load_module
from tests.support.squashfs_image import SquashfsDraft


def with_inode(name: str, /, **changes: Any) -> Callable[[str, Inode], Inode]:
    """What changes fields of the inode ``name``."""
    return lambda inode_name, inode: replace(inode, **changes) if inode_name == name else inode


def with_entry(name: bytes, /, **changes: Any) -> Callable[[list[SquashfsEntry]], list[SquashfsEntry]]:
    """What changes fields of the directory entry ``name``."""
    return lambda entries: [entry._replace(**changes) if entry.name == name else entry for entry in entries]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def xz(check: int = lzma.CHECK_CRC32, dictionary: int = 4096, *first: int) -> Callable[[bytes], bytes]:
    filters = [*({"id": number} for number in first), {"id": lzma.FILTER_LZMA2, "dict_size": dictionary}]
    return lambda data: lzma.compress(data, lzma.FORMAT_XZ, check, filters=filters)


def zstd_stream(data: bytes) -> bytes:
    packer = load_module("zstandard").ZstdCompressor(write_content_size=False).compressobj()
    return bytes(packer.compress(data) + packer.flush())


def zstd(data: bytes, **options: bool) -> bytes:
    return bytes(load_module("zstandard").ZstdCompressor(**options).compress(data))


SOUND = {
    "plain": SquashfsDraft(),
    "dead data": SquashfsDraft(dead_data=10_000, gaps={"inodes": 3}),
    "no inode references": SquashfsDraft(order=("fragments", "ids", "xattrs")),
    "no attributes": SquashfsDraft(order=("fragments", "lookup", "ids")),
    "references without inode": SquashfsDraft(edit_lookup=lambda numbers: [*numbers[:4], (1 << 64) - 1]),
    "xz": SquashfsDraft(compression=4, pack=xz()),
    "xz without check": SquashfsDraft(compression=4, pack=xz(lzma.CHECK_NONE)),
    "xz with a branch filter": SquashfsDraft(compression=4, pack=xz(lzma.CHECK_CRC32, 4096, lzma.FILTER_X86)),
    "xz with a named dictionary": SquashfsDraft(
        compression=4, pack=xz(dictionary=1 << 15), options=struct.pack("<II", 1 << 15, 0)
    ),
    "no hole told": SquashfsDraft(edit_inode=with_inode("hole", sparse=0)),
    "zstd": SquashfsDraft(compression=6, pack=zstd),
    "zstd with a checksum": SquashfsDraft(compression=6, pack=lambda data: zstd(data, write_checksum=True)),
}

BROKEN = {
    "gap after owners": ("gap", "KU", SquashfsDraft(gaps={"xattrs": 4})),
    "gap before owners": ("gap", "KU", SquashfsDraft(gaps={"ids": 4})),
    "gap before inode references": ("gap", "U", SquashfsDraft(gaps={"lookup": 4})),
    "gap before fragments": ("gap", "Z", SquashfsDraft(gaps={"fragments": 4})),
    "gap before directories": ("gap", "Z", SquashfsDraft(gaps={"directories": 4})),
    "bytes used too many": ("gap", "KU", SquashfsDraft(gaps={"end": 8})),
    "owners before fragments": ("order", "KUZ", SquashfsDraft(order=("ids", "fragments", "lookup", "xattrs"))),
    "attributes before owners": ("order", "KU", SquashfsDraft(order=("fragments", "lookup", "xattrs", "ids"))),
    "references before fragments": ("order", "KUZ", SquashfsDraft(order=("lookup", "fragments", "ids", "xattrs"))),
    "more fragments than inodes": ("fragment-count", "U", SquashfsDraft(count_fragments=6)),
    "too many owners": ("id-count", "U", SquashfsDraft(count_ids=11)),
    "inode number too high": ("inode-number", "U", SquashfsDraft(edit_inode=with_inode("small", number=6))),
    "inode number 0": ("inode-number", "KU", SquashfsDraft(edit_inode=with_inode("small", number=0))),
    "fewer inodes than told": (
        "inode-count",
        "Z",
        SquashfsDraft(superblock={"inodes": 6, "lookup_table": (1 << 64) - 1}, order=("fragments", "ids", "xattrs")),
    ),
    "not padded": ("padding", "K", SquashfsDraft(padding=1)),
    "padded to 512": ("padding", "K", SquashfsDraft(padding=512)),
    "a block that is not full": ("full-blocks", "", SquashfsDraft(splits_inodes=True)),
    "not sorted": ("sorting", "KU", SquashfsDraft(edit_entries=lambda entries: entries[::-1])),
    "a name twice": ("sorting", "KU", SquashfsDraft(edit_entries=with_entry(b"hole", name=b"big"))),
    "another type": ("entry-type", "", SquashfsDraft(edit_entries=with_entry(b"hole", type=3))),
    "another number": ("entry-number", "", SquashfsDraft(edit_entries=with_entry(b"hole", number=2))),
    "a hole told that is not there": ("sparse", "", SquashfsDraft(edit_inode=with_inode("big", sparse=9))),
    "a hole too large": ("sparse", "", SquashfsDraft(edit_inode=with_inode("hole", sparse=1 << 20))),
    "a fragment too far": ("fragment", "KUZ", SquashfsDraft(edit_inode=with_inode("small", fragment=1))),
    "a tail too far": ("fragment", "KZ", SquashfsDraft(edit_inode=with_inode("small", offset=4094))),
    "an owner too far": ("owner", "KU", SquashfsDraft(edit_inode=with_inode("small", uid=1))),
    "attributes too far": ("xattr", "KU", SquashfsDraft(edit_inode=with_inode("small", xattr=1))),
    "no links": ("link-count", "", SquashfsDraft(edit_inode=with_inode("link", nlink=0))),
    "data too far": ("data-place", "KUZ", SquashfsDraft(edit_inode=with_inode("big", start=1 << 20))),
    "a symlink too long": ("symlink", "U", SquashfsDraft(edit_inode=with_inode("link", target=b"x" * 4096))),
    "xz with CRC64": ("codec", "K", SquashfsDraft(compression=4, pack=xz(lzma.CHECK_CRC64))),
    "xz with SHA-256": ("codec", "K", SquashfsDraft(compression=4, pack=xz(lzma.CHECK_SHA256))),
    "xz with a large dictionary": ("codec", "K", SquashfsDraft(compression=4, pack=xz(dictionary=1 << 14))),
    "xz with delta": ("codec", "K", SquashfsDraft(compression=4, pack=xz(lzma.CHECK_CRC32, 4096, lzma.FILTER_DELTA))),
    "xz over the options": (
        "codec",
        "K",
        SquashfsDraft(compression=4, pack=xz(dictionary=1 << 16), options=struct.pack("<II", 1 << 15, 0)),
    ),
    "zlib with a tail": ("codec", "Z", SquashfsDraft(pack=lambda data: zlib.compress(data) + b"tail")),
    "raw deflate": ("codec", "KUZ", SquashfsDraft(pack=raw_deflate)),
    "zstd without a size": ("codec", "K", SquashfsDraft(compression=6, pack=zstd_stream)),
    "two zstd frames": ("codec", "K", SquashfsDraft(compression=6, pack=lambda data: zstd(data[:9]) + zstd(data[9:]))),
    "a zstd window too large": (
        "codec",
        "KUZ",
        SquashfsDraft(compression=6, pack=lambda data: struct.pack("<IBB", 0xFD2FB528, 0x40, 0x58) + zstd(data)[6:]),
    ),
}
"""By name: the rule, who refuses the image (K: Linux, U: unsquashfs, Z: 7-Zip), the image."""
