"""An image as the checks see it: what could be read of it, and what could not, as findings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from cosremaster.boot.eltorito import BootCatalog, find_catalog, parse_catalog
from cosremaster.boot.gpt import PRIMARY as GPT_PRIMARY
from cosremaster.boot.gpt import Gpt, read_gpt
from cosremaster.boot.mbr import Mbr
from cosremaster.errors import ImageError, Place
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import (
    IMAGE_START,
    PRIMARY,
    SUPPLEMENTARY,
    VolumeDescriptor,
    read_descriptors,
    walk,
)
from cosremaster.iso.layout.spans import Span
from cosremaster.iso.model import DIRECTORY, MULTI_EXTENT, DirectoryRecord, Extent
from cosremaster.iso.read_trees import decode_joliet, decode_plain, is_joliet
from cosremaster.iso.rockridge.read import find_susp_skip, read_rock_ridge
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, SECTOR, SECTORS_PER_BLOCK, Lba, blocks_for, lba_offset
from cosremaster.verification.finding import Finding, fails

MAX_CATALOG = 64 * 1024


class SubjectTree(Struct, frozen=True):
    """A directory tree. ``base``: the block that its descriptor and records count from; here all is absolute.

    ``names``: the path that people know, for each record's path of identifiers. ``skip``: bytes before the Rock
    Ridge fields of each record, None where it has none.
    """

    name: str
    base: Lba
    descriptor: VolumeDescriptor
    directories: tuple[Extent, ...]
    records: tuple[DirectoryRecord, ...]
    names: Mapping[tuple[bytes, ...], bytes]
    skip: int | None

    @property
    def files(self) -> Iterator[DirectoryRecord]:
        """The records of files."""
        return (record for record in self.records if not record.flags & DIRECTORY)

    def path_of(self, one: DirectoryRecord) -> bytes:
        """A record's path as people know it."""
        return self.names[(*one.parent, one.identifier)]

    def place_of(self, image: Place, one: DirectoryRecord) -> Place:
        """Where a record stands in the image."""
        return place_of_path(image, self.path_of(one)).at(one.offset)

    def list_whole_files(self) -> Iterator[tuple[Lba, bytes, int]]:
        """First block, path and bytes of each file, its extents together."""
        start, length = None, 0
        for one in self.files:
            start, length = one.lba if start is None else start, length + one.length
            if not one.flags & MULTI_EXTENT:
                yield start, self.path_of(one), length
                start, length = None, 0

    @property
    def metadata(self) -> Iterator[Span]:
        """Its directories and path tables."""
        for one in self.directories:
            yield Span(one.lba, blocks_for(one.length), f"{self.name} directory")
        for table in self.descriptor.path_tables:
            yield Span(Lba(self.base + table.lba), blocks_for(table.length), f"{self.name} path table")


class Subject(Struct, frozen=True, kw_only=True):
    """What could be read. ``trees``: the first is the primary volume's, where that could be read.

    ``descriptors``: those of the volume; ``sets``: base and descriptors of every set there is.
    """

    source: ByteSource
    sets: tuple[tuple[Lba, tuple[VolumeDescriptor, ...]], ...]
    trees: tuple[SubjectTree, ...]
    mbr: Mbr | None
    gpt: Gpt | None
    catalog: BootCatalog | None
    problems: tuple[Finding, ...]

    @property
    def place(self) -> Place:
        """The image."""
        return self.source.place

    @property
    def descriptors(self) -> tuple[VolumeDescriptor, ...]:
        """The volume's own."""
        return self.sets[0][1] if self.sets else ()

    @property
    def primary(self) -> VolumeDescriptor | None:
        """The primary volume descriptor."""
        return next((one for one in self.descriptors if one.type == PRIMARY), None)

    @property
    def blocks(self) -> int:
        """The volume's size, or the image's where no descriptor tells it."""
        return self.primary.blocks if self.primary else self.source.size // BLOCK

    @property
    def main(self) -> SubjectTree | None:
        """The primary volume's tree."""
        return next((tree for tree in self.trees if tree.base == IMAGE_START), None)


def read_subject(source: ByteSource) -> Subject:
    """Reads the structures of the image; what cannot be read becomes a problem."""
    problems: list[Finding] = []
    mbr = Mbr.parse(source.read(0, SECTOR))
    gpt = None
    try:
        gpt = read_gpt(source.read, GPT_PRIMARY, source.place)
    except ImageError as error:
        problems.append(_unreadable("gpt.unreadable", error, source))
    sets, trees = [], list[SubjectTree]()
    for base in (IMAGE_START, *_partition_starts(source, mbr, gpt)):
        try:
            descriptors = read_descriptors(source, Lba(base + FIRST_DESCRIPTOR))
        except ImageError as error:
            problems.append(_unreadable("volume.unreadable", error, source))
            continue
        sets.append((base, descriptors))
        for descriptor in descriptors:
            if descriptor.type in (PRIMARY, SUPPLEMENTARY):
                try:
                    trees.append(_tree(source, descriptor, base))
                except ImageError as error:
                    problems.append(_unreadable("tree.unreadable", error, source))
    catalog = None
    for lba in (find_catalog(one.raw) for one in (sets[0][1] if sets else ())):
        if lba is not None and catalog is None:
            try:
                catalog = parse_catalog(source.read(lba_offset(lba), MAX_CATALOG), lba, lba_offset(lba), source.place)
            except ImageError as error:
                problems.append(_unreadable("eltorito.catalog", error, source))
    return Subject(
        source=source, sets=tuple(sets), trees=tuple(trees), mbr=mbr, gpt=gpt, catalog=catalog,
        problems=tuple(problems),
    )  # fmt: skip


def _unreadable(check: str, error: ImageError, source: ByteSource) -> Finding:
    return fails(check, error.message, error.place or source.place)


def _partition_starts(source: ByteSource, mbr: Mbr | None, gpt: Gpt | None) -> list[Lba]:
    """Blocks at which a partition begins that has volume descriptors of its own (xorriso's -partition_offset)."""
    starts = {one.start for _, one in (mbr.used_partitions if mbr else ())} | {
        one.first for _, one in (gpt.used_entries if gpt else ())
    }
    blocks = sorted(start // SECTORS_PER_BLOCK for start in starts if start and start % SECTORS_PER_BLOCK == 0)
    return [Lba(block) for block in blocks if source.read((block + FIRST_DESCRIPTOR) * BLOCK + 1, 5) == b"CD001"]


def _tree(source: ByteSource, descriptor: VolumeDescriptor, base: Lba) -> SubjectTree:
    """:raises ImageError: it cannot be walked."""
    directories, records = walk(source, descriptor.root, base)
    name = "ISO 9660"
    if descriptor.type == SUPPLEMENTARY:
        name = "Joliet" if is_joliet(descriptor) else "ISO 9660:1999"
    if base != IMAGE_START:
        name = f"{name} at block {base}"
    skip = find_susp_skip(source.read(lba_offset(directories[0].lba), 255))
    names = _names(source, records, skip, base, is_joliet(descriptor))
    return SubjectTree(name, base, descriptor, directories, records, names, skip)


def _names(
    source: ByteSource, records: Iterable[DirectoryRecord], skip: int | None, base: Lba, joliet: bool
) -> dict[tuple[bytes, ...], bytes]:
    """The path of every record: by Rock Ridge where it is there and sound. Parents come before what is in them."""
    names: dict[tuple[bytes, ...], bytes] = {(): b""}
    for one in records:
        name = decode_joliet(one.identifier) if joliet else decode_plain(one.identifier)
        if skip is not None:
            raw = source.read(one.offset, 255)
            with contextlib.suppress(ImageError):  # check_rock_ridge tells it
                name = read_rock_ridge(source, raw[: raw[0]], one.offset, skip, base).name or name
        above = names[one.parent]
        names[(*one.parent, one.identifier)] = above + b"/" + name if above else name
    return names


def place_of_path(image: Place, path: bytes) -> Place:
    """The place of ``path`` in the image."""
    for part in path.split(b"/") if path else ():
        image = image.inside(part)
    return image
