"""Extended attributes of a squashfs file system, written anew; those that no inode names are left out."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from cosremaster.errors import CorruptError
from cosremaster.layers.squashfs.filesystem import OUT_OF_LINE, XATTR_ID, SquashfsFilesystem
from cosremaster.layers.squashfs.metadata import METADATA_SIZE, MetadataWriter, pack_table

_MAX_XATTRS = 65_536


def pack_xattrs(
    filesystem: SquashfsFilesystem, numbers: Sequence[int], pack: Callable[[bytes], bytes | None], position: int
) -> tuple[bytes, int]:
    """Return the table of the sets ``numbers`` of extended attributes for byte ``position``, and its header's place.

    A value that several attributes share is written once, as before. :raises CorruptError: the old table is damaged.
    """
    writer = _PairWriter(filesystem, pack)
    try:
        ids = b"".join(XATTR_ID.pack(*writer.add(number)) for number in numbers)
    except struct.error as error:
        place = filesystem.place.at(filesystem.superblock.xattr_table)
        raise CorruptError("the squashfs table of extended attributes is cut off", place) from error
    pairs = writer.pairs.finish()
    blocks, header = pack_table(ids, pack, position + len(pairs))
    index = -(-len(ids) // METADATA_SIZE) * 8
    head = XATTR_ID.pack(position, len(numbers), 0)
    return pairs + blocks[: len(blocks) - index] + head + blocks[len(blocks) - index :], header


class _PairWriter:
    """Copies names and values."""

    def __init__(self, filesystem: SquashfsFilesystem, pack: Callable[[bytes], bytes | None]) -> None:
        """Begin with an empty table."""
        self._filesystem = filesystem
        self.pairs = MetadataWriter(pack)
        self._values: dict[int, int] = {}
        """By the old place of a value the reference of the new one."""

    def add(self, number: int) -> tuple[int, int, int]:
        """Write the set ``number`` and return its entry: reference, count, size.

        :raises struct.error: the old table is cut off. :raises CorruptError: it is damaged.
        """
        _, count, size = self._filesystem.find_xattrs(number)
        if count > _MAX_XATTRS:
            raise CorruptError(f"a squashfs inode claims {count:,} extended attributes", self._filesystem.place)
        reference = self.pairs.reference
        for kind, name, value, place in self._filesystem.iterate_xattrs(number):
            new = self._values.get(place) if kind & OUT_OF_LINE else None
            kind = kind & ~OUT_OF_LINE | (0 if new is None else OUT_OF_LINE)  # noqa: PLW2901
            self.pairs.add(struct.pack("<HH", kind, len(name)) + name)
            if new is not None:
                self.pairs.add(struct.pack("<IQ", 8, new))
            else:
                self._values[place] = self.pairs.add(struct.pack("<I", len(value)) + value)
        return reference, count, size
