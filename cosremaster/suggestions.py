"""What somebody may have meant by a name that is not there. Everything that says so asks here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

CUTOFF = 0.6
"""How like a name has to be, of 1 (difflib)."""


PATH_CUTOFF = 0.75
"""How like a path has to be: ``hostnam`` is like ``hostname``, ``motd`` is not; there are more paths than commands."""


def find_similar(wanted: str, names: Iterable[str], count: int = 1, cutoff: float = CUTOFF) -> list[str]:
    """Return at most ``count`` of ``names`` that are most like ``wanted``, the same in other letters first."""
    from difflib import get_close_matches  # noqa: PLC0415 - most names are right

    every = list(names)
    folded = wanted.casefold()
    same = [name for name in every if name.casefold() == folded]
    like = get_close_matches(wanted, every, n=count, cutoff=cutoff)
    return list(dict.fromkeys([*same, *like]))[:count]


def suggest_file(path: str | bytes | os.PathLike[str], error: OSError | None = None) -> str:
    """Return the end of a sentence about the file ``path`` of this machine: one beside it, if ``path`` is not there.

    ``error``: why it cannot be reached, where the sentence is about that; it may be there then.
    """
    folder, name = os.path.split(os.fsdecode(path).rstrip("/"))
    if isinstance(error, NotADirectoryError):
        return _suggest_address(os.fsdecode(path))
    if not (error is None or isinstance(error, FileNotFoundError)):
        return ""
    image, mark, _ = os.fsdecode(path).partition("::")
    if mark and os.path.isfile(image):
        return f"; {image} is there, but a whole file is wanted here, and no address in it"
    try:
        names = os.listdir(folder or ".")
    except (OSError, ValueError):
        return ""
    similar = (like for like in find_similar(name, names, 1, PATH_CUTOFF) if like != name and like.isprintable())
    return format_suggestion([os.path.join(folder, like) for like in similar])


def _suggest_address(path: str) -> str:
    """Return the end of a sentence about ``path``, which goes on behind a file as if that were a directory."""
    file = path
    while file and not os.path.lexists(file):
        file = os.path.dirname(file)
    if not os.path.isfile(file):
        return ""
    return f"; {file} is a file, and what is in an image stands behind :: ({file}::{path[len(file) :].strip('/')})"


def format_suggestion(names: Sequence[str]) -> str:
    """Return the end of a sentence about a name that is not there: that one of ``names`` may be meant, if any."""
    return f"; did you mean {' or '.join(names)}?" if names else ""
