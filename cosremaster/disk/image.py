"""A disk image as an image whose files are its partitions."""

from __future__ import annotations

from cosremaster.disk.partitions import DiskPartition, read_partitions
from cosremaster.errors import Place
from cosremaster.io.pieces import PieceTable, Range
from cosremaster.io.source import ByteSource
from cosremaster.iso.model import SourceFile
from cosremaster.records import Struct

NOT_CHANGED = (
    "is a disk image, which can be read and exported but not changed in place; an output called NAME.tar.gz takes its"
    " root file system"
)
"""Why there is no remaster of a disk image, as the end of a sentence about it."""


class DiskImage(Struct, frozen=True):
    """A disk image; implements ``SourceImage``. ``source``: all of its bytes; ``files``: its partitions."""

    place: Place
    source: Range
    files: tuple[DiskPartition, ...]

    @property
    def kind(self) -> str:
        """The name of this kind of image."""
        return "disk"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.source.length

    @property
    def volume(self) -> None:
        """There is no ISO 9660 volume around the partitions."""
        return

    @property
    def is_single_file(self) -> bool:
        """The image has a table of partitions and is none itself."""
        return False

    def bytes_of(self, file: SourceFile) -> PieceTable:
        """Return the bytes of the partition ``file``."""
        return PieceTable(self.source.cut(start, start + length) for start, length in file.extents)


def read_disk_image(source: ByteSource) -> DiskImage | None:
    """Return the disk image in ``source``; None if it has no table of partitions. Raises as ``read_partitions``."""
    partitions = read_partitions(source.read, source.size, source.place)
    return DiskImage(source.place, Range(source, 0, source.size), partitions) if partitions else None
