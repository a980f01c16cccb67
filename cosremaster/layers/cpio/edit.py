"""Turning edits into a layer's new plain bytes: kept entries keep their bytes and order, new ones follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TypeAlias, cast

from cosremaster.errors import OverlayError, ProofError
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros, join_neighbours
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.drop_entries import find_dropped, select_remaining
from cosremaster.layers.cpio.members import Member
from cosremaster.layers.cpio.read import index_of, link_key
from cosremaster.layers.cpio.rules import DOUBLE_NAME, BrokenRule, CheckedEntries, FinalEntry, InodeNumbers
from cosremaster.layers.cpio.tree import CpioTree
from cosremaster.layers.model import Layer
from cosremaster.layers.segments import EARLY
from cosremaster.records import Struct
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.paths import SymlinkLoopError, normal_name, parent_of, resolve_in_root
from cosremaster.tree.replacements import find_lasting_directories
from cosremaster.tree.superseding import Superseding


class PlacedEntry(Struct, frozen=True):
    """An entry of the new archive and its pieces: header, name, data, padding."""

    final: FinalEntry
    pieces: tuple[Piece, ...]


KeptEntry: TypeAlias = tuple[int, Member, bytes, bytes]
"""An entry that stays: its number, the member, the path that it unpacks to, and the name that it has from now on."""


def apply_edits(layer: Layer, edits: Edits) -> PieceTable:
    """Return the plain bytes of the stream of ``layer`` after ``edits``.

    :raises SizeError: a file is too large for cpio. :raises OverlayError: a new entry would break a rule of the
        unpackers. :raises ProofError: a kept entry would, and did not before.
    """
    tree = cast("CpioTree", layer.tree())
    index = index_of(layer)
    lasting, superseding = find_renewed_directories(tree, edits), edits.superseding
    new = list(place_new(layer, tree, [node for node, _ in edits.additions if node.path not in lasting], superseding))
    is_renewed = superseding.drops_dead or bool(superseding.paths and tree.superseding_numbers)
    gone = edits.removed_paths.difference(lasting)
    dropped = find_dropped(layer, tree, gone, superseding) if not lasting else None
    if dropped is not None:
        checked = CheckedEntries((entry.final for entry in new), tree.checked_entries, dropped=dropped.paths)
        pieces = list(select_remaining(layer, dropped))
    elif is_renewed or edits.removed_paths != superseding.paths:
        kept = partial(select_kept, layer, tree, gone, superseding)  # made anew each time, as there may be a million
        carriers = find_new_carriers(layer, (member for _, member, _, _ in kept()))
        pieces = []
        remaining = _collect_pieces(_place_kept(layer, kept(), carriers, lasting), pieces)
        checked = CheckedEntries(chain(remaining, (entry.final for entry in new)), earlier=tree.preceding_entries)
    else:
        checked = CheckedEntries((entry.final for entry in new), tree.checked_entries)
        pieces = [Range(layer.decoded, layer.span[0], index.trailer.offset - layer.span[0])]
    _check_rules(layer, tree, checked, new, superseding)
    return _finish_archive(layer, [*pieces, *(piece for entry in new for piece in entry.pieces)])


def find_renewed_directories(tree: CpioTree, edits: Edits) -> dict[bytes, Node]:
    """Return, by path, what directories are from now on whose entries stay in their places."""
    lasting = find_lasting_directories(tree, edits)
    if edits.superseding.drops_dead:  # a directory that is there twice gets in each entry what counts
        lasting = {path: tree[path] for path in tree.superseded_directories - edits.removed_paths} | lasting
    return {path: node for path, node in lasting.items() if path not in edits.superseding.paths}


def select_kept(layer: Layer, tree: CpioTree, gone: Collection[bytes], superseding: Superseding) -> Iterator[KeptEntry]:
    """Yield each entry that stays when the paths ``gone`` go: of a superseded path the first entry.

    Those whose names lead through a symlink that goes are called by their paths.
    """
    dead = tree.superseded_numbers if superseding.drops_dead else frozenset[int]()
    seen: set[bytes] = set()
    named, lost = index_of(layer).paths, _find_lost_ways(layer, tree, gone)
    for number, (member, path) in enumerate(zip(index_of(layer).members, layer.paths, strict=True)):
        is_renamed = lost and named[number] != path and parent_of(named[number]) in lost
        name = tree.name_prefix + path if is_renamed else member.entry.name
        if path in superseding.paths:
            if path not in seen:
                yield number, member, path, name
            seen.add(path)
        elif path not in gone and number not in dead:
            yield number, member, path, name


def _find_lost_ways(layer: Layer, tree: CpioTree, gone: Collection[bytes]) -> set[bytes]:
    """Return the directories, as ``layer`` names them, that lead elsewhere without the symlinks among ``gone``."""
    archives, named = (*layer.preceding, layer), index_of(layer).paths
    links = (archive.paths[number] for archive in archives for number in index_of(archive).members.targets)
    if named is layer.paths or not any(link in gone for link in links):
        return set()

    def link_target(path: bytes) -> bytes | None:
        """Return the text of the symlink at ``path`` that stays, None for no such symlink."""
        node = None if path in gone else tree.get(path)
        return node.target if node is not None and node.kind is NodeKind.SYMLINK else None

    ways = {(parent_of(name), parent_of(path)) for name, path in zip(named, layer.paths, strict=True) if name != path}
    lost = set[bytes]()
    for way, real in ways:
        try:
            if resolve_in_root(way, link_target) == real:
                continue
        except SymlinkLoopError:
            pass
        lost.add(way)
    return lost


def replace_entry_data(layer: Layer, entry: cpio.NewcEntry, data: PieceTable) -> PieceTable:
    """Return the plain bytes of the stream of ``layer`` with ``data`` in place of those of ``entry``.

    :raises SizeError: ``data`` do not fit a cpio entry.
    """
    layer.limits.check_file_size(data.length, layer.place.inside(entry.name))
    check = cpio.sum_data(data.chunks()) if entry.header.magic == cpio.CRC else entry.header.check
    header = entry.header.with_data(data.length, check)
    before = Range(layer.decoded, layer.span[0], entry.offset - layer.span[0])
    body = [Literal(cpio.encode_head(header, entry.name)), *data.pieces, Zeros(cpio.padding_size(data.length))]
    after = Range(layer.decoded, entry.end, index_of(layer).trailer.offset - entry.end)
    return _finish_archive(layer, [before, *body, after])


def _finish_archive(layer: Layer, pieces: Sequence[Piece]) -> PieceTable:
    """Return ``pieces`` with the layer's old trailer and its kind of padding, between the stream's other archives."""
    start, end = layer.span
    index = index_of(layer)
    old = index.trailer
    trailer: Piece = Range(layer.decoded, old.offset, old.end - old.offset)
    if not index.has_trailer:
        trailer = Literal(cpio.encode_trailer(old.header.magic))
    length = sum(piece.length for piece in pieces) + trailer.length
    is_blocked = (end - start) % cpio.BLOCKING == 0
    padding = -length % cpio.BLOCKING if is_blocked else max(end - old.end, 0)
    before, after = Range(layer.decoded, 0, start), Range(layer.decoded, end, layer.size - end)
    if after.length:
        padding += cpio.padding_size(length + padding)
    return PieceTable([before, *pieces, trailer, Zeros(padding), after])


def _collect_pieces(entries: Iterable[PlacedEntry], pieces: list[Piece]) -> Iterator[FinalEntry]:
    """Yield what ``entries`` are, and add their pieces to ``pieces``, neighbours that continue each other joined."""
    for entry in entries:
        pieces[-1:] = join_neighbours((*pieces[-1:], *entry.pieces))
        yield entry.final


def _place_kept(
    layer: Layer, kept: Iterable[KeptEntry], carriers: Mapping[int, Member], lasting: Mapping[bytes, Node]
) -> Iterator[PlacedEntry]:
    """Yield the entries of ``kept``; hard-linked data move to another name where their carrier goes.

    ``carriers``: by the offset of such an entry, the old member; ``lasting``: by path, what a directory is from now on.
    """
    for _, member, path, name in kept:
        entry = member.entry
        if path in lasting:
            yield _renew_directory(entry, lasting[path], name)
            continue
        carrier = carriers.get(entry.offset)
        if carrier is None and name == entry.name:
            whole = Range(layer.decoded, entry.offset, entry.end - entry.offset)
            yield PlacedEntry(FinalEntry(entry.name, entry.header.fields, member.target), (whole,))
            continue
        source = entry if carrier is None else carrier.entry
        header = entry.header.with_data(source.header.size, source.header.check)
        name_start = entry.offset + cpio.HEADER_SIZE
        old_name = Range(layer.decoded, name_start, entry.data_offset - name_start)
        head: tuple[Piece, ...] = (Literal(header.raw), old_name)
        if name != entry.name:
            header = header.with_name(name)
            head = (Literal(cpio.encode_head(header, name)),)
        data = Range(layer.decoded, source.data_offset, source.header.size)
        yield PlacedEntry(
            FinalEntry(name, header.fields, member.target), (*head, data, Zeros(cpio.padding_size(source.header.size)))
        )


def _renew_directory(entry: cpio.NewcEntry, node: Node, name: bytes) -> PlacedEntry:
    """Return the entry of a directory called ``name`` with the mode, owner and time of ``node``."""
    old = entry.header
    header = cpio.HeaderFields(
        ino=old.ino, mode=node.kind | node.mode, uid=node.uid, gid=node.gid, nlink=old.nlink, mtime=node.mtime,
        name_size=len(name) + 1,
    ).encode(old.magic)  # fmt: skip
    return PlacedEntry(FinalEntry(name, header.fields), (Literal(cpio.encode_head(header, name)),))


def find_new_carriers(layer: Layer, members: Iterable[Member]) -> dict[int, Member]:
    """Return, by the offset of a kept entry, the old member whose data the entry has to carry.

    Where a group of hard links loses its only data, its last kept name in the archive's order gets them.
    """
    if not any(nlink > 1 for _, _, _, _, nlink, *_ in index_of(layer).members.all_fields()):
        return {}
    last: dict[object, Member] = {}
    supplied: set[object] = set()
    for member in members:
        key = link_key(member)
        if key:
            last[key] = member
            if member.entry.header.size:
                supplied.add(key)
    old = {key: member for member in index_of(layer).members if member.entry.header.size and (key := link_key(member))}
    return {heir.entry.offset: old[key] for key, heir in last.items() if key not in supplied and key in old}


def place_new(layer: Layer, tree: CpioTree, nodes: Sequence[Node], superseding: Superseding) -> Iterator[PlacedEntry]:
    """Yield entries for ``nodes``: names begin as the archive's do, inode numbers are unused ones."""
    prefix, magic = tree.name_prefix, index_of(layer).trailer.header.magic
    link_counts = Counter(node.link for node in nodes if node.link is not None)
    remaining = dict(link_counts)
    inodes = _unused_inodes(tree.checked_entries.inodes)
    shared: dict[object, int] = {}
    for node in nodes:
        is_linked = node.link is not None and link_counts[node.link] > 1
        if is_linked:
            remaining[node.link] -= 1
            ino = shared[node.link] if node.link in shared else shared.setdefault(node.link, next(inodes))
        else:
            ino = next(inodes)
        nlink = link_counts[node.link] if is_linked else 2 if node.kind is NodeKind.DIRECTORY else 1
        # New hard links carry their data once, on the last name.
        data = PieceTable([]) if is_linked and remaining[node.link] else _data_of(node)
        # The kernel looks for microcode by a name without anything before it (lib/earlycpio.c).
        name = node.path if node.path.startswith(EARLY) else prefix + node.path or b"."
        layer.limits.check_file_size(data.length, layer.place.inside(name))
        header = cpio.HeaderFields(
            ino=ino, mode=node.kind | node.mode, uid=node.uid, gid=node.gid, nlink=nlink,
            mtime=node.mtime, size=data.length, rdev=node.rdev, name_size=len(name) + 1,
            check=cpio.sum_data(data.chunks()) if magic == cpio.CRC else 0,
            is_postdated=node.path in superseding.postdated,
        ).encode(magic)  # fmt: skip
        pieces = (Literal(cpio.encode_head(header, name)), *data.pieces, Zeros(cpio.padding_size(data.length)))
        yield PlacedEntry(FinalEntry(name, header.fields, node.target, is_new=True), pieces)


def _data_of(node: Node) -> PieceTable:
    """Return the data of an entry for ``node``: its content, or the text of a symlink."""
    return PieceTable([Literal(node.target)]) if node.content is None else node.content.table()


def _unused_inodes(used: InodeNumbers) -> Iterator[int]:
    """Yield inode numbers that no entry has: those above the highest, then the gaps."""
    yield from range(used.highest + 1, cpio.MAX_FIELD + 1)
    yield from (ino for ino in range(1, cpio.MAX_FIELD + 1) if ino not in used)


def _check_rules(
    layer: Layer, tree: CpioTree, checked: CheckedEntries, new: Sequence[PlacedEntry], superseding: Superseding
) -> None:
    """Check that the new archive breaks no rule that the old one kept; that a name is there twice may be meant.

    :raises OverlayError: a new entry breaks a rule. :raises ProofError: a kept one does.
    """
    broken = set(checked.broken_rules)
    if broken:
        broken -= set(tree.checked_entries.broken_rules)
        broken -= {
            BrokenRule(entry.final.name, DOUBLE_NAME)
            for entry in new
            if normal_name(entry.final.name) in superseding.paths
        }
    if broken:
        first = min(broken, key=lambda rule: (rule.name, rule.rule))
        place = layer.place.inside(first.name)
        if any(entry.final.name == first.name for entry in new):
            raise OverlayError(f"cannot be added: {first.rule}", place)
        raise ProofError(f"the result could not be unpacked: {first.rule}", place)
