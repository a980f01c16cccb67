"""Turning edits into a layer's new plain bytes: what stays keeps its bytes and order, what is new follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import cast

from msgspec import Struct

from cosremaster.errors import OverlayError, ProofError
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.layers.cpio import newc as cpio
from cosremaster.layers.cpio.format import CpioFormat
from cosremaster.layers.cpio.read import Member, index_of, link_key
from cosremaster.layers.cpio.rules import Checked, FinalEntry
from cosremaster.layers.cpio.tree import CpioTree
from cosremaster.layers.model import Layer
from cosremaster.tree.nodes import Edits, Node, NodeKind


class Placed(Struct, frozen=True):
    """A final entry and the pieces of the archive that it takes: header, name, data, padding."""

    final: FinalEntry
    pieces: tuple[Piece, ...]


def apply_edits(layer: Layer, edits: Edits) -> PieceTable:
    """Return the plain bytes of the stream of ``layer`` after ``edits``.

    :raises SizeError: a file too large for cpio. :raises OverlayError: a new entry would break a rule of the
        unpackers. :raises ProofError: an entry that stays would, and did not before.
    """
    tree = cast("CpioTree", layer.tree())
    members, trailer = index_of(layer).members, index_of(layer).trailer
    new = list(_new(tree, [node for node, _ in edits.additions]))
    if edits.removed_paths:
        paths = zip(members, layer.paths, strict=True)
        kept = list(_kept(layer, [member for member, path in paths if path not in edits.removed_paths]))
        checked = Checked((one.final for one in (*kept, *new)), earlier=tree.earlier)
        pieces = [piece for one in kept for piece in one.pieces]
    else:
        checked = Checked((one.final for one in new), tree.checked)
        pieces = [Range(layer.decoded, layer.span[0], trailer.offset - layer.span[0])]
    _refuse(tree, checked, new)
    return _finished(layer, [*pieces, *(piece for one in new for piece in one.pieces)])


def replace_entry_data(layer: Layer, holder: cpio.NewcEntry, data: PieceTable) -> PieceTable:
    """The plain bytes of ``layer`` with the data of its entry ``holder`` exchanged for ``data``.

    :raises SizeError: the data does not fit a cpio entry.
    """
    CpioFormat.limits.check_file_size(data.length, layer.place.inside(holder.name))
    check = cpio.data_sum(data.chunks()) if holder.header.magic == cpio.CRC else holder.header.check
    header = holder.header.with_data(data.length, check)
    before = Range(layer.decoded, layer.span[0], holder.offset - layer.span[0])
    body = [Literal(cpio.encode_name(header, holder.name)), *data.pieces, Zeros(cpio.padding(data.length))]
    after = Range(layer.decoded, holder.end, index_of(layer).trailer.offset - holder.end)
    return _finished(layer, [before, *body, after])


def _finished(layer: Layer, pieces: Sequence[Piece]) -> PieceTable:
    """``pieces`` with the layer's own trailer and the padding it used, between the other archives of its stream."""
    start, end = layer.span
    trailer = Range(
        layer.decoded, index_of(layer).trailer.offset, index_of(layer).trailer.end - index_of(layer).trailer.offset
    )
    length = sum(piece.length for piece in pieces) + trailer.length
    blocked = (end - start) % cpio.BLOCKING == 0
    tail = -length % cpio.BLOCKING if blocked else end - index_of(layer).trailer.end
    before, after = Range(layer.decoded, 0, start), Range(layer.decoded, end, layer.size - end)
    if after.length:
        tail += cpio.padding(length + tail)
    return PieceTable([before, *pieces, trailer, Zeros(tail), after])


def _kept(layer: Layer, kept: Sequence[Member]) -> Iterator[Placed]:
    """The entries that stay, and hard-linked data handed on where its carrier left."""
    heirs = _heirs(layer, kept)
    for member in kept:
        entry = member.entry
        carrier = heirs.get(entry.offset)
        if carrier is None:
            span = Range(layer.decoded, entry.offset, entry.end - entry.offset)
            yield Placed(FinalEntry(entry.name, entry.header, member.target), (span,))
            continue
        source = carrier.entry
        header = entry.header.with_data(source.header.size, source.header.check)
        name_start = entry.offset + cpio.HEADER_SIZE
        yield Placed(
            FinalEntry(entry.name, header),
            (
                Literal(header.pack()),
                Range(layer.decoded, name_start, entry.data_offset - name_start),
                Range(layer.decoded, source.data_offset, source.header.size),
                Zeros(cpio.padding(source.header.size)),
            ),
        )


def _heirs(layer: Layer, kept: Sequence[Member]) -> dict[int, Member]:
    """Offset of an entry -> the member whose data it has to carry.

    Where a group of hard links lost its only data, the last name that stays in archive order gets it.
    """
    last: dict[object, Member] = {}
    supplied: set[object] = set()
    for member in kept:
        key = link_key(member)
        if key:
            last[key] = member
            if member.entry.header.size:
                supplied.add(key)
    carriers = {
        link_key(member): member for member in index_of(layer).members if link_key(member) and member.entry.header.size
    }
    return {heir.entry.offset: carriers[key] for key, heir in last.items() if key not in supplied and key in carriers}


def _new(tree: CpioTree, nodes: Sequence[Node]) -> Iterator[Placed]:
    """Entries for ``nodes``, in the archive's own name style, with inode numbers nobody has."""
    layer = tree.layer
    prefix, magic = tree.name_prefix, index_of(layer).trailer.header.magic
    sizes = Counter(node.link for node in nodes if node.link is not None)
    left = dict(sizes)
    inodes = _free_inodes(tree.checked.inodes)
    shared: dict[object, int] = {}
    for node in nodes:
        grouped = node.link is not None and sizes[node.link] > 1
        if grouped:
            left[node.link] -= 1
            ino = shared[node.link] if node.link in shared else shared.setdefault(node.link, next(inodes))
        else:
            ino = next(inodes)
        nlink = sizes[node.link] if grouped else 2 if node.kind is NodeKind.DIRECTORY else 1
        # A group of our own carries its data once, on its last name.
        data = PieceTable([]) if grouped and left[node.link] else _data(node)
        name = prefix + node.path
        CpioFormat.limits.check_file_size(data.length, layer.place.inside(name))
        header = cpio.Header.make(
            ino=ino, mode=node.kind | node.mode, uid=node.uid, gid=node.gid, nlink=nlink, mtime=node.mtime,
            size=data.length, rdev=node.rdev, namesize=len(name) + 1, magic=magic,
            check=cpio.data_sum(data.chunks()) if magic == cpio.CRC else 0,
        )  # fmt: skip
        pieces = (Literal(cpio.encode_name(header, name)), *data.pieces, Zeros(cpio.padding(data.length)))
        yield Placed(FinalEntry(name, header, node.target, new=True), pieces)


def _data(node: Node) -> PieceTable:
    if node.content is not None:
        return node.content.table()
    return PieceTable([Literal(node.target)])


def _free_inodes(used: Collection[int]) -> Iterator[int]:
    """Inode numbers no entry has: those above the highest, then the gaps."""
    yield from range(max(used, default=0) + 1, cpio.MAX_FIELD + 1)
    yield from (ino for ino in range(1, cpio.MAX_FIELD + 1) if ino not in used)


def _refuse(tree: CpioTree, checked: Checked, new: Sequence[Placed]) -> None:
    """:raises OverlayError: a new entry breaks a rule. :raises ProofError: one that stays does, and did not before."""
    problems = set(checked.problems)
    if problems:
        problems -= set(tree.checked.problems)
    if problems:
        problem = min(problems, key=lambda one: (one.name, one.rule))
        place = tree.layer.place.inside(problem.name)
        if any(one.final.name == problem.name for one in new):
            raise OverlayError(f"cannot be added: {problem.rule}", place)
        raise ProofError(f"the result could not be unpacked: {problem.rule}", place)
