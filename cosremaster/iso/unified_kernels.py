"""Find unified kernel images on an image: on its tree, and in its FAT file systems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.boot.uki import UnifiedKernel, read_unified_kernel
from cosremaster.errors import ImageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.fats import EFI_PROGRAM, LocatedFat
from cosremaster.iso.model import IsoImage
from cosremaster.records import Struct


class LocatedUnifiedKernel(Struct, frozen=True):
    """A unified kernel image: its name for people, what it holds, and its bytes."""

    name: str
    unified: UnifiedKernel
    table: PieceTable

    def section(self, name: str) -> PieceTable | None:
        """Return the bytes of a section; None where there is none, or it is cut off."""
        start, size = self.unified.sections.get(name, (0, 0))
        return self.table.cut(start, start + size) if size and start + size <= self.table.length else None


def find_unified_kernels(image: IsoImage, fats: Iterable[LocatedFat]) -> Iterator[LocatedUnifiedKernel]:
    """Yield the unified kernel images: programs named ``*.efi`` that have a kernel inside, each data once."""
    seen = set[object]()
    for file in image.files:
        key = (file.start, file.size)
        if not file.path.lower().endswith(EFI_PROGRAM) or not file.size or file.zisofs_offset or key in seen:
            continue
        seen.add(key)
        yield from _read(printable(file.path), image.bytes_of(file))
    for fat in fats:
        for path, fat_file in sorted(fat.files.items()):
            if not path.lower().endswith(EFI_PROGRAM) or not fat_file.size:
                continue
            try:
                table = fat.table_of(fat_file)
            except ImageError:  # a damaged program does not boot
                continue
            yield from _read(f"{fat.name} » {printable(path)}", table)


def _read(name: str, table: PieceTable) -> Iterator[LocatedUnifiedKernel]:
    """Yield the unified kernel image that the bytes ``table`` are, if they are one."""
    if table.read(0, 2) == b"MZ":
        unified = read_unified_kernel(table.read)
        if unified is not None:
            yield LocatedUnifiedKernel(name, unified, table)
