"""What an image is made of, as values (ECMA-119; section numbers are its)."""

from __future__ import annotations

from dataclasses import dataclass

from cosremaster.boot.eltorito import BootCatalog, BootEntry
from cosremaster.boot.mbr import Mbr
from cosremaster.boot.pointers import BootInfoTable
from cosremaster.errors import Place
from cosremaster.pieces import PieceTable, Range
from cosremaster.units import BLOCK, Lba, blocks_for, lba_bytes

DIRECTORY, ASSOCIATED, MULTI_EXTENT = 0x02, 0x04, 0x80


@dataclass(frozen=True, slots=True)
class DirectoryRecord:
    """One record of a directory (9.1). ``offset``: its byte offset in the image; ``length``: bytes of data.

    ``parent`` and ``identifier`` are the raw identifiers of its directory's path and its own.
    """

    offset: int
    lba: Lba
    length: int
    flags: int
    parent: tuple[bytes, ...]
    identifier: bytes

    @property
    def blocks(self) -> int:
        """Blocks of data."""
        return blocks_for(self.length)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory's extent."""

    lba: Lba
    length: int


@dataclass(frozen=True, slots=True)
class IsoFile:
    """A file of the tree. ``path``: its Rock Ridge name where there is one; ``records``: one for each extent."""

    path: bytes
    records: tuple[DirectoryRecord, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(record.length for record in self.records)


@dataclass(frozen=True, slots=True)
class BootImage:
    """What an El Torito entry points at.

    ``length``: bytes, from the tree where a file begins there, else what the entry itself tells.
    ``info``: a boot-info-table that says true things of it; ``grub2``: byte 2548 points at it.
    """

    entry: BootEntry
    length: int
    path: bytes | None
    info: BootInfoTable | None
    grub2: bool


@dataclass(frozen=True, slots=True)
class Span:
    """A run of blocks and what it is for. ``end`` is the block behind it."""

    start: Lba
    blocks: int
    label: str

    @property
    def end(self) -> Lba:
        """The block behind the last."""
        return Lba(self.start + self.blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as it was read.

    ``size``: bytes of the whole file; ``blocks``: the primary volume descriptor's volume space size;
    ``fixed``: spans that must stay where they are; ``catalog`` and ``mbr`` are None where there are none;
    ``pointer`` names what the MBR's code points at; ``blockers``: what is in the image that a changed layout
    would damage, in words.
    """

    place: Place
    source: Range
    size: int
    blocks: int
    volume_id: str
    files: tuple[IsoFile, ...]
    directories: int
    fixed: tuple[Span, ...]
    catalog: BootCatalog | None
    boot_images: tuple[BootImage, ...]
    mbr: Mbr | None
    pointer: str | None
    rock_ridge: bool
    blockers: tuple[str, ...]

    def bytes_of(self, file: IsoFile) -> PieceTable:
        """A file's data."""
        return PieceTable(self.source.cut(lba_bytes(r.lba), lba_bytes(r.lba) + r.length) for r in file.records)

    @property
    def volume_bytes(self) -> int:
        """Bytes of the volume; what lies behind them is appended."""
        return self.blocks * BLOCK
