"""Order nodes for an archive that is unpacked front to back, so that their data are read once, front to back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cosremaster.io.pieces import Range
from cosremaster.layers.decoded import CURSORS, DecodedSource
from cosremaster.tree.nodes import Node, NodeKind
from cosremaster.tree.paths import ancestors, parent_of

_Firsts = Mapping[bytes, Range]
"""By path of a file: where its data begin, of those whose data stand somewhere."""


def nodes_in_order(nodes: Iterable[Node]) -> list[Node]:
    """Return ``nodes`` in an order in which each directory is followed by all that is below it, before anything else.

    GNU tar gives a directory its mode and time as soon as an entry outside of it follows: with more in it later on it
    would have a new time, and an ordinary user could not write into a read-only one. Within a directory the data are in
    the order in which they are read. Where that would decode a stream again and again, directories come last, each
    behind those in it: who unpacks makes missing parents. bsdtar and busybox then leave an ordinary user the modes of
    these.
    """
    listed = list(nodes)
    firsts = _find_firsts(listed)
    nested = _nest(listed, firsts)
    if _count_decodings([firsts[node.path] for node in nested if node.path in firsts]) <= CURSORS:
        return nested
    folders = [node for node in listed if node.kind is NodeKind.DIRECTORY]
    others = [node for node in listed if node.kind not in (NodeKind.DIRECTORY, NodeKind.FILE)]
    return [*_sort_files(listed, firsts), *others, *reversed(folders)]


def files_in_order(nodes: Iterable[Node]) -> list[Node]:
    """Return the regular files among ``nodes`` in the order of their data; all names of a hard-linked file side by
    side.
    """
    listed = list(nodes)
    return _sort_files(listed, _find_firsts(listed))


def _find_firsts(nodes: Iterable[Node]) -> _Firsts:
    """Return where the data of ``nodes`` begin."""
    firsts: dict[bytes, Range] = {}
    for node in nodes:
        pieces = node.content.table().pieces if node.content is not None else ()
        if pieces and isinstance(pieces[0], Range):
            firsts[node.path] = pieces[0]
    return firsts


def _sort_files(nodes: Iterable[Node], firsts: _Firsts) -> list[Node]:
    """Return the regular files among ``nodes`` by their data, then by name."""
    files = (node for node in nodes if node.kind is NodeKind.FILE)
    return sorted(files, key=lambda node: (*_place_of(firsts.get(node.path)), node.path))


def _place_of(first: Range | None) -> tuple[str, int]:
    """Return the name of a source and a byte of it; of nothing what comes before all others."""
    return ("", 0) if first is None else (first.source.name, first.offset)


def _nest(nodes: Sequence[Node], firsts: _Firsts) -> list[Node]:
    """Return ``nodes``, each directory before all below it; names in a directory by where the first data below begin.

    Directories that only the paths below them imply need no node.
    """
    places: dict[bytes, tuple[str, int]] = {}
    children: dict[bytes, set[bytes]] = {}
    for node in nodes:
        place = _place_of(firsts[node.path]) if node.path in firsts else None
        for path in (*ancestors(node.path), node.path):
            children.setdefault(parent_of(path), set()).add(path)
            if place is not None:
                places[path] = min(places.get(path, place), place)

    def sort_down(paths: Iterable[bytes]) -> list[bytes]:
        """Return ``paths`` by their places, the first one as the last."""
        return sorted(paths, key=lambda path: (places.get(path, ("", 0)), path), reverse=True)

    by_path = {node.path: node for node in nodes}
    ordered: list[Node] = []
    waiting = [sort_down(children.get(b"", ()))]
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            continue
        path = waiting[-1].pop()
        if path in by_path:
            ordered.append(by_path[path])
        if path in children:
            waiting.append(sort_down(children[path]))
    return ordered


def _count_decodings(firsts: Iterable[Range]) -> int:
    """Return how often the stream that is begun most often is decoded for data that begin at ``firsts``, so ordered."""
    cursors: dict[int, list[int]] = {}
    begun = Counter[int]()
    for source, offset, *_ in firsts:
        if not isinstance(source, DecodedSource) or not source.is_sequential:
            continue
        positions = cursors.get(id(source), [])
        behind = [position for position in positions if position <= offset]
        if behind:
            positions.remove(max(behind))
        else:
            begun[id(source)] += 1
        cursors[id(source)] = [*positions, offset][-CURSORS:]
    return max(begun.values(), default=0)
