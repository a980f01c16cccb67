"""Plan the new image: the layout, the data at their new places, and every pointer to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from cosremaster.errors import ImageError, ProofError, UnsupportedError, printable
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import DirectoryRecord, locate_record
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.hidden import may_hide_names
from cosremaster.iso.layout.alignment import find_alignment
from cosremaster.iso.layout.checksum_tags import warn_of_checksum_tags
from cosremaster.iso.layout.expected import ExpectedTree, is_removed
from cosremaster.iso.layout.extents import (
    check_apart,
    find_data_end,
    find_first_data,
    find_slack,
    find_unreferenced,
    join_kept_runs,
    join_runs,
    list_udf_only_spans,
)
from cosremaster.iso.layout.implanted_md5 import update_implanted_md5
from cosremaster.iso.layout.partition_tables import warn_of_wrong_sums
from cosremaster.iso.layout.place import Layout, VolumeSpans, find_gaps, pin_overlaps, plan_layout
from cosremaster.iso.layout.pointers import plan_pointer_patches
from cosremaster.iso.layout.replace import (
    FileReplacement,
    LinkChanges,
    check_removal,
    resolve_replacements,
    update_boot_tables,
)
from cosremaster.iso.model import IsoImage
from cosremaster.iso.spans import Span
from cosremaster.iso.udf.read import encode_path
from cosremaster.records import Struct, field, replace
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, Sector, blocks_for, lba_offset

if TYPE_CHECKING:
    from cosremaster.iso.layout.replace import HiddenFile
    from cosremaster.iso.merged import MergedTrees
    from cosremaster.iso.tree_edit.restructure import RestructuredTrees


class ImagePlan(Struct, frozen=True):
    """The new image: its bytes as pieces, and the places of its structures.

    ``replaced_sizes``: the new length in bytes of each replaced file of the primary tree, by path. ``replacements``:
    the replacements with the bytes that are written (boot images with right tables inside). ``drops_hfsplus``: HFS
    partitions become fillers. ``overwrites``: new bytes by their byte offset in the old image; they move with the
    structure that they belong to. ``expected_trees``: the files of each new tree, by the block of its volume
    descriptor; None if no name is added, removed or changed. ``warnings``: sentences for the user.
    """

    table: PieceTable
    layout: Layout
    replaced_sizes: Mapping[bytes, int]
    replacements: tuple[FileReplacement, ...] = ()
    drops_hfsplus: bool = False
    overwrites: Mapping[int, PieceTable] = field(default_factory=dict)
    expected_trees: Mapping[Lba, ExpectedTree] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def replacements_by_record(self) -> dict[int, FileReplacement]:
        """The replacements by the byte offset of each first record of a replaced file on the old image."""
        return {file.records[0].offset: new for new in self.replacements for _, file in new.files}


def plan_copy(
    image: IsoImage, overwrites: Mapping[int, bytes] | None = None, areas: Mapping[int, PieceTable] | None = None
) -> ImagePlan:
    """Return the plan that makes ``image`` again, except for the bytes of ``overwrites`` and ``areas``.

    Both are new bytes by byte offset; ``areas``: as in :class:`IsoEdits`.
    """
    all_overwrites = _join_overwrites(image, overwrites or {}, areas or {})
    layout = Layout((), image.tail, image.tail, (image.tail, image.tail))
    table = PieceTable([image.source])
    if all_overwrites:
        table = update_implanted_md5(image, table.patched(all_overwrites.items()), layout)
        table = _renew_media_tags(image, table, layout)
    warnings = (*_warn_of_signature(image), *warn_of_checksum_tags(image)) if all_overwrites else ()
    return ImagePlan(table, layout, {}, overwrites=all_overwrites, warnings=warnings)


def _join_overwrites(
    image: IsoImage, overwrites: Mapping[int, bytes], areas: Mapping[int, PieceTable]
) -> dict[int, PieceTable]:
    """Return ``overwrites``, and those bytes of ``areas`` that are not the old image's, by byte offset."""
    joined = {at: PieceTable([Literal(data)]) for at, data in overwrites.items()}
    for start, table in areas.items():
        at = start
        for piece in table.pieces:
            is_old = (
                piece.source is image.source.source and piece.offset == at
                if isinstance(piece, Range)
                else isinstance(piece, Literal) and image.source.read(at, piece.length) == piece.data
            )
            if not is_old:
                joined[at] = PieceTable([piece])
            at += piece.length
    return joined


def plan_image(
    image: IsoImage, source: ByteSource, edits: IsoEdits, *, drop_hfsplus: bool = False,
    overwrites: Mapping[int, bytes] | None = None,
) -> ImagePlan:  # fmt: skip
    """Plan the image after ``edits`` of its own tree.

    :param source: the file that holds the old image.
    :param drop_hfsplus: give up an HFS+ file system over the files; its partitions become fillers.
    :param overwrites: new bytes, by their byte offset in the old image, for structures that are not files: volume
        descriptors, appended partitions.
    :raises ImageError: when an edited file does not exist.
    :raises UnsupportedError: when a structure of the image cannot be updated.
    :raises SizeError: when there are more directories than a path table can number.
    """
    if image.blockers:
        raise UnsupportedError(f"has {' and '.join(image.blockers)}; so no file on it can be changed", image.place)
    settled, hidden, names, merged = _plan_exchanges(image, source, edits)
    replacements = resolve_replacements(image, settled.replaced, hidden, names)
    drop = drop_hfsplus and bool(image.hfs_partitions)
    if not drop:
        _check_hfs(image, replacements)
    _check_removal(image, settled, merged, drop=drop)
    links = _plan_link_changes(image, source, settled, replacements)
    trees = _restructure_trees(image, source, settled, replacements, merged, links)
    layout = _plan_layout(image, source, replacements, drop, trees, edits.step)
    _check_firmware(image, layout)
    _check_cautions(image, source, layout, replacements, trees)
    replaced_starts, tree_starts = _split_appended(layout, replacements, trees)
    placed = _place_replacements(image, replacements, layout, replaced_starts)
    layout = _cover_records(image, layout, placed, trees)
    pointers, contents = plan_pointer_patches(image, source, layout, placed, drop=drop), dict[Lba, PieceTable]()
    patches = {**pointers.staying, **links.patches}
    if trees is not None:
        patches, contents = trees.render(tree_starts, placed, patches)
    tail = image.source.cut(min(lba_offset(Lba(layout.old_tail)), image.size), image.size)
    body = _join_body(image, layout, placed, contents, trees.vacated if trees else ())
    table = _patch_structures(image, PieceTable([*body.pieces, tail]), [*patches.items(), *pointers.moving.items()])
    _check_unchanged_files(image, table, layout, placed, trees)
    all_overwrites = _join_overwrites(image, overwrites or {}, edits.areas)
    table = table.patched((map_offset(layout, at), data) for at, data in all_overwrites.items())
    sizes = {file.path: new.table.length for new in placed for tree, file in new.files if tree is image.trees[0]}
    sizes |= {path: replacement.length for path, replacement in edits.replaced.items()}
    return ImagePlan(
        _renew_media_tags(image, update_implanted_md5(image, table, layout), layout), layout, sizes, placed, drop,
        all_overwrites,
        None if trees is None else trees.expected_files(layout, placed),
        (*_list_tree_warnings(image, layout, replacements, trees), *_warn_of_sections(replacements, trees),
         *warn_of_wrong_sums(image.gpt), *_warn_of_signature(image), *warn_of_checksum_tags(image)),
    )  # fmt: skip


def _check_cautions(
    image: IsoImage, source: ByteSource, layout: Layout, replacements: Sequence[FileReplacement],
    trees: RestructuredTrees | None,
) -> None:  # fmt: skip
    """Check that all that unknown structures of ``image`` may name stays. Raises as :func:`check_cautions`."""
    if image.cautions:
        from cosremaster.iso.layout.cautions import check_cautions  # noqa: PLC0415 - few images have any

        check_cautions(image, source, layout, replacements, trees.removed_data if trees else ())


def _renew_media_tags(image: IsoImage, table: PieceTable, layout: Layout) -> PieceTable:
    """Return the new image ``table`` with right digests in its tags. Raises as :func:`update_media_tags`."""
    if image.media_tags is None:
        return table
    from cosremaster.iso.layout.media_tags import update_media_tags  # noqa: PLC0415 - few images have tags

    return update_media_tags(image, table, layout)


def _warn_of_signature(image: IsoImage) -> Iterator[str]:
    """Yield a warning if the tags of ``image``, which change, are signed."""
    if image.media_tags is not None:
        from cosremaster.iso.layout.media_tags import warn_of_signature  # noqa: PLC0415 - few images have tags

        yield from warn_of_signature(image)


def _patch_structures(image: IsoImage, table: PieceTable, patches: Iterable[tuple[int, bytes]]) -> PieceTable:
    """Return ``table`` with the new bytes of structures. :raises UnsupportedError: two structures share bytes."""
    try:
        return table.patched(patches)
    except ValueError as error:
        raise UnsupportedError(
            f"has structures that overlap ({error}), so no file on it can be changed", image.place
        ) from error


def _plan_link_changes(
    image: IsoImage, source: ByteSource, edits: IsoEdits, replacements: Sequence[FileReplacement]
) -> LinkChanges:
    """Return what changes in the records of hard links of which one gets other bytes or leaves."""
    if not edits.removed and all(replacement.old_span is not None for replacement in replacements):
        return LinkChanges()
    from cosremaster.iso.layout.hard_links import plan_link_changes  # noqa: PLC0415 - a change of a layer goes without

    return plan_link_changes(image, source, replacements, edits)


def _plan_exchanges(
    image: IsoImage, source: ByteSource, edits: IsoEdits
) -> tuple[IsoEdits, Mapping[bytes, HiddenFile], Mapping[int, bytes], MergedTrees | None]:
    """Return ``edits`` as :func:`plan_exchanges` settles them, and the trees if they were read for that.

    Between them are the exchanged files that the primary tree does not show, by path, and the paths of all files by the
    offset of their first record, where trees may name them otherwise.
    """
    if not (image.udf is not None and edits.replaced) and (edits.is_empty or not may_hide_names(image)):
        return edits, {}, {}, None
    from cosremaster.iso.exchange import plan_exchanges  # noqa: PLC0415 - only such images need it
    from cosremaster.iso.merged import read_merged_trees  # noqa: PLC0415 - the same

    merged = read_merged_trees(image, source)
    exchanges = plan_exchanges(image, source, merged, edits)
    return exchanges.edits, exchanges.hidden, exchanges.names, merged


def _check_removal(image: IsoImage, edits: IsoEdits, merged: MergedTrees | None, *, drop: bool) -> None:
    """Check that nothing points at a file that ``edits`` remove from any tree. Raises as :func:`check_removal`."""
    check_removal(image, edits, drop_hfsplus=drop)
    if merged is not None:
        from cosremaster.iso.exchange import check_hidden_removal  # noqa: PLC0415 - only such images need it

        check_hidden_removal(image, merged, edits, drop_hfsplus=drop)


def _restructure_trees(
    image: IsoImage, source: ByteSource, edits: IsoEdits, replacements: Sequence[FileReplacement],
    merged: MergedTrees | None, links: LinkChanges,
) -> RestructuredTrees | None:  # fmt: skip
    """Return the edited trees; None where no record comes, goes or changes. Raises as ``restructure_trees``."""
    needs_records = any(count for replacement in replacements for _, count in replacement.extra_records())
    if not (edits.changes_names or needs_records):
        return None
    from cosremaster.iso.prove_areas import count_data_outside  # noqa: PLC0415 - a change of a layer goes without
    from cosremaster.iso.tree_edit.restructure import restructure_trees  # noqa: PLC0415 - the same

    if edits.added and any(count_data_outside(tree) for tree in image.trees):
        raise ImageError("its volume ends before its data, so that no file can be added to it", image.place)
    return restructure_trees(image, source, edits, replacements, merged, links.serials)


def _list_tree_warnings(
    image: IsoImage, layout: Layout, replacements: Iterable[FileReplacement], trees: RestructuredTrees | None
) -> Iterator[str]:
    """Yield what users have to know of the edited trees."""
    if trees is not None:
        from cosremaster.iso.layout.continued import warn_of_continued  # noqa: PLC0415 - a change of a layer goes without

        yield from trees.warnings
        yield from warn_of_continued(image, layout, replacements, trees.late_records)


def _warn_of_sections(replacements: Iterable[FileReplacement], trees: RestructuredTrees | None) -> Iterator[str]:
    """Yield a warning if a file needs several extents in ISO 9660, which only interchange level 3 allows (10.3)."""
    sizes = dict[bytes, int]()
    for rewrite in trees.rewrites if trees else ():
        nodes = {path: entry.node for path, entry in rewrite.applied.new_entries.items()}
        sizes |= {path: node.content.size for path, node in nodes.items() if node and node.content}
    sizes |= {file.path: new.table.length for new in replacements for _, file in new.files}
    paths = sorted(path for path, size in sizes.items() if len(split_into_sections(size)) > 1)
    if paths:
        more = f" (and {len(paths) - 1:,} more)" if len(paths) > 1 else ""
        yield (
            f"{printable(paths[0])}{more} has more than 4 GiB - 1 and so takes several extents: programs that read no"
            " more than interchange level 2 of ISO 9660, such as isoinfo, find a part of it"
        )


def map_offset(layout: Layout, at: int) -> int:
    """Return the byte offset in the new image of byte ``at`` of the old image."""
    block, rest = divmod(at, BLOCK)
    return lba_offset(layout.map_block(Lba(block))) + rest


def _plan_layout(
    image: IsoImage,
    source: ByteSource,
    replacements: Sequence[FileReplacement],
    drop: bool,
    trees: RestructuredTrees | None,
    step: int,
) -> Layout:
    """Plan the places of all data; what moves moves by a multiple of ``step`` blocks.

    :param drop: HFS partitions are given up.
    :raises UnsupportedError: when a replaced file shares its blocks with a structure that cannot be updated.
    """
    removed_data, vacated = (trees.removed_data, trees.vacated) if trees else (frozenset[Lba](), ())
    dropped = {partition.name for partition in image.hfs_partitions} if drop else set()
    unused = set(vacated)
    kept_spans = [span for span in image.fixed_spans if span.label not in dropped and span not in unused]
    joined = _join_unmoved(image, replacements, trees)
    if joined is None:
        kept_files = (file for tree in image.trees for file in tree.files if not is_removed(file, removed_data))
        files = [span for file in kept_files for span in file.spans]
    else:  # none of them moves, so that it does not count which blocks are whose
        files = joined
    if any(replacement.is_hidden for replacement in replacements):  # files of UDF alone make room for each other
        udf_only = set(list_udf_only_spans(image)) - unused
        files += udf_only
        kept_spans = [span for span in kept_spans if span not in udf_only]
    fixed, movable = pin_overlaps(kept_spans, files)
    first = min((span.start for span in (*(r.old_span for r in replacements if r.old_span), *vacated)), default=Lba(0))
    tail = _find_unused_tail(image, source)
    holes = find_gaps((*fixed, *movable, *vacated), tail)
    fixed += tuple(find_unreferenced(source, [hole for hole in holes if hole.end > first]))
    _check_shared_blocks(image, replacements, files, (*fixed, *movable))
    sizes, appended = dict[Lba, int](), list[Span]()
    for replacement in replacements:
        blocks = blocks_for(replacement.table.length)
        if replacement.old_span is None:
            appended.append(Span(Lba(0), blocks, replacement.path.decode(errors="replace")))
        elif not replacement.keeps_size:
            sizes[replacement.old_span.start] = blocks
    ends = tuple(_list_ends(image))
    empty_blocks = _list_empty_blocks(image, replacements, trees)
    slack = find_slack((tree.end for tree in image.trees), empty_blocks)
    volume = VolumeSpans(fixed, movable, tail, vacated, ends, find_alignment(image), slack, step)
    if trees is None:
        return plan_layout(volume, sizes, appended)
    if not trees.late_records:
        return plan_layout(volume, sizes, (*appended, *trees.appended))
    from cosremaster.iso.layout.continued import list_leaving_spans  # noqa: PLC0415 - few trees have such records

    leaving = list_leaving_spans(image, trees.late_records, replacements, movable, drop=drop)
    last = len(trees.appended) - trees.last_spans
    return plan_layout(volume, sizes, (*trees.appended[:last], *appended, *leaving, *trees.appended[last:]))


def _join_unmoved(
    image: IsoImage, replacements: Sequence[FileReplacement], trees: RestructuredTrees | None
) -> list[Span] | None:
    """Return the spans of files that stay, those that touch as one, and of replaced ones; None where any may move."""
    if trees is not None and trees.late_records:
        return None
    removed = trees.removed_data if trees else frozenset[Lba]()
    if not (replacements or removed):
        return list(join_runs(image.trees))
    old_spans = [replacement.old_span for replacement in replacements if replacement.old_span]
    keeps_blocks = all(
        replacement.old_span is None or replacement.old_span.blocks == blocks_for(replacement.table.length)
        for replacement in replacements
    )
    if not keeps_blocks or any(replacement.is_hidden for replacement in replacements):
        return None
    spans = join_kept_runs(image.trees, removed, [(span.start, span.end) for span in old_spans])
    starts = {(span.start, span.blocks) for span in spans or ()}
    return spans if all((span.start, span.blocks) in starts for span in old_spans) else None


def _split_appended(
    layout: Layout, replacements: Iterable[FileReplacement], trees: RestructuredTrees | None
) -> tuple[list[Lba], list[Lba]]:
    """Return the starts of the new spans: those of replaced files, and those of ``trees``, each in its order."""
    starts = [placement.start for placement in layout.appended]
    count = sum(new.old_span is None for new in replacements)
    first = len(trees.appended) - trees.last_spans if trees is not None and trees.late_records else 0
    return starts[first : first + count], [*starts[:first], *starts[first + count :]]


def _list_empty_blocks(
    image: IsoImage, replacements: Iterable[FileReplacement], trees: RestructuredTrees | None
) -> Iterator[Lba]:
    """Yield the blocks that records without data name in the new image, as far as they are in the old one."""
    if trees is None:
        yield from (lba for tree in image.trees for lba in tree.empty_blocks)
    else:
        yield from (lba for rewrite in trees.rewrites for lba in rewrite.tree.empty_blocks())
    for replacement in replacements:
        if not replacement.table.length:
            yield from (record.lba for _, file in replacement.files for record in file.records)


def _check_shared_blocks(
    image: IsoImage, replacements: Iterable[FileReplacement], files: Sequence[Span], spans: Iterable[Span]
) -> None:
    """Check that each replaced file has a span of ``spans`` for itself, or keeps its size and overlaps no other file.

    :raises UnsupportedError: when a file does not.
    :raises ImageError: when it lies in blocks of the image's own structures.
    """
    unshared = {(span.start, span.blocks) for span in spans}
    replaced = (file for new in replacements if new.old_span for _, file in new.files)
    check_apart(image, ((file.path, file.spans) for file in replaced))
    for replacement in replacements:
        old = replacement.old_span
        if old is None or (old.start, old.blocks) in unshared:
            continue
        if not replacement.keeps_size or any(old.overlaps(span) for span in files if span.start != old.start):
            raise UnsupportedError(
                "cannot be exchanged: a boot record or another file shares its blocks",
                image.place.inside(replacement.path),
            )


def _find_unused_tail(image: IsoImage, source: ByteSource) -> Lba:
    """Return the first block of the tail; data after the volume that nothing refers to belong to it."""
    end = max(find_data_end(image.trees, image.fixed_spans), min(tree.end for tree in image.trees))
    if end >= image.tail:
        return image.tail
    first = find_first_data(source, Span(end, image.tail - end, ""))
    return image.tail if first is None else first


def _list_ends(image: IsoImage) -> Iterator[Sector]:
    """Yield the ends of volumes, and of partitions that cover the volume."""
    yield from (Sector(tree.end * SECTORS_PER_BLOCK) for tree in image.trees)
    yield from (partition.end for partition in image.partitions if partition.covers_volume(image.trees))


def _place_replacements(
    image: IsoImage, replacements: Iterable[FileReplacement], layout: Layout, appended_starts: Iterable[Lba]
) -> tuple[FileReplacement, ...]:
    """Return the replacements with their places, and with right tables inside boot images.

    :param appended_starts: the first blocks of those that need a span of their own.
    """
    placed, starts = [], iter(appended_starts)
    for new in replacements:
        start = layout.map_block(new.old_span.start) if new.old_span else next(starts)
        images = [boot for boot in image.boot_images if new.old_span and boot.entry.lba == new.old_span.start]
        placed.append(replace(new, table=update_boot_tables(new.table, images, start), start=start))
    return tuple(placed)


def _cover_records(
    image: IsoImage, layout: Layout, placed: Iterable[FileReplacement], trees: RestructuredTrees | None
) -> Layout:
    """Return ``layout`` with the end of what records name, where a volume ends before the data."""
    if all(tree.end >= layout.data_ends[0] for tree in image.trees):
        return layout
    ends = [new.start + blocks_for(new.table.length) for new in placed if new.files]
    ends += [
        layout.map_block(span.start) + span.blocks for tree in image.trees for file in tree.files for span in file.spans
    ]
    changed = (directory for rewrite in trees.rewrites for directory in rewrite.tree.directories()) if trees else ()
    if any(directory.is_changed for directory in changed):
        ends.append(layout.data_ends[1])
    return replace(layout, records_end=max(ends, default=0))


def _check_hfs(image: IsoImage, replacements: Iterable[FileReplacement]) -> None:
    """Check that no file that an HFS file system names changes its size.

    :raises UnsupportedError: when a file of an HFS file system does.
    """
    for new in replacements:
        for hfs in image.hfs_partitions:
            is_outside = new.old_span is not None and not new.old_span.overlaps(hfs.span)
            if not (is_outside or new.keeps_size):
                raise UnsupportedError(
                    f"cannot change size: the HFS+ file system in {hfs.name} names it too (--drop-hfsplus gives that"
                    " file system up; PCs do not use it)",
                    image.place.inside(new.path),
                )


def _check_firmware(image: IsoImage, layout: Layout) -> None:
    """Check that no header of firmware would have to change.

    The targets of headers are fixed, but a slice that covers the volume may have an end that moves.

    :raises UnsupportedError: when a target moves and is not one of the partitions that are updated.
    """
    first = image.trees[0].directories[0].lba * BLOCK
    partitions = {(p.start * SECTOR, (p.end - p.start) * SECTOR) for p in image.partitions}
    for header in image.firmware:
        for target in header.targets:
            end = Sector(-(-(target.start + target.length) // SECTOR))
            start = Sector(target.start // SECTOR)
            moves = layout.map_end(end) != end if target.start <= first else layout.map_start(start) != start
            if moves and (target.start, target.length) not in partitions:
                raise UnsupportedError(
                    f"the {header.name}'s {target.name} would have to change with the image, which this version cannot",
                    image.place.at(target.pointer_offset),
                )


def _join_body(
    image: IsoImage,
    layout: Layout,
    placed: Sequence[FileReplacement],
    contents: Mapping[Lba, PieceTable],
    vacated: Iterable[Span],
) -> PieceTable:
    """Return the new image up to its tail.

    Everything before the first change is as in the old image, then follow all spans, with zeros between them.

    :param contents: the bytes of appended spans that are not in ``placed``, by their first block.
    """
    rewritten = [new for new in placed if not (new.old_span and new.keeps_size)]
    contents = {**{new.start: new.table for new in rewritten if new.table.length}, **contents}
    placements = sorted((*layout.placements, *layout.appended), key=lambda placement: (placement.start, placement.end))
    changes = [new.old_span.start for new in placed if new.old_span]
    changes += [placement.start for placement in placements if placement.start in contents]
    changes += [span.start for span in vacated]
    changes += [placement.span.start for placement in layout.placements if placement.start != placement.span.start]
    at = lba_offset(min([Lba(layout.old_tail), *changes]))
    pieces: list[Piece] = [image.source.cut(0, min(at, image.size))]
    for placement in placements:
        start, skipped = lba_offset(placement.start), max(0, at - lba_offset(placement.start))
        if skipped >= placement.blocks * BLOCK:
            continue
        pieces.append(Zeros(start + skipped - at))
        if placement.start in contents:
            pieces += contents[placement.start].pieces
            at = start + contents[placement.start].length
        else:
            old_start = lba_offset(placement.span.start)
            old_end = min(old_start + placement.blocks * BLOCK, image.size)
            pieces.append(image.source.cut(old_start + skipped, old_end))
            at = start + old_end - old_start
    body = PieceTable([*pieces, Zeros(layout.tail * BLOCK - at)])
    for new in placed:
        if new.old_span and new.keeps_size:
            body = _overwrite(body, lba_offset(new.start), new.table)
    return body


def _overwrite(table: PieceTable, start: int, new: PieceTable) -> PieceTable:
    """Return ``table`` with the bytes of ``new`` from byte ``start`` on."""
    parts = (table.cut(0, start), new, table.cut(start + new.length, table.length))
    return PieceTable(piece for part in parts for piece in part.pieces)


def _check_unchanged_files(
    image: IsoImage,
    table: PieceTable,
    layout: Layout,
    placed: Iterable[FileReplacement],
    trees: RestructuredTrees | None,
) -> None:
    """Check that the planned ``table`` holds, at its new place, each file that is neither replaced nor removed.

    The boot catalog is left out where it is a file, because its entries are patched.

    :raises ImageError: when the plan would lose a file's data, which lie in something else on the image.
    :raises ProofError: when it would lose them for no such reason.
    """
    replaced = {record.offset for new in placed for _, file in new.files for record in file.records}
    removed_data = trees.removed_data if trees else frozenset[Lba]()
    files = (file for tree in image.trees for file in tree.files if not is_removed(file, removed_data))
    catalog_lba = image.catalog.lba if image.catalog else None
    is_held = (
        _holds_kept(image, table, layout, replaced, removed_data)
        if replaced or removed_data
        else _holds_all(image, table, layout)
    )
    records = [
        record
        for file in (() if is_held else files)
        for record in file.records
        if record.length and record.offset not in replaced and record.lba != catalog_lba
    ]
    for record in _find_lost_records(image, table, layout, records):
        lost = (file for tree in image.trees for file in tree.files if record in file.records)
        check_apart(image, ((file.path, file.spans) for file in lost))
        raise ProofError("the plan would lose its data", locate_record(image.place, record))
    rewritten = removed_data | {new.old_span.start for new in placed if new.old_span}
    rewritten |= {image.catalog.lba} if image.catalog else set()
    for udf_file in image.udf.files if image.udf else ():
        if any(lba in rewritten for lba, _ in udf_file.extents[:1]):
            continue
        if not all(_holds_copy(image, table, layout, lba, length) for lba, length in udf_file.extents):
            path = encode_path(udf_file.path)
            check_apart(image, [(path, udf_file.spans)])
            raise ProofError("the plan would lose its data", image.place.inside(path).at(udf_file.entry_offset))


def _find_lost_records(
    image: IsoImage, table: PieceTable, layout: Layout, records: Sequence[DirectoryRecord]
) -> Iterator[DirectoryRecord]:
    """Yield those of ``records`` whose data the planned ``table`` does not hold at their new place.

    Data that follow each other, and move alike, are compared together; then what holds need not be looked at again.
    """
    held = set[tuple[Lba, int]]()
    for run in _split_at_moves(layout, sorted({(record.lba, record.length) for record in records})):
        first, end = run[0][0], max(lba_offset(lba) + length for lba, length in run)
        if _holds_copy(image, table, layout, first, end - lba_offset(first)):
            held.update(run)
    for record in records:
        is_held = (record.lba, record.length) in held
        if not is_held and not _holds_copy(image, table, layout, record.lba, record.length):
            yield record


def _holds_all(image: IsoImage, table: PieceTable, layout: Layout) -> bool:
    """Return whether the planned ``table`` holds all blocks of files of ``image``, where none of them moves.

    False where it does not in some, as a file may end inside a block that changes.
    """
    if any(layout.may_move(tree.data_end) for tree in image.trees):
        return False
    spans = join_runs(image.trees)
    ends = ((span.start, min(lba_offset(span.end), image.size) - lba_offset(span.start)) for span in spans)
    return all(_holds_copy(image, table, layout, lba, length) for lba, length in ends)


def _holds_kept(
    image: IsoImage, table: PieceTable, layout: Layout, replaced: AbstractSet[int], removed_data: frozenset[Lba]
) -> bool:
    """Return whether the planned ``table`` holds all files of ``image`` that stay, for which no value is made.

    Where it does not, single files may still be held.

    :param replaced: the offsets of the records of replaced files.
    """
    catalog = {image.catalog.lba} if image.catalog else set[Lba]()
    extents = {
        extent
        for tree in image.trees
        for extent in tree.list_kept_extents(removed_data, catalog, replaced, layout.moves_as_one)
    }
    runs = _split_at_moves(layout, sorted(extents))
    ends = ((run[0][0], max(lba_offset(lba) + length for lba, length in run)) for run in runs)
    return all(_holds_copy(image, table, layout, first, end - lba_offset(first)) for first, end in ends)


def _split_at_moves(layout: Layout, extents: Iterable[tuple[Lba, int]]) -> Iterator[list[tuple[Lba, int]]]:
    """Yield runs of ``extents``, sorted blocks and bytes, without a gap between them, that all move by as much."""
    run, end, shift = list[tuple[Lba, int]](), 0, 0
    for lba, length in extents:
        own_shift = layout.map_block(lba) - lba
        if run and (own_shift != shift or lba > end):
            yield run
            run, end = [], 0
        shift = own_shift
        run.append((lba, length))
        end = max(end, lba + blocks_for(length))
    if run:
        yield run


def _holds_copy(image: IsoImage, table: PieceTable, layout: Layout, lba: Lba, length: int) -> bool:
    """Return whether the planned ``table`` holds, at its new place, the data of ``length`` bytes from block ``lba``."""
    start, old = lba_offset(layout.map_block(lba)), lba_offset(lba)
    return table.cut(start, start + length).pieces == (image.source.cut(old, old + length),)
