"""Which directory records follow when a file of the ISO gets other bytes, and what forbids it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from cosremaster.boot.pointers import (
    GRUB2_IMAGE_OFFSET,
    TABLE_END,
    TABLE_OFFSET,
    BootInfoTable,
    compute_boot_image_checksum,
    pack_grub2_image_pointer,
)
from cosremaster.errors import ImageError, Place, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import BootImage, IsoFile, IsoImage, IsoTree
from cosremaster.iso.spans import Span
from cosremaster.units import BLOCK, FIRST_DESCRIPTOR, Lba

NOWHERE = Lba(0)


class FileReplacement(Struct, frozen=True):
    """New bytes for a file. ``files``: its names in all trees; ``old``: the blocks they give up, None where other
    names or earlier sessions keep them (or there were none), so that the new bytes need blocks of their own.
    ``start``: where the bytes go, once that is planned."""

    path: bytes
    table: PieceTable
    files: tuple[tuple[IsoTree, IsoFile], ...]
    old_span: Span | None
    start: Lba = NOWHERE

    @property
    def keeps_size(self) -> bool:
        """The file keeps its length: nothing but its bytes changes."""
        return self.table.length == self.files[0][1].size


def resolve_replacements(image: IsoImage, exchanged: Mapping[bytes, PieceTable]) -> tuple[FileReplacement, ...]:
    """What has to happen so that the files at the paths of ``exchanged`` hold other bytes.

    Names that share an extent and get the same table go on sharing. :raises ImageError: there is no such file.
    :raises UnsupportedError: it cannot be exchanged.
    """
    by_path = {file.path: file for file in image.files}
    groups: dict[tuple[int, Lba | None], list[IsoFile]] = defaultdict(list)
    for path, table in sorted(exchanged.items(), key=lambda one: one[0]):
        if path not in by_path:
            raise ImageError(f"has no file {printable(path)}", image.place)
        file = by_path[path]
        if not file.is_regular:
            raise UnsupportedError("is no regular file", image.place.inside(path))
        groups[id(table), file.records[0].lba if file.size else None].append(file)
    starts = [_by_start(tree) for tree in image.trees]
    return tuple(_exchange(image, starts, files, exchanged[files[0].path]) for files in _split_empty(groups.values()))


def _split_empty(groups: Iterable[list[IsoFile]]) -> Iterator[list[IsoFile]]:
    """Empty files share nothing, whatever block their records name."""
    for files in groups:
        yield from ([one] for one in files) if not files[0].size else [files]


def _by_start(tree: IsoTree) -> dict[Lba, list[IsoFile]]:
    found: dict[Lba, list[IsoFile]] = defaultdict(list)
    for file in tree.files:
        if file.size:
            found[file.records[0].lba].append(file)
    return found


def _exchange(
    image: IsoImage, starts: Sequence[Mapping[Lba, list[IsoFile]]], files: Sequence[IsoFile], table: PieceTable
) -> FileReplacement:
    first, place = files[0], image.place.inside(files[0].path)
    if not all(record.is_plain for file in files for record in file.records):
        raise UnsupportedError("cannot be exchanged: it has an extended attribute record or is interleaved", place)
    lba = first.records[0].lba
    paths = {file.path for file in files}
    alone = lba >= image.session_lba and bool(first.size) and {one.path for one in starts[0][lba]} == paths
    if alone:
        spans = first.spans
        if len(spans) != 1:
            raise UnsupportedError("cannot be exchanged: its extents do not follow each other", place)
        names = [(tree, file) for tree, found in zip(image.trees, starts, strict=True) for file in found.get(lba, ())]
        exchange = FileReplacement(first.path, table, tuple(names), spans[0])
    else:
        if image.udf:
            raise UnsupportedError("cannot be exchanged beside UDF: it is empty, or other names share its data", place)
        names = [(image.trees[0], file) for file in files]
        for tree, found in zip(image.trees[1:], starts[1:], strict=True):
            names += [(tree, file) for file in _same_names(tree, found.get(lba, []), paths, place, bool(first.size))]
        exchange = FileReplacement(first.path, table, tuple(names), None)
    _check_pointers(image, exchange, place)
    return exchange


def _same_names(
    tree: IsoTree, sharing: Sequence[IsoFile], paths: set[bytes], place: Place, shared: bool
) -> list[IsoFile]:
    """The files of another tree that are the ones at ``paths``, though others share their extent or they are empty."""
    found = [file for file in (sharing if shared else tree.files) if file.path in paths]
    if len(found) != len(paths) and (sharing if shared else tree.files):
        raise UnsupportedError(f"cannot be exchanged alone: the {tree.kind} tree has no file of that name", place)
    return found


def _check_pointers(image: IsoImage, exchange: FileReplacement, place: Place) -> None:
    """:raises UnsupportedError: something that cannot follow points at the file."""
    span = exchange.old_span
    if span is None:
        return
    if image.catalog and span.start <= image.catalog.lba < span.end:
        raise UnsupportedError("is the boot catalog, which is kept as it is", place)
    for image_at in image.boot_images:
        start = image_at.entry.lba
        if span.start < start < span.end:
            raise UnsupportedError("a boot image begins inside it", place)
        if start == span.start and image_at.entry.media and exchange.table.length != image_at.length:
            raise UnsupportedError(
                f"is the image of an emulated drive and has to keep its {image_at.length:,} bytes", place
            )
        least = GRUB2_IMAGE_OFFSET + 8 if image_at.has_grub2_pointer else TABLE_END if image_at.boot_info else 1
        if start == span.start and exchange.table.length < least:
            raise UnsupportedError(f"is a boot image and cannot be shorter than {least:,} bytes", place)
    if not exchange.table.length and any(one.span.start == span.start for one in image.partitions):
        raise UnsupportedError("a partition begins with it, so it cannot be empty", place)
    for one in image.firmware:
        for target in one.targets:
            inside = span.start * BLOCK <= target.start < span.end * BLOCK
            if inside and not exchange.keeps_size:
                raise UnsupportedError(f"the {one.name}'s {target.name} points at it", place)


def update_boot_tables(table: PieceTable, images: Iterable[BootImage], lba: Lba) -> PieceTable:
    """A boot image's new bytes at block ``lba``, with the tables inside it that the old one had, made true.

    The grub2 pointer comes first: the boot-info-table's sum covers it.
    """
    for image in images:
        if image.has_grub2_pointer:
            table = table.patched([(GRUB2_IMAGE_OFFSET, pack_grub2_image_pointer(lba))])
        if image.boot_info:
            info = BootInfoTable(FIRST_DESCRIPTOR, lba, table.length, compute_boot_image_checksum(table.chunks()))
            table = table.patched([(TABLE_OFFSET, info.pack())])
    return table


def check_removal(image: IsoImage, edits: IsoEdits, *, drop_hfsplus: bool) -> None:
    """:raises UnsupportedError: something that cannot follow points at a file that should go."""
    gone = [file for file in image.files if file.size and edits.removed and edits.new_path(file.path) is None]
    for file in gone:
        place = image.place.inside(file.path)
        for span in file.spans:
            if image.catalog and span.start <= image.catalog.lba < span.end:
                raise UnsupportedError("is the boot catalog, which the firmware looks for", place)
            if any(span.start <= one.entry.lba < span.end for one in image.boot_images):
                raise UnsupportedError("is a boot image: an El Torito entry leads to it", place)
            if any(span.start <= one.span.start < span.end and not one.is_filler for one in image.partitions):
                raise UnsupportedError("a partition begins with it", place)
            for one in image.firmware:
                for target in one.targets:
                    if span.start * BLOCK <= target.start < span.end * BLOCK:
                        raise UnsupportedError(f"the {one.name}'s {target.name} points at it", place)
            if not drop_hfsplus and any(one.span.overlaps(span) for one in image.hfs_partitions):
                raise UnsupportedError(
                    "cannot be removed: an HFS+ file system names it too (--drop-hfsplus gives that file system up)",
                    place,
                )
