"""Names that come, go or change on the image: what that needs of its layout, and what it writes.

First everything is changed in memory and measured (:func:`restructure`); the layout finds places; then every record,
path table and descriptor that tells of them is made (:meth:`Restructure.settled`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from cosremaster.errors import Place, ProofError, SizeError, UnsupportedError
from cosremaster.files import FileSource
from cosremaster.iso.assemble import NO_PLACE, RECORD_LBA, RECORD_LENGTH, Assembler, Places
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.exchange import Exchange
from cosremaster.iso.extents import file_spans
from cosremaster.iso.folders import Entry, Folder, FolderTree, read_folders
from cosremaster.iso.model import Directory, Image, IsoFile
from cosremaster.iso.plan import Layout
from cosremaster.iso.records import ROOT_RECORD, both_endian
from cosremaster.iso.regraft import Regrafted, regraft, shown_missing
from cosremaster.iso.sections import section_lengths
from cosremaster.iso.spans import Span
from cosremaster.iso.susp import fields
from cosremaster.iso.udf_tree import UdfWork, restructure_udf
from cosremaster.nodes import Node, join
from cosremaster.pieces import Literal, PieceTable
from cosremaster.units import BLOCK, Lba, blocks_for, lba_bytes

MAX_DIRECTORIES = 0xFFFF
_TABLE_SIZE = 132
_TABLES = ((140, "little"), (144, "little"), (148, "big"), (152, "big"))  # 8.4.14 to 8.4.17

Patches = dict[int, bytes]


@dataclass(slots=True)
class _Work:
    """One tree's changes. ``lengths``: of each changed folder, by its id; ``tables``: bytes of a path table."""

    tree: FolderTree
    done: Regrafted
    lengths: dict[int, int] = field(default_factory=dict)
    continuation: int = 0
    tables: int = 0

    @property
    def moved(self) -> list[Folder]:
        """Folders that need blocks of their own: new ones, and those that outgrow theirs."""
        return [
            one
            for one in self.tree.folders()
            if one.changed and (one.extent is None or self.lengths[id(one)] > one.extent.length)
        ]

    @property
    def outgrown(self) -> list[Lba]:
        """Path tables that need more blocks than they have."""
        return [lba for lba, _, _ in table_slots(self.tree) if blocks_for(self.tables) > self._table_blocks()]

    def _table_blocks(self) -> int:
        return blocks_for(int.from_bytes(self.tree.descriptors[0].raw[_TABLE_SIZE : _TABLE_SIZE + 4], "little"))

    @property
    def directories_change(self) -> bool:
        """The path table says something else."""
        fresh = (one.entry for one in self.tree.folders())
        return bool(self.moved or self.done.folders) or any(one is not None and one.fresh for one in fresh)


def table_slots(tree: FolderTree) -> list[tuple[Lba, str, tuple[int, ...]]]:
    """The path tables of a tree: block from the image's start, byte order, and the byte offsets that tell it."""
    found: dict[tuple[Lba, str], list[int]] = {}
    for descriptor in tree.descriptors:
        for at, order in _TABLES:
            lba = int.from_bytes(descriptor.raw[at : at + 4], order)  # type: ignore[arg-type]
            if lba:
                found.setdefault((Lba(tree.base + lba), order), []).append(lba_bytes(descriptor.lba) + at)
    return [(lba, order, tuple(told)) for (lba, order), told in found.items()]


@dataclass(frozen=True, slots=True)
class Expected:
    """A file of the new image: bytes, and where its first data stand (those of each section of an old one)."""

    size: int
    starts: tuple[Lba, ...]


def _stays(entry: Entry, exchange: Exchange | None, layout: Layout) -> Expected:
    if exchange is not None:
        return Expected(exchange.table.length, (exchange.start,) if exchange.table.length else ())
    starts = tuple(layout.block(one.lba) for one in entry.records if one.length)
    return Expected(sum(one.length for one in entry.records), starts)


@dataclass(slots=True)
class Restructure:
    """Changed trees, measured. ``gone``: first blocks of data that nothing names any more; ``vacated``: all blocks
    that are given up; ``appended``: runs of blocks that are needed, in the order that :meth:`settled` is told their
    places in; ``contents``: the data of new files by node id, shared by hard links; ``data``: where they go, once that
    is settled; ``data_of``: whose each node has."""

    image: Image
    source: FileSource
    works: list[_Work]
    gone: frozenset[Lba]
    contents: dict[int, PieceTable]
    data_of: dict[int, int]
    vacated: tuple[Span, ...] = ()
    appended: tuple[Span, ...] = ()
    warnings: tuple[str, ...] = ()
    data: dict[int, Lba] = field(default_factory=dict)
    udf: UdfWork | None = None

    def expected(self, layout: Layout, placed: Iterable[Exchange]) -> dict[Lba, dict[bytes, Expected]]:
        """What has to be found in each tree of the new image, by its descriptor's block and by path."""
        new = {file.records[0].offset: one for one in placed for _, file in one.files}
        found: dict[Lba, dict[bytes, Expected]] = {}
        for work in self.works:
            inside = found[work.tree.descriptors[0].lba] = {}
            found |= {one.lba: {} for one in work.tree.descriptors[1:]}
            waiting = [(b"", work.tree.root)]
            while waiting:
                path, folder = waiting.pop()
                for entry in folder.entries:
                    if entry.hidden:
                        continue
                    below = join(path, entry.shown)
                    if entry.folder is not None:
                        waiting.append((below, entry.folder))
                    elif entry.records:
                        inside[below] = _stays(entry, new.get(entry.records[0].offset), layout)
                    elif entry.node is not None:
                        size = entry.node.content.size if entry.node.content else 0
                        inside[below] = Expected(size, (self._place_of(entry.node),) if size else ())
        return found

    def settled(
        self, starts: Sequence[Lba], exchanges: Iterable[Exchange], patches: Patches
    ) -> tuple[Patches, dict[Lba, PieceTable]]:
        """What is written where: patches of bytes that stay at their place, and the bytes of what ``appended`` asked
        for by first block. ``patches``: what else changes in directories as they stand.
        """
        at = iter(starts)
        data = self.data = {key: next(at) for key in self.contents}
        tables = {place: self.contents[key] for key, place in data.items()}
        more = _more_sections(self.works, exchanges)
        serial = 1 + max((len(tree.files) + len(tree.directories) for tree in self.image.trees), default=0)
        if self.udf is not None:
            first = next(at) if self.udf.wanted else NO_PLACE
            entries = self.udf.settled(first, self._place_of, patches)
            tables |= {first: PieceTable([Literal(entries)])} if entries else {}
        for work in self.works:
            own: dict[int, tuple[Lba, int]] = {}
            for folder in work.tree.folders():
                if folder.extent is not None:
                    own[id(folder)] = folder.extent.lba, folder.extent.length
            moved = work.moved
            for folder in moved:
                own[id(folder)] = next(at), work.lengths[id(folder)]
            continuation = next(at) if work.continuation else work.tree.base
            table_places = {lba: next(at) for lba in work.outgrown}
            patches |= dict(_directory_patches(self.source, work.tree, own))
            places = Places(own, self._place_of, more, continuation)
            assembler = _assembler(work, self.source, _overlaid(self.source, patches), places, serial)
            laid, areas = assembler.folders()
            tables |= {continuation: PieceTable([Literal(areas)])} if areas else {}
            for folder in work.tree.folders():
                if not folder.changed:
                    continue
                lba, length = own[id(folder)]
                if folder.extent is not None:
                    start = lba_bytes(folder.extent.lba)
                    for offset in [one for one in patches if start <= one < start + folder.extent.length]:
                        del patches[offset]
                if folder.extent is not None and lba == folder.extent.lba:
                    patches[lba_bytes(lba)] = laid[id(folder)].ljust(length, b"\0")
                else:
                    tables[lba] = PieceTable([Literal(laid[id(folder)])])
            patches |= dict(self._table_patches(work, assembler, table_places, tables))
        return patches, tables

    def _place_of(self, node: Node) -> Lba:
        """Where a new file's data begin."""
        return self.data[self.data_of[id(node)]]

    def _table_patches(
        self, work: _Work, assembler: Assembler, places: Mapping[Lba, Lba], tables: dict[Lba, PieceTable]
    ) -> Iterator[tuple[int, bytes]]:
        """Path tables where they were, or what tells of those that got new blocks."""
        if not work.directories_change:
            return
        for lba, order, told in table_slots(work.tree):
            new = assembler.path_table(order)
            if lba in places:
                tables[places[lba]] = PieceTable([Literal(new)])
                number = (places[lba] - work.tree.base).to_bytes(4, order)  # type: ignore[arg-type]
                yield from ((at, number) for at in told)
            else:
                old = int.from_bytes(work.tree.descriptors[0].raw[_TABLE_SIZE : _TABLE_SIZE + 4], "little")
                yield lba_bytes(lba), new.ljust(old, b"\0")
        for descriptor in work.tree.descriptors:
            yield lba_bytes(descriptor.lba) + _TABLE_SIZE, both_endian(work.tables)


def restructure(image: Image, source: FileSource, edits: IsoEdits, exchanges: Sequence[Exchange]) -> Restructure | None:
    """The trees of ``image`` after ``edits``; None where no name comes, goes or changes, and no file needs records.

    :raises UnsupportedError: something points at what should go, or a tree cannot hold what should come.
    :raises SizeError: more directories than a path table can number.
    """
    grown = [
        (file, one)
        for one in exchanges
        for _, file in one.files
        if len(section_lengths(one.table.length, len(file.records))) > len(file.records)
    ]
    if not (edits.restructures or grown):
        return None
    trees = read_folders(source, image.trees)
    by_offset = {one.records[-1].offset: (folder, one) for tree in trees for folder in tree.folders()
                 for one in folder.entries if one.records}  # fmt: skip
    for file, exchange in grown:
        folder, entry = by_offset[file.records[-1].offset]
        entry.more = len(section_lengths(exchange.table.length, len(file.records))) - len(file.records)
        folder.changed = True
    udf = restructure_udf(image, source, trees[0], edits)
    works = [_Work(tree, regraft(tree, edits, image.place)) for tree in trees]
    changed = [(one.tree, one.done) for one in works] + ([(udf.tree, udf.done)] if udf else [])
    gone = _gone(image, changed)
    contents, data_of = _new_data(edits.added)
    work = Restructure(image, source, works, gone, contents, data_of, udf=udf)
    work.warnings = tuple(line for tree, done in changed for line in shown_missing(tree, done))
    for one in works:
        _measure(one, source, image.place)
    work.vacated = (*_vacated(image, works, gone), *(udf.vacated() if udf else ()))
    work.appended = tuple(_wanted(work))
    return work


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


def _gone(image: Image, changed: Sequence[tuple[FolderTree, Regrafted]]) -> frozenset[Lba]:
    """First blocks of data that entries left and none names any more, in this session."""
    left = {one.records[0].lba for _, done in changed for one in done.left if one.records and one.records[0].length
            and one.folder is None}  # fmt: skip
    if not left:
        return frozenset()
    named = {record.lba for tree, _ in changed for folder in tree.folders() for one in folder.entries
             for record in one.records}  # fmt: skip
    return frozenset(lba for lba in left - named if lba >= image.session)


def _measure(work: _Work, source: FileSource, place: Place) -> None:
    """Notes how long everything becomes. :raises SizeError: too many directories."""
    tree = work.tree
    nowhere = {id(folder): (tree.base, 0) for folder in tree.folders()}
    more = {id(one): [(tree.base, 0)] * one.more for folder in tree.folders() for one in folder.entries if one.more}
    places = Places(nowhere, lambda _: tree.base, more, tree.base)
    assembler = _assembler(work, source, source.at, places, 0)
    laid, areas = assembler.folders()
    work.lengths = {key: len(data) for key, data in laid.items()}
    work.continuation, work.tables = len(areas), len(assembler.path_table("little"))
    if len(nowhere) > MAX_DIRECTORIES:
        raise SizeError(f"{len(nowhere):,} directories are more than the {tree.kind} tree can have", place)


def _assembler(
    work: _Work, source: FileSource, patched: Callable[[int, int], bytes], places: Places, serial: int
) -> Assembler:
    nodes = {id(one.node): one.node for one in work.done.came.values() if one.node}
    links = Counter(node.link for node in nodes.values() if node.link is not None)
    return Assembler(work.tree, source, patched, places, links, serial)


def _vacated(image: Image, works: Iterable[_Work], gone: frozenset[Lba]) -> Iterator[Span]:
    for work in works:
        for folder in (*work.done.folders, *work.moved):
            if folder.extent is not None and folder.extent.lba >= image.session:
                yield Span(folder.extent.lba, folder.blocks, "directory")
        size = int.from_bytes(work.tree.descriptors[0].raw[_TABLE_SIZE : _TABLE_SIZE + 4], "little")
        yield from (Span(lba, blocks_for(size), "path table") for lba in work.outgrown if lba >= image.session)
    yield from {span for tree in image.trees for file in tree.files if is_gone(file, gone) for span in file_spans(file)}


def is_gone(file: IsoFile, gone: frozenset[Lba]) -> bool:
    """The data of ``file`` leave the image."""
    return bool(file.size) and file.records[0].lba in gone


def _wanted(work: Restructure) -> Iterator[Span]:
    """In the order of :meth:`Restructure.settled`."""
    for table in work.contents.values():
        yield Span(NO_PLACE, blocks_for(table.length), "new file")
    yield from work.udf.wanted if work.udf else ()
    for one in work.works:
        yield from (Span(NO_PLACE, blocks_for(one.lengths[id(folder)]), "directory") for folder in one.moved)
        if one.continuation:
            yield Span(NO_PLACE, blocks_for(one.continuation), "continued records")
        yield from (Span(NO_PLACE, blocks_for(one.tables), "path table") for _ in one.outgrown)


def _more_sections(works: Iterable[_Work], exchanges: Iterable[Exchange]) -> dict[int, list[tuple[Lba, int]]]:
    """The sections of exchanged files for which there are no records, by entry."""
    by_offset = {one.records[-1].offset: one for work in works for folder in work.tree.folders()
                 for one in folder.entries if one.more}  # fmt: skip
    found: dict[int, list[tuple[Lba, int]]] = {}
    for exchange in exchanges if by_offset else ():
        for _, file in exchange.files:
            entry = by_offset.get(file.records[-1].offset)
            if entry is not None:
                lengths = section_lengths(exchange.table.length, len(file.records))
                begins = accumulate(map(blocks_for, lengths[:-1]), initial=exchange.start)
                sections = [(Lba(at), length) for at, length in zip(begins, lengths, strict=True)]
                found[id(entry)] = sections[len(file.records) :]
    return found


def _directory_patches(
    source: FileSource, tree: FolderTree, places: Mapping[int, tuple[Lba, int]]
) -> Iterator[tuple[int, bytes]]:
    """What tells of directories that moved or changed their length, and link counts; at old offsets."""
    moved = {id(one) for one in tree.folders() if one.extent and places[id(one)][0] != one.extent.lba}
    for folder in tree.folders():
        if folder.extent is None or folder.parent is None:
            continue
        start = lba_bytes(folder.extent.lba)
        if id(folder) in moved:
            records = [start, *(one.offset for one in (folder.entry.records if folder.entry else ()))]
            if folder is tree.root:
                records += [lba_bytes(one.lba) + ROOT_RECORD for one in tree.descriptors]
            for at in records:
                yield from _place_patch(at, tree, places[id(folder)])
            yield from _relocation_patches(source, tree, folder, Lba(places[id(folder)][0] - tree.base))
        if moved & {id(folder), id(folder.parent)}:
            yield from _place_patch(_dot_dot(source, folder.extent), tree, places[id(folder.parent)])
        if tree.counts and folder.changed:
            yield from _link_counts(source, tree, folder)


def _place_patch(record: int, tree: FolderTree, place: tuple[Lba, int]) -> Iterator[tuple[int, bytes]]:
    """The directory record at byte ``record`` names this place."""
    told = _told(Directory(*place), tree)
    yield record + RECORD_LBA, told[:8]
    yield record + RECORD_LENGTH, told[8:]


def _dot_dot(source: FileSource, extent: Directory) -> int:
    """The byte offset of a directory's second record."""
    start = lba_bytes(extent.lba)
    return start + source.at(start, 1)[0]


def _relocation_patches(source: FileSource, tree: FolderTree, folder: Folder, lba: Lba) -> Iterator[tuple[int, bytes]]:
    """CL of a relocated directory that moved; PL of those whose name stands in a directory that moved."""
    if folder.above is not None and folder.above is not folder.parent:
        holder = next(one for one in folder.above.entries if one.folder is folder)
        for record in holder.records:
            yield from _field_patch(source, tree, record.offset, b"CL", 4, both_endian(lba))
    for entry in folder.entries:
        if entry.placeholder and entry.folder is not None and entry.folder.extent is not None:
            yield from _field_patch(source, tree, _dot_dot(source, entry.folder.extent), b"PL", 4, both_endian(lba))


def _link_counts(source: FileSource, tree: FolderTree, folder: Folder) -> Iterator[tuple[int, bytes]]:
    """PX of a directory wherever it stands: in its own records and in the ``..`` of those below."""
    assert folder.extent is not None
    records = [lba_bytes(folder.extent.lba)]
    records += [one.offset for one in (folder.entry.records if folder.entry else ())]
    if folder is tree.root:
        records.append(_dot_dot(source, folder.extent))
    for entry in folder.entries:
        if entry.folder is not None and entry.folder.extent is not None and not entry.placeholder:
            records.append(_dot_dot(source, entry.folder.extent))
    count = both_endian(2 + folder.subfolders)
    for offset in records:
        yield from _field_patch(source, tree, offset, b"PX", 12, count)


def _field_patch(
    source: FileSource, tree: FolderTree, offset: int, sign: bytes, inside: int, data: bytes
) -> Iterator[tuple[int, bytes]]:
    """``data`` inside the field ``sign`` of the record at ``offset``, unless it says so already."""
    if tree.dialect is None:
        return
    raw = source.at(offset, source.at(offset, 1)[0])
    for at, told in fields(source, raw, offset, tree.dialect.skip, tree.base):
        if told[:2] == sign and told[inside : inside + len(data)] != data:
            yield at + inside, data


def _overlaid(source: FileSource, patches: Patches) -> Callable[[int, int], bytes]:
    """Reads the image as ``patches`` change it."""
    offsets = sorted(patches)
    longest = max(map(len, patches.values()), default=0)

    def read(offset: int, length: int) -> bytes:
        raw = bytearray(source.at(offset, length))
        for at in offsets[bisect_left(offsets, offset - longest) : bisect_left(offsets, offset + len(raw))]:
            data = patches[at]
            first, last = max(at, offset), min(at + len(data), offset + len(raw))
            if first < last:
                raw[first - offset : last - offset] = data[first - at : last - at]
        return bytes(raw)

    return read


def check_removal(image: Image, edits: IsoEdits, *, drop_hfsplus: bool) -> None:
    """:raises UnsupportedError: something that cannot follow points at a file that should go."""
    gone = [file for file in image.files if file.size and edits.new_path(file.path) is None]
    for file in gone:
        place = image.place.inside(file.path)
        for span in file_spans(file):
            if image.catalog and span.start <= image.catalog.lba < span.end:
                raise UnsupportedError("is the boot catalog, which the firmware looks for", place)
            if any(span.start <= one.entry.lba < span.end for one in image.boot_images):
                raise UnsupportedError("is a boot image: an El Torito entry leads to it", place)
            if any(span.start <= one.span.start < span.end and not one.filler for one in image.partitions):
                raise UnsupportedError("a partition begins with it", place)
            for one in image.firmware:
                for target in one.targets:
                    if span.start * BLOCK <= target.start < span.end * BLOCK:
                        raise UnsupportedError(f"the {one.name}'s {target.what} points at it", place)
            if not drop_hfsplus and any(one.span.touches(span) for one in image.hfs):
                raise UnsupportedError(
                    "cannot be removed: an HFS+ file system names it too (--drop-hfsplus gives that file system up)",
                    place,
                )


def prove_folders(source: FileSource, image: Image) -> None:
    """Compares the path tables of every tree with its directories, and ``.`` and ``..`` with where those stand.

    :raises ProofError: they say something else.
    """
    for tree in read_folders(source, image.trees):
        places = {id(one): (one.extent.lba, one.extent.length) for one in tree.folders() if one.extent}
        assembler = Assembler(tree, source, source.at, Places(places, lambda _: NO_PLACE, {}, NO_PLACE), {}, 0)
        for lba, order, _ in table_slots(tree):
            table = assembler.path_table(order)
            if source.at(lba_bytes(lba), len(table)) != table:
                raise ProofError(f"a path table of the {tree.kind} tree tells of other directories", source.place)
        for folder in tree.folders():
            assert folder.extent is not None and folder.parent is not None and folder.parent.extent is not None
            start = lba_bytes(folder.extent.lba)
            own, above = (_told(one, tree) for one in (folder.extent, folder.parent.extent))
            if source.at(start + RECORD_LBA, 16) != own:
                raise ProofError("a directory's . leads elsewhere", source.place.at(start))
            # In a Joliet tree of libisofs every .. leads to its own directory; where nothing moved it still does.
            if source.at(_dot_dot(source, folder.extent) + RECORD_LBA, 16) not in (above, own):
                raise ProofError("a directory's .. leads elsewhere", source.place.at(start))


def _told(extent: Directory, tree: FolderTree) -> bytes:
    """How a record tells of an extent."""
    return both_endian(extent.lba - tree.base) + both_endian(extent.length)
