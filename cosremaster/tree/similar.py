"""What may be meant by a path that a tree does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from cosremaster.errors import printable
from cosremaster.suggestions import PATH_CUTOFF, find_similar, format_suggestion
from cosremaster.tree.paths import join, parent_of


def follow_similar(path: bytes, list_names: Callable[[bytes], Sequence[bytes]]) -> tuple[bytes, bool]:
    """Return the path that is most like ``path``, as far as there is one, and whether that is all of it.

    ``list_names``: returns the paths in a directory.
    """
    match = b""
    for part in path.split(b"/"):
        similar = _find_name(list_names(match), join(match, part))
        if similar is None:
            return match, False
        match = similar
    return match, True


def format_absolute(path: bytes) -> str:
    """Return ``path`` as options take it, from the root on."""
    return f"/{printable(path)}"


def suggest_path(path: bytes, paths: Iterable[bytes], form: Callable[[bytes], str] = format_absolute) -> str:
    """Return the end of a sentence about ``path``, which is not among ``paths``; empty where nothing is like it.

    A path with the same name in another directory is meant where no path is like it throughout. ``form``: how a path
    is written.
    """
    children: dict[bytes, list[bytes]] = {}
    for other in paths:
        children.setdefault(parent_of(other), []).append(other)
    match, is_whole = follow_similar(path, lambda directory: children.get(directory, ()))
    name = path.rpartition(b"/")[2]
    same = sorted(other for names in children.values() for other in names if other.rpartition(b"/")[2] == name)
    meant = [match] if is_whole else same[:1]
    return format_suggestion([form(other) for other in meant if other])


def _find_name(names: Sequence[bytes], path: bytes) -> bytes | None:
    """Return the path among ``names``, those in a directory, that is most like ``path``; None where none is."""
    if path in names:
        return path
    texts = {_last_part(name): name for name in names}
    return next((texts[name] for name in find_similar(_last_part(path), texts, 1, PATH_CUTOFF)), None)


def _last_part(path: bytes) -> str:
    """Return the last part of ``path`` as text, without a loss."""
    return path.rpartition(b"/")[2].decode("utf-8", "surrogateescape")
