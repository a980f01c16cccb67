"""What tells of directories elsewhere than in their own blocks: records, ``..``, relocations, link counts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import ROOT_RECORD, Extent, pack_both_endian
from cosremaster.iso.rockridge.read import walk_fields
from cosremaster.iso.tree_edit.directories import IDENTIFIER_OFFSET, EditableDirectory, EditableTree
from cosremaster.iso.tree_edit.serialize import CE_HEAD, RECORD_LBA, RECORD_LENGTH
from cosremaster.units import Lba, lba_offset

_TABLES = ((140, "little"), (144, "little"), (148, "big"), (152, "big"))  # 8.4.14 to 8.4.17


def find_path_tables(tree: EditableTree) -> list[tuple[Lba, str, tuple[int, ...]]]:
    """The path tables of a tree: block from the image's start, byte order, and the byte offsets that tell it."""
    found: dict[tuple[Lba, str], list[int]] = {}
    for descriptor in tree.descriptors:
        for at, order in _TABLES:
            lba = int.from_bytes(descriptor.raw[at : at + 4], order)  # type: ignore[arg-type]
            if lba:
                found.setdefault((Lba(tree.base + lba), order), []).append(lba_offset(descriptor.lba) + at)
    return [(lba, order, tuple(told)) for (lba, order), told in found.items()]


def patch_directories(
    source: ByteSource, tree: EditableTree, places: Mapping[int, tuple[Lba, int]]
) -> Iterator[tuple[int, bytes]]:
    """What tells of directories that moved or changed their length, and link counts; at old offsets."""
    moved = {id(one) for one in tree.directories() if one.extent and places[id(one)][0] != one.extent.lba}
    for folder in tree.directories():
        if folder.extent is None or folder.parent is None:
            continue
        start = lba_offset(folder.extent.lba)
        if id(folder) in moved:
            records = [start, *(one.offset for one in (folder.entry.records if folder.entry else ()))]
            if folder is tree.root:
                records += [lba_offset(one.lba) + ROOT_RECORD for one in tree.descriptors]
            for at in records:
                yield from _place_patch(at, tree, places[id(folder)])
            yield from _relocation_patches(source, tree, folder, Lba(places[id(folder)][0] - tree.base))
        if moved & {id(folder), id(folder.parent)}:
            yield from _place_patch(find_parent_record(source, folder.extent), tree, places[id(folder.parent)])
        if tree.counts_subdirectories and folder.is_changed:
            yield from _link_counts(source, tree, folder)


def patch_root_continuation(source: ByteSource, tree: EditableTree, lba: Lba) -> Iterator[tuple[int, bytes]]:
    """What continues the root's ``.`` begins block ``lba`` now."""
    assert tree.root.extent is not None
    start = lba_offset(tree.root.extent.lba)
    raw = source.read(start, source.read(start, 1)[0])
    at = raw.find(CE_HEAD, IDENTIFIER_OFFSET + 1)
    if at >= 0:
        yield start + at + 4, pack_both_endian(lba - tree.base) + pack_both_endian(0)


def _place_patch(record: int, tree: EditableTree, place: tuple[Lba, int]) -> Iterator[tuple[int, bytes]]:
    """The directory record at byte ``record`` names this place."""
    told = encode_extent(Extent(*place), tree)
    yield record + RECORD_LBA, told[:8]
    yield record + RECORD_LENGTH, told[8:]


def find_parent_record(source: ByteSource, extent: Extent) -> int:
    """The byte offset of a directory's second record."""
    start = lba_offset(extent.lba)
    return start + source.read(start, 1)[0]


def _relocation_patches(
    source: ByteSource, tree: EditableTree, folder: EditableDirectory, lba: Lba
) -> Iterator[tuple[int, bytes]]:
    """CL of a relocated directory that moved; PL of those whose name stands in a directory that moved."""
    if folder.named_in is not None and folder.named_in is not folder.parent:
        holder = next(one for one in folder.named_in.entries if one.directory is folder)
        for record in holder.records:
            yield from _field_patch(source, tree, record.offset, b"CL", 4, pack_both_endian(lba))
    for entry in folder.entries:
        if entry.is_placeholder and entry.directory is not None and entry.directory.extent is not None:
            yield from _field_patch(
                source, tree, find_parent_record(source, entry.directory.extent), b"PL", 4, pack_both_endian(lba)
            )


def _link_counts(source: ByteSource, tree: EditableTree, folder: EditableDirectory) -> Iterator[tuple[int, bytes]]:
    """PX of a directory wherever it stands: in its own records and in the ``..`` of those below."""
    assert folder.extent is not None
    records = [lba_offset(folder.extent.lba)]
    records += [one.offset for one in (folder.entry.records if folder.entry else ())]
    if folder is tree.root:
        records.append(find_parent_record(source, folder.extent))
    for entry in folder.entries:
        if entry.directory is not None and entry.directory.extent is not None and not entry.is_placeholder:
            records.append(find_parent_record(source, entry.directory.extent))
    count = pack_both_endian(2 + folder.subdirectory_count)
    for offset in records:
        yield from _field_patch(source, tree, offset, b"PX", 12, count)


def _field_patch(
    source: ByteSource, tree: EditableTree, offset: int, sign: bytes, inside: int, data: bytes
) -> Iterator[tuple[int, bytes]]:
    """``data`` inside the field ``sign`` of the record at ``offset``, unless it says so already."""
    if tree.rock_ridge is None:
        return
    raw = source.read(offset, source.read(offset, 1)[0])
    for at, told in walk_fields(source, raw, offset, tree.rock_ridge.skip, tree.base):
        if told[:2] == sign and told[inside : inside + len(data)] != data:
            yield at + inside, data


def read_patched(source: ByteSource, patches: Mapping[int, bytes]) -> Callable[[int, int], bytes]:
    """Reads the image as ``patches`` change it."""
    offsets = sorted(patches)
    longest = max(map(len, patches.values()), default=0)

    def read(offset: int, length: int) -> bytes:
        raw = bytearray(source.read(offset, length))
        for at in offsets[bisect_left(offsets, offset - longest) : bisect_left(offsets, offset + len(raw))]:
            data = patches[at]
            first, last = max(at, offset), min(at + len(data), offset + len(raw))
            if first < last:
                raw[first - offset : last - offset] = data[first - at : last - at]
        return bytes(raw)

    return read


def encode_extent(extent: Extent, tree: EditableTree) -> bytes:
    """How a record tells of an extent."""
    return pack_both_endian(extent.lba - tree.base) + pack_both_endian(extent.length)
