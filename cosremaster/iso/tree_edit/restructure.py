"""Names that come, go or change on the image: what that needs of its layout, and what it writes.

First everything is changed in memory and measured (:func:`restructure`); the layout finds places; then every record,
path table and descriptor that tells of them is made (:meth:`Restructure.settled`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, count

from msgspec import Struct, field

from cosremaster.errors import ImageError, Place, SizeError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import pack_both_endian
from cosremaster.iso.ecma119.sections import split_into_sections
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.layout.place import Layout
from cosremaster.iso.layout.replace import FileReplacement
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.read_trees import JOLIET
from cosremaster.iso.spans import Span
from cosremaster.iso.tree_edit.apply import AppliedEdits, altered_name_warnings, apply_edits, edit_warnings
from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.iso.tree_edit.match_trees import read_matched_trees
from cosremaster.iso.tree_edit.patches import find_path_tables, patch_directories, patch_root_continuation, read_patched
from cosremaster.iso.tree_edit.serialize import NO_BLOCK, TreePlacement, TreeSerializer
from cosremaster.iso.udf.rewrite import UdfRewrite, restructure_udf
from cosremaster.tree.nodes import Node
from cosremaster.units import BLOCK, Lba, blocks_for, lba_offset

MAX_DIRECTORIES = 0xFFFF
IN_UDF = Lba(-1)
_TABLE_SIZE = 132

Patches = dict[int, bytes]


class TreeRewrite(Struct):
    """One tree's changes. ``lengths``: of each changed folder, by its id; ``continued``: of what continues its records;
    ``tables``: bytes of a path table; ``bearer``: the folder whose continued records begin with the root's."""

    tree: EditableTree
    applied: AppliedEdits
    directory_sizes: dict[int, int] = field(default_factory=dict)
    continuation_sizes: dict[int, int] = field(default_factory=dict)
    path_table_size: int = 0
    root_continuation_host: EditableDirectory | None = None

    @property
    def moved_directories(self) -> list[EditableDirectory]:
        """Folders that need blocks of their own, those above before those below."""
        return [one for one in self.tree.directories() if one.is_moved]

    @property
    def outgrown_path_tables(self) -> list[Lba]:
        """Path tables that need more blocks than they have."""
        return [
            lba for lba, _, _ in find_path_tables(self.tree) if blocks_for(self.path_table_size) > self._table_blocks()
        ]

    def _table_blocks(self) -> int:
        return blocks_for(_table_size(self.tree))


class _Own(Struct, frozen=True):
    """Where one tree's things go: block and bytes of each folder by its id; what continues its records; path tables by
    their old block, those that do not stay."""

    folders: Mapping[int, tuple[Lba, int]]
    continued: Mapping[int, Lba]
    tables: Mapping[Lba, Lba]


class ExpectedFile(Struct, frozen=True):
    """A file of the new image: bytes, and where its first data stand (those of each section of an old one)."""

    size: int
    starts: tuple[Lba, ...]


class RestructuredTrees(Struct):
    """Changed trees, measured. ``gone``: first blocks of data that nothing names any more; ``vacated``: all blocks
    that are given up; ``appended``: runs of blocks that are needed, in the order that :meth:`settled` is told their
    places in; ``contents``: the data of new files by node id, shared by hard links; ``data``: where they go, once that
    is settled; ``data_of``: whose each node has."""

    image: IsoImage
    source: ByteSource
    rewrites: list[TreeRewrite]
    removed_data: frozenset[Lba]
    new_data: dict[int, PieceTable]
    data_keys: dict[int, int]
    vacated: tuple[Span, ...] = ()
    appended: tuple[Span, ...] = ()
    warnings: tuple[str, ...] = ()
    data_blocks: dict[int, Lba] = field(default_factory=dict)
    udf: UdfRewrite | None = None

    def expected_files(self, layout: Layout, placed: Iterable[FileReplacement]) -> dict[Lba, dict[bytes, ExpectedFile]]:
        """What has to be found in each tree of the new image, by its descriptor's block and by path; what UDF has to
        have, by :data:`IN_UDF`."""
        new = {file.records[0].offset: one for one in placed for _, file in one.files}
        by_start = {one.old_span.start: one for one in placed if one.old_span}
        found: dict[Lba, dict[bytes, ExpectedFile]] = {}
        for work in self.rewrites:
            found |= {one.lba: {} for one in work.tree.descriptors}
            found[work.tree.descriptors[0].lba] = {
                path: self._expected(one, new.get(one.records[0].offset) if one.records else None, layout)
                for path, one in work.tree.files_by_path()
            }
        if self.udf is not None:
            found[IN_UDF] = {
                path: self._expected(one, by_start.get(one.records[0].lba) if one.records else None, layout)
                for path, one in self.udf.tree.files_by_path()
            }
        return found

    def _expected(self, entry: DirectoryEntry, exchange: FileReplacement | None, layout: Layout) -> ExpectedFile:
        if entry.node is not None:
            size = entry.node.content.size if entry.node.content else 0
            return ExpectedFile(size, (self._place_of(entry.node),) if size else ())
        if exchange is not None:
            return ExpectedFile(exchange.table.length, (exchange.start,) if exchange.table.length else ())
        starts = tuple(layout.map_block(one.lba) for one in entry.records if one.length)
        return ExpectedFile(sum(one.length for one in entry.records), starts)

    def render(
        self, starts: Sequence[Lba], exchanges: Iterable[FileReplacement], patches: Patches
    ) -> tuple[Patches, dict[Lba, PieceTable]]:
        """What is written where: patches of bytes that stay at their place, and the bytes of what ``appended`` asked
        for by first block. ``patches``: what else changes in directories as they stand.
        """
        at = iter(starts)
        placed = [self._own_places(work, at) for work in self.rewrites]
        self.data_blocks = {key: next(at) for key in self.new_data}
        tables = {place: self.new_data[key] for key, place in self.data_blocks.items()}
        more = _more_sections(self.rewrites, exchanges)
        for work, own in zip(self.rewrites, placed, strict=True):
            self._settle(work, own, more, patches, tables)
        if self.udf is not None:
            first = next(at) if self.udf.needed_spans else NO_BLOCK
            entries = self.udf.render(first, self._place_of, patches)
            tables |= {first: PieceTable([Literal(entries)])} if entries else {}
        return patches, tables

    @staticmethod
    def _own_places(work: TreeRewrite, at: Iterator[Lba]) -> _Own:
        """The places of one tree's directories, continued records and path tables."""
        folders = {id(one): (one.extent.lba, one.extent.length) for one in work.tree.directories() if one.extent}
        continued: dict[int, Lba] = {}
        for folder in work.moved_directories:
            folders[id(folder)] = next(at), work.directory_sizes[id(folder)]
            if id(folder) in work.continuation_sizes:
                continued[id(folder)] = next(at)
        return _Own(folders, continued, {lba: next(at) for lba in work.outgrown_path_tables})

    def _settle(
        self, work: TreeRewrite, own: _Own, more: Mapping[int, Sequence[tuple[Lba, int]]], patches: Patches,
        tables: dict[Lba, PieceTable],
    ) -> None:  # fmt: skip
        """One tree's part of :meth:`settled`."""
        patches |= dict(patch_directories(self.source, work.tree, own.folders))
        if work.root_continuation_host is not None:
            patches |= dict(
                patch_root_continuation(self.source, work.tree, own.continued[id(work.root_continuation_host)])
            )
        places = TreePlacement(own.folders, self._place_of, more, own.continued)
        assembler = _assembler(work, self.source, read_patched(self.source, patches), places)
        laid, areas = assembler.serialize_directories()
        tables |= {own.continued[key]: PieceTable([Literal(data)]) for key, data in areas.items()}
        offsets = sorted(patches)
        for folder in work.tree.directories():
            if not folder.is_changed:
                continue
            lba, length = own.folders[id(folder)]
            if folder.extent is not None:
                start = lba_offset(folder.extent.lba)
                first, last = (bisect_left(offsets, at) for at in (start, start + folder.extent.length))
                for offset in offsets[first:last]:
                    patches.pop(offset, None)
            if folder.extent is not None and lba == folder.extent.lba:
                patches[lba_offset(lba)] = laid[id(folder)].ljust(length, b"\0")
            else:
                tables[lba] = PieceTable([Literal(laid[id(folder)])])
        patches |= dict(self._table_patches(work, assembler, own.tables, tables))

    def _place_of(self, node: Node) -> Lba:
        """Where a new file's data begin."""
        return self.data_blocks[self.data_keys[id(node)]]

    def _table_patches(
        self, work: TreeRewrite, assembler: TreeSerializer, places: Mapping[Lba, Lba], tables: dict[Lba, PieceTable]
    ) -> Iterator[tuple[int, bytes]]:
        """Path tables where they were, or what tells of those that got new blocks."""
        for lba, order, told in find_path_tables(work.tree):
            new = assembler.serialize_path_table(order)
            if lba in places:
                tables[places[lba]] = PieceTable([Literal(new)])
                number = (places[lba] - work.tree.base).to_bytes(4, order)  # type: ignore[arg-type]
                yield from ((at, number) for at in told)
            else:
                yield lba_offset(lba), new.ljust(_table_size(work.tree), b"\0")
        for descriptor in work.tree.descriptors:
            yield lba_offset(descriptor.lba) + _TABLE_SIZE, pack_both_endian(work.path_table_size)


def restructure_trees(
    image: IsoImage, source: ByteSource, edits: IsoEdits, exchanges: Sequence[FileReplacement]
) -> RestructuredTrees | None:
    """The trees of ``image`` after ``edits``; None where no name comes, goes or changes, and no file needs records.

    :raises UnsupportedError: something points at what should go, or a tree cannot hold what should come.
    :raises SizeError: more directories than a path table can number.
    """
    grown = [
        (file, one)
        for one in exchanges
        for _, file in one.files
        if len(split_into_sections(one.table.length, len(file.records))) > len(file.records)
    ]
    if not (edits.changes_names or grown):
        return None
    trees = read_matched_trees(source, image.trees)
    by_offset = {one.records[-1].offset: (folder, one) for tree in trees for folder in tree.directories()
                 for one in folder.entries if one.records}  # fmt: skip
    for file, exchange in grown:
        folder, entry = by_offset[file.records[-1].offset]
        entry.extra_records = len(split_into_sections(exchange.table.length, len(file.records))) - len(file.records)
        folder.is_changed = True
    udf = restructure_udf(image, source, trees[0], edits)
    _check_apart(image, trees, udf)
    works = [TreeRewrite(tree, apply_edits(tree, edits, image.place)) for tree in trees]
    for path in (*works[0].applied.unknown_paths, *works[0].applied.orphan_paths):
        raise ImageError("is not there, or has no directory to be in", image.place.inside(path))
    changed = [(one.tree, one.applied) for one in works] + ([(udf.tree, udf.applied)] if udf else [])
    gone = _gone(image, changed)
    contents, data_of = _new_data(edits.added)
    work = RestructuredTrees(image, source, works, gone, contents, data_of, udf=udf)
    work.warnings = tuple(line for tree, done in changed for line in edit_warnings(tree, done))
    if all(tree.kind == trees[0].kind for tree, _ in changed):
        work.warnings += tuple(altered_name_warnings(trees[0]))
    for one in works:  # libarchive takes the Joliet tree where its root stands before the other's
        _measure(one, source, image.place, follow=one.tree.kind == JOLIET and works[0].tree.root.is_moved)
    work.vacated = (*_vacated(image, works, gone), *(udf.vacated_spans() if udf else ()))
    work.appended = tuple(_wanted(work))
    return work


def _check_apart(image: IsoImage, trees: Iterable[EditableTree], udf: UdfRewrite | None) -> None:
    """:raises ImageError: a directory or path table shares blocks with another, or is not all there."""
    spans = [
        (one.extent.lba, one.blocks, one.extent.length) for tree in trees for one in tree.directories() if one.extent
    ]
    for tree in trees:
        size = _table_size(tree)
        spans += [(lba, blocks_for(size), size) for lba in {lba for lba, _, _ in find_path_tables(tree)}]
    spans += [(one.start, one.blocks, one.blocks * BLOCK) for one in (udf.udf.metadata_spans if udf else ())]
    end = Lba(0)
    for lba, blocks, length in sorted(spans):
        if lba < end or lba_offset(lba) + length > image.size:
            what = "shares blocks with another" if lba < end else "is cut off"
            raise ImageError(f"a directory or path table {what}", image.place.at(lba_offset(lba)))
        end = Lba(lba + blocks)


def _table_size(tree: EditableTree) -> int:
    """Bytes of its path table (8.4.13)."""
    return int.from_bytes(tree.descriptors[0].raw[_TABLE_SIZE : _TABLE_SIZE + 4], "little")


def _new_data(nodes: Iterable[Node]) -> tuple[dict[int, PieceTable], dict[int, int]]:
    """The data of new files, each once; and which of them each node has."""
    contents: dict[int, PieceTable] = {}
    data_of: dict[int, int] = {}
    linked: dict[object, int] = {}
    for node in nodes:
        if node.content is None or not node.content.size:
            continue
        key = linked.setdefault(node.link, id(node)) if node.link is not None else id(node)
        data_of[id(node)] = key
        if key not in contents:
            contents[key] = node.content.table()
    return contents, data_of


def _gone(image: IsoImage, changed: Sequence[tuple[EditableTree, AppliedEdits]]) -> frozenset[Lba]:
    """First blocks of data that entries left and none names any more, in this session."""
    left = {
        one.records[0].lba
        for _, done in changed
        for one in done.removed_entries
        if one.records and one.records[0].length and one.directory is None
    }
    if not left:
        return frozenset()
    named = {record.lba for tree, _ in changed for folder in tree.directories() for one in folder.entries
             for record in one.records}  # fmt: skip
    return frozenset(lba for lba in left - named if lba >= image.session_lba)


def _measure(work: TreeRewrite, source: ByteSource, place: Place, *, follow: bool) -> None:
    """Notes how long everything becomes. ``follow``: the root moves. :raises SizeError: too many directories."""
    tree = work.tree
    nowhere = {id(folder): (tree.base, 0) for folder in tree.directories()}
    if len(nowhere) > MAX_DIRECTORIES:
        raise SizeError(f"{len(nowhere):,} directories are more than the {tree.kind} tree can have", place)
    more = {
        id(one): [(tree.base, 0)] * one.extra_records
        for folder in tree.directories()
        for one in folder.entries
        if one.extra_records
    }
    places = TreePlacement(nowhere, lambda _: tree.base, more, {})
    assembler = _assembler(work, source, source.read, places)
    laid, areas = assembler.serialize_directories()
    for folder in tree.directories():
        longer = folder.extent is not None and len(laid.get(id(folder), b"")) > folder.extent.length
        folder.is_moved = longer or id(folder) in areas  # libarchive reads what continues records right behind them
    tree.root.is_moved = tree.root.is_moved or follow
    tree.root.is_changed = tree.root.is_changed or follow
    tree.propagate_moves()
    laid, areas = assembler.serialize_directories()
    if areas and not tree.root.is_moved and assembler.root_continuation_fields():
        # What libarchive has not come by hides all that comes later: where directories moved, the root's may be that.
        work.root_continuation_host = assembler.root_continuation_host = next(
            one for one in work.moved_directories if id(one) in areas
        )
        laid, areas = assembler.serialize_directories()
    work.directory_sizes = {key: len(data) for key, data in laid.items()}
    work.continuation_sizes = {key: len(data) for key, data in areas.items()}
    work.path_table_size = len(assembler.serialize_path_table("little"))


def _assembler(
    work: TreeRewrite, source: ByteSource, patched: Callable[[int, int], bytes], places: TreePlacement
) -> TreeSerializer:
    nodes = {id(one.node): one.node for one in work.applied.new_entries.values() if one.node}
    links = Counter(node.link for node in nodes.values() if node.link is not None)
    serials = (number for number in count(1) if number not in work.tree.serial_numbers)
    return TreeSerializer(work.tree, source, patched, places, links, serials, work.root_continuation_host)


def _vacated(image: IsoImage, works: Iterable[TreeRewrite], gone: frozenset[Lba]) -> Iterator[Span]:
    for work in works:
        for folder in (*work.applied.removed_directories, *work.moved_directories):
            if folder.extent is not None and folder.extent.lba >= image.session_lba:
                yield Span(folder.extent.lba, folder.blocks, "directory")
        size = blocks_for(_table_size(work.tree))
        yield from (Span(lba, size, "path table") for lba in work.outgrown_path_tables if lba >= image.session_lba)
    yield from {span for tree in image.trees for file in tree.files if is_removed(file, gone) for span in file.spans}


def is_removed(file: IsoFile, gone: frozenset[Lba]) -> bool:
    """The data of ``file`` leave the image."""
    return bool(file.size) and file.records[0].lba in gone


def _wanted(work: RestructuredTrees) -> Iterator[Span]:
    """In the order of :meth:`Restructure.settled`. What UDF has is last: 7-Zip looks for the last anchors behind it."""
    for one in work.rewrites:
        for folder in one.moved_directories:
            yield Span(NO_BLOCK, blocks_for(one.directory_sizes[id(folder)]), "directory")
            if id(folder) in one.continuation_sizes:
                yield Span(NO_BLOCK, blocks_for(one.continuation_sizes[id(folder)]), "continued records")
        yield from (Span(NO_BLOCK, blocks_for(one.path_table_size), "path table") for _ in one.outgrown_path_tables)
    for table in work.new_data.values():
        yield Span(NO_BLOCK, blocks_for(table.length), "new file")
    yield from work.udf.needed_spans if work.udf else ()


def _more_sections(
    works: Iterable[TreeRewrite], exchanges: Iterable[FileReplacement]
) -> dict[int, list[tuple[Lba, int]]]:
    """The sections of exchanged files for which there are no records, by entry."""
    by_offset = {one.records[-1].offset: one for work in works for folder in work.tree.directories()
                 for one in folder.entries if one.extra_records}  # fmt: skip
    found: dict[int, list[tuple[Lba, int]]] = {}
    for exchange in exchanges if by_offset else ():
        for _, file in exchange.files:
            entry = by_offset.get(file.records[-1].offset)
            if entry is not None:
                lengths = split_into_sections(exchange.table.length, len(file.records))
                begins = accumulate(map(blocks_for, lengths[:-1]), initial=exchange.start)
                sections = [(Lba(at), length) for at, length in zip(begins, lengths, strict=True)]
                found[id(entry)] = sections[len(file.records) :]
    return found
