"""The master boot record and its partition table (UEFI specification 2.10, section 5.2.1)."""

from __future__ import annotations

from collections.abc import Iterable

from cosremaster.records import Struct, replace
from cosremaster.units import SECTOR, Sector

SIGNATURE = b"\x55\xaa"
TABLE = 446
ENTRY_SIZE = 16
ENTRIES = 4
GPT_PROTECTIVE = 0xEE
ALL_SECTORS = 0xFFFFFFFF
"""The number of sectors of a partition over all of a medium, however large (UEFI 2.10, table 5.4)."""

ChsGeometry = tuple[int, int]
"""The number of heads, and of sectors in a track."""

_USUAL: tuple[ChsGeometry, ...] = ((255, 63), (64, 32), (128, 32), (16, 63), (32, 63), (64, 63), (128, 63), (240, 63))
_CYLINDERS = 1024
_BEYOND = (b"\xfe\xff\xff", b"\xff\xff\xff")


def encode_chs(sector: int, geometry: ChsGeometry) -> bytes:
    """Return the three CHS bytes of ``sector``, or of the geometry's last sector where it lies beyond that."""
    heads, track = geometry
    cylinder, rest = divmod(sector, heads * track)
    if cylinder >= _CYLINDERS:
        cylinder, rest = _CYLINDERS - 1, heads * track - 1
    head, sector_index = divmod(rest, track)
    return bytes((head, (sector_index + 1) | (cylinder >> 2 & 0xC0), cylinder & 0xFF))


class MbrPartition(Struct, frozen=True):
    """A partition record. ``first`` and ``last``: CHS bytes. ``start`` and ``count``: sectors of 512 bytes."""

    status: int
    first: bytes
    type: int
    last: bytes
    start: Sector
    count: int

    @classmethod
    def parse(cls, raw: bytes) -> MbrPartition:
        """Parse a record of 16 bytes."""
        return cls(
            raw[0], raw[1:4], raw[4], raw[5:8],
            Sector(int.from_bytes(raw[8:12], "little")), int.from_bytes(raw[12:16], "little"),
        )  # fmt: skip

    def pack(self) -> bytes:
        """Return the record's 16 bytes."""
        return (
            bytes((self.status,)) + self.first + bytes((self.type,)) + self.last
            + self.start.to_bytes(4, "little") + self.count.to_bytes(4, "little")
        )  # fmt: skip

    @property
    def is_used(self) -> bool:
        """Whether it describes a partition; isohybrid's partition over the whole volume may have type 0."""
        return self.count > 0

    @property
    def end(self) -> Sector:
        """The sector behind the last one."""
        return Sector(self.start + self.count)

    def moved_to(self, start: Sector, count: int, geometry: ChsGeometry | None) -> MbrPartition:
        """Return this record for other sectors.

        The CHS bytes stay where no geometry is known, and where they mean "beyond the last address" without need, as
        isohybrid writes them.
        """
        if (start, count) == (self.start, self.count):
            return self
        first, last = self.first, self.last
        if geometry and start != self.start and not _is_beyond(first, self.start, geometry):
            first = encode_chs(start, geometry)
        if geometry and not _is_beyond(last, self.end - 1, geometry):
            last = encode_chs(start + count - 1, geometry)
        return replace(self, first=first, last=last, start=start, count=count)


def _is_beyond(chs: bytes, sector: int, geometry: ChsGeometry) -> bool:
    """Return whether ``chs`` means "beyond the last address", and not by the address of ``sector``."""
    return chs in _BEYOND and chs != encode_chs(sector, geometry)


class Mbr(Struct, frozen=True):
    """A master boot record, the first 512 bytes of an image. ``code``: the bytes before the partition table."""

    code: bytes
    partitions: tuple[MbrPartition, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Mbr | None:
        """Parse an MBR of 512 bytes; return None where the signature is missing."""
        if raw[510:512] != SIGNATURE:
            return None
        entries = (raw[at : at + ENTRY_SIZE] for at in range(TABLE, TABLE + ENTRIES * ENTRY_SIZE, ENTRY_SIZE))
        return cls(raw[:TABLE], tuple(MbrPartition.parse(entry) for entry in entries))

    def pack(self) -> bytes:
        """Return the MBR's 512 bytes."""
        raw = self.code + b"".join(partition.pack() for partition in self.partitions) + SIGNATURE
        assert len(raw) == SECTOR
        return raw

    @property
    def used_partitions(self) -> tuple[tuple[int, MbrPartition], ...]:
        """The records that describe a partition, each with its number from 1 on."""
        return tuple((number, partition) for number, partition in enumerate(self.partitions, 1) if partition.is_used)

    @property
    def announces_gpt(self) -> bool:
        """Whether it has a protective partition, without which systems look for no GPT (UEFI 2.10, 5.2.3)."""
        return any(partition.type == GPT_PROTECTIVE for _, partition in self.used_partitions)

    def find_geometry(self) -> ChsGeometry | None:
        """Return the geometry that explains the CHS bytes of all partitions, usual ones first; None if none does.

        Partitions without information are ignored where others have some: those that announce a GPT, and those whose
        last address means "beyond" (UEFI 2.10, tables 5.3 and 5.4).
        """
        partitions = [partition for _, partition in self.used_partitions if partition.type != GPT_PROTECTIVE]
        partitions = [partition for partition in partitions if partition.last not in _BEYOND] or partitions
        every = ((heads, track) for track in range(63, 0, -1) for heads in range(255, 0, -1))
        return _first_fit(partitions, _USUAL) or _first_fit(partitions, every) if partitions else None


def _first_fit(partitions: Iterable[MbrPartition], geometries: Iterable[ChsGeometry]) -> ChsGeometry | None:
    """Return the first of ``geometries`` that explains the last CHS address of all ``partitions``."""
    addresses = [(partition.last, partition.end - 1) for partition in partitions]
    for geometry in geometries:
        if all(encode_chs(sector, geometry) == chs for chs, sector in addresses):
            return geometry
    return None
