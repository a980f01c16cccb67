"""Walk the directory records of a tree: each with its bytes, and with the name that readers show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cosremaster.errors import ImageError
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.limits import TreeLimits
from cosremaster.iso.ecma119.records import (
    ASSOCIATED,
    DIRECTORY,
    DirectoryRecord,
    Extent,
    decode_identifier,
    locate_record,
    read_all_records,
)
from cosremaster.iso.rockridge.read import CE_HEAD, NO_ROCK_RIDGE, RockRidge, find_areas, read_rock_ridge
from cosremaster.iso.spans import Span
from cosremaster.records import Struct, field
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

_ATTRIBUTE_BLOCKS = 1
"""The byte of a directory record that holds the blocks of its extended attribute record (ECMA-119, 9.1.2)."""


class NamedRecord(Struct, frozen=True, checked=False):
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
    walker = DirectoryWalker(source, base, skip, joliet, others or NamedBlocks(base), limits, seen)
    while waiting:
        parent, identifiers, parent_path = waiting.pop()
        for named in walker.walk(parent, identifiers, parent_path):
            if named.directory is not None:
                waiting.append((named.directory, (*identifiers, named.record.identifier), named.path))
            yield named


class DirectoryWalker(Struct):
    """Reads the records of one directory of a tree after the other; the fields are those of :func:`walk_records`.

    ``seen``: the first blocks of all directories so far.
    """

    source: ByteSource
    base: Lba
    skip: int | None
    joliet: bool
    others: NamedBlocks
    limits: TreeLimits
    seen: set[Lba]

    def walk(self, parent: Extent, identifiers: tuple[bytes, ...], parent_path: bytes) -> Iterator[NamedRecord]:
        """Yield the records of the directory ``parent``. Raises as :func:`walk_records`."""
        source, skip, base, limits = self.source, self.skip, self.base, self.limits
        limits.count_directory(parent.lba, parent.length)
        for record, raw in read_all_records(source, parent, identifiers, base):
            if record.is_dot:
                if skip is not None and CE_HEAD in raw:
                    areas = find_areas(source, raw, record.offset, skip, base)
                    limits.count_areas(areas)
                    self.others.add_areas(areas)
                continue
            rock_ridge = NO_ROCK_RIDGE if skip is None else read_rock_ridge(source, raw, record.offset, skip, base)
            if rock_ridge.areas:
                limits.count_areas(rock_ridge.areas)
            self.others.add_record(record, raw, rock_ridge)
            if record.flags & ASSOCIATED and (record.flags & DIRECTORY or rock_ridge.child_lba is not None):
                raise ImageError("is a directory and an associated file", locate_record(source.place, record))
            if rock_ridge.is_relocated or record.flags & ASSOCIATED:
                continue
            name = choose_name(record, rock_ridge, joliet=self.joliet)
            path = parent_path + b"/" + name if parent_path else name
            limits.count_path(path, 0)
            directory: Extent | None = None
            if record.flags & DIRECTORY or rock_ridge.child_lba is not None:
                directory = _find_extent(source, record, rock_ridge)
                self.note_directory(directory, record, len(identifiers))
            elif record.length and lba_offset(record.lba) + record.length > source.size:
                raise ImageError("its data lie outside the image", locate_record(source.place, record))
            yield NamedRecord(path, record, raw, rock_ridge, directory)

    def note_directory(self, directory: Extent, record: DirectoryRecord, depth: int) -> None:
        """Note that ``record``, with ``depth`` directories above it, names a directory. :raises ImageError: again."""
        if directory.lba in self.seen:
            raise ImageError("directory tree leads into itself", self.source.place.at(record.offset))
        self.seen.add(directory.lba)
        self.limits.count_path(b"", depth)


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
