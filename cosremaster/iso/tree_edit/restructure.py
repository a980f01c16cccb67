"""Restructure an image: change the names in its trees, measure what that needs, and write the result.

:func:`restructure_trees` changes everything in memory and measures it. The layout then finds places for the new blocks,
and :meth:`RestructuredTrees.render` returns every record, path table and descriptor that changes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from cosremaster.errors import ImageError, UnsupportedError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.layout.expected import IN_UDF, ExpectedFile, ExpectedTree, StayingDirectory, is_removed
from cosremaster.iso.layout.extents import check_apart, list_udf_only_spans
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.merged import MergedTrees, read_merged_trees
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.read_trees import JOLIET
from cosremaster.iso.spans import Span
from cosremaster.iso.tree_edit.apply import (
    AppliedEdits,
    altered_name_warnings,
    apply_edits,
    edit_warnings,
    shortened_name_warnings,
)
from cosremaster.iso.tree_edit.directories import UDF, DirectoryEntry, EditableTree
from cosremaster.iso.tree_edit.patches import count_stale_dots, find_path_tables
from cosremaster.iso.tree_edit.rewrite import Patches, TreeRewrite, get_path_table_size, share_blocks
from cosremaster.iso.tree_edit.serialize import NO_BLOCK
from cosremaster.iso.tree_edit.verify import has_stale_tables
from cosremaster.iso.udf.nodes import encode_target
from cosremaster.iso.udf.rewrite import UdfRewrite, restructure_udf
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset


class RestructuredTrees(Struct):
    """The edited and measured trees of an image.

    ``removed_data``: the first blocks of data that no entry names any more.
    ``new_data``: the data of new files by node id; hard links share one.
    ``data_keys``: the key in ``new_data`` of each new node with data, by node id.
    ``vacated``: the blocks that become free.
    ``appended``: the runs of blocks that are needed, in the order of the starts that :meth:`render` takes.
    ``data_blocks``: the first block of each of ``new_data``, by its key; empty before :meth:`render`.
    ``late_records``: the offsets of the first records of files that continue in new areas, or are in relocated
    directories; libarchive reads such a file only if its data lie behind the directories.
    """

    image: IsoImage
    rewrites: list[TreeRewrite]
    udf: UdfRewrite | None
    removed_data: frozenset[Lba]
    new_data: dict[int, PieceTable]
    data_keys: dict[int, int]
    vacated: tuple[Span, ...] = ()
    appended: tuple[Span, ...] = ()
    warnings: tuple[str, ...] = ()
    data_blocks: dict[int, Lba] = field(default_factory=dict)
    late_records: frozenset[int] = frozenset()

    @property
    def last_spans(self) -> int:
        """How many of :attr:`appended` have to be the last ones of the data: those of UDF."""
        return len(self.udf.needed_spans) if self.udf is not None else 0

    def expected_files(self, layout: Layout, replacements: Sequence[FileReplacement]) -> dict[Lba, ExpectedTree]:
        """Return the files of each tree of the new image, by the block of its volume descriptor.

        Those of UDF are under :data:`IN_UDF`. Descriptors that share an earlier one's root have no files.
        """
        by_start = {new.old_span.start: new for new in replacements if new.old_span}
        expected: dict[Lba, ExpectedTree] = {}
        for tree in (rewrite.tree for rewrite in self.rewrites):
            expected |= {descriptor.lba: ExpectedTree({}, {}) for descriptor in tree.descriptors}
            expected[tree.descriptors[0].lba] = self._expect_tree(tree, layout, replacements)
        if self.udf is not None:
            files = {
                path: self._expect_udf_file(self.udf, entry, by_start, layout)
                for path, entry in self.udf.tree.files_by_path()
            }
            expected[IN_UDF] = ExpectedTree(files, {})
        return expected

    def _expect_tree(self, tree: EditableTree, layout: Layout, replacements: Iterable[FileReplacement]) -> ExpectedTree:
        """Return the files of ``tree`` on the new image. Directories that nobody read stay as they are."""
        by_record = {file.records[0].offset: new for new in replacements for _, file in new.files}
        old_tree = next(old for old in self.image.trees if old.descriptor_lba == tree.descriptors[0].lba)
        old_directories = {directory.extent.lba: directory for directory in old_tree.index}
        expected = ExpectedTree({}, {})
        for path, directory in tree.directories_by_path():
            old = old_directories.get(directory.extent.lba) if directory.unread and directory.extent else None
            if old is not None and path not in expected.staying:
                expected.staying[path] = StayingDirectory(old, old_tree.files[old.files])
                continue
            for file_path, entry in directory.files_by_path(path):
                replacement = by_record.get(entry.records[0].offset) if entry.records else None
                expected.files[file_path] = self._expect_file(entry, replacement, layout)
        return expected

    def _expect_udf_file(
        self, udf: UdfRewrite, entry: DirectoryEntry, by_start: Mapping[Lba, FileReplacement], layout: Layout
    ) -> ExpectedFile:
        """Return size and first block of the file of ``entry`` in UDF; data inside a file entry have no block.

        :param by_start: the replacements of data by their first block on the old image.
        """
        if entry.node is not None and entry.node.kind is NodeKind.SYMLINK:
            return ExpectedFile(len(encode_target(entry.node.target)), ())
        file = udf.find_file(entry)
        start = file.extents[0][0] if file and file.extents else None
        replacement = by_start.get(start) if start is not None else None
        if file is None or replacement is not None:
            return self._expect_file(entry, replacement, layout)
        return ExpectedFile(file.size, () if start is None else (layout.map_block(start),))

    def _expect_file(self, entry: DirectoryEntry, replacement: FileReplacement | None, layout: Layout) -> ExpectedFile:
        """Return size and places of the file of ``entry`` on the new image."""
        if entry.node is not None:
            size = entry.node.content.size if entry.node.content else 0
            return ExpectedFile(size, (self._find_data(entry.node),) if size else ())
        if replacement is not None:
            length = replacement.table.length
            return ExpectedFile(length, (replacement.start,) if length else ())
        starts = tuple(layout.map_block(record.lba) for record in entry.records if record.length)
        return ExpectedFile(sum(record.length for record in entry.records), starts)

    def render(
        self, starts: Sequence[Lba], replacements: Iterable[FileReplacement], patches: Patches
    ) -> tuple[Patches, dict[Lba, PieceTable]]:
        """Return the patches of blocks that stay at their place, and the bytes of new blocks by their first block.

        ``starts``: the first block of each of :attr:`appended`. ``patches``: all other changes of the image; they are
        extended and returned.
        """
        remaining = iter(starts)
        sections = self._find_extra_sections(replacements)
        placements = [rewrite.place(remaining, self._find_data, sections) for rewrite in self.rewrites]
        self.data_blocks = {key: next(remaining) for key in self.new_data}
        tables = {lba: self.new_data[key] for key, lba in self.data_blocks.items()}
        for rewrite, placement in zip(self.rewrites, placements, strict=True):
            rewrite.render(placement, patches, tables)
        if self.udf is not None:
            first = next(remaining) if self.udf.needed_spans else NO_BLOCK
            entries = self.udf.render(first, self._find_data, patches)
            tables |= {first: PieceTable([Literal(entries)])} if entries else {}
        return patches, tables

    def _find_data(self, node: Node) -> Lba:
        """Return the first block of a new file's data."""
        return self.data_blocks[self.data_keys[id(node)]]

    def _find_extra_sections(self, replacements: Iterable[FileReplacement]) -> dict[int, list[tuple[Lba, int]]]:
        """Return block and bytes of the sections of replaced files that have no record yet, by the entry's id."""
        entries = {
            entry.records[-1].offset: entry
            for rewrite in self.rewrites
            for entry in rewrite.tree.read_entries()
            if entry.extra_records > 0
        }
        extra: dict[int, list[tuple[Lba, int]]] = {}
        for replacement in replacements if entries else ():
            for _, file in replacement.files:
                entry = entries.get(file.records[-1].offset)
                if entry is not None:
                    lengths = split_into_sections(replacement.table.length)
                    starts = accumulate(map(blocks_for, lengths[:-1]), initial=replacement.start)
                    sections = [(Lba(lba), length) for lba, length in zip(starts, lengths, strict=True)]
                    extra[id(entry)] = sections[len(file.records) :]
        return extra


def restructure_trees(
    image: IsoImage, source: ByteSource, edits: IsoEdits, replacements: Sequence[FileReplacement],
    merged: MergedTrees | None = None, serials: Iterable[int] = (),
) -> RestructuredTrees:  # fmt: skip
    """Apply ``edits`` to the trees of ``image`` and measure them.

    :param merged: the trees of ``image`` if they are read already; they are changed.
    :param serials: file serial numbers that are in use on the new image, beside those on the old one.
    :raises ImageError: when an edited path does not exist, or directories overlap.
    :raises UnsupportedError: when something refers to what should go, or a tree cannot hold what should come.
    :raises SizeError: when there are more directories than a path table can number.
    """
    changed_files = [pair for replacement in replacements for pair in replacement.extra_records() if pair[1]]
    merged = merged or read_merged_trees(image, source)
    trees = merged.trees
    mended = [line for tree in trees for line in _list_mended(source, tree)]
    _add_extra_records(trees, changed_files)
    for tree in trees:
        tree.serial_numbers.add_all(serials)
    _check_no_overlap(image, trees)
    udf = restructure_udf(source, merged.udf, edits) if merged.udf else None
    rewrites = [TreeRewrite(source, tree, apply_edits(tree, edits, image.place)) for tree in trees]
    changes = [(rewrite.tree, rewrite.applied) for rewrite in rewrites] + ([(udf.tree, udf.applied)] if udf else [])
    _check_nothing_is_lost(image, edits, [applied for _, applied in changes])
    removed_data = _find_removed_data(image, changes)
    check_apart(image, ((file.path, file.spans) for file in _list_removed_files(image, removed_data)))
    result = RestructuredTrees(image, rewrites, udf, removed_data, *_collect_new_data(edits.added))
    result.warnings = (*mended, *(line for tree, applied in changes for line in edit_warnings(tree, applied)))
    if all(tree.kind == trees[0].kind for tree, _ in changes):
        result.warnings += tuple(altered_name_warnings(trees[0]))
    others = [tree for tree, _ in changes if tree.kind in (JOLIET, UDF)]
    result.warnings += tuple(line for tree in others for line in shortened_name_warnings(tree))
    for rewrite in rewrites:  # libarchive takes the Joliet tree if its root lies in front of the primary one
        rewrite.measure(image.place, moves_root=rewrite.tree.kind == JOLIET and trees[0].root.is_moved)
    result.late_records = frozenset(offset for rewrite in rewrites for offset in rewrite.late_records)
    result.vacated = tuple(_vacated_spans(result))
    result.appended = tuple(_needed_spans(result))
    return result


def _list_mended(source: ByteSource, tree: EditableTree) -> Iterator[str]:
    """Yield a line for each kind of fault of ``tree`` that is mended, because the tree is written anew."""
    if count := count_stale_dots(source, tree):
        yield f"{tree.kind}: records of ., .. or the root directory that led elsewhere were mended: {count:,}"
    tables = find_path_tables(tree)
    if share_blocks(tables):
        yield f"{tree.kind}: path tables that shared blocks were mended: each got its own"
    elif has_stale_tables(source, tree):
        yield f"{tree.kind}: path tables that disagreed with the directories were mended"


def _add_extra_records(trees: Iterable[EditableTree], changed_files: Sequence[tuple[IsoFile, int]]) -> None:
    """Note in ``trees`` how many more records each of the files needs, or how many fewer."""
    by_record = (
        {}
        if not changed_files
        else {
            entry.records[-1].offset: (directory, entry)
            for tree in trees
            for directory in tree.directories()
            for entry in directory.entries
            if entry.records
        }
    )
    for file, count in changed_files:
        directory, entry = by_record[file.records[-1].offset]
        entry.extra_records = count
        directory.is_changed = True


def _check_nothing_is_lost(image: IsoImage, edits: IsoEdits, applied: Sequence[AppliedEdits]) -> None:
    """Check that each path of ``edits`` is in a tree; ``applied``: what was done to each.

    :raises ImageError: when no tree has the path, or a directory for it.
    :raises UnsupportedError: when the trees that have its directory cannot hold it.
    """
    primary, *others = applied
    unheld = [set(tree.unheld_paths) for tree in others]
    missing = [
        {*tree.unknown_paths, *tree.orphan_paths, *tree_unheld}
        for tree, tree_unheld in zip(others, unheld, strict=True)
    ]
    for path in (*primary.unknown_paths, *primary.orphan_paths):
        if all(path in paths for paths in missing):
            place = image.place.inside(path)
            if any(path in paths for paths in unheld):
                noun = edits.added_by_path[path].kind.noun
                raise UnsupportedError(f"a {noun} cannot be added: no tree that shows its directory can hold it", place)
            raise ImageError("is not there, or has no directory to be in", place)


def _check_no_overlap(image: IsoImage, trees: Iterable[EditableTree]) -> None:
    """Check that directories and path tables share no blocks with each other, descriptors or the boot catalog.

    They are inside the image.

    :raises ImageError: when one does.
    """
    heads = {span for span in image.fixed_spans if span.label in ("system area", "volume descriptor")}
    spans = [(span.start, span.blocks, 0) for span in heads]
    spans += [
        (directory.extent.lba, directory.blocks, directory.extent.length)
        for tree in trees
        for directory in tree.directories()
        if directory.extent
    ]
    for tree in trees:
        size = get_path_table_size(tree)
        spans += [(lba, blocks_for(size), size) for lba in {path_table.lba for path_table in find_path_tables(tree)}]
    spans += [
        (span.start, span.blocks, span.blocks * BLOCK) for span in (image.udf.metadata_spans if image.udf else ())
    ]
    if image.catalog is not None:
        spans.append((image.catalog.lba, blocks_for(image.catalog.length), image.catalog.length))
    end = Lba(0)
    for lba, blocks, length in sorted(spans):
        if lba < end or lba_offset(lba) + length > image.size:
            what = "shares blocks with another structure" if lba < end else "is cut off"
            raise ImageError(f"a directory or path table {what}", image.place.at(lba_offset(lba)))
        end = Lba(lba + blocks)


def _collect_new_data(nodes: Iterable[Node]) -> tuple[dict[int, PieceTable], dict[int, int]]:
    """Return the data of new files by a key, hard links once, and the key of each node by its id."""
    new_data: dict[int, PieceTable] = {}
    keys: dict[int, int] = {}
    keys_by_link: dict[object, int] = {}
    for node in nodes:
        if node.content is None or not node.content.size:
            continue
        key = keys_by_link.setdefault(node.link, id(node)) if node.link is not None else id(node)
        keys[id(node)] = key
        if key not in new_data:
            new_data[key] = node.content.table()
    return new_data, keys


def _find_removed_data(image: IsoImage, changes: Sequence[tuple[EditableTree, AppliedEdits]]) -> frozenset[Lba]:
    """Return the first blocks of data of removed entries that no other entry names, in the last session only."""
    removed = {entry.records[0].lba for _, applied in changes for entry in applied.removed_entries if entry.has_data}
    if not removed:
        return frozenset()
    named = {record.lba for tree, _ in changes for entry in tree.read_entries() for record in entry.records}
    named.update(_find_unread_blocks(image, [tree for tree, _ in changes], frozenset(removed)))
    return frozenset(lba for lba in removed - named if lba >= image.session_lba)


def _find_unread_blocks(image: IsoImage, trees: Iterable[EditableTree], blocks: frozenset[Lba]) -> Iterator[Lba]:
    """Yield those of ``blocks`` that records name in directories whose entries nobody asked for.

    That is told by what reading the image said of them: a directory that is not read is as it was.
    """
    extents: list[tuple[Lba, Lba]] = []
    for tree in trees:
        for directory in tree.directories():
            if directory.unread is None or directory.extent is None:
                continue
            extents.append((directory.extent.lba, Lba(directory.extent.lba + directory.blocks)))
            yield from blocks.intersection(directory.unread.empty_blocks)
            yield from (record.lba for entry in directory.directory_entries for record in entry.records)
    extents.sort()
    starts = [start for start, _ in extents]
    for file in (file for old in image.trees for file in old.find_files_at(blocks)):
        for record in file.records:
            block = record.offset // BLOCK
            place = bisect_right(starts, block) - 1
            if place >= 0 and block < extents[place][1]:
                yield record.lba


def _list_removed_files(image: IsoImage, removed_data: frozenset[Lba]) -> Iterator[IsoFile]:
    """Yield the files of all trees whose data begin at a block of ``removed_data``."""
    for tree in image.trees if removed_data else ():
        yield from (file for file in tree.find_files_at(removed_data) if is_removed(file, removed_data))


def _vacated_spans(trees: RestructuredTrees) -> Iterator[Span]:
    """Yield the blocks that directories, path tables, removed files and UDF metadata give up."""
    image = trees.image
    for rewrite in trees.rewrites:
        yield from rewrite.vacated_spans(image.session_lba)
    yield from {span for file in _list_removed_files(image, trees.removed_data) for span in file.spans}
    if trees.udf is not None:
        yield from trees.udf.vacated_spans()
        yield from _vacated_udf_only(image, trees.removed_data)


def _vacated_udf_only(image: IsoImage, removed_data: frozenset[Lba]) -> Iterator[Span]:
    """Yield the blocks of removed data that only UDF named, and that no other file shares."""
    if image.udf is None or not removed_data:
        return
    kept = [
        span
        for file in image.udf.files
        for span in file.spans
        if not removed_data & {span.start for span in file.spans[:1]}
    ]
    kept += [span for tree in image.trees for file in tree.files for span in file.spans]
    kept.sort(key=lambda span: span.start)
    starts = [span.start for span in kept]
    furthest = list(accumulate((span.end for span in kept), max))
    removed = {span for file in image.udf.files for span in file.spans if file.spans[0].start in removed_data}
    for span in sorted(removed & set(list_udf_only_spans(image)), key=lambda span: span.start):
        before = bisect_left(starts, span.end)
        if not before or furthest[before - 1] <= span.start:
            yield span


def _needed_spans(trees: RestructuredTrees) -> Iterator[Span]:
    """Yield the needed runs of blocks in the order of :meth:`RestructuredTrees.render`; their places are not known.

    UDF's are last, because 7-Zip looks for the last anchors behind them.
    """
    for rewrite in trees.rewrites:
        yield from rewrite.needed_spans()
    for table in trees.new_data.values():
        yield Span(NO_BLOCK, blocks_for(table.length), "new file")
    if trees.udf is not None:
        yield from trees.udf.needed_spans
