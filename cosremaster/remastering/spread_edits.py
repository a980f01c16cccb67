"""Edits of what an initramfs of several archives unpacks to, as edits of its single archives."""

from __future__ import annotations

from collections.abc import Sequence

from cosremaster.layers.model import Layer
from cosremaster.layers.segments import EARLY
from cosremaster.records import Struct
from cosremaster.tree.nodes import Edits, Node
from cosremaster.tree.paths import ancestors, parent_of
from cosremaster.tree.replacements import find_lasting_directories


class ArchiveEdits(Struct, frozen=True):
    """The edits of the archive ``layer``."""

    layer: Layer
    edits: Edits


def archives_of(layer: Layer) -> tuple[Layer, ...]:
    """Return ``layer`` and the archives that are unpacked before it from the same file, in their order."""
    return (*layer.preceding, layer)


def check_rows(changes: Sequence[ArchiveEdits], layers: Sequence[Layer]) -> None:
    """Check that files of several archives, of which ``changes`` are edits, unpack to what these say.

    ``layers``: all of the image. :raises OverlayError: one does not, as entries of one archive depend on another's.
    """
    edits = {change.layer.address: change.edits for change in changes}
    rows = [_find_last(change.layer, layers) for change in changes]
    for last in {last.address: last for last in rows}.values():
        last.check_row(edits)


def _find_last(layer: Layer, layers: Sequence[Layer]) -> Layer:
    """Return the last archive of the file that ``layer`` is in."""
    following = [other for other in layers if any(layer is earlier for earlier in other.preceding)]
    return max(following, key=lambda other: len(other.preceding), default=layer)


def takes_early_files(layer: Layer) -> bool:
    """Return whether the kernel reads ``layer``, the first archive of a file, before it unpacks anything."""
    return layer.parameters.is_identity and not layer.is_converted


def spread_edits(last: Layer, edits: Edits) -> tuple[ArchiveEdits, ...]:
    """Return ``edits`` of the tree of ``last``, the last archive of its file, as edits of the archives of that file.

    What is removed or replaced leaves every archive that has it. A new entry goes into the last archive that had its
    path, and else into the last of all, so that nothing is unpacked over it; a directory that stays and gets other
    attributes gets them in each archive that has it. Files that the kernel reads before it
    unpacks go into the first archive, if that is not compressed. Archives without a change are left out.
    """
    archives = archives_of(last)
    if len(archives) == 1:
        return () if edits.is_empty else (ArchiveEdits(last, edits),)
    paths = [frozenset(archive.paths) for archive in archives]
    homes = _find_homes(archives, paths, [node for node, _ in edits.additions])
    lasting = find_lasting_directories(last.tree(), edits)
    spread = []
    for number, archive in enumerate(archives):
        removed = edits.removed_paths & paths[number]
        additions = tuple(
            (node, action)
            for (node, action), home in zip(edits.additions, homes, strict=True)
            if (home == number if node.path not in lasting else node.path in paths[number])
        )
        if removed or additions:
            only = tuple(path for path in edits.removed if path in removed)
            spread.append(ArchiveEdits(archive, Edits(removed, additions, only, (), ())))
    return tuple(spread)


def _find_homes(archives: Sequence[Layer], paths: Sequence[frozenset[bytes]], nodes: Sequence[Node]) -> list[int]:
    """Return for each of ``nodes``, parents before children, the number of the archive that it goes into.

    ``paths``: those of each of ``archives``. Names of one file share an archive: links do not reach into another.
    """
    early: set[bytes] = set()
    if takes_early_files(archives[0]):
        early = {node.path for node in nodes if node.path.startswith(EARLY)}
        early |= {directory for path in early for directory in ancestors(path)}
    homes: dict[bytes, int] = {}
    shared: dict[object, int] = {}
    for node in nodes:
        holders = [number for number, names in enumerate(paths) if node.path in names]
        parent = homes.get(parent_of(node.path))
        if node.path in early:
            home = 0
        elif parent is not None:
            home = max([parent, *holders])
        else:
            home = holders[-1] if holders else len(archives) - 1
        homes[node.path] = home
        if node.link is not None:
            shared[node.link] = max(home, shared.get(node.link, 0))
    return [shared.get(node.link, homes[node.path]) for node in nodes]
