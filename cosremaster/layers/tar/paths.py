"""Where the entries of a tar archive unpack to: a directory in a name may be a symlink that an earlier entry made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cosremaster.layers.tar.entries import TarEntries
from cosremaster.tree.paths import SymlinkLoopError, ancestors, normal_name, normal_names, parent_of, resolve_in_root


class SymlinksSoFar:
    """The symlinks that the entries so far unpack to, by path."""

    def __init__(self) -> None:
        """Begin without symlinks."""
        self._targets: dict[bytes, bytes] = {}
        self._parents: dict[bytes, bytes] = {}

    def resolve(self, path: bytes) -> bytes:
        """Return ``path`` with the symlinks in its parents followed as in a chroot; ``path`` itself for a loop."""
        parent = parent_of(path)
        real = self._parents.get(parent)
        if real is None:
            try:
                real = resolve_in_root(parent, self._targets.get)
            except SymlinkLoopError:
                real = parent
            self._parents[parent] = real
        name = path[len(parent) + 1 :] if parent else path
        if name == b"..":
            return parent_of(real)
        return real + b"/" + name if real else name

    def target(self, path: bytes) -> bytes | None:
        """Return the text of the symlink at ``path``, None for no symlink."""
        return self._targets.get(path)

    def put(self, path: bytes, target: bytes | None) -> None:
        """Take in an entry at ``path``: a symlink with the text ``target``, None for anything else."""
        if target is not None:
            self._targets[path] = target
        elif self._targets.pop(path, None) is None:
            return
        self._parents.clear()


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
    parents = {path.rpartition(b"/")[0] for path in paths}
    links = {paths[number] for number in targets}
    if not links:
        return False
    return any(parent in links or any(above in links for above in ancestors(parent)) for parent in parents)
