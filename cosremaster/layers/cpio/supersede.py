"""Which replaced entries of a cpio archive stay as they are, so that nothing behind them is encoded again."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import cast

from cosremaster.errors import UnsupportedError
from cosremaster.layers.address import Address
from cosremaster.layers.cpio.members import Member
from cosremaster.layers.cpio.newc import POSTDATED
from cosremaster.layers.cpio.read import index_of
from cosremaster.layers.cpio.rules import is_late_target
from cosremaster.layers.cpio.tree import CpioTree
from cosremaster.layers.cpio.unpackers import KERNEL, UNKNOWN, CpioUnpacker, find_unpacker
from cosremaster.layers.model import Layer
from cosremaster.layers.segments import EARLY
from cosremaster.records import Struct, replace
from cosremaster.tree.nodes import Edits, Node, NodeKind
from cosremaster.tree.paths import ancestors
from cosremaster.tree.replacements import find_lasting_directories
from cosremaster.tree.superseding import NO_SUPERSEDING, SupersedeMode, Superseding

_WORTH = 8
"""So many bytes must need no encoding for each byte that stays in the archive for nothing."""

_LEAST = 1 << 20
"""Bytes that must need no encoding where the kernel unpacks: less is done at once, and programs that only look into an
initramfs call ``cpio -i``, which takes the first of two entries."""


class _StayingEntry(Struct, frozen=True):
    """A replaced entry that can stay.

    ``old``: the entry; ``is_postdated``: the new one has to be, so that it wins; ``is_private``: not everybody may read
    the old bytes.
    """

    old: Member
    is_postdated: bool
    is_private: bool

    @property
    def size(self) -> int:
        """Bytes of the old entry."""
        return self.old.entry.end - self.old.entry.offset


def plan_superseding(
    layer: Layer, edits: Edits, mode: SupersedeMode, changes: Mapping[Address, Edits], *, is_booted: bool
) -> Superseding:
    """Return how ``edits`` of ``layer`` supersede, and whether superseded entries that it has must go.

    ``changes``: edits of layers by address, those around it among them, after which it is unpacked. ``is_booted``: a
    kernel is known to unpack the layer, or what holds it and to start its ``/init``.
    :raises UnsupportedError: an old entry would count again after ``changes``, and cannot go.
    """
    tree = cast("CpioTree", layer.tree())
    drops_dead = _revives(layer, tree, edits, changes)
    if mode is SupersedeMode.NEVER:
        drops_dead = drops_dead or bool(tree.superseded_numbers or tree.superseded_directories)
        return Superseding(drops_dead=True) if drops_dead else NO_SUPERSEDING
    superseding = _supersede(layer, edits, changes, is_always=mode is SupersedeMode.ALWAYS, is_booted=is_booted)
    return replace(superseding, drops_dead=True) if drops_dead else superseding


def needs_unpacker(layer: Layer) -> bool:
    """Return whether another program than its unpacker takes entries of ``layer`` that later ones supersede."""
    return bool(cast("CpioTree", layer.tree()).find_revived(UNKNOWN))


def _revives(layer: Layer, tree: CpioTree, edits: Edits, changes: Mapping[Address, Edits]) -> bool:
    """Return whether entries that are superseded now count again after ``changes``. Raises as the plan."""
    if not layer.is_in_archive or len(tree) == len(layer.paths):
        return False
    revived = tree.find_revived(find_unpacker(layer, changes))
    for path, numbers in revived.items():
        can_go = all(number in tree.superseded_numbers or tree.makes_directory(number, path) for number in numbers)
        if path not in edits.removed_paths and not can_go:
            raise UnsupportedError(
                "has several entries, of which the changed /init takes an older one that cannot be dropped",
                layer.place.inside(path),
            )
    return bool(revived)


def _supersede(
    layer: Layer, edits: Edits, changes: Mapping[Address, Edits], *, is_always: bool, is_booted: bool
) -> Superseding:
    """Return how ``edits`` of ``layer`` supersede, by the arguments of :func:`plan_superseding`."""
    unpacker = find_unpacker(layer, changes) if is_booted and edits.removed_paths else UNKNOWN
    if not edits.removed_paths or unpacker.keeps_first or cast("CpioTree", layer.tree()).has_met_entries:
        return NO_SUPERSEDING
    if not (is_always or (unpacker.name and _saves_encoding(layer))):
        return NO_SUPERSEDING
    numbers = _find_numbers(layer, edits)
    candidates = dict(_find_candidates(layer, edits, numbers, unpacker, is_always=is_always))
    if not is_always:
        candidates = _choose_worthy(layer, candidates, numbers, _LEAST if unpacker is KERNEL else 0)
    if not candidates:
        return NO_SUPERSEDING
    return Superseding(
        paths=frozenset(candidates),
        postdated=frozenset(path for path, candidate in candidates.items() if candidate.is_postdated),
        dead=sum(candidate.size for candidate in candidates.values()),
        unpacker=unpacker.name,
        private=frozenset(path for path, candidate in candidates.items() if candidate.is_private),
    )


def _saves_encoding(layer: Layer) -> bool:
    """Return whether an edit of ``layer`` encodes anything again that superseding can save."""
    if layer.is_converted:
        return False
    if layer.parameters.is_identity:
        return layer.parent is not None and _saves_encoding(layer.parent)
    return layer.parameters.keeps_packed


def _find_numbers(layer: Layer, edits: Edits) -> dict[bytes, list[int]]:
    """Return by path the numbers of the entries of ``layer`` that ``edits`` remove or replace."""
    numbers: dict[bytes, list[int]] = defaultdict(list)
    paths, removed = layer.paths, edits.removed_paths
    for number in [number for number, path in enumerate(paths) if path in removed]:
        numbers[paths[number]].append(number)
    return numbers


def _find_candidates(
    layer: Layer, edits: Edits, numbers: Mapping[bytes, list[int]], unpacker: CpioUnpacker, *, is_always: bool
) -> Iterator[tuple[bytes, _StayingEntry]]:
    """Yield each replaced path whose old entry can stay.

    What is in a directory whose own entry comes anew at the end cannot stay: no entry before it would make that
    directory. ``is_always``: also where ``unpacker`` does not let a later entry win by its own time.
    """
    tree, members = cast("CpioTree", layer.tree()), index_of(layer).members
    names = Counter(node.link for node, _ in edits.additions)
    lasting = find_lasting_directories(tree, edits)
    moved = {
        node.path
        for node, _ in edits.additions
        if node.kind is NodeKind.DIRECTORY and node.path in numbers and node.path not in lasting
    }
    for node, _ in edits.additions:
        listed = numbers.get(node.path, ())
        is_single = node.link is None or names[node.link] == 1
        if not listed or not is_single or len(listed) > 1 + (listed[-1] in tree.superseding_numbers):
            continue
        if not moved.isdisjoint(ancestors(node.path)):
            continue
        old = members[listed[0]]
        is_postdated = not unpacker.prefers(node.mtime, old.entry.header)
        if is_postdated and (old.entry.header.mtime >= POSTDATED or (unpacker.keeps_times and not is_always)):
            continue  # the odd time would not win, or show
        if node.path in lasting:
            can_stay = node.kind is NodeKind.DIRECTORY and unpacker is not KERNEL
        else:
            can_stay = _can_stay(tree, old, node)
        if can_stay and not (unpacker is KERNEL and node.path.startswith(EARLY)):
            yield node.path, _StayingEntry(old, is_postdated, _is_private(tree, node.path, old))


def _is_private(tree: CpioTree, path: bytes, old: Member) -> bool:
    """Return whether not everybody may read what ``old`` makes at ``path``: its mode, or a directory above, says so."""
    mode = old.entry.header.mode
    if mode & 0o170000 != NodeKind.FILE:
        return False
    folders = (tree.get(folder) for folder in ancestors(path))
    return not mode & 0o004 or any(folder is not None and not folder.mode & 0o001 for folder in folders)


def _can_stay(tree: CpioTree, old: Member, new: Node) -> bool:
    """Return whether every unpacker makes ``new`` of what the entry ``old`` made before: a file or symlink of either.

    No hard link: the kernel writes into the file, which then changes under its other names. No symlink that busybox
    makes when the archive has ended, and none that leads to a directory, through which other entries may pass.
    """
    header = old.entry.header
    kind = NodeKind(header.mode & 0o170000)
    if new.kind not in (NodeKind.FILE, NodeKind.SYMLINK) or is_late_target(new.target):
        return False
    if kind is NodeKind.FILE:
        return header.nlink <= 1
    return (
        kind is NodeKind.SYMLINK
        and not is_late_target(old.target)
        and not tree.leads_to_directory(new.path, old.target)
    )


def _choose_worthy(
    layer: Layer, candidates: Mapping[bytes, _StayingEntry], numbers: Mapping[bytes, list[int]], least: int
) -> dict[bytes, _StayingEntry]:
    """Return those of ``candidates`` whose staying saves much for little.

    What stands behind the first entry that goes in any case is encoded again anyway. ``least``: bytes that at least
    must need no encoding.
    """
    index = index_of(layer)
    going = [number for path, listed in numbers.items() for number in (listed[1:] if path in candidates else listed)]
    cut = index.members.offsets[min(going)] if going else index.trailer.offset
    worthy = {path: kept for path, kept in candidates.items() if kept.old.entry.offset < cut}
    while worthy:
        saved = cut - min(candidate.old.entry.end for candidate in worthy.values())
        if saved < least:
            return {}
        if _WORTH * sum(candidate.size for candidate in worthy.values()) <= saved:
            break
        largest = max(worthy.values(), key=lambda candidate: candidate.size)
        cut = min(cut, largest.old.entry.offset)
        worthy = {path: kept for path, kept in worthy.items() if kept.old.entry.offset < cut}
    return worthy
