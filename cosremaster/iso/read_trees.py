"""Read the directory trees of an image: each file with its records, and with the name that readers show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import (
    ASSOCIATED,
    DIRECTORY,
    MULTI_EXTENT,
    PRIMARY,
    SUPPLEMENTARY,
    DirectoryRecord,
    Extent,
    VolumeDescriptor,
    decode_identifier,
    locate_record,
    read_directory,
)
from cosremaster.iso.model import IsoFile, IsoTree
from cosremaster.iso.rockridge.read import NO_ROCK_RIDGE, RockRidge, find_susp_skip, read_rock_ridge
from cosremaster.units import Lba, lba_offset

_JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")
_ENHANCED = 2
"""The version of an enhanced volume descriptor (ISO 9660:1999, 8.5)."""
JOLIET = "Joliet"
"""The kind of a Joliet tree."""


def is_joliet(descriptor: VolumeDescriptor) -> bool:
    """Return True for a supplementary descriptor whose escape sequences say UCS-2 (Joliet, "SVD Escape Sequences")."""
    return descriptor.type == SUPPLEMENTARY and descriptor.raw[88:91] in _JOLIET_ESCAPES


def read_trees(
    source: ByteSource, descriptors: Iterable[VolumeDescriptor], base: Lba, read_roots: Iterable[Lba] = ()
) -> Iterator[IsoTree]:
    """Yield the tree of each primary and supplementary descriptor of one set.

    A descriptor that shares the root of an earlier one, as an enhanced descriptor (ISO 9660:1999) does, has a tree
    without files.

    :param base: the block from which the descriptors count their blocks.
    :param read_roots: the roots of trees that were read already.
    :raises ImageError: when a record is malformed, or a directory or a file lies outside the image.
    """
    roots = set(read_roots)
    for descriptor in descriptors:
        if descriptor.type not in (PRIMARY, SUPPLEMENTARY):
            continue
        files, directories, skip = list[IsoFile](), list[Extent](), None
        if descriptor.root.lba not in roots:
            roots.add(descriptor.root.lba)
            root = Extent(Lba(base + descriptor.root.lba), descriptor.root.length)
            skip = None if is_joliet(descriptor) else find_susp_skip(source.read(lba_offset(root.lba), 255))
            directories.append(root)
            records = walk_records(source, root, base, skip, is_joliet(descriptor))
            files = list(_collect_files(records, directories))
        yield IsoTree(
            kind=_tree_kind(descriptor), descriptor_lba=descriptor.lba, base=base, blocks=descriptor.blocks,
            files=tuple(files), directories=tuple(directories), path_tables=tuple(
                Extent(Lba(base + table.lba), table.length) for table in descriptor.path_tables
            ), has_rock_ridge=skip is not None,
        )  # fmt: skip


def _tree_kind(descriptor: VolumeDescriptor) -> str:
    """Return the kind of the descriptor's tree, in words."""
    if descriptor.type == PRIMARY:
        return "ISO 9660"
    if is_joliet(descriptor):
        return JOLIET
    return "ISO 9660:1999" if descriptor.raw[6] == _ENHANCED else "supplementary"


class NamedRecord(Struct, frozen=True):
    """A directory record with its bytes, its Rock Ridge fields, and the path that readers show.

    ``directory``: the extent of the directory that the record stands for, None for a file.
    """

    path: bytes
    record: DirectoryRecord
    raw: bytes
    rock_ridge: RockRidge
    directory: Extent | None


def walk_records(source: ByteSource, root: Extent, base: Lba, skip: int | None, joliet: bool) -> Iterator[NamedRecord]:
    """Yield every record below the directory ``root``, the record of a directory before those in it.

    A relocated directory is at the place of its CL field (RRIP 4.1.5.1). Associated files (ECMA-119, 9.1.6) are left
    out.

    :param base: the block from which the records count their blocks.
    :param skip: see :func:`find_susp_skip`; None without Rock Ridge.
    :raises ImageError: when a record is malformed, or a directory or a file lies outside the image.
    """
    waiting: list[tuple[Extent, tuple[bytes, ...], bytes]] = [(root, (), b"")]
    seen = {root.lba}
    while waiting:
        parent, identifiers, parent_path = waiting.pop()
        for record, raw in read_directory(source, parent, identifiers, base):
            rock_ridge = NO_ROCK_RIDGE if skip is None else read_rock_ridge(source, raw, record.offset, skip, base)
            if rock_ridge.is_relocated or record.flags & ASSOCIATED:
                continue
            name = choose_name(record, rock_ridge, joliet=joliet)
            path = parent_path + b"/" + name if parent_path else name
            directory: Extent | None = None
            if record.flags & DIRECTORY or rock_ridge.child_lba is not None:
                directory = _find_extent(source, record, rock_ridge)
                if directory.lba in seen:
                    raise ImageError("directory tree leads into itself", source.place.at(record.offset))
                seen.add(directory.lba)
                waiting.append((directory, (*identifiers, record.identifier), path))
            elif record.length and lba_offset(record.lba) + record.length > source.size:
                raise ImageError("its data lie outside the image", locate_record(source.place, record))
            yield NamedRecord(path, record, raw, rock_ridge, directory)


def _collect_files(records: Iterable[NamedRecord], directories: list[Extent]) -> Iterator[IsoFile]:
    """Yield the files of ``records``; append the extents of directories to ``directories``."""
    sections: list[DirectoryRecord] = []
    for named in records:
        if named.directory is not None:
            directories.append(named.directory)
            continue
        if sections and sections[0].parent != named.record.parent:
            sections = []  # a file whose last section is missing
        sections.append(named.record)
        if not named.record.flags & MULTI_EXTENT:
            rock_ridge = named.rock_ridge
            yield IsoFile(named.path, tuple(sections), rock_ridge.is_regular, rock_ridge.zisofs_offset)
            sections = []


def _find_extent(source: ByteSource, record: DirectoryRecord, rock_ridge: RockRidge) -> Extent:
    """Return the extent of the directory that ``record`` stands for.

    The length of a relocated directory is in its own ``.`` record.
    """
    if rock_ridge.child_lba is None:
        return get_extent(record)
    head = source.read(lba_offset(rock_ridge.child_lba), 34)
    if len(head) < 34 or head[33:34] != b"\0":
        raise ImageError("relocated directory is not where it should be", source.place.at(record.offset))
    return Extent(rock_ridge.child_lba, int.from_bytes(head[10:14], "little"))


def choose_name(record: DirectoryRecord, rock_ridge: RockRidge | None, *, joliet: bool) -> bytes:
    """Return the name that readers show for a record: the Rock Ridge name, or the one that the identifier holds."""
    return (rock_ridge.name if rock_ridge else b"") or decode_identifier(record.identifier, joliet=joliet)


def get_extent(record: DirectoryRecord) -> Extent:
    """Return the extent that ``record`` describes."""
    return Extent(record.lba, record.length)
