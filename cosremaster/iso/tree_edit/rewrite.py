"""Rewrite one edited tree: measure what becomes of it, then write its records and path tables at their places."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count

from cosremaster.errors import Place, SizeError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import ByteSource
from cosremaster.iso.ecma119.records import PATH_TABLE_SIZE, Extent, pack_both_endian
from cosremaster.iso.spans import CONTINUED_RECORDS, Span
from cosremaster.iso.tree_edit.apply import AppliedEdits
from cosremaster.iso.tree_edit.directories import DirectoryEntry, EditableDirectory, EditableTree
from cosremaster.iso.tree_edit.patches import (
    PathTable,
    find_path_tables,
    make_patched_reader,
    mend_dots,
    patch_directories,
    patch_root_continuation,
)
from cosremaster.iso.tree_edit.serialize import NO_BLOCK, TreePlacement, TreeSerializer
from cosremaster.records import Struct, field
from cosremaster.tree.nodes import Node
from cosremaster.units import Lba, blocks_for, lba_offset

MAX_DIRECTORIES = 0xFFFF
"""The most directories of a tree: path tables number them in 16 bits (9.4.4)."""

Patches = dict[int, bytes]
"""Bytes by their byte offset in the old image."""


class TreeRewrite(Struct):
    """The changes of one tree. Sizes count bytes and are known after :meth:`measure`.

    ``directories``: those of the tree after the edits, each one before those below it.
    ``directory_sizes``: of each changed directory, by its id.
    ``continuation_sizes``: of the continuation areas of a directory (SUSP 5.1), by its id.
    ``path_table_size``: of one path table.
    ``root_continuation_host``: the directory whose continuation areas begin with those of the root's ``.``.
    ``late_records``: the offsets of the first records of files on the image whose data go behind the directories.
    """

    source: ByteSource
    tree: EditableTree
    applied: AppliedEdits
    directories: Sequence[EditableDirectory] = ()
    directory_sizes: dict[int, int] = field(default_factory=dict)
    continuation_sizes: dict[int, int] = field(default_factory=dict)
    path_table_size: int = 0
    root_continuation_host: EditableDirectory | None = None
    late_records: frozenset[int] = frozenset()

    @property
    def moved_directories(self) -> list[EditableDirectory]:
        """The directories that get other blocks, each one after those that hold its record and its name.

        The record of a relocated directory is in the relocation directory, which may come after the one that names it.
        """
        ordered: dict[int, EditableDirectory] = {}
        for directory in (directory for directory in self.directories if directory.is_moved):
            waiting = [directory]
            while waiting:
                above = [each for each in (waiting[-1].parent, waiting[-1].named_in) if each and each.is_moved]
                first = next((each for each in above if id(each) not in ordered and each not in waiting), None)
                if first is None:
                    ordered.setdefault(id(waiting[-1]), waiting[-1])
                    waiting.pop()
                else:
                    waiting.append(first)
        return list(ordered.values())

    @property
    def outgrown_path_tables(self) -> list[PathTable]:
        """The path tables that need more blocks than they have, or a block that is not another one's too."""
        tables = find_path_tables(self.tree)
        is_larger = blocks_for(self.path_table_size) > blocks_for(get_path_table_size(self.tree))
        return tables if is_larger or share_blocks(tables) else []

    def measure(self, place: Place, *, moves_root: bool) -> None:
        """Set all sizes, and find the directories that have to move; ``moves_root``: the root does in any case.

        :raises SizeError: when there are more directories than a path table can number.
        """
        tree = self.tree
        self.directories = tuple(tree.directories())
        extents = dict.fromkeys(map(id, self.directories), Extent(tree.base, 0))
        if len(extents) > MAX_DIRECTORIES:
            raise SizeError(f"{len(extents):,} directories are more than the {tree.kind} tree can have", place)
        read = (entry for directory in self.directories if directory.unread is None for entry in directory.entries)
        grown = (entry for entry in read if entry.extra_records > 0)
        sections = {id(entry): [(tree.base, 0)] * entry.extra_records for entry in grown}
        serializer = self._make_serializer(self.source.read, TreePlacement(extents, lambda _: tree.base, sections))
        records, continuations = serializer.serialize_directories()
        for directory in self.directories:
            is_longer = directory.extent is not None and len(records.get(id(directory), b"")) > directory.extent.length
            # libarchive reads continuation areas right behind their records, so those directories move too
            directory.is_moved = is_longer or id(directory) in continuations
        tree.root.is_moved = tree.root.is_moved or moves_root
        tree.root.is_changed = tree.root.is_changed or moves_root
        tree.propagate_moves()
        self._move_unread_areas(bool(continuations))
        records, continuations = serializer.serialize_directories()
        if continuations and not tree.root.is_moved and serializer.root_continuation_fields():
            # A continuation area that libarchive has not reached yet hides all that it would reach later. Where other
            # directories moved behind it, the area of the root's "." would be that one, so it moves with the first.
            self.root_continuation_host = next(
                directory for directory in self.moved_directories if id(directory) in continuations
            )
            serializer.root_continuation_host = self.root_continuation_host
            records, continuations = serializer.serialize_directories()
        self.directory_sizes = {key: len(data) for key, data in records.items()}
        self.continuation_sizes = {key: len(data) for key, data in continuations.items()}
        self.path_table_size = len(serializer.serialize_path_tables(["little"])["little"])
        late_entries = (*serializer.continued_entries.values(), *self._list_relocated_files())
        self.late_records = frozenset(entry.records[0].offset for entry in late_entries if entry.has_data)

    def _list_relocated_files(self) -> Iterator[DirectoryEntry]:
        """Yield the files in and below relocated directories that move (RRIP 4.1.5).

        libarchive knows the paths of such files only when it has read all directories.
        """
        relocated: set[int] = set()
        for directory in self.directories:
            if directory is self.tree.root:  # it has no name, and so is named in nothing
                continue
            above = (directory.parent, directory.named_in)
            if above[0] is not above[1] or (relocated and any(id(each) in relocated for each in above)):
                relocated.add(id(directory))
                if directory.is_moved:
                    yield from (entry for entry in directory.entries if entry.directory is None)

    def _move_unread_areas(self, has_new_areas: bool) -> None:
        """Move directories whose continuation areas libarchive would not read any more.

        It reads an area only where it comes by: right behind a directory, or behind another area. One that it does not
        read hides all behind it.

        :param has_new_areas: there will be new areas, and that of the root's ``.`` among them.
        """
        tree = self.tree
        if tree.rock_ridge is None:
            return
        removed = (directory for directory in self.applied.removed_directories if directory.extent)
        old_directories = [*removed, *(directory for directory in self.directories if directory.extent)]
        if not any(directory.area_blocks for directory in old_directories):
            return
        was_read = _find_read_blocks(old_directories, tree.root_area_blocks)
        while True:
            root_blocks = set[Lba]() if has_new_areas or tree.root.is_moved else tree.root_area_blocks
            staying = [directory for directory in self.directories if directory.extent and not directory.is_moved]
            is_read = _find_read_blocks(staying, root_blocks)
            unread = [directory for directory in staying if directory.area_blocks & was_read - is_read]
            if not unread:
                return
            for directory in unread:
                directory.is_moved = directory.is_changed = has_new_areas = True
            tree.propagate_moves()

    def vacated_spans(self, session: Lba) -> Iterator[Span]:
        """Yield the blocks that directories and path tables give up, from block ``session`` on."""
        for directory in (*self.applied.removed_directories, *self.moved_directories):
            if directory.extent is not None and directory.extent.lba >= session:
                yield Span(directory.extent.lba, directory.blocks, "directory")
        blocks = blocks_for(get_path_table_size(self.tree))
        lbas = dict.fromkeys(table.lba for table in self.outgrown_path_tables)
        yield from (Span(lba, blocks, "path table") for lba in lbas if lba >= session)

    def needed_spans(self) -> Iterator[Span]:
        """Yield the runs of blocks that the tree needs, in the order of :meth:`place`; their places are not known."""
        for directory in self.moved_directories:
            yield Span(NO_BLOCK, blocks_for(self.directory_sizes[id(directory)]), "directory")
            if id(directory) in self.continuation_sizes:
                yield Span(NO_BLOCK, blocks_for(self.continuation_sizes[id(directory)]), CONTINUED_RECORDS)
        for _ in self.outgrown_path_tables:
            yield Span(NO_BLOCK, blocks_for(self.path_table_size), "path table")

    def place(
        self,
        starts: Iterator[Lba],
        find_data: Callable[[Node], Lba],
        extra_sections: Mapping[int, Sequence[tuple[Lba, int]]],
    ) -> TreePlacement:
        """Return the tree's placement; ``starts`` yields the first block of each of :meth:`needed_spans`."""
        extents = {id(directory): directory.extent for directory in self.directories if directory.extent}
        continuations: dict[int, Lba] = {}
        for directory in self.moved_directories:
            extents[id(directory)] = Extent(next(starts), self.directory_sizes[id(directory)])
            if id(directory) in self.continuation_sizes:
                continuations[id(directory)] = next(starts)
        path_tables = {(table.lba, table.order): next(starts) for table in self.outgrown_path_tables}
        return TreePlacement(extents, find_data, extra_sections, continuations, path_tables)

    def render(self, placement: TreePlacement, patches: Patches, tables: dict[Lba, PieceTable]) -> None:
        """Add the tree's bytes to ``patches`` where they replace old ones, else to ``tables`` by their first block."""
        patches |= dict(mend_dots(self.source, self.tree, placement.directories))
        patches |= dict(patch_directories(self.source, self.tree, placement.directories))
        if self.root_continuation_host is not None:
            areas_start = placement.continuations[id(self.root_continuation_host)]
            patches |= dict(patch_root_continuation(self.source, self.tree, areas_start))
        serializer = self._make_serializer(make_patched_reader(self.source, patches), placement)
        records, continuations = serializer.serialize_directories()
        for key, data in continuations.items():
            tables[placement.continuations[key]] = PieceTable([Literal(data)])
        offsets = sorted(patches)
        for removed in self.applied.removed_directories:
            _drop_patches(patches, offsets, removed.extent)
        for directory in (directory for directory in self.directories if directory.is_changed):
            data, new = records[id(directory)], placement.directories[id(directory)]
            _drop_patches(patches, offsets, directory.extent)  # the serialized records hold them
            if not directory.is_moved:
                patches[lba_offset(new.lba)] = data.ljust(new.length, b"\0")
            else:
                tables[new.lba] = PieceTable([Literal(data)])
        self._render_path_tables(serializer, placement, patches, tables)

    def _render_path_tables(
        self, serializer: TreeSerializer, placement: TreePlacement, patches: Patches, tables: dict[Lba, PieceTable]
    ) -> None:
        """Add the path tables, the pointers to those that move, and their size in the volume descriptors."""
        path_tables = find_path_tables(self.tree)
        serialized = serializer.serialize_path_tables({path_table.order for path_table in path_tables})
        for path_table in path_tables:
            data = serialized[path_table.order]
            start = placement.path_tables.get((path_table.lba, path_table.order))
            if start is None:
                patches[lba_offset(path_table.lba)] = data.ljust(get_path_table_size(self.tree), b"\0")
                continue
            tables[start] = PieceTable([Literal(data)])
            for pointer in path_table.pointers:
                patches[pointer] = (start - self.tree.base).to_bytes(4, path_table.order)
        for descriptor in self.tree.descriptors:
            patches[lba_offset(descriptor.lba) + PATH_TABLE_SIZE] = pack_both_endian(self.path_table_size)

    def _make_serializer(self, read: Callable[[int, int], bytes], placement: TreePlacement) -> TreeSerializer:
        """Return a serializer of the tree that gives new files the first free serial numbers."""
        nodes = {id(entry.node): entry.node for entry in self.applied.new_entries.values() if entry.node}
        links = Counter(node.link for node in nodes.values() if node.link is not None)
        serials = (number for number in count(1) if number not in self.tree.serial_numbers)
        host = self.root_continuation_host
        return TreeSerializer(self.tree, self.source, read, placement, links, serials, host, self.directories)


def share_blocks(tables: Sequence[PathTable]) -> bool:
    """Return whether two of the path tables of a tree begin at the same block, where they cannot both be right."""
    return len({table.lba for table in tables}) < len(tables)


def _drop_patches(patches: Patches, offsets: list[int], extent: Extent | None) -> None:
    """Drop the ``patches``, whose sorted ``offsets`` are given, of a directory at ``extent``, None for a new one."""
    if extent is not None:
        start = lba_offset(extent.lba)
        first, last = (bisect_left(offsets, at) for at in (start, start + extent.length))
        for offset in offsets[first:last]:
            patches.pop(offset, None)


def _find_read_blocks(directories: Iterable[EditableDirectory], root_blocks: set[Lba]) -> set[Lba]:
    """Return the blocks of continuation areas that libarchive comes by when it reads ``directories``.

    :param root_blocks: those of the root's ``.``.
    """
    ends, requested, read = set[Lba](), set(root_blocks), set[Lba]()
    for directory in directories:
        assert directory.extent is not None
        ends.add(Lba(directory.extent.lba + directory.blocks))
        requested |= directory.area_blocks
    for lba in sorted(requested):
        if lba in ends or lba - 1 in read:
            read.add(lba)
    return read


def get_path_table_size(tree: EditableTree) -> int:
    """Return the bytes of a path table of ``tree`` on the image (8.4.13)."""
    return int.from_bytes(tree.descriptors[0].raw[PATH_TABLE_SIZE : PATH_TABLE_SIZE + 4], "little")
