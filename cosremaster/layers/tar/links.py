"""Hard links of a tar archive: which entry each leads to, and what an edit has to do so that each still does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cosremaster.layers.tar.entries import TarEntries
from cosremaster.records.tuples import NamedTuple
from cosremaster.tree.paths import SymlinkLoopError, normal_name, resolve_in_root

NO_SOURCE = -1


class _UnpackedNames:
    """The names that the entries so far unpack to, each with the number of the entry that has its data.

    ``targets``: the texts of symlinks, by number.
    """

    def __init__(self, targets: Mapping[int, bytes]) -> None:
        """Begin without names."""
        self.sources: dict[bytes, int] = {}
        self._targets = targets

    def find(self, name: bytes) -> int:
        """Return the number of the entry that a hard link to ``name`` gets its data from; :data:`NO_SOURCE` for none.

        A directory on the way may be a symlink.
        """
        path = normal_name(name)
        source = self.sources.get(path)
        if source is not None:
            return source
        try:
            real = resolve_in_root(path, self._link_target, follow_last=False)
        except SymlinkLoopError:
            return NO_SOURCE
        return self.sources.get(real, NO_SOURCE)

    def _link_target(self, path: bytes) -> bytes | None:
        """Return the text of the symlink ``path``, None for no symlink."""
        source = self.sources.get(path)
        return None if source is None else self._targets.get(source)


def find_sources(entries: TarEntries, paths: Sequence[bytes]) -> dict[int, int]:
    """Return by the number of each hard link that of the entry with its data, :data:`NO_SOURCE` where there is none.

    Of several entries with one name the last one before the link counts. ``paths``: of all ``entries``.
    """
    sources: dict[int, int] = {}
    if not entries.links:
        return sources
    names = _UnpackedNames(entries.targets)
    for number, path in enumerate(paths):
        if number in entries.links:
            sources[number] = names.find(entries.links[number])
        names.sources[path] = sources.get(number, number)
    return sources


class LinkChange(NamedTuple):
    """What happens to a hard link: it gets the data of entry ``carried``, or leads to entry ``target`` from now on."""

    carried: int | None = None
    target: int = NO_SOURCE


def plan_links(
    entries: TarEntries, paths: Sequence[bytes], sources: Mapping[int, int], removed: Collection[int]
) -> dict[int, LinkChange]:
    """Return, by its number, what happens to each hard link whose target goes with the ``removed`` entries.

    The first link to data that go carries them; later ones lead to it.
    """
    changes: dict[int, LinkChange] = {}
    if not sources:
        return changes
    names = _UnpackedNames(entries.targets)
    holders: dict[int, dict[bytes, int]] = {source: {} for source in sources.values()}
    for number, path in enumerate(paths):
        if number in removed:
            continue
        source = sources.get(number, number)
        if number in sources and source != NO_SOURCE and names.find(entries.links[number]) != source:
            others = list(holders[source].values())
            changes[number] = LinkChange(target=others[0]) if others else LinkChange(carried=source)
        before = names.sources.get(path)
        if before in holders:
            holders[before].pop(path, None)
        names.sources[path] = source
        if source in holders:
            holders[source][path] = number
    return changes
