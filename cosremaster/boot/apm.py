"""The Apple partition map (Inside Macintosh: Devices, chapter 3, "The Partition Map"). All numbers are big-endian."""

from __future__ import annotations

import struct
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.errors import ImageError, Place
from cosremaster.units import BLOCK, SECTOR

DRIVER_SIGNATURE = b"ER"
ENTRY_SIGNATURE = b"PM"
ENTRY_SIZE = 512
MAX_ENTRIES = 64
_ENTRY = struct.Struct(">2sHIII32s32sII")  # the fields up to pmDataCnt; the rest is kept

Read = Callable[[int, int], bytes]


class ApmEntry(Struct, frozen=True):
    """One partition of the map. ``start``, ``count`` and ``data_count`` count the map's blocks.

    ``entries``: how many the map has, the same in each. ``tail``: what follows pmDataCnt, 424 bytes.
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
        """The entry in 512 bytes; None where the signature is missing."""
        if len(raw) != ENTRY_SIZE or not raw.startswith(ENTRY_SIGNATURE):
            return None
        _, reserved, entries, start, count, name, kind, data_start, data_count = _ENTRY.unpack_from(raw)
        return cls(reserved, entries, start, count, name, kind, data_start, data_count, raw[_ENTRY.size :])

    def pack(self) -> bytes:
        """512 bytes."""
        return (
            _ENTRY.pack(
                ENTRY_SIGNATURE, self.reserved, self.entry_count, self.start, self.count, self.name, self.type,
                self.data_start, self.data_count,
            )
            + self.tail
        )  # fmt: skip

    @property
    def end(self) -> int:
        """The block behind the last."""
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
        """This entry over other blocks; the data count follows where it was the partition's."""
        data = count if self.data_count == self.count else self.data_count
        return replace(self, start=start, count=count, data_count=data)


class Apm(Struct, frozen=True):
    """The map. ``block_size``: bytes, 512 or 2,048; entry ``n`` (from 0) stands at ``offset(n)``.

    ``blocks`` is what block 0 tells of the medium's size: a dummy on isohybrid images, whose block 0 is code.
    """

    block_size: int
    blocks: int
    entries: tuple[ApmEntry, ...]

    def entry_offset(self, index: int) -> int:
        """The byte at which entry ``index`` begins: one to a block, from block 1 on."""
        return (index + 1) * self.block_size


def read_apm(read: Read, place: Place) -> Apm | None:
    """The map of the image that ``read`` reads; None where there is none.

    The block size is block 0's, or where that is not there, the one at which the first entry is found.
    :raises ImageError: the map is longer than any, or an entry of it is missing.
    """
    head = read(0, 8)
    told = int.from_bytes(head[2:4], "big") if head.startswith(DRIVER_SIGNATURE) else 0
    for size in dict.fromkeys((told, BLOCK, SECTOR)):
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
        return Apm(size, int.from_bytes(head[4:8], "big") if told else 0, tuple(entries))
    return None
