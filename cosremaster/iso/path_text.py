"""Look for names among very many paths, at the speed of a search for bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain

_BORDER = b"\0"
"""What stands between two paths; no name of a file that readers show has it."""


class PathText:
    """Paths as texts, in their order. Names are looked for in small and in capital letters."""

    def __init__(self, paths: Collection[bytes]) -> None:
        """Write ``paths`` behind each other."""
        self._texts: tuple[_Text, ...] = (_Text(paths),)

    def extend(self, paths: Collection[bytes]) -> PathText:
        """Return these paths and then ``paths``."""
        both = PathText(paths)
        both._texts = (*self._texts, *both._texts)
        return both

    def find_containing(self, part: bytes) -> Iterator[bytes]:
        """Yield the paths in which ``part``, in small letters, stands, each once."""
        return chain.from_iterable(text.find((part,), is_end=False) for text in self._texts)

    def find_ending(self, *endings: bytes) -> Iterator[bytes]:
        """Yield the paths that end with one of ``endings``, which are in small letters."""
        return chain.from_iterable(text.find(endings, is_end=True) for text in self._texts)

    def find_last(self, path: bytes, wants: Callable[[bytes], bool] = lambda _: True) -> bytes | None:
        """Return the last path that is ``path`` but for capital letters, that ``wants`` takes; None for none."""
        same = [other for other in self.find_ending(path.lower()) if len(other) == len(path)]
        return next(filter(wants, reversed(same)), None)


class _Text:
    """Some paths as one text. What was looked for is known: the same is asked for before and after edits."""

    def __init__(self, paths: Collection[bytes]) -> None:
        """Write ``paths`` behind each other."""
        self._text = _BORDER.join((b"", *paths, b""))
        self._odd: tuple[bytes, ...] = ()
        if self._text.count(_BORDER) != len(paths) + 1:  # a damaged image may name anything
            self._text, self._odd = _BORDER, tuple(paths)
        self._folded = self._text.lower()
        self._known: dict[tuple[tuple[bytes, ...], bool], Sequence[bytes]] = {}

    def find(self, parts: tuple[bytes, ...], *, is_end: bool) -> Sequence[bytes]:
        """Return the paths in which one of ``parts`` stands; with ``is_end`` at their end."""
        key = parts, is_end
        if key not in self._known:
            self._known[key] = tuple(self._find(parts, is_end=is_end))
        return self._known[key]

    def _find(self, parts: tuple[bytes, ...], *, is_end: bool) -> Iterator[bytes]:
        """Yield what :meth:`find` returns."""
        for path in self._odd:
            folded = path.lower()
            if folded.endswith(parts) if is_end else any(part in folded for part in parts):
                yield path
        expression = b"(?:%b)%b" % (b"|".join(map(re.escape, parts)), _BORDER if is_end else b"")
        search, text = re.compile(expression).search, self._text
        match = search(self._folded, 1)
        while match is not None:
            end = text.index(_BORDER, match.start())
            yield text[text.rindex(_BORDER, 0, match.start()) + 1 : end]
            match = search(self._folded, end + 1)
