"""The partitions of a disk image by its GPT (UEFI 2.10, 5.3) or its MBR (5.2), logical ones included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from cosremaster.boot.gpt import PRIMARY, Gpt, choose_copy, format_guid, read_gpt
from cosremaster.boot.mbr import Mbr, MbrPartition
from cosremaster.errors import ImageError, Place, printable
from cosremaster.records import Struct
from cosremaster.units import BLOCK, SECTOR, Lba, Sector, format_size

Read = Callable[[int, int], bytes]
"""Returns bytes of the image, by offset and length; fewer at its end."""

_SECTOR_SIZES = (SECTOR, 4096)
_EXTENDED = (0x05, 0x0F, 0x85)
"""Types of a partition that holds a chain of logical ones."""
_FIRST_LOGICAL, _MOST_LOGICAL = 5, 60
_STATES = (0x00, 0x80)


class DiskPartition(Struct, frozen=True):
    """A partition of a disk image, as a file of it.

    ``path``: its address, as in ``@gpt1``. ``offset`` and ``size``: bytes. ``label``: its name in the table.
    ``type``: its type, as a GUID or a number of two hexadecimal digits.
    """

    path: bytes
    offset: int
    size: int
    type: str
    label: str = ""

    def __str__(self) -> str:
        """Return address, size, name and type, for people."""
        label = f" {printable(self.label)}" if self.label else ""
        return f"{printable(self.path)}{label}: {format_size(self.size)} at byte {self.offset:,}, type {self.type}"

    @property
    def start(self) -> Lba:
        """The block at which the data begin."""
        return Lba(self.offset // BLOCK)

    @property
    def extents(self) -> tuple[tuple[int, int], ...]:
        """The byte offset in the image and the length of the data."""
        return ((self.offset, self.size),)


def read_partitions(read: Read, size: int, place: Place) -> tuple[DiskPartition, ...]:
    """Return the partitions of the disk image of ``size`` bytes, without those that lead out of it; empty if no disk.

    :raises ImageError: a table is damaged, or leads out of the image.
    """
    mbr = Mbr.parse(read(0, SECTOR).ljust(SECTOR, b"\0"))
    if mbr is None:
        return ()
    if not mbr.announces_gpt and _is_partition_table(mbr, size):  # a GPT that is there too is one of before
        return tuple(_mbr_partitions(mbr, read, size, place))
    for sector_size in _SECTOR_SIZES:
        gpt = _read_gpt(read, size, sector_size, place)
        if gpt is not None:
            return tuple(_gpt_partitions(gpt, sector_size, size, place))
    if mbr.announces_gpt:
        raise ImageError("announces a GPT, and neither of its copies can be read", place.at(SECTOR))
    return ()


def _read_gpt(read: Read, size: int, sector_size: int, place: Place) -> Gpt | None:
    """Return the copy of the GPT that counts on a disk with sectors of ``sector_size`` bytes; None without one."""
    factor = sector_size // SECTOR

    def read_sectors(offset: int, length: int) -> bytes:
        """Return bytes by an offset that counts sectors of 512 bytes as those of the disk."""
        return read(offset * factor, length)

    copies: list[Gpt] = []
    for header_at in (PRIMARY, Sector(size // sector_size - 1)):
        try:
            copy = read_gpt(read_sectors, header_at, place) if header_at > 0 else None
        except ImageError:
            continue
        copies += [copy] if copy is not None else []
    return choose_copy(copies)


def _gpt_partitions(gpt: Gpt, sector_size: int, size: int, place: Place) -> Iterator[DiskPartition]:
    """Yield the partitions of ``gpt``. :raises ImageError: one leads out of the image."""
    for number, entry in gpt.used_entries:
        path, offset = b"@gpt%d" % number, entry.first * sector_size
        length = entry.end * sector_size - offset
        _check_inside(path, offset, length, size, place)
        yield DiskPartition(path, offset, length, format_guid(entry.type), entry.label)


def _is_partition_table(mbr: Mbr, size: int) -> bool:
    """Return whether ``mbr`` is a partition table and not the boot sector of a file system."""
    partitions = [partition for _, partition in mbr.used_partitions]
    return bool(partitions) and all(
        partition.status in _STATES and partition.type and partition.start and partition.start * SECTOR < size
        for partition in partitions
    )


def _mbr_partitions(mbr: Mbr, read: Read, size: int, place: Place) -> Iterator[DiskPartition]:
    """Yield the partitions of ``mbr``. :raises ImageError: one leads out of the image, or the chain is damaged."""
    for number, partition in mbr.used_partitions:
        if partition.type in _EXTENDED:
            continue
        yield _from_record(number, partition, Sector(0), size, place)
    numbers = count(_FIRST_LOGICAL)
    for _, partition in mbr.used_partitions:
        if partition.type in _EXTENDED:
            yield from _logical_partitions(partition.start, numbers, read, size, place)


def _logical_partitions(
    extended: Sector, numbers: Iterator[int], read: Read, size: int, place: Place
) -> Iterator[DiskPartition]:
    """Yield the partitions in the extended one that begins at sector ``extended``; each takes the next of ``numbers``.

    A record that has none counts for nothing, as in Linux (block/partitions/msdos.c). :raises ImageError: a bad chain.
    """
    at, seen = extended, set[int]()
    for _ in range(_MOST_LOGICAL):
        record = Mbr.parse(read(at * SECTOR, SECTOR).ljust(SECTOR, b"\0"))
        if record is None or at in seen:
            raise ImageError("the chain of logical partitions is damaged", place.at(at * SECTOR))
        seen.add(at)
        logical, following = record.partitions[:2]
        if logical.is_used:
            yield _from_record(next(numbers), logical, at, size, place)
        if not following.is_used:
            return
        at = Sector(extended + following.start)


def _from_record(number: int, partition: MbrPartition, base: Sector, size: int, place: Place) -> DiskPartition:
    """Return the partition of a record that counts from sector ``base``. :raises ImageError: it leads outside."""
    path, offset = b"@mbr%d" % number, (base + partition.start) * SECTOR
    length = partition.count * SECTOR
    _check_inside(path, offset, length, size, place)
    return DiskPartition(path, offset, length, f"{partition.type:02X}")


def _check_inside(path: bytes, offset: int, length: int, size: int, place: Place) -> None:
    """Check that a partition lies in the image of ``size`` bytes. :raises ImageError: it does not."""
    if length <= 0 or offset + length > size:
        missing = offset + length - size
        message = f"is cut off: {missing:,} bytes of the partition are missing" if length > 0 else "has no length"
        raise ImageError(message, place.inside(path))
