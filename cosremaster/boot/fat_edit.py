"""Replace the bytes of files in a FAT file system and change nothing else: no clock is read, no name is written.

The chain of clusters in every FAT, size and first cluster in the directory entry, and the free count of FSInfo follow.
docs/dependencies.md says why no library does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from cosremaster.boot.fat import Fat, FatFile, get_fat_entry
from cosremaster.errors import ImageError, SizeError, UnsupportedError

_END = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
_FREE_COUNT = 488
_UNKNOWN = 0xFFFFFFFF
_STEP = 4096

Patch = tuple[int, bytes]


def replace_files(fat: Fat, replaced: Mapping[bytes, bytes]) -> tuple[Patch, ...]:
    """Return patches that give other bytes to files: byte offsets in the file system, and the bytes there.

    Chains grow by the lowest free clusters; clusters that a chain no longer needs become free.

    :param replaced: the new bytes by the file's path.
    :raises ImageError: when there is no such file, or the file system is damaged.
    :raises UnsupportedError: when it cannot be changed safely.
    :raises SizeError: when it has no room.
    """
    walked = tuple(fat.walk())
    _check_sound(fat, walked)
    files = {file.path: file for file in walked if not file.is_directory}
    table, patches, freed = bytearray(fat.first_fat), list[Patch](), 0
    for path, data in replaced.items():
        if path not in files:
            raise ImageError("is not there", fat.place.inside(path))
        old_chain = _read_chain(fat, files[path])
        chain = _resize_chain(fat, table, old_chain, -(-len(data) // fat.bpb.cluster_size), path)
        freed += len(old_chain) - len(chain)
        for number, cluster in enumerate(chain):
            part = data[number * fat.bpb.cluster_size : (number + 1) * fat.bpb.cluster_size]
            patches.append((fat.cluster_offset(cluster), part))
        patches += _patch_entry(fat, files[path], chain[0] if chain else 0, len(data))
    patches += _patch_fats(fat, table)
    if freed and fat.bpb.fsinfo_offset:
        patches += _patch_free_count(fat, freed)
    return tuple(patches)


def _read_chain(fat: Fat, file: FatFile) -> tuple[int, ...]:
    """Return the clusters of ``file``."""
    return fat.read_chain(file.first_cluster, fat.place.inside(file.path)) if file.first_cluster else ()


def _check_sound(fat: Fat, files: Iterable[FatFile]) -> None:
    """Check that the file system is sound enough to be changed.

    :raises UnsupportedError: when it is not.
    """
    bpb = fat.bpb
    if bpb.total_size > fat.size:
        raise UnsupportedError(
            "its FAT file system is larger than what holds it, so no file in it is changed", fat.place
        )
    if not bpb.is_mirrored:
        raise UnsupportedError("the copies of its FAT are not kept equal, so no file in it is changed", fat.place)
    for copy in range(1, bpb.fat_count):
        if fat.read(bpb.fat_offset + copy * bpb.fat_size, bpb.fat_size) != fat.first_fat:
            raise UnsupportedError("the copies of its FAT differ, so no file in it is changed", fat.place)
    used = set(fat.read_chain(bpb.root_cluster, fat.place) if bpb.root_cluster else ())
    for file in files:
        chain = _read_chain(fat, file)
        if -(-file.size // bpb.cluster_size) > len(chain) or used.intersection(chain):
            raise UnsupportedError("files in its FAT share clusters or lack them, so none is changed",
                                   fat.place.inside(file.path))  # fmt: skip
        used.update(chain)


def _resize_chain(fat: Fat, table: bytearray, old: tuple[int, ...], count: int, path: bytes) -> tuple[int, ...]:
    """Return the chain ``old`` cut or extended to ``count`` clusters, and enter it in ``table``."""
    bits = fat.bpb.bits
    free = (cluster for cluster in range(2, fat.bpb.cluster_count + 2) if not get_fat_entry(table, cluster, bits))
    new = [*old[:count], *(next(free, 0) for _ in range(count - len(old)))]
    if 0 in new:
        raise SizeError(f"does not fit: its file system lacks {new.count(0):,} free clusters", fat.place.inside(path))
    if len(new) == len(old):
        return old
    for cluster in old[count:]:
        _set_entry(table, cluster, 0, bits)
    for cluster, following in zip(new, [*new[1:], _END[bits]], strict=False):
        if get_fat_entry(table, cluster, bits) != following:
            _set_entry(table, cluster, following, bits)
    return tuple(new)


def _set_entry(table: bytearray, cluster: int, value: int, bits: int) -> None:
    """Set the FAT entry of ``cluster``; the upper four bits of FAT32 stay ("FAT Data Structure")."""
    if bits == 12:
        at = cluster + cluster // 2
        pair = int.from_bytes(table[at : at + 2], "little")
        pair = pair & 0x000F | value << 4 if cluster & 1 else pair & 0xF000 | value
        table[at : at + 2] = pair.to_bytes(2, "little")
    elif bits == 16:
        table[cluster * 2 : cluster * 2 + 2] = value.to_bytes(2, "little")
    else:
        upper = table[cluster * 4 + 3] & 0xF0
        table[cluster * 4 : cluster * 4 + 4] = (value | upper << 24).to_bytes(4, "little")


def _patch_entry(fat: Fat, file: FatFile, first: int, size: int) -> Iterator[Patch]:
    """Yield patches of size and first cluster in a file's directory entry."""
    if size != file.size:
        yield file.entry_offset + 28, size.to_bytes(4, "little")
    if first != file.first_cluster:
        yield file.entry_offset + 26, (first & 0xFFFF).to_bytes(2, "little")
        if fat.bpb.bits == 32:
            yield file.entry_offset + 20, (first >> 16).to_bytes(2, "little")


def _patch_fats(fat: Fat, table: bytearray) -> Iterator[Patch]:
    """Yield patches of the runs of bytes that ``table`` changes, in every FAT."""
    old = fat.first_fat
    parts = (at for at in range(0, len(old), _STEP) if old[at : at + _STEP] != table[at : at + _STEP])
    changed = [at for part in parts for at in range(part, min(part + _STEP, len(old))) if old[at] != table[at]]
    for _, group in groupby(enumerate(changed), lambda item: item[1] - item[0]):
        run = [at for _, at in group]
        for copy in range(fat.bpb.fat_count):
            start = fat.bpb.fat_offset + copy * fat.bpb.fat_size
            yield start + run[0], bytes(table[run[0] : run[-1] + 1])


def _patch_free_count(fat: Fat, freed: int) -> Iterator[Patch]:
    """Yield a patch of FSInfo's count of free clusters, where it has one ("FSInfo Sector Structure")."""
    raw = fat.read(fat.bpb.fsinfo_offset, 512)
    count = int.from_bytes(raw[_FREE_COUNT : _FREE_COUNT + 4], "little")
    if raw[:4] == b"RRaA" and count != _UNKNOWN:
        yield fat.bpb.fsinfo_offset + _FREE_COUNT, max(0, count + freed).to_bytes(4, "little")
