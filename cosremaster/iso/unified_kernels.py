"""Find unified kernel images on an image: on its tree, and in its FAT file systems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.boot.uki import UnifiedKernel, read_unified_kernel
from cosremaster.errors import ImageError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.far_images import Candidate, choose_candidates, is_far, warn_of_unread
from cosremaster.iso.fats import EFI_PROGRAM, LocatedFat
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.records import Struct

_MIN_KERNEL = 1 << 20
"""Bytes: a smaller program has no kernel inside."""
_MOST_FAR = 8
"""Programs on an image on another machine that are looked at."""


class LocatedUnifiedKernel(Struct, frozen=True):
    """A unified kernel image: its name for people, what it holds, and its bytes."""

    name: str
    unified: UnifiedKernel
    table: PieceTable

    def section(self, name: str) -> PieceTable | None:
        """Return the bytes of a section; None where there is none, or it is cut off."""
        start, size = self.unified.sections.get(name, (0, 0))
        return self.table.cut(start, start + size) if size and start + size <= self.table.length else None


def find_unified_kernels(
    image: IsoImage, fats: Iterable[LocatedFat], *, quick: bool = False
) -> Iterator[LocatedUnifiedKernel]:
    """Yield the unified kernel images: programs named ``*.efi`` that have a kernel inside, each data once.

    ``quick``: on the tree of an image on another machine only the largest such programs are looked at.
    """
    seen = set[object]()
    for file in _choose_far_programs(image) if quick and is_far(image) else _list_programs(image):
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


def _list_programs(image: IsoImage) -> Iterator[IsoFile]:
    """Yield the files of ``image`` that are programs by their names."""
    tree = image.trees[0]
    return tree.find_files({path for path in tree.file_paths if path.lower().endswith(EFI_PROGRAM)})


def _choose_far_programs(image: IsoImage) -> Iterator[IsoFile]:
    """Yield the programs on the tree that may hold a kernel by their size; the others are warned of."""
    programs = {file.start: file for file in image.files if file.size and file.path.lower().endswith(EFI_PROGRAM)}
    candidates = [Candidate(file.path, file.size, file.size >= _MIN_KERNEL) for file in programs.values()]
    chosen = choose_candidates(candidates, (), _MOST_FAR)
    if len(chosen) < len(candidates):
        warn_of_unread(image, len(candidates) - len(chosen), "unified kernel images")
    yield from (file for file in image.files if file.path in chosen)


def _read(name: str, table: PieceTable) -> Iterator[LocatedUnifiedKernel]:
    """Yield the unified kernel image that the bytes ``table`` are, if they are one."""
    if table.read(0, 2) == b"MZ":
        unified = read_unified_kernel(table.read)
        if unified is not None:
            yield LocatedUnifiedKernel(name, unified, table)
