"""The structures of an image as the checks need them; structures that cannot be read become findings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from cosremaster.boot.eltorito import BootCatalog, find_catalog, parse_catalog
from cosremaster.boot.gpt import PRIMARY as GPT_PRIMARY
from cosremaster.boot.gpt import Gpt, GptEntry, choose_copy, read_gpt, read_last_gpt
from cosremaster.boot.mbr import GPT_PROTECTIVE, Mbr, MbrPartition
from cosremaster.errors import ImageError, Place, printable
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.limits import TreeLimits
from cosremaster.iso.ecma119.records import (
    DIRECTORY,
    IMAGE_START,
    MULTI_EXTENT,
    PRIMARY,
    SUPPLEMENTARY,
    DirectoryRecord,
    Extent,
    VolumeDescriptor,
    decode_joliet,
    decode_plain,
    read_descriptors,
    walk_directories,
)
from cosremaster.iso.read_trees import is_joliet
from cosremaster.iso.rockridge.read import find_susp_skip, read_rock_ridge
from cosremaster.iso.spans import Span
from cosremaster.records import Struct
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, SECTOR, SECTORS_PER_BLOCK, Lba, blocks_for, lba_offset
from cosremaster.verification.finding import Finding, fails

MAX_CATALOG = 64 * 1024
"""Bytes of a boot catalog that are read at most."""
MBR_TABLE = 446
"""Offset of the partition table in the MBR (UEFI 2.10, 5.2.1)."""

T = TypeVar("T")


class SectorRange(Struct, frozen=True):
    """A partition of any table; ``start`` and ``end`` (exclusive) in sectors, or in the blocks of an Apple map."""

    name: str
    start: int
    end: int
    place: Place


class SubjectTree(Struct, frozen=True):
    """A directory tree.

    :param base: the block that its descriptor and records count from; block numbers here are absolute.
    :param names: for each record's path of identifiers the path that people use.
    :param skip: bytes in front of the Rock Ridge fields of each record; None without Rock Ridge.
    """

    name: str
    base: Lba
    descriptor: VolumeDescriptor
    directories: tuple[Extent, ...]
    records: tuple[DirectoryRecord, ...]
    names: Mapping[tuple[bytes, ...], bytes]
    skip: int | None

    @property
    def root(self) -> Lba:
        """Block of the root directory."""
        return self.directories[0].lba

    @property
    def files(self) -> Iterator[DirectoryRecord]:
        """The records of files."""
        return (record for record in self.records if not record.flags & DIRECTORY)

    def directory_extents(self) -> dict[tuple[bytes, ...], Extent]:
        """Return the extent of each directory, by its path of identifiers."""
        extents: dict[tuple[bytes, ...], Extent] = {(): self.directories[0]}
        for record in self.records:
            if record.flags & DIRECTORY:
                extents[(*record.parent, record.identifier)] = Extent(record.lba, record.length)
        return extents

    def path_of(self, record: DirectoryRecord) -> bytes:
        """Return a record's path as people use it."""
        return self.names[(*record.parent, record.identifier)]

    def place_of(self, image: Place, record: DirectoryRecord) -> Place:
        """Return the place of a record in the image."""
        return place_of_path(image, self.path_of(record)).at(record.offset)

    def list_whole_files(self) -> Iterator[tuple[Lba, bytes, int]]:
        """Yield first block, path and bytes of each file; the extents of a file are added up."""
        start, length = None, 0
        for record in self.files:
            start, length = record.lba if start is None else start, length + record.length
            if not record.flags & MULTI_EXTENT:
                yield start, self.path_of(record), length
                start, length = None, 0

    @property
    def metadata(self) -> Iterator[Span]:
        """Spans of its directories and path tables."""
        for directory in self.directories:
            yield Span(directory.lba, blocks_for(directory.length), f"{self.name} directory")
        for table in self.descriptor.path_tables:
            yield Span(Lba(self.base + table.lba), blocks_for(table.length), f"{self.name} path table")


class Subject(Struct, frozen=True, kw_only=True):
    """The readable structures of an image.

    :param descriptor_sets: base and volume descriptors of every set; the first is the image's, others are those of
        partitions.
    :param trees: the first is the tree of the primary volume descriptor, if that is readable.
    :param gpt: the primary copy. :param used_gpt: the copy that systems read: the backup where only its sums hold.
    :param problems: findings about structures that cannot be read.
    """

    source: ByteSource
    descriptor_sets: tuple[tuple[Lba, tuple[VolumeDescriptor, ...]], ...]
    trees: tuple[SubjectTree, ...]
    mbr: Mbr | None
    gpt: Gpt | None
    used_gpt: Gpt | None
    catalog: BootCatalog | None
    problems: tuple[Finding, ...]

    @property
    def place(self) -> Place:
        """The image."""
        return self.source.place

    def place_at(self, lba: int) -> Place:
        """Return the place of a block in the image."""
        return self.place.at(lba_offset(Lba(lba)))

    @property
    def descriptors(self) -> tuple[VolumeDescriptor, ...]:
        """The volume descriptors of the image."""
        return self.descriptor_sets[0][1] if self.descriptor_sets else ()

    @property
    def primary(self) -> VolumeDescriptor | None:
        """The primary volume descriptor."""
        return next((descriptor for descriptor in self.descriptors if descriptor.type == PRIMARY), None)

    @property
    def blocks(self) -> int:
        """Blocks of the volume, or of the image where there is no primary descriptor."""
        return self.primary.blocks if self.primary else self.source.size // BLOCK

    @property
    def main_tree(self) -> SubjectTree | None:
        """The primary volume's tree."""
        return next((tree for tree in self.trees if tree.base == IMAGE_START), None)

    @property
    def mbr_partitions(self) -> Iterator[tuple[SectorRange, MbrPartition]]:
        """The partitions of the MBR."""
        for number, partition in self.mbr.used_partitions if self.mbr else ():
            place = self.place.at(MBR_TABLE + 16 * (number - 1))
            yield SectorRange(f"MBR partition {number}", partition.start, partition.end, place), partition

    @property
    def gpt_partitions(self) -> Iterator[tuple[SectorRange, GptEntry]]:
        """The partitions of the GPT, by the copy that systems read."""
        if self.used_gpt is None:
            return
        header = self.used_gpt.header
        for number, entry in self.used_gpt.used_entries:
            place = self.place.at(header.entries_lba * SECTOR + (number - 1) * header.entry_size)
            yield SectorRange(f"GPT partition {number}", entry.first, entry.end, place), entry

    def list_partitions(self, *, protective: bool) -> Iterator[SectorRange]:
        """Yield the partitions of MBR and GPT, with or without the MBR's protective ones."""
        for sectors, partition in self.mbr_partitions:
            if protective or partition.type != GPT_PROTECTIVE:
                yield sectors
        yield from (sectors for sectors, _ in self.gpt_partitions)

    def files_by_lba(self) -> dict[Lba, tuple[bytes, int]]:
        """Return path and length in bytes of the files of all trees, by first block."""
        files: dict[Lba, tuple[bytes, int]] = {}
        for tree in self.trees:
            for lba, path, length in tree.list_whole_files():
                if length:
                    files.setdefault(lba, (path, length))
        return files


def read_subject(source: ByteSource) -> Subject:
    """Read the structures of the image; a structure that cannot be read becomes a problem."""
    problems: list[Finding] = []

    def attempt(check: str, read: Callable[[], T]) -> T | None:
        """Return the result of ``read``; if it fails, add a problem and return None."""
        try:
            return read()
        except ImageError as error:
            problems.append(fails(check, error.message, error.place or source.place))
            return None

    mbr = Mbr.parse(source.read(0, SECTOR))
    gpt = attempt("gpt.unreadable", lambda: read_gpt(source.read, GPT_PRIMARY, source.place))
    used_gpt = _choose_gpt(source, gpt, mbr)
    sets, trees = list[tuple[Lba, tuple[VolumeDescriptor, ...]]](), list[SubjectTree | None]()
    for base in (IMAGE_START, *_volume_starts(source, mbr, used_gpt)):
        first = Lba(base + FIRST_DESCRIPTOR)
        if base and _is_in_file(trees, first):
            continue  # an image on the image, of which a partition is made
        descriptors = attempt("volume.unreadable", partial(read_descriptors, source, first))
        if descriptors is None:
            continue
        sets.append((base, descriptors))
        for descriptor in descriptors:
            if descriptor.type in (PRIMARY, SUPPLEMENTARY):
                trees.append(attempt("tree.unreadable", partial(_read_tree, source, descriptor, base)))
    catalog_lbas = (find_catalog(descriptor.raw) for descriptor in (sets[0][1] if sets else ()))
    catalogs = (
        attempt("eltorito.catalog", partial(_read_catalog, source, lba)) for lba in catalog_lbas if lba is not None
    )
    catalog = next((catalog for catalog in catalogs if catalog is not None), None)
    return Subject(
        source=source,
        descriptor_sets=tuple(sets),
        trees=tuple(tree for tree in trees if tree is not None),
        mbr=mbr,
        gpt=gpt,
        used_gpt=used_gpt,
        catalog=catalog,
        problems=tuple(problems),
    )


def _choose_gpt(source: ByteSource, primary: Gpt | None, mbr: Mbr | None) -> Gpt | None:
    """Return the copy of the GPT that systems read (UEFI 2.10, 5.3.2); None where no copy can be read."""
    copies = [] if primary is None else [primary]
    if primary is not None and not primary.has_valid_crcs:
        with contextlib.suppress(ImageError):
            backup = read_gpt(source.read, primary.header.alternate_lba, source.place)
            copies += [] if backup is None else [backup]
    may_use_last = mbr is not None and mbr.announces_gpt if primary is None else not primary.has_valid_crcs
    if may_use_last:
        last = read_last_gpt(source.read, source.size, source.place)
        copies += [] if last is None else [last]
    return choose_copy(copies)


def _is_in_file(trees: Iterable[SubjectTree | None], lba: Lba) -> bool:
    """Return whether block ``lba`` holds data of a file of ``trees``."""
    files = (record for tree in trees if tree is not None for record in tree.files)
    return any(record.lba <= lba < record.lba + blocks_for(record.length) for record in files)


def _read_catalog(source: ByteSource, lba: Lba) -> BootCatalog:
    """Read the boot catalog at block ``lba``."""
    return parse_catalog(source.read(lba_offset(lba), MAX_CATALOG), lba, lba_offset(lba), source.place)


def _volume_starts(source: ByteSource, mbr: Mbr | None, gpt: Gpt | None) -> list[Lba]:
    """Return the first blocks of partitions that have volume descriptors of their own (xorriso's -partition_offset)."""
    starts = {partition.start for _, partition in (mbr.used_partitions if mbr else ())}
    starts |= {entry.first for _, entry in (gpt.used_entries if gpt else ())}
    blocks = sorted(start // SECTORS_PER_BLOCK for start in starts if start and start % SECTORS_PER_BLOCK == 0)
    return [Lba(block) for block in blocks if source.read((block + FIRST_DESCRIPTOR) * BLOCK + 1, 5) == b"CD001"]


def _read_tree(source: ByteSource, descriptor: VolumeDescriptor, base: Lba) -> SubjectTree:
    """Read the directory tree of a volume descriptor.

    :raises ImageError: when a directory is malformed, outside the image or inside itself.
    """
    directories, records = walk_directories(source, descriptor.root, base)
    name = "ISO 9660"
    if descriptor.type == SUPPLEMENTARY:
        name = "Joliet" if is_joliet(descriptor) else "ISO 9660:1999"
    if base != IMAGE_START:
        name = f"{name} at block {base}"
    skip = find_susp_skip(source.read(lba_offset(directories[0].lba), 255))
    names = _read_names(source, records, skip, base, is_joliet(descriptor))
    return SubjectTree(name, base, descriptor, directories, records, names, skip)


def _read_names(
    source: ByteSource, records: Iterable[DirectoryRecord], skip: int | None, base: Lba, joliet: bool
) -> dict[tuple[bytes, ...], bytes]:
    """Return the path of every record, by Rock Ridge where that is sound; parents come before their children.

    :raises ImageError: when continuation areas or paths are too much.
    """
    names: dict[tuple[bytes, ...], bytes] = {(): b""}
    limits = TreeLimits(source)
    for record in records:
        name = decode_joliet(record.identifier) if joliet else decode_plain(record.identifier)
        if skip is not None:
            raw, areas = source.read(record.offset, 255), tuple[tuple[int, int], ...]()
            with contextlib.suppress(ImageError):  # check_rock_ridge reports it
                rock_ridge = read_rock_ridge(source, raw[: raw[0]], record.offset, skip, base)
                name, areas = rock_ridge.name or name, rock_ridge.areas
            limits.count_areas(areas)
        parent = names[record.parent]
        path = names[(*record.parent, record.identifier)] = parent + b"/" + name if parent else name
        limits.count_path(path, len(record.parent))
    return names


def place_of_path(image: Place, path: bytes) -> Place:
    """Return the place of ``path`` in the image."""
    return Place((*image.parts, *map(printable, path.split(b"/")))) if path else image
