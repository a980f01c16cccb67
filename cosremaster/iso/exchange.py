"""Exchange and remove files where the trees of an image do not all show the same.

A file is exchanged at its place where all its names in all trees are exchanged, and else removed and added again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from cosremaster.errors import UnsupportedError
from cosremaster.io.pieces import PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.layout.replace import HiddenFile, check_removed_span
from cosremaster.iso.merged import MergedTrees
from cosremaster.iso.model import IsoFile, IsoImage
from cosremaster.iso.nodes import read_nodes
from cosremaster.iso.spans import Span
from cosremaster.iso.tree_edit.directories import UDF, DirectoryEntry, EditableTree
from cosremaster.records import Struct, replace
from cosremaster.tree.content import PieceContent
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.units import Lba


class PlannedExchanges(Struct, frozen=True):
    """Edits in which each exchanged file takes the place of the old one; others are removed and added.

    ``hidden``: the exchanged files that the primary tree does not show, by path. ``names``: the paths in the merged
    names of all files with directory records, by the offset of the first one.
    """

    edits: IsoEdits
    hidden: Mapping[bytes, HiddenFile]
    names: Mapping[int, bytes]


def plan_exchanges(image: IsoImage, source: ByteSource, merged: MergedTrees, edits: IsoEdits) -> PlannedExchanges:
    """Return ``edits`` of ``image`` with the files of ``edits.replaced`` exchanged in all trees.

    :raises ImageError: when the image's own tree cannot be read.
    :raises UnsupportedError: when a file has an extended attribute record or is interleaved.
    """
    names = _NamesByData(merged)
    shown = {file.path: file for file in image.files}
    hidden, covered, moved = dict[bytes, HiddenFile](), set[bytes](), list[bytes]()
    for path, table in edits.replaced.items():
        entries = names.entries[path]
        sharing = names.paths_sharing(entries)
        is_whole = bool(sharing) and all(other is not None and edits.replaced.get(other) is table for other in sharing)
        if path in shown:
            if not (is_whole or not shown[path].is_regular or (image.udf is None and names.have_same_data(entries))):
                moved.append(path)
        elif is_whole and sharing & shown.keys():
            covered.add(path)
        elif entries:
            file = _find_hidden_file(image, merged, path, entries) if is_whole else None
            if file is None:
                moved.append(path)
            else:
                hidden[path] = file
    if covered:
        edits = replace(edits, replaced={path: table for path, table in edits.replaced.items() if path not in covered})
    if moved:
        edits = _replace_by_addition(image, source, edits, moved)
    return PlannedExchanges(edits, hidden, names.by_record)


class _NamesByData:
    """The names of an image's data in all trees.

    ``entries``: of each path, the trees and their entries. ``by_record``: the path of each file with directory records,
    by the offset of the first one.
    """

    def __init__(self, merged: MergedTrees) -> None:
        """Index the entries of ``merged``."""
        self.entries: dict[bytes, list[tuple[EditableTree, DirectoryEntry]]] = defaultdict(list)
        self.by_record: dict[int, bytes] = {}
        paths: dict[int, bytes] = {}
        for tree, path, entry in merged.named_entries():
            self.entries[path].append((tree, entry))
            paths[id(entry)] = path
            if tree.kind != UDF and entry.records:
                self.by_record[entry.records[0].offset] = path
        self._paths: dict[Lba, set[bytes | None]] = defaultdict(set)
        for tree in merged.all_trees:
            for entry in tree.entries():
                if entry.has_data:
                    self._paths[entry.records[0].lba].add(paths.get(id(entry)))

    def have_same_data(self, entries: list[tuple[EditableTree, DirectoryEntry]]) -> bool:
        """Return whether ``entries`` all have the same data, or all have none."""
        return len({_find_data(entry) for _, entry in entries}) == 1

    def paths_sharing(self, entries: list[tuple[EditableTree, DirectoryEntry]]) -> set[bytes | None]:
        """Return the paths with the data that ``entries`` have in common, None for a name that is not known.

        The set is empty where they have no data in common.
        """
        if not self.have_same_data(entries) or not entries[0][1].has_data:
            return set()
        return self._paths[entries[0][1].records[0].lba]


def _find_data(entry: DirectoryEntry) -> tuple[Lba, int] | None:
    """Return the first block and the size of an entry's data, None if it has none."""
    return (entry.records[0].lba, sum(record.length for record in entry.records)) if entry.has_data else None


def _find_hidden_file(
    image: IsoImage, merged: MergedTrees, path: bytes, entries: list[tuple[EditableTree, DirectoryEntry]]
) -> HiddenFile | None:
    """Return the file at ``path``, which has ``entries`` in trees; None if its data cannot be exchanged in place."""
    by_record = {file.records[0].offset: (tree, file) for tree in image.trees for file in tree.files}
    spans, files = set[tuple[Span, ...]](), []
    for tree, entry in entries:
        if merged.udf is not None and tree is merged.udf.tree:
            udf_file = merged.udf.find_file(entry)
            if udf_file.is_inline:
                return None
            spans.add(tuple(replace(span, label="") for span in udf_file.spans))
        else:
            if not all(record.is_plain for record in entry.records):
                place = image.place.inside(path)
                raise UnsupportedError(
                    "cannot be exchanged: it has an extended attribute record or is interleaved", place
                )
            files.append(by_record[entry.records[0].offset])
            spans.add(tuple(replace(span, label="") for span in files[-1][1].spans))
    (span, *others), size = spans.pop(), sum(record.length for record in entries[0][1].records)
    if spans or others or span.start < image.session_lba:
        return None
    return HiddenFile(tuple(files), span, size)


def _replace_by_addition(image: IsoImage, source: ByteSource, edits: IsoEdits, paths: list[bytes]) -> IsoEdits:
    """Return ``edits`` with the exchanged files at ``paths`` removed and added instead; new bytes that are shared stay
    so.
    """
    nodes, added = read_nodes(image, source), list[Node]()
    tables: dict[int, list[PieceTable]] = defaultdict(list)
    for path in paths:
        tables[id(edits.replaced[path])].append(edits.replaced[path])
    for path in paths:
        table, new_path = edits.replaced[path], edits.new_path(path)
        if new_path is not None:
            link = ("exchanged", id(table)) if len(tables[id(table)]) > 1 else None
            content = PieceContent(table.pieces)
            added.append(
                replace(nodes[path], path=new_path, kind=NodeKind.FILE, target=b"", content=content, link=link)
            )
    moved = set(paths)
    return replace(
        edits,
        replaced={path: table for path, table in edits.replaced.items() if path not in moved},
        removed=tuple(dict.fromkeys((*edits.removed, *paths))),
        renamed={old: new for old, new in edits.renamed.items() if old not in moved},
        added=tuple(sorted((*edits.added, *added), key=lambda node: node.path)),
    )


def check_hidden_removal(image: IsoImage, merged: MergedTrees, edits: IsoEdits, *, drop_hfsplus: bool) -> None:
    """Check that nothing points at a removed file that the primary tree does not show.

    :param drop_hfsplus: HFS+ file systems are given up.
    :raises UnsupportedError: when a structure that cannot be updated does.
    """
    for path, span in _list_hidden_spans(merged) if edits.removed else ():
        if edits.new_path(path) is None:
            check_removed_span(image, span, image.place.inside(path), drop_hfsplus)


def _list_hidden_spans(merged: MergedTrees) -> Iterator[tuple[bytes, Span]]:
    """Yield path and span of the data of each file that the primary tree does not show."""
    for tree, path, entry in merged.named_entries():
        if not (entry.is_outside_primary and entry.has_data):
            continue
        if merged.udf is not None and tree is merged.udf.tree:
            spans = merged.udf.find_file(entry).spans
        else:
            spans = IsoFile(path, entry.records).spans
        yield from ((path, span) for span in spans)
