"""Where the entries of a tar archive unpack to: a directory in a name may be a symlink that an earlier entry made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cosremaster.layers.tar.entries import TarEntries
from cosremaster.tree.earlier_symlinks import SymlinksSoFar, lead_through
from cosremaster.tree.paths import normal_name, normal_names


def unpacked_paths(entries: TarEntries) -> Sequence[bytes]:
    """Return the path that each of ``entries`` unpacks to, as where no name leads out of the archive's root."""
    paths = normal_names(entries.names)
    if not _may_lead_elsewhere(paths, entries.targets):
        return paths
    return [path for _, path in follow_symlinks(entries, range(len(entries)))]


def follow_symlinks(entries: TarEntries, numbers: Sequence[int]) -> list[tuple[int, bytes]]:
    """Return each of ``numbers`` with the path that its entry unpacks to where no other entries are in the archive."""
    symlinks = SymlinksSoFar()
    paths = []
    for number in numbers:
        path = symlinks.resolve(normal_name(entries.names[number]))
        target = entries.targets.get(number)
        link = entries.links.get(number)
        if link is not None:  # perhaps another name of a symlink
            target = symlinks.target(symlinks.resolve(normal_name(link)))
        symlinks.put(path, target)
        paths.append((number, path))
    return paths


def _may_lead_elsewhere(paths: Sequence[bytes], targets: Mapping[int, bytes]) -> bool:
    """Return whether one of ``paths`` leads through a path of ``targets``, by number of entry, or has a ``..``."""
    if any(b".." in path and b".." in path.split(b"/") for path in paths):
        return True
    return lead_through(paths, {paths[number] for number in targets})
