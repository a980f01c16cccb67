"""The Apple partition map (Inside Macintosh: Devices, chapter 3, "The Partition Map"). All numbers are big-endian."""

from __future__ import annotations

import struct
from collections.abc import Callable

from cosremaster.errors import ImageError, Place
from cosremaster.records import Struct, astuple, replace
from cosremaster.units import BLOCK, SECTOR

DRIVER_SIGNATURE = b"ER"
ENTRY_SIGNATURE = b"PM"
ENTRY_SIZE = 512
MAX_ENTRIES = 64
_ENTRY = struct.Struct(">2sHIII32s32sII")  # the fields up to pmDataCnt

Read = Callable[[int, int], bytes]


class ApmEntry(Struct, frozen=True):
    """An entry of the partition map, its fields in their order on the image.

    ``start``, ``count``, ``data_start`` and ``data_count`` count blocks of :attr:`Apm.block_size`.
    ``entry_count``: the number of entries in the map, the same in each entry. ``tail``: the 424 bytes after pmDataCnt.
    """

    reserved: int
    entry_count: int
    start: int
    count: int
    name: bytes
    type: bytes
    data_start: int
    data_count: int
    tail: bytes

    @classmethod
    def parse(cls, raw: bytes) -> ApmEntry | None:
        """Parse an entry of 512 bytes; return None where the signature is missing."""
        if len(raw) != ENTRY_SIZE or not raw.startswith(ENTRY_SIGNATURE):
            return None
        fields = (*_ENTRY.unpack_from(raw)[1:], raw[_ENTRY.size :])
        return cls(*fields)

    def pack(self) -> bytes:
        """Return the entry's 512 bytes."""
        return _ENTRY.pack(ENTRY_SIGNATURE, *astuple(self)[:-1]) + self.tail

    @property
    def end(self) -> int:
        """The block behind the last one."""
        return self.start + self.count

    @property
    def kind(self) -> str:
        """The type as text, such as ``Apple_HFS``."""
        return self.type.partition(b"\0")[0].decode("mac-roman")

    @property
    def label(self) -> str:
        """The name as text."""
        return self.name.partition(b"\0")[0].decode("mac-roman")

    def moved_to(self, start: int, count: int) -> ApmEntry:
        """Return this entry for other blocks; the data count follows if it was the partition's."""
        data = count if self.data_count == self.count else self.data_count
        return replace(self, start=start, count=count, data_count=data)


class Apm(Struct, frozen=True):
    """An Apple partition map.

    ``block_size``: 512 or 2,048 bytes. ``blocks``: the medium's size in block 0; a dummy on isohybrid images, whose
    block 0 is boot code.
    """

    block_size: int
    blocks: int
    entries: tuple[ApmEntry, ...]

    def entry_offset(self, index: int) -> int:
        """Return the byte offset of entry ``index``, from 0 on; each has a block of its own, from block 1 on."""
        return (index + 1) * self.block_size


def read_apm(read: Read, place: Place) -> Apm | None:
    """Read the partition map of an image; return None where there is none.

    The block size is that of block 0. Without a block 0 it is the size at which a first entry is found.

    :param read: returns bytes of the image, by offset and length.
    :raises ImageError: when the map claims too many entries, or an entry is missing.
    """
    head = read(0, 8)
    stated_size = int.from_bytes(head[2:4], "big") if head.startswith(DRIVER_SIGNATURE) else 0
    for size in dict.fromkeys((stated_size, BLOCK, SECTOR)):
        first = ApmEntry.parse(read(size, ENTRY_SIZE)) if size in (SECTOR, BLOCK) else None
        if first is None:
            continue
        if not 0 < first.entry_count <= MAX_ENTRIES:
            raise ImageError(f"Apple partition map claims {first.entry_count:,} entries", place.at(size))
        entries = []
        for number in range(1, first.entry_count + 1):
            entry = ApmEntry.parse(read(number * size, ENTRY_SIZE))
            if entry is None:
                raise ImageError(f"Apple partition map has no entry {number}", place.at(number * size))
            entries.append(entry)
        return Apm(size, int.from_bytes(head[4:8], "big") if stated_size else 0, tuple(entries))
    return None
