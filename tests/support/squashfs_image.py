"""A small squashfs image that keeps every rule, or breaks those that a test names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cosremaster.layers.squashfs.directories import SquashfsEntry, pack_listing, split_into_runs
from cosremaster.layers.squashfs.inodes import DIRECTORY, FILE, SYMLINK, Inode
from cosremaster.layers.squashfs.superblock import ABSENT, Superblock

BLOCK = 4096
TABLES = ("fragments", "lookup", "ids", "xattrs")
_STORED_FLAGS = 0x001 | 0x008 | 0x080 | 0x100 | 0x800


def store(data: bytes) -> bytes:
    """Metadata blocks of ``data``, which are not compressed."""
    parts = [data[at : at + 8192] for at in range(0, len(data), 8192)]
    return b"".join(struct.pack("<H", 0x8000 | len(part)) + part for part in parts)


@dataclass
class SquashfsDraft:
    """The image to build: a directory of three files, a symlink and a device; every field breaks a rule.

    ``gaps``: bytes before a table of :data:`TABLES`, before ``inodes``, ``directories`` or ``end``; ``order``: of the
    tables. ``count_fragments`` and ``count_ids``: entries in these tables. ``superblock``: fields that are told
    otherwise. ``edit_inode``: gets each inode and returns what is written. ``pack``: makes a data block of plain bytes.
    ``splits_inodes``: the last inode gets a metadata block of its own.
    """

    gaps: Mapping[str, int] = field(default_factory=dict)
    order: Sequence[str] = TABLES
    count_fragments: int = 1
    count_ids: int = 1
    superblock: Mapping[str, Any] = field(default_factory=dict)
    edit_inode: Callable[[str, Inode], Inode] = lambda name, inode: inode
    edit_entries: Callable[[list[SquashfsEntry]], list[SquashfsEntry]] = lambda entries: entries
    edit_lookup: Callable[[list[int]], list[int]] = lambda references: references
    splits_inodes: bool = False
    pack: Callable[[bytes], bytes] = zlib.compress
    compression: int = 1
    options: bytes = b""
    padding: int = 4096
    dead_data: int = 0

    def build(self) -> bytes:
        """The image."""
        plain = b"text of a file\n" * 400
        head = store(self.options) if self.options else b""
        packed = self.pack(plain[:BLOCK])
        data = bytearray(bytes(96) + head)
        start = len(data)
        data += packed
        fragment = len(data)
        data += plain[BLOCK:] + b"tail" + bytes(self.dead_data)
        tail = len(plain) - BLOCK
        inodes: dict[str, Inode] = {
            "big": Inode(
                type=FILE, mode=0o644, uid=0, gid=0, mtime=1, number=2, size=len(plain), start=start, fragment=0,
                blocks=(len(packed),),
            ),
            "hole": Inode(
                type=FILE, mode=0o644, uid=0, gid=0, mtime=1, number=3, size=BLOCK, blocks=(0,), sparse=BLOCK - 1
            ),
            "link": Inode(type=SYMLINK, mode=0o777, uid=0, gid=0, mtime=1, number=4, target=b"big"),
            "small": Inode(type=FILE, mode=0o600, uid=0, gid=0, mtime=1, number=5, size=4, fragment=0, offset=tail),
        }  # fmt: skip
        table, references = bytearray(), {}
        for name, inode in inodes.items():
            inodes[name] = self.edit_inode(name, inode)
            references[name] = len(table)
            table += inodes[name].pack()
        entries = self.edit_entries([
            SquashfsEntry(name.encode(), references[name], inode.number, inode.type) for name, inode in inodes.items()
        ])  # fmt: skip
        listing = pack_listing(split_into_runs(entries, 0))
        root = Inode(
            type=DIRECTORY, mode=0o755, uid=0, gid=0, mtime=1, number=1, nlink=2, size=len(listing) + 3, parent=6
        )
        references["root"] = len(table) + 2 << 16 if self.splits_inodes else len(table)
        last = self.edit_inode("root", root).pack()
        blocks = store(bytes(table)) + store(last) if self.splits_inodes else store(bytes(table) + last)
        return self._join(bytes(data), blocks, listing, references, (fragment, tail + 4))

    def _join(
        self, data: bytes, table: bytes, listing: bytes, references: Mapping[str, int], fragment: tuple[int, int]
    ) -> bytes:  # fmt: skip
        """Put the tables behind the data."""
        image = bytearray(data + bytes(self.gaps.get("inodes", 0)))
        places = {"inode_table": len(image)}
        image += table + bytes(self.gaps.get("directories", 0))
        places["directory_table"] = len(image)
        image += store(listing)
        numbers = [references[name] for name in ("root", "big", "hole", "link", "small")]
        fragments = struct.pack("<QII", fragment[0], fragment[1] | 1 << 24, 0) * self.count_fragments
        plain = {
            "fragments": fragments,
            "lookup": struct.pack("<5Q", *self.edit_lookup(numbers)),
            "ids": struct.pack(f"<{self.count_ids}I", *range(self.count_ids)),
        }
        fields = {"fragments": "fragment_table", "lookup": "lookup_table", "ids": "id_table", "xattrs": "xattr_table"}
        for name in self.order:
            image += bytes(self.gaps.get(name, 0))
            start = len(image)
            if name == "xattrs":
                pairs = struct.pack("<HH", 0, 1) + b"n" + struct.pack("<I", 1) + b"v"
                image += store(pairs)
                ids = len(image)
                image += store(struct.pack("<QII", 0, 1, len(pairs)))
                places[fields[name]] = len(image)
                image += struct.pack("<QIIQ", start, 1, 0, ids)
            else:
                image += store(plain[name])
                places[fields[name]] = len(image)
                image += struct.pack("<Q", start)
        used = len(image) + self.gaps.get("end", 0)
        image += bytes(self.gaps.get("end", 0))
        flags = _STORED_FLAGS | (0x400 if self.options else 0)
        superblock = {
            "magic": 0x73717368, "inodes": 5, "made_at": 1, "block_size": BLOCK, "fragments": self.count_fragments,
            "compression": self.compression, "block_log": 12, "flags": flags, "ids": self.count_ids, "major": 4,
            "minor": 0, "root": references["root"], "bytes_used": used, "fragment_table": ABSENT,
            "lookup_table": ABSENT, "xattr_table": ABSENT, **places, **self.superblock,
        }  # fmt: skip
        image[:96] = Superblock(**superblock).pack()
        return bytes(image) + bytes(-len(image) % self.padding)
