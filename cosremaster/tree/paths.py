"""Paths inside a tree: bytes without a leading slash and without ``.`` or ``..``; the root is empty."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

MAX_LINKS = 40
"""Symlinks followed in one path before it counts as a loop; the kernel's own limit (path_resolution(7))."""


def parent_of(path: bytes) -> bytes:
    """Return the path of the directory that holds ``path``; the root's parent is the root."""
    return path.rpartition(b"/")[0]


def ancestors(path: bytes) -> Iterator[bytes]:
    """Yield the directories that ``path`` lies in, the outermost first, without the root."""
    slash = path.find(b"/")
    while slash >= 0:
        yield path[:slash]
        slash = path.find(b"/", slash + 1)


def tree_order(path: bytes) -> bytes:
    """Return the key by which paths are sorted so that all below a directory follows it before anything else does.

    Bytes alone put ``lib/python3.11`` between ``lib/python3`` and ``lib/python3/a``.
    """
    return path.replace(b"/", b"\0")


def has_parent_parts(paths: Iterable[bytes]) -> bool:
    """Return whether one of ``paths`` has the part ``..``."""
    return any(b".." in path.split(b"/") for path in paths if b".." in path)


def join(directory: bytes, path: bytes) -> bytes:
    """Return the path of ``path`` in ``directory``; either may be empty."""
    return directory + b"/" + path if directory and path else directory or path


class SymlinkLoopError(Exception):
    """A path leads through more than :data:`MAX_LINKS` symlinks."""


def resolve_in_root(
    path: bytes,
    link_target: Callable[[bytes], bytes | None],
    *,
    follow_last: bool = True,
    enter: Callable[[bytes, bytes], None] | None = None,
) -> bytes:
    """Return ``path`` with symlinks followed as in a chroot: no ``..`` and no absolute target leaves the root.

    :param link_target: returns the text of the symlink at a path, None where there is no symlink.
    :param follow_last: whether a symlink at the end of ``path`` is followed too.
    :param enter: called with each path on the way that is no symlink, and the path of the symlink whose text led
        there (empty: no symlink did).
    :raises SymlinkLoopError: more than :data:`MAX_LINKS` symlinks had to be followed.
    """
    waiting = deque((part, b"") for part in path.split(b"/"))
    real, links = b"", 0
    while waiting:
        part, link = waiting.popleft()
        if part in (b"", b"."):
            continue
        if part == b"..":
            real = parent_of(real)
            continue
        below = real + b"/" + part if real else part
        target = link_target(below) if waiting or follow_last else None
        if target is None:
            if enter is not None:
                enter(below, link)
            real = below
            continue
        links += 1
        if links > MAX_LINKS:
            raise SymlinkLoopError
        if target.startswith(b"/"):
            real = b""
        waiting.extendleft((step, below) for step in reversed(target.split(b"/")))
    return real


_NOT_NORMAL = (b"//", b"/./", b"/.\0", b"\0./", b"\0.\0", b"\0/", b"/\0")  # in names with NULs around them
_AT_ONCE = 4096  # names


def normal_names(names: Sequence[bytes]) -> Sequence[bytes]:
    """Return :func:`normal_name` of each of ``names``.

    Where nothing differs these are ``names`` themselves. Thousands are converted at once, without a copy of all.
    """
    paths: list[bytes] | None = None
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        normal = _convert_names(some)
        if paths is None and normal is not some:
            paths = list(names[:start])
        if paths is not None:
            paths += normal
    return names if paths is None else paths


def _convert_names(names: Sequence[bytes]) -> Sequence[bytes]:
    """Return :func:`normal_name` of each of ``names``, which are not empty; ``names`` itself where nothing differs.

    They are converted together if they differ from it only by the root's ``.`` and by a leading ``./``.
    """
    text = b"\0%b\0" % b"\0".join(names)
    shorter = text.replace(b"\0./", b"\0").replace(b"\0.\0", b"\0\0")
    if any(odd in shorter for odd in _NOT_NORMAL):
        return [normal_name(name) for name in names]
    return names if len(shorter) == len(text) else shorter[1:-1].split(b"\0")


def normal_name(name: bytes) -> bytes:
    """Return ``name`` as a path: without slashes at either end, empty parts and ``.``; the root is empty."""
    if name[:1] not in (b"/", b".") and b"//" not in name and b"/." not in name and name[-1:] != b"/":
        return name
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))
