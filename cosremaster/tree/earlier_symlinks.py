"""Where the entries of an archive unpack to: a directory in a name may be a symlink that an earlier entry made."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cosremaster.tree.paths import SymlinkLoopError, ancestors, parent_of, resolve_in_root


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


def lead_through(paths: Iterable[bytes], links: Collection[bytes]) -> bool:
    """Return whether a directory of one of ``paths`` is among ``links``, the paths of symlinks."""
    if not links:
        return False
    parents = {path.rpartition(b"/")[0] for path in paths}
    return any(parent in links or any(above in links for above in ancestors(parent)) for parent in parents)
