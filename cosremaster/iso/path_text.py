"""Look for names among very many paths, at the speed of a search for bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain

BORDER = b"\0"
"""What stands between two paths; no name of a file that readers show has it."""


class PathText:
    """Paths as texts, in their order. Names are looked for in small and in capital letters."""

    def __init__(self, paths: Collection[bytes]) -> None:
        """Write ``paths`` behind each other."""
        self._texts: tuple[_Text | _ChosenText, ...] = (_Text(BORDER.join((b"", *paths, b"")), len(paths), paths),)

    @classmethod
    def of_joined(cls, text: bytes, count: int, paths: Iterable[bytes]) -> PathText:
        """Return the ``count`` ``paths`` that are joined in ``text``, with a :data:`BORDER` on both sides of each.

        ``paths`` are asked for only where one of them holds a border.
        """
        joined = cls(())
        joined._texts = (_Text(text, count, paths),)
        return joined

    def extend(self, paths: Collection[bytes]) -> PathText:
        """Return these paths and then ``paths``."""
        both = PathText(paths)
        both._texts = (*self._texts, *both._texts)
        return both

    def select(self, wants: Callable[[bytes], bool]) -> PathText:
        """Return those of these paths that ``wants`` takes; they are asked about when they are found."""
        chosen = PathText(())
        chosen._texts = tuple(_ChosenText(text, wants) for text in self._texts)
        return chosen

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


class _ChosenText:
    """Those paths of a text that somebody wants."""

    def __init__(self, text: _Text | _ChosenText, wants: Callable[[bytes], bool]) -> None:
        """Keep the arguments."""
        self._text, self._wants = text, wants

    def find(self, parts: tuple[bytes, ...], *, is_end: bool) -> Sequence[bytes]:
        """Return the paths in which one of ``parts`` stands; with ``is_end`` at their end."""
        return tuple(filter(self._wants, self._text.find(parts, is_end=is_end)))


class _Text:
    """Some paths as one text. What was looked for is known: the same is asked for before and after edits."""

    def __init__(self, text: bytes, count: int, paths: Iterable[bytes]) -> None:
        """Take the ``count`` ``paths`` as they are joined in ``text``."""
        self._text = text
        self._odd: tuple[bytes, ...] = ()
        if text.count(BORDER) != count + 1:  # a damaged image may name anything
            self._text, self._odd = BORDER, tuple(paths)
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
        expression = b"(?:%b)%b" % (b"|".join(map(re.escape, parts)), BORDER if is_end else b"")
        search, text = re.compile(expression).search, self._text
        match = search(self._folded, 1)
        while match is not None:
            end = text.index(BORDER, match.start())
            yield text[text.rindex(BORDER, 0, match.start()) + 1 : end]
            match = search(self._folded, end + 1)
