"""Turning edits into an archive's new plain bytes: kept entries keep their bytes and order, new ones follow."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import cast

from cosremaster.archives.owner_numbers import MAX_DATABASE
from cosremaster.errors import OverlayError
from cosremaster.io.pieces import Literal, Piece, PieceTable, Range, Zeros
from cosremaster.layers.model import Layer
from cosremaster.layers.tar import blocks
from cosremaster.layers.tar.encode import EntryFields, HeaderWriter, OwnerNames, rename_head
from cosremaster.layers.tar.index import index_of
from cosremaster.layers.tar.links import LinkChange, plan_links
from cosremaster.layers.tar.paths import follow_symlinks
from cosremaster.layers.tar.tree import TarTree
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.paths import normal_name, normal_names, tree_order
from cosremaster.tree.replacements import find_lasting_directories

_END = 2 * blocks.BLOCK
"""Bytes of zeros that end an archive."""


def apply_edits(layer: Layer, edits: Edits) -> PieceTable:
    """Return the plain bytes of the stream of ``layer`` after ``edits``.

    Every entry of a path that goes is left out, so that none of an older state comes to light.
    :raises SizeError: a file is too large. :raises OverlayError: a new entry is of a kind that tar has not, or there
        would be none.
    """
    tree, index, start = cast("TarTree", layer.tree()), index_of(layer), layer.span[0]
    lasting = find_lasting_directories(tree, edits)
    writer = _make_writer(layer, tree, edits)
    added = [node for node, _ in edits.additions if node.path not in lasting]
    added.sort(key=lambda node: tree_order(node.path))  # GNU tar gives a directory its mode and time when it leaves it
    new = list(_place_new(layer, added, writer))
    if edits.removed_paths:
        pieces = list(_place_kept(layer, tree, edits, _Renewed(lasting, writer)))
    else:
        pieces = [Range(layer.decoded, start, index.end - start)]
    if not any(piece.length for piece in (*pieces, *new)):
        raise OverlayError(
            "nothing would be in it any more, and zeros alone are not known as a tar archive", layer.place
        )
    return _finish_archive(layer, [*pieces, *new])


def _finish_archive(layer: Layer, pieces: Sequence[Piece]) -> PieceTable:
    """Return ``pieces`` with the end of the archive, padded as it was, and what stands before and behind it."""
    start, end = layer.span
    length = sum(piece.length for piece in pieces)
    if (end - start) % blocks.RECORD == 0:
        padding = _END + -(length + _END) % blocks.RECORD
    else:
        padding = max(end - index_of(layer).end, _END)
        padding += -(length + padding) % blocks.BLOCK
    before, after = Range(layer.decoded, 0, start), Range(layer.decoded, end, layer.size - end)
    return PieceTable([before, *pieces, Zeros(padding), after])


class _Renewed(NamedTuple):
    """Directories that stay, with other attributes: their ``nodes`` by path, and the ``writer`` of their headers."""

    nodes: Mapping[bytes, Node]
    writer: HeaderWriter


def _place_kept(layer: Layer, tree: TarTree, edits: Edits, renewed: _Renewed) -> Iterator[Piece]:
    """Yield the pieces of the entries that stay, with hard links mended, and names that led through what goes.

    A directory of ``renewed`` has its new header in the place of its first old one.
    """
    index = index_of(layer)
    entries, pending = index.entries, dict(renewed.nodes)
    removed = {number for number, path in enumerate(layer.paths) if path in edits.removed_paths}
    changes = plan_links(entries, layer.paths, tree.sources, removed)
    names = _plan_names(layer, removed)
    reached = layer.span[0]
    for number in sorted(removed | changes.keys() | names.keys()):
        entry = entries[number]
        yield Range(layer.decoded, reached, entry.start - reached)
        if number in removed:
            for start, end in index.inner_globals:
                if entry.start <= start < entry.head:
                    yield Range(layer.decoded, start, end - start)
            if pending and (node := pending.pop(layer.paths[number], None)) is not None:
                yield Literal(renewed.writer.encode(EntryFields(_direct_name(layer, number), node, 0)))
        else:
            yield from _mended_entry(layer, number, names.get(number, entry.name), changes.get(number))
        reached = entry.end
    yield Range(layer.decoded, reached, index.end - reached)


def _plan_names(layer: Layer, removed: Collection[int]) -> dict[int, bytes]:
    """Return new names for entries whose names lead through symlinks that go with the ``removed`` entries."""
    entries, paths = index_of(layer).entries, layer.paths
    if all(map(operator.eq, paths, normal_names(entries.names))):
        return {}
    kept = [number for number in range(len(entries)) if number not in removed]
    return {
        number: _direct_name(layer, number) for number, path in follow_symlinks(entries, kept) if path != paths[number]
    }


def _direct_name(layer: Layer, number: int) -> bytes:
    """Return the name of the entry at place ``number``, or one for its path that leads through no symlink."""
    index = index_of(layer)
    name, path = index.entries.names[number], layer.paths[number]
    if normal_name(name) == path:
        return name
    return index.style.name_prefix + path + (b"/" if name.endswith(b"/") else b"")


def _mended_entry(layer: Layer, number: int, name: bytes, change: LinkChange | None) -> Iterator[Piece]:
    """Yield the pieces of the entry at place ``number`` under ``name``; ``change``: of a hard link."""
    entries = index_of(layer).entries
    entry = entries[number]
    old = entry if change is None or change.carried is None else entries[change.carried]
    link = _direct_name(layer, change.target) if change is not None and change.carried is None else None
    body = old.head + blocks.BLOCK
    raw = Range(layer.decoded, old.start, body - old.start).read(0, body - old.start)
    yield Literal(rename_head(raw, name, link))
    yield Range(layer.decoded, body, old.end - body)


def _make_writer(layer: Layer, tree: TarTree, edits: Edits) -> HeaderWriter:
    """Return what writes headers as those of the archive are."""
    index = index_of(layer)
    style = index.style
    owners = _read_owners(tree, edits) if style.users and edits.additions else OwnerNames()
    return HeaderWriter(
        is_gnu=style.name == "gnu", writes_pax=style.has_pax, global_records=index.globals, owners=owners
    )


def _place_new(layer: Layer, nodes: Sequence[Node], writer: HeaderWriter) -> Iterator[Piece]:
    """Yield the pieces of entries for ``nodes``."""
    style = index_of(layer).style
    names: dict[object, bytes] = {}
    counts = Counter(node.link for node in nodes if node.link is not None)
    for node in nodes:
        place = layer.place.inside(node.path)
        if node.kind is NodeKind.SOCKET:
            raise OverlayError("a tar archive holds no socket", place)
        name = style.name_prefix + node.path or b"."
        if node.kind is NodeKind.DIRECTORY and style.slashes >= 0:
            name = name.rstrip(b"/") + b"/"
        link = names.get(node.link) if node.link is not None else None
        if link is not None:
            yield Literal(writer.encode(EntryFields(name, node, 0, link)))
            continue
        if counts[node.link] > 1:
            names[node.link] = name
        data = PieceTable([]) if node.content is None else node.content.table()
        layer.limits.check_file_size(data.length, place)
        yield Literal(writer.encode(EntryFields(name, node, data.length)))
        yield from data.pieces
        yield Zeros(blocks.padding_size(data.length))


def _read_owners(tree: TarTree, edits: Edits) -> OwnerNames:
    """Return the names of users and groups as the system in the archive has them after ``edits``."""
    new = {node.path: node for node, _ in edits.additions}
    tables = []
    for path in (b"etc/passwd", b"etc/group"):
        node = new.get(path) or (None if path in edits.removed_paths else tree.get(path))
        tables.append({} if node is None else _parse_database(node))
    return OwnerNames(*tables)


def _parse_database(node: Node) -> dict[int, bytes]:
    """Return the names by their numbers in a file like ``/etc/passwd`` (passwd(5), group(5)); the first counts."""
    names: dict[int, bytes] = {}
    if node.content is None or node.content.size > MAX_DATABASE:
        return names
    for line in node.content.table().read().splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= 10 and fields[0]:
            names.setdefault(int(fields[2]), fields[0])
    return names
