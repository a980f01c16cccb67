"""Replace the contents of files: find every directory record to update, and refuse what cannot be updated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from cosremaster.boot.pointers import (
    GRUB2_IMAGE_OFFSET,
    TABLE_END,
    TABLE_OFFSET,
    BootInfoTable,
    compute_boot_image_checksum,
    pack_grub2_image_pointer,
)
from cosremaster.errors import ImageError, Place, SizeError, UnsupportedError, printable
from cosremaster.io.pieces import PieceTable
from cosremaster.io.streams import same_bytes
from cosremaster.iso.ecma119.sections import MAX_EXTENT, split_into_sections
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import BootImage, IsoFile, IsoImage, IsoTree
from cosremaster.iso.spans import Span
from cosremaster.records import Struct, field
from cosremaster.units import BLOCK, Lba

NO_BLOCK = Lba(0)


class FileReplacement(Struct, frozen=True):
    """New bytes for a file of the image.

    ``files``: the file's entries in all trees. ``old_span``: the blocks that the new bytes may take; None where other
    names or earlier sessions still need them, or there are none, so that the new bytes need a span of their own.
    ``old_size``: the length of the old bytes. ``is_hidden``: the primary tree does not show the file. ``start``: the
    first block of the new bytes, as soon as it is planned.
    """

    path: bytes
    table: PieceTable
    files: tuple[tuple[IsoTree, IsoFile], ...]
    old_span: Span | None
    old_size: int
    is_hidden: bool = False
    start: Lba = NO_BLOCK

    @property
    def keeps_size(self) -> bool:
        """Whether the file keeps its length."""
        return self.table.length == self.old_size

    def extra_records(self) -> Iterator[tuple[IsoFile, int]]:
        """Yield each name of the file, and how many records its new size needs beside those it has.

        The number is negative where it needs fewer: programs that read one extent alone find the whole file then.
        """
        count = len(split_into_sections(self.table.length))
        yield from ((file, count - len(file.records)) for _, file in self.files)


class HiddenFile(Struct, frozen=True):
    """A file that the primary tree does not show, all names of which are exchanged.

    ``files``: its entries in trees of directory records. ``span``: the blocks of its data. ``size``: bytes.
    """

    files: tuple[tuple[IsoTree, IsoFile], ...]
    span: Span
    size: int


class LinkChanges(Struct, frozen=True):
    """Changes of hard links' records. ``patches``: bytes by their offset in the old image; ``serials``: new numbers."""

    patches: Mapping[int, bytes] = field(default_factory=dict)
    serials: frozenset[int] = frozenset()


def resolve_replacements(
    image: IsoImage,
    replaced: Mapping[bytes, PieceTable],
    hidden: Mapping[bytes, HiddenFile],
    names: Mapping[int, bytes],
) -> tuple[FileReplacement, ...]:
    """Find the entries in all trees of each file that gets new bytes.

    Names that share an extent and get the same table still share it.

    :param replaced: the new bytes of files, by path.
    :param hidden: those of the files that the primary tree does not show, by path.
    :param names: the primary tree's names of the files of all trees, by the offset of their first record; empty where
        all trees have the same names.
    :raises ImageError: when a file does not exist.
    :raises UnsupportedError: when a file cannot be replaced.
    """
    by_path = {file.path: file for file in image.trees[0].find_files(replaced)} if replaced else {}
    groups: dict[tuple[int, Lba | None], list[IsoFile]] = defaultdict(list)
    resolved = list[FileReplacement]()
    for path, table in sorted(replaced.items(), key=lambda item: item[0]):
        if path in hidden:
            resolved.append(_make_hidden_replacement(image, path, hidden[path], table))
            continue
        if path not in by_path:
            raise ImageError(f"has no file {printable(path)}", image.place)
        file = by_path[path]
        if not file.is_regular:
            raise UnsupportedError("is no regular file", image.place.inside(path))
        groups[id(table), file.start if file.size else None].append(file)
    starts = {start for _, start in groups if start is not None}
    by_start = [_group_by_start(tree, starts) for tree in image.trees] if groups else []
    for files in _split_empty(_join_led_to(image, groups, replaced)):
        resolved.append(_make_replacement(image, by_start, files, replaced[files[0].path], names))
    return tuple(resolved)


def _make_hidden_replacement(image: IsoImage, path: bytes, file: HiddenFile, table: PieceTable) -> FileReplacement:
    """Return the replacement of a file that the primary tree does not show."""
    replacement = FileReplacement(path, table, file.files, file.span, file.size, is_hidden=True)
    _check_pointers(image, replacement, image.place.inside(path))
    return replacement


def _list_led_blocks(image: IsoImage) -> Iterator[tuple[Lba, str]]:
    """Yield the blocks to which more than names leads, each with the words for what does."""
    yield from ((boot.entry.lba, "an El Torito entry") for boot in image.boot_images)
    yield from ((partition.span.start, partition.name) for partition in image.partitions if not partition.is_filler)
    for header in image.firmware:
        yield from ((Lba(target.start // BLOCK), f"the {header.name}'s {target.name}") for target in header.targets)


def _join_led_to(
    image: IsoImage, groups: Mapping[tuple[int, Lba | None], list[IsoFile]], replaced: Mapping[bytes, PieceTable]
) -> Iterable[list[IsoFile]]:
    """Return the files of ``groups``, those together that share a boot image and get the same bytes.

    So all of its names can be exchanged, each from a file of its own: the boot entry leads to what they have then.

    :param groups: by the id of the new bytes and the first block of the old ones.
    """
    if len({start for _, start in groups}) == len(groups):  # as mostly: no two share old bytes and get others
        return groups.values()
    led = {block for block, _ in _list_led_blocks(image)}
    joined: dict[tuple[int, Lba | None], list[IsoFile]] = {}
    for (number, start), files in groups.items():
        table = replaced[files[0].path]
        same = (key for key in joined if start in led and key[1] == start)
        key = next((key for key in same if _have_same_bytes(replaced[joined[key][0].path], table)), (number, start))
        joined[key] = [*joined.get(key, ()), *files]
    return joined.values()


def _have_same_bytes(first: PieceTable, second: PieceTable) -> bool:
    """Return whether both tables have the same bytes."""
    return first.length == second.length and same_bytes(first.chunks(), second.chunks())


def _split_empty(groups: Iterable[list[IsoFile]]) -> Iterator[list[IsoFile]]:
    """Yield the groups of files that share an extent; empty files share none, whatever block their records name."""
    for files in groups:
        yield from ([file] for file in files) if not files[0].size else [files]


def _group_by_start(tree: IsoTree, starts: AbstractSet[Lba]) -> dict[Lba, list[IsoFile]]:
    """Return the files of ``tree`` that are not empty and begin at a block of ``starts``, by that."""
    by_start: dict[Lba, list[IsoFile]] = defaultdict(list)
    for file in tree.find_files_at(starts):
        if file.size:
            by_start[file.start].append(file)
    return by_start


def _make_replacement(
    image: IsoImage, by_start: Sequence[Mapping[Lba, list[IsoFile]]], files: Sequence[IsoFile], table: PieceTable,
    names: Mapping[int, bytes],
) -> FileReplacement:  # fmt: skip
    """Return the replacement of ``files``, entries of the primary tree that share an extent.

    :param by_start: for each tree, its files by their first block.
    :param names: see :func:`resolve_replacements`.
    :raises UnsupportedError: when the files cannot be replaced.
    """
    first, place = files[0], image.place.inside(files[0].path)
    if not all(record.is_plain for file in files for record in file.records):
        raise UnsupportedError("cannot be exchanged: it has an extended attribute record or is interleaved", place)
    lba = first.start
    paths = {file.path for file in files}
    is_alone = lba >= image.session_lba and bool(first.size) and {file.path for file in by_start[0][lba]} == paths
    if is_alone:
        spans = first.spans
        if len(spans) != 1:
            raise UnsupportedError("cannot be exchanged: its extents do not follow each other", place)
        sharing = zip(image.trees, (starts.get(lba, ()) for starts in by_start), strict=True)
        entries = [(tree, file) for tree, tree_files in sharing for file in tree_files]
        replacement = FileReplacement(first.path, table, tuple(entries), spans[0], first.size)
    else:
        if image.udf:
            raise UnsupportedError("cannot be exchanged beside UDF: it is empty, or other names share its data", place)
        others = [file.path for file in by_start[0].get(lba, ()) if file.path not in paths]
        _check_not_led_to(image, first, others, place)
        entries = [(image.trees[0], file) for file in files]
        for tree, starts in zip(image.trees[1:], by_start[1:], strict=True):
            candidates = starts.get(lba, []) if first.size else tree.files
            entries += [(tree, file) for file in candidates if names.get(file.records[0].offset, file.path) in paths]
        replacement = FileReplacement(first.path, table, tuple(entries), None, first.size)
    _check_pointers(image, replacement, place)
    return replacement


def _check_not_led_to(image: IsoImage, file: IsoFile, others: Sequence[bytes], place: Place) -> None:
    """Check that no boot record leads to the old bytes of ``file``, which stay where they are.

    :param others: the names that keep the old bytes; empty where these are of an earlier session.
    :raises UnsupportedError: when one does, for it would go on to lead to the old bytes.
    """
    for block, what in _list_led_blocks(image) if file.size else ():
        if any(span.start <= block < span.end for span in file.spans):
            reason = "they are of an earlier session, which stays"
            if others:
                reason = f"{printable(others[0])} has them too (exchange all names of the file in one run)"
            raise UnsupportedError(
                f"cannot be exchanged: {what} leads to its bytes and would go on to lead to the old ones, as {reason}",
                place,
            )


def _check_pointers(image: IsoImage, replacement: FileReplacement, place: Place) -> None:
    """Check that everything that points at the old blocks of a file can be updated.

    :raises UnsupportedError: when a structure cannot.
    """
    span, length = replacement.old_span, replacement.table.length
    if span is None:
        return
    if image.catalog and span.start <= image.catalog.lba < span.end:
        raise UnsupportedError("is the boot catalog, which is kept as it is", place)
    for boot in image.boot_images:
        _check_boot_image(boot, span, length, place)
    if not length and any(partition.span.start == span.start for partition in image.partitions):
        raise UnsupportedError("a partition begins with it, so it cannot be empty", place)
    if not replacement.keeps_size:
        _check_firmware_targets(image, span, place)


def _check_boot_image(boot: BootImage, span: Span, length: int, place: Place) -> None:
    """Check that a boot image in ``span`` can become ``length`` bytes long.

    :raises UnsupportedError: when it cannot.
    """
    start = boot.entry.lba
    if span.start < start < span.end:
        raise UnsupportedError("a boot image begins inside it", place)
    if start != span.start:
        return
    if boot.entry.media and length != boot.length:
        raise UnsupportedError(f"is the image of an emulated drive and has to keep its {boot.length:,} bytes", place)
    least = GRUB2_IMAGE_OFFSET + 8 if boot.has_grub2_pointer else TABLE_END if boot.boot_info else 1
    if length < least:
        raise UnsupportedError(f"is a boot image and cannot be shorter than {least:,} bytes", place)
    if boot.boot_info and length > MAX_EXTENT:
        raise SizeError(f"is a boot image whose table holds its length, {MAX_EXTENT:,} bytes at most", place)


def _check_firmware_targets(image: IsoImage, span: Span, place: Place) -> None:
    """Check that no header of firmware points into ``span``. :raises UnsupportedError: when one does."""
    for header in image.firmware:
        for target in header.targets:
            if span.start * BLOCK <= target.start < span.end * BLOCK:
                raise UnsupportedError(f"the {header.name}'s {target.name} points at it", place)


def update_boot_tables(table: PieceTable, images: Iterable[BootImage], lba: Lba) -> PieceTable:
    """Return the new bytes ``table`` of boot images at block ``lba``, with right tables where the old ones had tables.

    The GRUB2 pointer is written first, because the checksum of the boot information table covers it.
    """
    for image in images:
        if image.has_grub2_pointer:
            table = table.patched([(GRUB2_IMAGE_OFFSET, pack_grub2_image_pointer(lba))])
        if image.boot_info:
            total = compute_boot_image_checksum(table.chunks())
            info = BootInfoTable(image.boot_info.descriptor, lba, table.length, total)
            table = table.patched([(TABLE_OFFSET, info.pack())])
    return table


def check_removal(image: IsoImage, edits: IsoEdits, *, drop_hfsplus: bool) -> None:
    """Check that nothing points at a file that ``edits`` remove.

    :param drop_hfsplus: HFS+ file systems are given up.
    :raises UnsupportedError: when a structure that cannot be updated points at a removed file.
    """
    if not edits.removed:
        return
    for file in image.trees[0].find_files_in(edits.may_change_in):
        if file.size and edits.new_path(file.path) is None:
            for span in file.spans:
                check_removed_span(image, span, image.place.inside(file.path), drop_hfsplus)


def check_removed_span(image: IsoImage, span: Span, place: Place, drop_hfsplus: bool) -> None:
    """Check that nothing points into the ``span`` of a removed file; see :func:`check_removal`.

    :raises UnsupportedError: when a structure that cannot be updated does.
    """
    if image.catalog and span.start <= image.catalog.lba < span.end:
        raise UnsupportedError("is the boot catalog, which the firmware looks for", place)
    if any(span.start <= boot.entry.lba < span.end for boot in image.boot_images):
        raise UnsupportedError("is a boot image: an El Torito entry leads to it", place)
    if any(span.start <= p.span.start < span.end and not p.is_filler for p in image.partitions):
        raise UnsupportedError("a partition begins with it", place)
    if any(span.start * BLOCK <= area.start < span.end * BLOCK for area in image.embed_areas):
        raise UnsupportedError("cannot be removed: the CoreOS header names an area in it", place)
    _check_firmware_targets(image, span, place)
    if not drop_hfsplus and any(partition.span.overlaps(span) for partition in image.hfs_partitions):
        raise UnsupportedError(
            "cannot be removed: an HFS+ file system names it too (--drop-hfsplus gives that file system up)", place
        )
