"""Patch what refers to directories from elsewhere: records, ``..``, CL and PL fields, link counts, path table pointers.

Patches are pairs of a byte offset in the old image and the bytes that replace the bytes there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import ROOT_RECORD, Extent, VolumeDescriptor, pack_both_endian
from cosremaster.iso.rockridge.read import CE_HEAD, walk_fields
from cosremaster.iso.tree_edit.directories import IDENTIFIER_OFFSET, EditableDirectory, EditableTree
from cosremaster.iso.tree_edit.path_tables import ByteOrder
from cosremaster.iso.tree_edit.serialize import RECORD_LBA, RECORD_LENGTH
from cosremaster.records import Struct
from cosremaster.units import Lba, lba_offset

_POINTERS: tuple[tuple[int, ByteOrder], ...] = ((140, "little"), (144, "little"), (148, "big"), (152, "big"))
"""Where a volume descriptor has the blocks of path tables, and in which byte order (8.4.14 to 8.4.17)."""


class PathTable(Struct, frozen=True):
    """A path table. ``lba`` counts from the image's start; ``pointers``: offsets of the fields that refer to it."""

    lba: Lba
    order: ByteOrder
    pointers: tuple[int, ...]


class DescribedTree(Protocol):
    """A tree of directories with the volume descriptors that lead to it; its blocks count from ``base``."""

    @property
    def base(self) -> Lba:
        """The block from which its records count their blocks."""

    @property
    def descriptors(self) -> Sequence[VolumeDescriptor]:
        """The volume descriptors."""


def find_path_tables(tree: DescribedTree) -> list[PathTable]:
    """Return the path tables of ``tree``, each of them once."""
    pointers: dict[tuple[Lba, ByteOrder], list[int]] = {}
    for descriptor in tree.descriptors:
        for at, order in _POINTERS:
            lba = int.from_bytes(descriptor.raw[at : at + 4], order)
            if lba:
                pointers.setdefault((Lba(tree.base + lba), order), []).append(lba_offset(descriptor.lba) + at)
    return [PathTable(lba, order, tuple(offsets)) for (lba, order), offsets in pointers.items()]


def patch_directories(
    source: ByteSource, tree: EditableTree, extents: Mapping[int, Extent]
) -> Iterator[tuple[int, bytes]]:
    """Yield patches of all that refers to a directory that moved or changed its length, and of link counts.

    ``extents``: the new extents by the directory's id, counted from the image's start.
    """
    directories = list(tree.directories())
    moved = {
        id(directory)
        for directory in directories
        if directory.extent
        and extents[id(directory)] is not directory.extent
        and extents[id(directory)] != directory.extent
    }
    for directory in directories:
        if directory.extent is None or directory.parent is None:
            continue
        extent = extents[id(directory)]
        if id(directory) in moved:
            records = _own_records(directory)
            if directory is tree.root:
                records += [lba_offset(descriptor.lba) + ROOT_RECORD for descriptor in tree.descriptors]
            for offset in records:
                yield from _patch_extent(offset, tree, extent)
            yield from _patch_relocations(source, tree, directory, Lba(extent.lba - tree.base))
        if id(directory) in moved or id(directory.parent) in moved:
            yield from _patch_extent(find_parent_record(source, directory.extent), tree, extents[id(directory.parent)])
        if tree.counts_subdirectories and directory.is_changed:
            yield from _patch_link_counts(source, tree, directory)


def mend_dots(source: ByteSource, tree: EditableTree, extents: Mapping[int, Extent]) -> Iterator[tuple[int, bytes]]:
    """Yield patches of each ``.``, ``..`` and root record that leads elsewhere than it has to (6.8.2.2, 8.4.18).

    Joliet trees of libisofs and old images of genisoimage have a ``..`` that leads to its own directory; those stay.

    :param extents: the new extents by the directory's id, counted from the image's start.
    """
    for record, directory in _find_stale_dots(source, tree):
        yield from _patch_extent(record, tree, extents[id(directory)])


def _find_stale_dots(source: ByteSource, tree: EditableTree) -> Iterator[tuple[int, EditableDirectory]]:
    """Yield the byte offset of each record that :func:`mend_dots` mends, and the directory to which it has to lead."""
    assert tree.root.extent is not None
    root, encoded = encode_extent(tree.root.extent, tree), dict[int, bytes]()
    for record in (lba_offset(descriptor.lba) + ROOT_RECORD for descriptor in tree.descriptors):
        if read_extent(source, record) != root:
            yield record, tree.root
    for directory in tree.directories():
        parent = directory.parent
        if directory.extent is None or parent is None:
            continue
        own = encoded[id(directory)] = encode_extent(directory.extent, tree)
        above = encoded.get(id(parent)) or (encode_extent(parent.extent, tree) if parent.extent else own)
        dots = directory.dots or read_dots(source, directory.extent)
        if dots == own + above:
            continue
        if dots[:16] != own:
            yield lba_offset(directory.extent.lba), directory
        if dots[16:] not in (own, above):
            yield find_parent_record(source, directory.extent), parent


def count_stale_dots(source: ByteSource, tree: EditableTree) -> int:
    """Return how many records of ``tree``, as it is on the image, :func:`mend_dots` changes."""
    return sum(1 for _ in _find_stale_dots(source, tree))


def patch_root_continuation(source: ByteSource, tree: EditableTree, lba: Lba) -> Iterator[tuple[int, bytes]]:
    """Yield the patch that makes the continuation area of the root's ``.`` begin at block ``lba``."""
    assert tree.root.extent is not None
    start = lba_offset(tree.root.extent.lba)
    at = _read_record(source, start).find(CE_HEAD, IDENTIFIER_OFFSET + 1)
    if at >= 0:
        yield start + at + 4, pack_both_endian(lba - tree.base) + pack_both_endian(0)


def find_parent_record(source: ByteSource, extent: Extent) -> int:
    """Return the byte offset of a directory's second record, its ``..``."""
    start = lba_offset(extent.lba)
    return start + source.read(start, 1)[0]


def read_dots(source: ByteSource, extent: Extent) -> bytes:
    """Return the 16 bytes with the extent's block and length of a directory's first record, then of its second."""
    return read_extent(source, lba_offset(extent.lba)) + read_extent(source, find_parent_record(source, extent))


def read_extent(source: ByteSource, record: int) -> bytes:
    """Return the 16 bytes with the extent's block and length of the directory record at byte ``record``."""
    return source.read(record + RECORD_LBA, 16)


def encode_extent(extent: Extent, tree: DescribedTree) -> bytes:
    """Return the 16 bytes of a record that hold an extent's block and length (9.1.3, 9.1.4)."""
    return pack_both_endian(extent.lba - tree.base) + pack_both_endian(extent.length)


def make_patched_reader(source: ByteSource, patches: Mapping[int, bytes]) -> Callable[[int, int], bytes]:
    """Return a function that reads bytes of the image, by offset and length, with ``patches`` applied."""
    offsets = sorted(patches)
    longest = max(map(len, patches.values()), default=0)

    def read(offset: int, length: int) -> bytes:
        """Read ``length`` bytes from ``offset`` on."""
        raw = bytearray(source.read(offset, length))
        for at in offsets[bisect_left(offsets, offset - longest) : bisect_left(offsets, offset + len(raw))]:
            data = patches[at]
            first, last = max(at, offset), min(at + len(data), offset + len(raw))
            if first < last:
                raw[first - offset : last - offset] = data[first - at : last - at]
        return bytes(raw)

    return read


def _read_record(source: ByteSource, offset: int) -> bytes:
    """Read the directory record at byte ``offset``."""
    return source.read(offset, source.read(offset, 1)[0])


def _own_records(directory: EditableDirectory) -> list[int]:
    """Return the offsets of the ``.`` of ``directory`` and of its record in its parent."""
    assert directory.extent is not None
    records = directory.entry.records if directory.entry else ()
    return [lba_offset(directory.extent.lba), *(record.offset for record in records)]


def _patch_extent(record: int, tree: EditableTree, extent: Extent) -> Iterator[tuple[int, bytes]]:
    """Yield patches that make the directory record at byte ``record`` lead to ``extent``."""
    encoded = encode_extent(extent, tree)
    yield record + RECORD_LBA, encoded[:8]
    yield record + RECORD_LENGTH, encoded[8:]


def _patch_relocations(
    source: ByteSource, tree: EditableTree, directory: EditableDirectory, lba: Lba
) -> Iterator[tuple[int, bytes]]:
    """Yield patches for a directory that moved to block ``lba``: of the CL that leads to it, of the PLs back to it."""
    if directory.named_in is not None and directory.named_in is not directory.parent:
        placeholder = next(entry for entry in directory.named_in.directory_entries if entry.directory is directory)
        for record in placeholder.records:
            yield from _patch_field(source, tree, record.offset, b"CL", 4, pack_both_endian(lba))
    for entry in directory.directory_entries:
        if entry.is_placeholder and entry.directory is not None and entry.directory.extent is not None:
            dot_dot = find_parent_record(source, entry.directory.extent)
            yield from _patch_field(source, tree, dot_dot, b"PL", 4, pack_both_endian(lba))


def _patch_link_counts(
    source: ByteSource, tree: EditableTree, directory: EditableDirectory
) -> Iterator[tuple[int, bytes]]:
    """Yield patches of the link count in every PX of ``directory``: in its own records and in the ``..`` below it."""
    assert directory.extent is not None
    records = _own_records(directory)
    if directory is tree.root:
        records.append(find_parent_record(source, directory.extent))
    for entry in directory.directory_entries:
        if entry.directory is not None and entry.directory.extent is not None and not entry.is_placeholder:
            records.append(find_parent_record(source, entry.directory.extent))
    count = pack_both_endian(2 + directory.subdirectory_count)
    for offset in records:
        yield from _patch_field(source, tree, offset, b"PX", 12, count)


def _patch_field(
    source: ByteSource, tree: EditableTree, record: int, signature: bytes, at: int, data: bytes
) -> Iterator[tuple[int, bytes]]:
    """Yield patches that put ``data`` at byte ``at`` of the fields ``signature`` of a record, where it differs."""
    if tree.rock_ridge is None:
        return
    raw = _read_record(source, record)
    for offset, field in walk_fields(source, raw, record, tree.rock_ridge.skip, tree.base):
        if field[:2] == signature and field[at : at + len(data)] != data:
            yield offset + at, data
