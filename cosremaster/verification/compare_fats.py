"""Compare two FAT file systems, except for files that were meant to change."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cosremaster.boot.fat import Fat, FatFile
from cosremaster.boot.fat_names import ENTRY_SIZE
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import PieceTable
from cosremaster.tree.paths import ancestors


def is_same_fat(old: PieceTable, new: PieceTable, changed: Collection[bytes]) -> bool:
    """Return True if both tables hold a FAT file system, and the two are equal.

    They have the same boot sectors, the same names with the same attributes and times, and the same bytes in all files
    but those at the paths ``changed`` (in any case of letters). A directory there covers everything below it.
    """
    try:
        old_fat, new_fat = (Fat.open(table.read, table.length, Place()) for table in (old, new))
        if old_fat is None or new_fat is None or old_fat.bpb != new_fat.bpb:
            return False
        changed = {path.lower() for path in changed}
        return _read_front(old_fat) == _read_front(new_fat) and _has_same_files(old_fat, new_fat, changed)
    except CosremasterError:
        return False


def _read_front(fat: Fat) -> bytes:
    """Return the bytes in front of the FAT, with FSInfo's count of free clusters set to zero."""
    front = bytearray(fat.read(0, fat.bpb.fat_offset))
    if fat.bpb.fsinfo_offset:
        front[fat.bpb.fsinfo_offset + 488 : fat.bpb.fsinfo_offset + 492] = bytes(4)
    return bytes(front)


def _has_same_files(old_fat: Fat, new_fat: Fat, changed: Collection[bytes]) -> bool:
    """Return True if both have the same files, except for those at ``changed`` (in small letters)."""
    old_files: Mapping[bytes, FatFile] = {file.path: file for file in old_fat.walk()}
    new_files: Mapping[bytes, FatFile] = {file.path: file for file in new_fat.walk()}
    if any(not _may_differ(path, changed) for path in old_files.keys() ^ new_files.keys()):
        return False
    for path in old_files.keys() & new_files.keys():
        old, new = old_files[path], new_files[path]
        if _read_entry(old_fat, old) != _read_entry(new_fat, new):
            return False
        if old.is_directory or path.lower() in changed:
            continue
        if old.size != new.size or old_fat.read_file(old) != new_fat.read_file(new):
            return False
    return True


def _may_differ(path: bytes, changed: Collection[bytes]) -> bool:
    """Return whether only one of both may have ``path``: it is in ``changed``, or below or above a path there."""
    folded = path.lower()
    return any(name in changed for name in (folded, *ancestors(folded))) or any(
        name.startswith(folded + b"/") for name in changed
    )


def _read_entry(fat: Fat, file: FatFile) -> bytes:
    """Return name, attributes and times in the directory entry of a file."""
    raw = fat.read(file.entry_offset, ENTRY_SIZE)
    return raw[:20] + raw[22:26]
