"""The option --expect of commands that read an image: what they read is what has the digest."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from cosremaster.errors import ImageError, UsageError

if TYPE_CHECKING:
    from cosremaster.io.urls import ImagePath

_Command = TypeVar("_Command", bound=Callable[..., Any])


def takes_expected(parameter: str, noun: str, other: str = "", other_noun: str = "") -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command ``--expect`` for the image in ``parameter``, which help calls ``noun``.

    ``other``: a second parameter with an image, whose option has its noun, as in ``--expect-original``.
    """
    options = {"expect": (parameter, noun)}
    if other:
        options[f"expect_{other_noun.lower()}"] = (other, other_noun)

    def decorate(command: _Command) -> _Command:
        """Return ``command`` with the options; it runs only where the digests are those of the images."""

        @functools.wraps(command)
        def run(*arguments: Any, **values: Any) -> Any:
            """Check the images, then run the command."""
            with ExitStack() as stack:
                for name, (holder, _) in options.items():
                    expect = values.pop(name)
                    if expect and values[holder] is not None:
                        stack.enter_context(checked_input(values[holder], expect))
                    elif expect:
                        raise UsageError(f"--{name.replace('_', '-')} is of an image that is not given")
                return command(*arguments, **values)

        for name, (_, image) in reversed(options.items()):
            run = click.option(
                f"--{name.replace('_', '-')}", multiple=True, metavar="NAME:HEX",
                help=f"Go on only if {image}'s file has this digest, as in sha256:HEX; all of it is read first."
                " May be given again.",
            )(run)  # fmt: skip
        return cast("_Command", run)

    return decorate


@contextmanager
def checked_input(image: ImagePath, expect: Iterable[str]) -> Iterator[None]:
    """Keep the file open that ``image``, a path or an address, begins with, while the context reads it.

    It has the digests ``expect``, and all of a remote one is on this machine. :raises UsageError: one is no digest.
    :raises ImageError: the file has another, or another came behind it. :raises OutputError: no room for it.
    """
    from cosremaster.browse.container import split_address  # noqa: PLC0415 - few commands are given a digest
    from cosremaster.cli.looking import LookingProgress  # noqa: PLC0415 - the same
    from cosremaster.io.source import open_source  # noqa: PLC0415 - the same
    from cosremaster.remastering.output_options import compare_digests, parse_digests  # noqa: PLC0415 - the same

    expected = parse_digests(expect)
    path = split_address(image)[0] if isinstance(image, str) else image
    before = _identify_file(path)
    with open_source(path) as source:
        compare_digests(source, expected, LookingProgress())
        yield
        source.check_unchanged()
        if _identify_file(path) not in (before, None):  # the command opened it by its name
            raise ImageError("was replaced while it was being read", source.place)


def _identify_file(path: ImagePath) -> tuple[int, int] | None:
    """Return device and inode of the file at ``path``; None where no file of this machine is."""
    try:
        status = os.stat(str(path))
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
