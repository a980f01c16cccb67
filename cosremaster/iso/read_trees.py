"""Read the directory trees of an image: each file with its records, and with the name that readers show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.limits import TreeLimits
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
    read_all_records,
)
from cosremaster.iso.model import IsoFile, IsoTree
from cosremaster.iso.rockridge.read import (
    CE_HEAD,
    NO_ROCK_RIDGE,
    RockRidge,
    find_areas,
    find_susp_skip,
    read_rock_ridge,
    read_root_fields,
)
from cosremaster.iso.spans import Span
from cosremaster.records import Struct, field
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

_JOLIET_ESCAPES = (b"%/@", b"%/C", b"%/E")
_ATTRIBUTE_BLOCKS = 1
"""The byte of a directory record that holds the blocks of its extended attribute record (ECMA-119, 9.1.2)."""
_ENHANCED = 2
"""The version of an enhanced volume descriptor (ISO 9660:1999, 8.5)."""
JOLIET = "Joliet"
"""The kind of a Joliet tree."""


def is_joliet(descriptor: VolumeDescriptor) -> bool:
    """Return True for a supplementary descriptor whose escape sequences say UCS-2 (Joliet, "SVD Escape Sequences")."""
    return descriptor.type == SUPPLEMENTARY and descriptor.raw[88:91] in _JOLIET_ESCAPES


def read_trees(
    source: ByteSource, descriptors: Iterable[VolumeDescriptor], base: Lba, read_roots: Iterable[Lba] = (),
    limits: TreeLimits | None = None,
) -> Iterator[IsoTree]:  # fmt: skip
    """Yield the tree of each primary and supplementary descriptor of one set.

    A descriptor that shares the root of an earlier one, as an enhanced descriptor (ISO 9660:1999) does, has a tree
    without files.

    :param base: the block from which the descriptors count their blocks.
    :param read_roots: the roots of trees that were read already.
    :param limits: of all trees of the image together.
    :raises ImageError: when a record is malformed, or a directory or a file lies outside the image.
    """
    roots, limits = set(read_roots), limits or TreeLimits(source)
    for descriptor in descriptors:
        if descriptor.type not in (PRIMARY, SUPPLEMENTARY):
            continue
        files, directories, skip = list[IsoFile](), list[tuple[bytes, Extent]](), None
        others = NamedBlocks(base)
        if descriptor.root.lba not in roots:
            roots.add(descriptor.root.lba)
            root = Extent(Lba(base + descriptor.root.lba), descriptor.root.length)
            skip = None if is_joliet(descriptor) else find_susp_skip(source.read(lba_offset(root.lba), 255))
            directories.append((b"", root))
            records = walk_records(source, root, base, skip, is_joliet(descriptor), others, limits)
            files = list(_collect_files(records, directories))
        yield IsoTree(
            kind=_tree_kind(descriptor), descriptor_lba=descriptor.lba, base=base, blocks=descriptor.blocks,
            files=tuple(files), directories=tuple(extent for _, extent in directories),
            directory_paths=tuple(path for path, _ in directories), path_tables=tuple(
                Extent(Lba(base + table.lba), table.length) for table in descriptor.path_tables
            ), has_rock_ridge=skip is not None, other_spans=others.list_spans(source.size),
            empty_blocks=frozenset(others.empty_blocks),
            extension_fields=() if skip is None else tuple(_read_extension_fields(source, root.lba, skip, base)),
        )  # fmt: skip


def _read_extension_fields(source: ByteSource, root: Lba, skip: int, base: Lba) -> Iterator[bytes]:
    """Yield the fields of a root's ``.`` that say something about the whole tree, not about the root alone."""
    for raw in read_root_fields(source, root, skip, base):
        if raw[:2] not in (b"PX", b"TF", b"RR"):
            yield raw


def _tree_kind(descriptor: VolumeDescriptor) -> str:
    """Return the kind of the descriptor's tree, in words."""
    if descriptor.type == PRIMARY:
        return "ISO 9660"
    if is_joliet(descriptor):
        return JOLIET
    return "ISO 9660:1999" if descriptor.raw[6] == _ENHANCED else "supplementary"


class NamedRecord(Struct, frozen=True, gc=False):
    """A directory record with its bytes, its Rock Ridge fields, and the path that readers show.

    ``directory``: the extent of the directory that the record stands for, None for a file.
    """

    path: bytes
    record: DirectoryRecord
    raw: bytes
    rock_ridge: RockRidge
    directory: Extent | None


class NamedBlocks(Struct):
    """Collects the blocks that the records of a tree name beside those of directories and files.

    ``base``: see :func:`walk_records`. ``area_blocks``: those of continuation areas. ``spans``: extended attribute
    records and the data of associated files. ``empty_blocks``: those that records without data name.
    """

    base: Lba
    area_blocks: set[Lba] = field(default_factory=set)
    spans: set[Span] = field(default_factory=set)
    empty_blocks: set[Lba] = field(default_factory=set)

    def add_record(self, record: DirectoryRecord, raw: bytes, rock_ridge: RockRidge) -> None:
        """Collect the blocks of a record, of which ``raw`` are the bytes."""
        self.add_areas(rock_ridge.areas)
        if raw[_ATTRIBUTE_BLOCKS]:
            attributes = Lba(record.lba - raw[_ATTRIBUTE_BLOCKS])
            self.spans.add(Span(attributes, raw[_ATTRIBUTE_BLOCKS], "extended attribute record"))
        if not record.length:
            self.empty_blocks.add(record.lba)
        elif record.flags & ASSOCIATED:
            self.spans.add(Span(record.lba, record.blocks, "associated file"))

    def add_areas(self, areas: Iterable[tuple[int, int]]) -> None:
        """Collect the blocks of continuation areas, each a byte offset and a number of bytes."""
        for offset, length in areas:
            self.area_blocks.update(Lba(lba) for lba in range(offset // BLOCK, blocks_for(offset + length)))

    def list_spans(self, size: int) -> tuple[Span, ...]:
        """Return the spans of all but records without data, as far as they are inside an image of ``size`` bytes."""
        end, areas = blocks_for(size), list[Span]()
        for lba in sorted(self.area_blocks):
            if areas and areas[-1].end == lba:
                areas[-1] = Span(areas[-1].start, areas[-1].blocks + 1, areas[-1].label)
            else:
                areas.append(Span(lba, 1, "continuation area"))
        return tuple(span for span in (*areas, *sorted(self.spans, key=lambda span: span.start)) if span.end <= end)


def walk_records(
    source: ByteSource, root: Extent, base: Lba, skip: int | None, joliet: bool, others: NamedBlocks | None = None,
    limits: TreeLimits | None = None,
) -> Iterator[NamedRecord]:  # fmt: skip
    """Yield every record below the directory ``root``, the record of a directory before those in it.

    A relocated directory is at the place of its CL field (RRIP 4.1.5.1). Associated files (ECMA-119, 9.1.6) are left
    out.

    :param base: the block from which the records count their blocks.
    :param skip: see :func:`find_susp_skip`; None without Rock Ridge.
    :param others: collects what the records name beside directories and files, those of ``.`` and ``..`` included.
    :param limits: those of the tree alone when None.
    :raises ImageError: when a record is malformed, or a directory or a file lies outside the image.
    """
    waiting: list[tuple[Extent, tuple[bytes, ...], bytes]] = [(root, (), b"")]
    seen, limits = {root.lba}, limits or TreeLimits(source)
    while waiting:
        parent, identifiers, parent_path = waiting.pop()
        limits.count_directory(parent.lba, parent.length)
        for record, raw in read_all_records(source, parent, identifiers, base):
            if record.is_dot:
                if others is not None and skip is not None and CE_HEAD in raw:
                    areas = find_areas(source, raw, record.offset, skip, base)
                    limits.count_areas(areas)
                    others.add_areas(areas)
                continue
            rock_ridge = NO_ROCK_RIDGE if skip is None else read_rock_ridge(source, raw, record.offset, skip, base)
            if rock_ridge.areas:
                limits.count_areas(rock_ridge.areas)
            if others is not None:
                others.add_record(record, raw, rock_ridge)
            if rock_ridge.is_relocated or record.flags & ASSOCIATED:
                continue
            name = choose_name(record, rock_ridge, joliet=joliet)
            path = parent_path + b"/" + name if parent_path else name
            limits.count_path(path, 0)
            directory: Extent | None = None
            if record.flags & DIRECTORY or rock_ridge.child_lba is not None:
                directory = _find_extent(source, record, rock_ridge)
                if directory.lba in seen:
                    raise ImageError("directory tree leads into itself", source.place.at(record.offset))
                seen.add(directory.lba)
                limits.count_path(b"", len(identifiers))
                waiting.append((directory, (*identifiers, record.identifier), path))
            elif record.length and lba_offset(record.lba) + record.length > source.size:
                raise ImageError("its data lie outside the image", locate_record(source.place, record))
            yield NamedRecord(path, record, raw, rock_ridge, directory)


def _collect_files(records: Iterable[NamedRecord], directories: list[tuple[bytes, Extent]]) -> Iterator[IsoFile]:
    """Yield the files of ``records``; add the extents of directories to ``directories``, with their paths."""
    sections: list[DirectoryRecord] = []
    for named in records:
        if named.directory is not None:
            directories.append((named.path, named.directory))
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
