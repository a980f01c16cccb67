"""From a layout to the new image's pieces: data at their new places, and every pointer to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import lcm

from msgspec import Struct, field
from msgspec.structs import replace

from cosremaster.boot.mbr import GPT_PROTECTIVE
from cosremaster.errors import ProofError, UnsupportedError, printable
from cosremaster.io.pieces import Piece, PieceTable, Zeros
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import locate_record
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.layout.extents import find_data_end, find_unreferenced
from cosremaster.iso.layout.implant import update_implanted_md5
from cosremaster.iso.layout.place import Layout, find_gaps, pin_overlaps, plan_layout
from cosremaster.iso.layout.pointers import plan_pointer_patches
from cosremaster.iso.layout.replace import FileReplacement, check_removal, resolve_replacements, update_boot_tables
from cosremaster.iso.model import IsoImage
from cosremaster.iso.spans import Span
from cosremaster.iso.tree_edit.restructure import ExpectedFile, RestructuredTrees, is_removed, restructure_trees
from cosremaster.units import BLOCK, SECTOR, SECTORS_PER_BLOCK, Lba, Sector, blocks_for, lba_offset

_PHYSICAL = 8
"""Sectors of a physical sector of 4 KiB."""


class ImagePlan(Struct, frozen=True):
    """What the new image will be: its pieces, and where things stand in it.

    ``changed``: path of each exchanged file of the primary tree -> its new length in bytes; ``exchanged`` the
    exchanges themselves, each with the bytes that are written (boot images with their tables made true).
    ``dropped``: HFS partitions become mere fillers. ``overwritten``: byte offset in the old image -> bytes that stand
    there instead, at the same place of what they belong to. ``trees``: what is in each tree afterwards, by its
    descriptor's block; None where no name comes, goes or changes. ``warnings``: what the user should know.
    """

    table: PieceTable
    layout: Layout
    replaced_sizes: Mapping[bytes, int]
    replacements: tuple[FileReplacement, ...] = ()
    drops_hfsplus: bool = False
    overwrites: Mapping[int, bytes] = field(default_factory=dict)
    expected_trees: Mapping[Lba, Mapping[bytes, ExpectedFile]] | None = None
    warnings: tuple[str, ...] = ()


def plan_copy(image: IsoImage, overwrites: Mapping[int, bytes] | None = None) -> ImagePlan:
    """The plan that makes ``image`` again, byte for byte but for those of ``overwritten``."""
    layout = Layout((), image.tail, image.tail, (image.tail, image.tail))
    table = PieceTable([image.source])
    if overwrites:
        table = update_implanted_md5(image, table.patched(overwrites.items()), layout)
    return ImagePlan(table, layout, {}, overwrites=overwrites or {})


def plan_image(
    image: IsoImage, source: ByteSource, edits: IsoEdits, *, drop_hfsplus: bool = False,
    overwrites: Mapping[int, bytes] | None = None,
) -> ImagePlan:  # fmt: skip
    """The image after ``edits`` of its own tree.

    ``drop_hfsplus``: an HFS+ file system over the files may go; its partitions become fillers. ``overwritten``: byte
    offset in the old image -> as many new bytes of what is no file: descriptors, appended partitions.
    :raises ImageError: there is no such file. :raises UnsupportedError: something in the image cannot follow.
    :raises SizeError: more directories than a path table can number.
    """
    if image.blockers:
        raise UnsupportedError(f"has {' and '.join(image.blockers)}; so no file on it can be changed", image.place)
    exchanges = resolve_replacements(image, edits.replaced)
    drop = drop_hfsplus and bool(image.hfs_partitions)
    if not drop:
        _check_hfs(image, exchanges)
    check_removal(image, edits, drop_hfsplus=drop)
    work = restructure_trees(image, source, edits, exchanges)
    layout = _layout(image, source, exchanges, drop, work)
    _check_firmware(image, layout)
    placed = _placed(image, exchanges, layout)
    patches, new = plan_pointer_patches(image, source, layout, placed, drop=drop), dict[Lba, PieceTable]()
    if work is not None:
        starts = [one.start for one in layout.appended[len(layout.appended) - len(work.appended) :]]
        patches, new = work.render(starts, placed, patches)
    tail = image.source.cut(min(lba_offset(Lba(layout.old_tail)), image.size), image.size)
    table = PieceTable([*_body(image, layout, placed, new, work).pieces, tail]).patched(patches.items())
    _check_kept(image, table, layout, placed, work)
    table = table.patched((map_offset(layout, at), data) for at, data in (overwrites or {}).items())
    changed = {file.path: one.table.length for one in placed for tree, file in one.files if tree is image.trees[0]}
    return ImagePlan(
        update_implanted_md5(image, table, layout), layout, changed, placed, drop, overwrites or {},
        None if work is None else work.expected_files(layout, placed),
        (*(work.warnings if work else ()), *_several_extents(edits)),
    )  # fmt: skip


def _several_extents(edits: IsoEdits) -> Iterator[str]:
    """A sentence if something takes more extents than one, as only the standard's third level allows (10.3)."""
    sizes = [(node.path, node.content.size) for node in edits.added if node.content is not None]
    sizes += [(path, table.length) for path, table in edits.replaced.items()]
    large = [path for path, size in sizes if len(split_into_sections(size, 1)) > 1]
    if large:
        more = f" (and {len(large) - 1:,} more)" if len(large) > 1 else ""
        yield (
            f"{printable(large[0])}{more} has more than 4 GiB - 1 and so takes several extents: programs that read no"
            " more than interchange level 2 of ISO 9660, such as isoinfo, find a part of it"
        )


def map_offset(layout: Layout, at: int) -> int:
    """Where byte ``at`` of the old image stands in the new one."""
    block, rest = divmod(at, BLOCK)
    return lba_offset(layout.map_block(Lba(block))) + rest


def _layout(
    image: IsoImage,
    source: ByteSource,
    exchanges: Sequence[FileReplacement],
    drop: bool,
    work: RestructuredTrees | None,
) -> Layout:
    """:raises UnsupportedError: a file that should be exchanged shares its blocks with something that cannot follow."""
    dropped = {one.name for one in image.hfs_partitions} if drop else set()
    gone, vacated = (work.removed_data, work.vacated) if work else (frozenset[Lba](), ())
    given_up = {(span.start, span.blocks, span.label) for span in vacated}
    known = [one for one in image.fixed_spans if one.label not in dropped and _key(one) not in given_up]
    files = [span for tree in image.trees for file in tree.files if not is_removed(file, gone) for span in file.spans]
    fixed, movable = pin_overlaps(known, files)
    olds = [*(one.old_span for one in exchanges if one.old_span), *vacated]
    first = min((old.start for old in olds), default=Lba(0))
    tail = _tail(image, source)
    holes = find_gaps((*fixed, *movable, *vacated), tail)
    fixed += tuple(find_unreferenced(source, [hole for hole in holes if hole.end > first]))
    free = {(span.start, span.blocks) for span in (*fixed, *movable)}
    for one in exchanges:
        if one.old_span is None or (one.old_span.start, one.old_span.blocks) in free:
            continue
        if not one.keeps_size or any(one.old_span.overlaps(span) for span in files if span.start != one.old_span.start):
            raise UnsupportedError(
                "cannot be exchanged: a boot record or another file shares its blocks", image.place.inside(one.path)
            )
    new = {one.old_span.start: blocks_for(one.table.length) for one in exchanges if one.old_span and not one.keeps_size}
    added = [Span(Lba(0), blocks_for(one.table.length), one.path.decode(errors="replace")) for one in exchanges
             if not one.old_span]  # fmt: skip
    added += work.appended if work else ()
    return plan_layout(
        fixed, movable, tail, new, appended=added, vacated=vacated, ends=tuple(_ends(image)), align=_alignment(image)
    )


def _key(span: Span) -> tuple[Lba, int, str]:
    return span.start, span.blocks, span.label


def _tail(image: IsoImage, source: ByteSource) -> Lba:
    """Where the tail begins: bytes that nothing refers to, behind the volume, are part of it."""
    end = max(find_data_end(image.trees, image.fixed_spans), min(tree.end for tree in image.trees))
    if end >= image.tail:
        return image.tail
    found = next(find_unreferenced(source, [Span(end, image.tail - end, "")]), None)
    return found.start if found else image.tail


def _ends(image: IsoImage) -> Iterator[Sector]:
    """The ends of volumes and partitions that cover the volume."""
    yield from (Sector(tree.end * SECTORS_PER_BLOCK) for tree in image.trees)
    yield from (one.end for one in image.partitions if one.covers_volume(image.trees))


def _alignment(image: IsoImage) -> int:
    """Blocks by multiples of which the image's size may change, so that partitions stay aligned as they are."""
    return lcm(_cylinder(image), _four_kib(image)) // SECTORS_PER_BLOCK


def _cylinder(image: IsoImage) -> int:
    """Sectors: whole cylinders and blocks where the MBR's partitions over the volume and behind it, and the image, end
    with a cylinder (isohybrid(1)); else a block."""
    geometry = image.mbr.find_geometry() if image.mbr else None
    if image.mbr is None or geometry is None:
        return SECTORS_PER_BLOCK
    cylinder = geometry[0] * geometry[1]
    first = image.trees[0].directories[0].lba * SECTORS_PER_BLOCK
    used = [one for _, one in image.mbr.used_partitions if one.type != GPT_PROTECTIVE]
    ends = [one.end for one in used if one.start <= first or one.start >= image.tail * SECTORS_PER_BLOCK]
    if image.size not in [end * SECTOR for end in ends] or any(end % cylinder for end in ends):
        return SECTORS_PER_BLOCK
    return lcm(cylinder, SECTORS_PER_BLOCK)


def _four_kib(image: IsoImage) -> int:
    """Sectors: 4 KiB where all partitions of the GPT begin and end with that, as xorriso makes them; else a block."""
    edges = [edge for one in image.partitions if one.table == "GPT" for edge in (one.start, one.end)]
    aligned = edges and not any(edge % _PHYSICAL for edge in edges)
    return _PHYSICAL if aligned else SECTORS_PER_BLOCK


def _placed(image: IsoImage, exchanges: Iterable[FileReplacement], layout: Layout) -> tuple[FileReplacement, ...]:
    """The exchanges with their places, and boot images' tables made true for them."""
    done, added = [], iter(layout.appended)
    for one in exchanges:
        start = layout.map_block(one.old_span.start) if one.old_span else next(added).start
        images = [boot for boot in image.boot_images if one.old_span and boot.entry.lba == one.old_span.start]
        done.append(replace(one, table=update_boot_tables(one.table, images, start), start=start))
    return tuple(done)


def _check_hfs(image: IsoImage, exchanges: Iterable[FileReplacement]) -> None:
    """:raises UnsupportedError: an HFS file system tells of a file's place or size, and that changes."""
    for one in exchanges:
        for hfs in image.hfs_partitions:
            outside = one.old_span is not None and not one.old_span.overlaps(hfs.span)
            if not (outside or one.keeps_size):
                raise UnsupportedError(
                    f"cannot change size: the HFS+ file system in {hfs.name} names it too (--drop-hfsplus gives that"
                    " file system up; PCs do not use it)",
                    image.place.inside(one.path),
                )


def _check_firmware(image: IsoImage, layout: Layout) -> None:
    """What a header points at stays (it is fixed), but a slice over the volume may tell of an end that moves.

    :raises UnsupportedError: one does, and is not one of the partitions that follow.
    """
    first = image.trees[0].directories[0].lba * BLOCK
    followed = {(one.start * SECTOR, (one.end - one.start) * SECTOR) for one in image.partitions}
    for one in image.firmware:
        for target in one.targets:
            end = Sector(-(-(target.start + target.length) // SECTOR))
            start = Sector(target.start // SECTOR)
            moves = layout.map_end(end) != end if target.start <= first else layout.map_start(start) != start
            if moves and (target.start, target.length) not in followed:
                raise UnsupportedError(
                    f"the {one.name}'s {target.name} would have to change with the image, which this version cannot",
                    image.place.at(target.pointer_offset),
                )


def _body(
    image: IsoImage,
    layout: Layout,
    placed: Sequence[FileReplacement],
    new: Mapping[Lba, PieceTable],
    work: RestructuredTrees | None,
) -> PieceTable:
    """The image up to its tail: everything before the first change as it is, then each span, zeros between.

    ``new``: the bytes of what comes beside ``placed``, by first block."""
    new = {
        **{one.start: one.table for one in placed if one.table.length and not (one.old_span and one.keeps_size)},
        **new,
    }
    pieces: list[Piece] = []
    spans = sorted((*layout.placements, *layout.appended), key=lambda one: (one.start, one.end))
    begins = [one.old_span.start for one in placed if one.old_span] + [one.start for one in spans if one.start in new]
    begins += [span.start for span in (work.vacated if work else ())]
    at = lba_offset(min([Lba(layout.old_tail), *begins]))
    pieces.append(image.source.cut(0, min(at, image.size)))
    for one in spans:
        start, skipped = lba_offset(one.start), max(0, at - lba_offset(one.start))
        if skipped >= one.blocks * BLOCK:
            continue
        pieces.append(Zeros(start + skipped - at))
        if one.start in new:
            pieces += new[one.start].pieces
            at = start + new[one.start].length
        else:
            begin = lba_offset(one.span.start)
            end = min(begin + one.blocks * BLOCK, image.size)
            pieces.append(image.source.cut(begin + skipped, end))
            at = start + end - begin
    body = PieceTable([*pieces, Zeros(layout.tail * BLOCK - at)])
    for change in placed:
        if change.old_span and change.keeps_size:
            start, end = lba_offset(change.start), lba_offset(change.start) + change.table.length
            parts = (body.cut(0, start), change.table, body.cut(end, body.length))
            body = PieceTable(piece for part in parts for piece in part.pieces)
    return body


def _check_kept(
    image: IsoImage,
    table: PieceTable,
    layout: Layout,
    placed: Iterable[FileReplacement],
    work: RestructuredTrees | None,
) -> None:
    """Compares the plan with the input: every file that was not exchanged is, where it will stand, the input's bytes.

    The boot catalog, where it is a file, is patched. :raises ProofError: the plan loses something.
    """
    new = {record.offset for one in placed for _, file in one.files for record in file.records}
    for tree in image.trees:
        kept = (file for file in tree.files if work is None or not is_removed(file, work.removed_data))
        for record in (record for file in kept for record in file.records):
            if not record.length or record.offset in new or (image.catalog and record.lba == image.catalog.lba):
                continue
            start, old = lba_offset(layout.map_block(record.lba)), lba_offset(record.lba)
            if table.cut(start, start + record.length).pieces != (image.source.cut(old, old + record.length),):
                raise ProofError("the plan would lose its data", locate_record(image.place, record))
