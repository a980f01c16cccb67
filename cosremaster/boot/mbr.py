"""The master boot record and its partition table (UEFI specification 2.10, section 5.2.1)."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from cosremaster.units import SECTOR, Sector

SIGNATURE = b"\x55\xaa"
TABLE = 446
ENTRY_SIZE = 16
ENTRIES = 4
GPT_PROTECTIVE = 0xEE

ChsGeometry = tuple[int, int]
"""Heads, and sectors of a track."""

_USUAL: tuple[ChsGeometry, ...] = ((255, 63), (64, 32), (128, 32), (16, 63), (32, 63), (64, 63), (128, 63), (240, 63))
_CYLINDERS = 1024
_BEYOND = (b"\xfe\xff\xff", b"\xff\xff\xff")


def encode_chs(sector: int, geometry: ChsGeometry) -> bytes:
    """The three CHS bytes of ``sector``; the last address the geometry has where it lies beyond."""
    heads, track = geometry
    cylinder, rest = divmod(sector, heads * track)
    if cylinder >= _CYLINDERS:
        cylinder, rest = _CYLINDERS - 1, heads * track - 1
    head, sector_index = divmod(rest, track)
    return bytes((head, (sector_index + 1) | (cylinder >> 2 & 0xC0), cylinder & 0xFF))


class MbrPartition(Struct, frozen=True):
    """One entry. ``first`` and ``last`` are CHS bytes; ``start`` and ``count`` 512-byte sectors."""

    status: int
    first: bytes
    type: int
    last: bytes
    start: Sector
    count: int

    @classmethod
    def parse(cls, raw: bytes) -> MbrPartition:
        """Sixteen bytes."""
        return cls(
            raw[0], raw[1:4], raw[4], raw[5:8],
            Sector(int.from_bytes(raw[8:12], "little")), int.from_bytes(raw[12:16], "little"),
        )  # fmt: skip

    def pack(self) -> bytes:
        """Sixteen bytes."""
        return (
            bytes((self.status,)) + self.first + bytes((self.type,)) + self.last
            + self.start.to_bytes(4, "little") + self.count.to_bytes(4, "little")
        )  # fmt: skip

    @property
    def is_used(self) -> bool:
        """False for an empty slot. isohybrid's whole-volume partition may have type 0."""
        return self.count > 0

    @property
    def end(self) -> Sector:
        """The sector behind the last."""
        return Sector(self.start + self.count)

    def moved_to(self, start: Sector, count: int, geometry: ChsGeometry | None) -> MbrPartition:
        """This entry over other sectors; CHS follow when a geometry is known and stay as found when not.

        Nor does a "beyond" that the geometry does not explain, as isohybrid writes it.
        """
        if (start, count) == (self.start, self.count):
            return self
        first, last = self.first, self.last
        if geometry and start != self.start and not _beyond(first, self.start, geometry):
            first = encode_chs(start, geometry)
        if geometry and not _beyond(last, self.end - 1, geometry):
            last = encode_chs(start + count - 1, geometry)
        return replace(self, first=first, last=last, start=start, count=count)


def _beyond(chs: bytes, sector: int, geometry: ChsGeometry) -> bool:
    return chs in _BEYOND and chs != encode_chs(sector, geometry)


class Mbr(Struct, frozen=True):
    """The first 512 bytes of an image that carry a partition table; ``code`` is the part before it."""

    code: bytes
    partitions: tuple[MbrPartition, ...]

    @classmethod
    def parse(cls, raw: bytes) -> Mbr | None:
        """The MBR in 512 bytes, or None where the signature is missing."""
        if raw[510:512] != SIGNATURE:
            return None
        entries = (raw[at : at + ENTRY_SIZE] for at in range(TABLE, TABLE + ENTRIES * ENTRY_SIZE, ENTRY_SIZE))
        return cls(raw[:TABLE], tuple(MbrPartition.parse(entry) for entry in entries))

    def pack(self) -> bytes:
        """512 bytes."""
        raw = self.code + b"".join(partition.pack() for partition in self.partitions) + SIGNATURE
        assert len(raw) == SECTOR
        return raw

    @property
    def used_partitions(self) -> tuple[tuple[int, MbrPartition], ...]:
        """The partitions that are there, each with its number from 1 on."""
        return tuple((number, one) for number, one in enumerate(self.partitions, 1) if one.is_used)

    def find_geometry(self) -> ChsGeometry | None:
        """The geometry that explains the CHS bytes of all partitions, usual ones first; None if none does.

        What says nothing of one is left out where others say more: a partition that announces a GPT, and the last
        address of all, which means "beyond" (UEFI 2.10, tables 5.3 and 5.4).
        """
        used = [one for _, one in self.used_partitions if one.type != GPT_PROTECTIVE]
        used = [one for one in used if one.last not in _BEYOND] or used
        every = ((heads, track) for track in range(63, 0, -1) for heads in range(255, 0, -1))
        return _first_fit(used, _USUAL) or _first_fit(used, every) if used else None


def _first_fit(partitions: Iterable[MbrPartition], geometries: Iterable[ChsGeometry]) -> ChsGeometry | None:
    wanted = [(one.last, one.end - 1) for one in partitions]
    return next((one for one in geometries if all(encode_chs(sector, one) == chs for chs, sector in wanted)), None)
