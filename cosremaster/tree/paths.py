"""Paths inside a tree: bytes without a leading slash and without ``.`` or ``..``; the root is empty."""

from __future__ import annotations

from collections.abc import Iterator


def parent_of(path: bytes) -> bytes:
    """Return the path of the directory that holds ``path``; the root's parent is the root."""
    return path.rpartition(b"/")[0]


def ancestors(path: bytes) -> Iterator[bytes]:
    """Yield the directories that ``path`` lies in, the outermost first, without the root."""
    slash = path.find(b"/")
    while slash >= 0:
        yield path[:slash]
        slash = path.find(b"/", slash + 1)


def join(directory: bytes, path: bytes) -> bytes:
    """Return the path of ``path`` in ``directory``; either may be empty."""
    return directory + b"/" + path if directory and path else directory or path
