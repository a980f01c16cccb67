"""The error tree: a class for each exit code; each error has a message and a place in the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from cosremaster.records.tuples import NamedTuple


def printable(name: bytes | str) -> str:
    """Return ``name`` in readable form: undecodable bytes and control characters become ``\\xNN``."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def printable_lines(names: Iterable[bytes]) -> str:
    """Return each name in readable form, as :func:`printable` does, on a line of its own."""
    lines = list(names)
    try:
        text = b"\n".join([*lines, b""]).decode()
        is_printable = text.count("\n") == len(lines) and text.replace("\n", "").isprintable()
    except UnicodeDecodeError:
        is_printable = False
    return text if is_printable else "".join([f"{printable(line)}\n" for line in lines])


class Place(NamedTuple):
    """A place for messages: a path through nested containers, and a byte offset in the innermost one.

    It is a tuple, as all values of a plain listing: importing dataclasses takes as long as listing 3,000 entries.

    :ivar parts: display names of the containers, the outermost first.
    :ivar offset: bytes from the beginning of the last part; None for all of it.
    """

    parts: tuple[str, ...] = ()
    offset: int | None = None

    def inside(self, name: bytes | str) -> Place:
        """Return the place of the file or container ``name`` inside this one."""
        return Place((*self.parts, printable(name)))

    def at(self, offset: int) -> Place:
        """Return this place with byte ``offset``."""
        return Place(self.parts, offset)

    def __str__(self) -> str:
        """Return the place for people, such as ``live.iso » initrd.img @0x10``."""
        path = " » ".join(self.parts)
        return path if self.offset is None else f"{path} @0x{self.offset:X}".lstrip()


class CosremasterError(Exception):
    """The base of all errors of this package. ``str()`` is one sentence: place, colon, message."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, place: Place | None = None) -> None:
        """Make an error with ``message``, which is about ``place``."""
        super().__init__(message, place)
        self.message = message
        self.place = place

    def __str__(self) -> str:
        """Return the place and the message."""
        return f"{self.place}: {self.message}" if self.place else self.message


class UsageError(CosremasterError):
    """The request itself makes no sense."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has faults; ``problems``: a sentence for each, with its place and line."""

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        """Make the error for the recipe ``name``."""
        self.name = name
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
        else:
            super().__init__("\n  ".join((f"{name}: {len(self.problems)} faults:", *self.problems)))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[str, tuple[str, ...]], dict[str, object]]:
        """Return how another process makes the same error; others are made of their arguments."""
        return type(self), (self.name, self.problems), self.__dict__


class ImageError(CosremasterError):
    """The input cannot be read, is not an ISO 9660 image, or its file system is damaged."""

    exit_code = 3


class CorruptError(CosremasterError):
    """A compressed stream or an archive inside the image is damaged."""

    exit_code = 4


class UnsupportedError(CosremasterError):
    """The image holds sound data of a kind that this version does not handle."""

    exit_code = 5


class LayerError(CosremasterError):
    """No layer fits, several do, or the requested one does not exist."""

    exit_code = 6


class OverlayError(CosremasterError):
    """A source of the overlay is missing or unreadable, or cannot be laid over this image."""

    exit_code = 7


class OutputError(CosremasterError):
    """The output cannot be written at the requested place."""

    exit_code = 8


class SizeError(CosremasterError):
    """The result would be larger than a format allows."""

    exit_code = 9


class ProofError(CosremasterError):
    """The finished result differs from the plan; it was thrown away."""

    exit_code = 10


class ScriptError(CosremasterError):
    """A script that was to change a file system failed, took too long, or left what no layer holds.

    ``exit_status``: the script's own, 128 + n after signal n; None where it did not end by itself.
    """

    exit_code = 11

    def __init__(self, message: str, place: Place | None = None, exit_status: int | None = None) -> None:
        """Make the error; see :class:`CosremasterError`."""
        super().__init__(message, place)
        self.exit_status = exit_status

    def __reduce__(self) -> tuple[type[ScriptError], tuple[str, Place | None, int | None], dict[str, object]]:
        """Return how another process makes the same error."""
        return type(self), (self.message, self.place, self.exit_status), self.__dict__


class SandboxError(CosremasterError):
    """This machine does not let the user run a script in a file system."""

    exit_code = 12
