"""Two FAT file systems beside each other: do they say the same but for files that were meant to change."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cosremaster.boot.fat import ENTRY_SIZE, Fat, FatFile
from cosremaster.errors import CosremasterError, Place
from cosremaster.io.pieces import PieceTable


def is_same_fat(old: PieceTable, new: PieceTable, changed: Collection[bytes]) -> bool:
    """True when both hold a FAT file system with the same boot sectors, the same names with the same attributes and
    times, and the same bytes in all files but those at the paths ``changed`` (in any case of letters)."""
    try:
        one, other = (Fat.open(table.read, table.length, Place()) for table in (old, new))
        if one is None or other is None or one.bpb != other.bpb:
            return False
        return _same_front(one, other) and _same_files(one, other, {path.lower() for path in changed})
    except CosremasterError:
        return False


def _same_front(one: Fat, other: Fat) -> bool:
    """What stands before the FAT, but for FSInfo's count of free clusters."""
    fronts = [bytearray(fat.read(0, fat.bpb.fat_offset)) for fat in (one, other)]
    for front in fronts:
        if one.bpb.fsinfo_offset:
            front[one.bpb.fsinfo_offset + 488 : one.bpb.fsinfo_offset + 492] = bytes(4)
    return fronts[0] == fronts[1]


def _same_files(one: Fat, other: Fat, changed: Collection[bytes]) -> bool:
    files: list[Mapping[bytes, FatFile]] = [{file.path: file for file in fat.walk()} for fat in (one, other)]
    if files[0].keys() != files[1].keys():
        return False
    for path, before in files[0].items():
        after = files[1][path]
        if _told(one, before) != _told(other, after):
            return False
        if before.is_directory or path.lower() in changed:
            continue
        if before.size != after.size or one.read_file(before) != other.read_file(after):
            return False
    return True


def _told(fat: Fat, file: FatFile) -> bytes:
    """Name, attributes and times of a directory entry."""
    raw = fat.read(file.entry_offset, ENTRY_SIZE)
    return raw[:20] + raw[22:26]
