"""The error tree: one class for each exit code, each error with the place it speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple


def printable(name: bytes | str) -> str:
    """A name as people can read it: undecodable bytes and control characters become ``\\xNN``."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(names: Iterable[bytes]) -> str:
    """:func:`show` of each, with the end of a line behind it."""
    lines = list(names)
    try:
        text = b"\n".join([*lines, b""]).decode()
        plain = text.count("\n") == len(lines) and text.replace("\n", "").isprintable()
    except UnicodeDecodeError:
        plain = False
    return text if plain else "".join([f"{printable(line)}\n" for line in lines])


class Place(NamedTuple):
    """Where something stands: a path through nested containers, and a byte offset in the innermost.

    ``parts`` are display names from the outside in; ``offset`` counts bytes in the last part. A tuple, as all values
    that a plain listing needs are: to load dataclasses and what makes them takes as long as listing 3,000 entries.
    """

    parts: tuple[str, ...] = ()
    offset: int | None = None

    def inside(self, name: bytes | str) -> Place:
        """The place of the thing called ``name`` inside this one."""
        return Place((*self.parts, printable(name)))

    def at(self, offset: int) -> Place:
        """This place at byte ``offset``."""
        return Place(self.parts, offset)

    def __str__(self) -> str:
        path = " » ".join(self.parts)
        return path if self.offset is None else f"{path} @0x{self.offset:X}".lstrip()


class CosremasterError(Exception):
    """Any failure this package reports. ``str()`` is one sentence: place, colon, message."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message, place)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


class UsageError(CosremasterError):
    """The request itself makes no sense."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has faults; ``problems`` holds a sentence for each, with its place and line."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
        else:
            super().__init__("\n  ".join((f"{name}: {len(self.problems)} faults:", *self.problems)))


class ImageError(CosremasterError):
    """The input cannot be read, is no ISO 9660 image, or its file system is damaged."""

    exit_code = 3


class CorruptError(CosremasterError):
    """A compressed stream or an archive inside the image is damaged."""

    exit_code = 4


class UnsupportedError(CosremasterError):
    """The image holds something sound that this version does not handle."""

    exit_code = 5


class LayerError(CosremasterError):
    """No layer fits, several do, or the one asked for is not there."""

    exit_code = 6


class OverlayError(CosremasterError):
    """A source is missing or unreadable, or it cannot be laid over this image."""

    exit_code = 7


class OutputError(CosremasterError):
    """The output cannot be written where it was asked for."""

    exit_code = 8


class SizeError(CosremasterError):
    """The result would be larger than a format allows."""

    exit_code = 9


class ProofError(CosremasterError):
    """The finished result does not hold what the plan promised; it was thrown away."""

    exit_code = 10
