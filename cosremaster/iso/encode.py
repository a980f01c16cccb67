"""From a layout to the new image's pieces: data at their new places, and every pointer to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cosremaster.boot.mbr import Geometry, Mbr, MbrPartition
from cosremaster.errors import SizeError, UnsupportedError, show
from cosremaster.files import FileSource
from cosremaster.iso.model import Image, IsoFile, Span
from cosremaster.iso.plan import Layout, gaps, pin_overlaps, plan_layout
from cosremaster.iso.records import FIRST_DESCRIPTOR, SPACE_SIZE, both_endian
from cosremaster.pieces import Piece, PieceTable, Zeros
from cosremaster.units import BLOCK, SECTORS_PER_BLOCK, Lba, Sector, blocks_for, lba_bytes

MAX_EXTENT = 0xFFFFFFFF
"""Bytes of a file in one directory record (9.1.4)."""

_RECORD_LBA, _RECORD_LENGTH = 2, 10


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What the new image will be: its pieces, and where things stand in it.

    ``changed``: path of each exchanged file -> its new length in bytes.
    """

    table: PieceTable
    layout: Layout
    changed: Mapping[bytes, int]


def unchanged_plan(image: Image) -> ImagePlan:
    """The plan that makes ``image`` again, byte for byte."""
    return ImagePlan(PieceTable([image.source]), Layout((), image.blocks), {})


def plan_image(image: Image, source: FileSource, exchanged: Mapping[bytes, PieceTable]) -> ImagePlan:
    """The image with the files at the paths of ``exchanged`` holding other bytes.

    :raises UnsupportedError: something in the image cannot follow yet. :raises SizeError: too large a file.
    """
    if image.blockers:
        listed = " and ".join(image.blockers)
        raise UnsupportedError(f"has {listed}, which this version cannot keep when files change size", image.place)
    files = {file.path: file for file in image.files}
    new: dict[Lba, PieceTable] = {}
    for path, table in exchanged.items():
        new[_single_extent(image, files[path], table)] = table
    movable = [
        Span(record.lba, record.blocks, show(file.path))
        for file in image.files
        for record in file.records
        if record.length
    ]
    fixed, movable_spans = pin_overlaps(image.fixed, movable)
    first = min(new)
    unknown = _unreferenced(source, gaps((*fixed, *movable_spans), image.blocks), first)
    fixed += tuple(unknown)
    free = {span.start for span in movable_spans}
    for path in exchanged:
        if files[path].records[0].lba not in free:
            raise UnsupportedError(
                "cannot change size: a boot record or another file shares its blocks", image.place.inside(path)
            )
    layout = plan_layout(fixed, movable_spans, image.blocks, {lba: blocks_for(t.length) for lba, t in new.items()})
    body = _body(image, layout, new, first)
    tail = image.source.cut(image.volume_bytes, image.size)
    table = PieceTable([*body, tail]).patched(_patches(image, layout, new))
    return ImagePlan(table, layout, {path: table.length for path, table in exchanged.items()})


def _single_extent(image: Image, file: IsoFile, table: PieceTable) -> Lba:
    """Where ``file`` begins. :raises SizeError: ``table`` does not fit one directory record."""
    place = image.place.inside(file.path)
    if len(file.records) != 1 or not file.size:
        raise UnsupportedError("cannot be exchanged: it has no extent of its own, or several", place)
    if table.length > MAX_EXTENT:
        raise SizeError(
            f"would be {table.length:,} bytes; one file of an ISO holds 4 GiB - 1. Put large files on the ISO's own"
            " file tree instead",
            place,
        )
    return file.records[0].lba


def _unreferenced(source: FileSource, holes: tuple[Span, ...], first: Lba) -> Iterator[Span]:
    """The parts of ``holes`` behind block ``first`` that hold anything but zeros: nobody knows who points there."""
    for hole in holes:
        if hole.start < first:
            continue
        used = []
        at = hole.start
        for chunk in source.chunks(lba_bytes(hole.start), hole.blocks * BLOCK):
            if chunk.strip(b"\0"):
                used += [
                    at + n for n in range(blocks_for(len(chunk))) if chunk[n * BLOCK : (n + 1) * BLOCK].strip(b"\0")
                ]
            at = Lba(at + blocks_for(len(chunk)))
        if used:
            yield Span(Lba(used[0]), used[-1] + 1 - used[0], hole.label)


def _body(image: Image, layout: Layout, new: Mapping[Lba, PieceTable], first: Lba) -> Iterator[Piece]:
    """The volume: everything before block ``first`` as it is, then each placement, zeros between."""
    yield image.source.cut(0, lba_bytes(first))
    at = lba_bytes(first)
    for placed in layout.placements:
        start = lba_bytes(placed.start)
        if placed.old.end <= first:
            continue
        yield Zeros(start - at)
        table = new.get(placed.old.start)
        if table is not None:
            yield from table.pieces
            at = start + table.length
        else:
            begin = lba_bytes(placed.old.start)
            yield image.source.cut(begin, begin + placed.blocks * BLOCK)
            at = start + placed.blocks * BLOCK
    yield Zeros(layout.blocks * BLOCK - at)


def _patches(image: Image, layout: Layout, new: Mapping[Lba, PieceTable]) -> Iterator[tuple[int, bytes]]:
    """Every pointer and size that has to change, at its byte offset."""
    moved = layout.moved
    for file in image.files:
        for record in file.records:
            if not record.length:
                continue
            if record.lba in moved:
                yield record.offset + _RECORD_LBA, both_endian(moved[record.lba])
            if record.lba in new:
                yield record.offset + _RECORD_LENGTH, both_endian(new[record.lba].length)
    if layout.blocks != image.blocks:
        yield lba_bytes(FIRST_DESCRIPTOR) + SPACE_SIZE, both_endian(layout.blocks)
        if image.mbr:
            yield 0, moved_mbr(image.mbr, image.blocks, layout.blocks).pack()


def moved_mbr(mbr: Mbr, old: int, new: int) -> Mbr:
    """``mbr`` after the volume's end went from block ``old`` to block ``new``.

    A partition behind the volume moves with its end; one that ends there or behind, from before, grows.
    """
    geometry = mbr.geometry()
    shift = (new - old) * SECTORS_PER_BLOCK
    volume = old * SECTORS_PER_BLOCK
    return replace(mbr, partitions=tuple(_moved(one, volume, shift, geometry) for one in mbr.partitions))


def _moved(one: MbrPartition, volume: int, shift: int, geometry: Geometry | None) -> MbrPartition:
    if not one.used:
        return one
    if one.start >= volume:
        return one.placed(Sector(one.start + shift), one.count, geometry)
    if one.end >= volume:
        return one.placed(one.start, one.count + shift, geometry)
    return one
