"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path, PosixPath
from typing import Any

import click

from cosremaster.io.urls import Url, parse_image_path, split_image_path
from cosremaster.layers.scan import MAX_EXPAND as DEFAULT

MAX_EXPAND = click.option(
    "--max-expand", type=click.IntRange(min=1), default=DEFAULT, show_default=True, metavar="RATIO",
    help="Take data for a bomb that expand by more than RATIO, beyond the first GiB.",
)  # fmt: skip

GZIP = click.option(
    "--gzip", type=click.Choice(("zlib", "isal")), default="zlib", show_default=True,
    help="What packs gzip: isal takes a sixth of the time, makes some 12 % more bytes, and has to be installed.",
)  # fmt: skip


ORDER = "cosremaster.order"
"""Where a context keeps the names of its parameters, in the order in which they were given."""


class InputPath(click.ParamType["Path | Url"]):
    """The path or URL of an image; ``-`` is standard input."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Url:
        """Return ``value`` as a path or a URL. Raises as ``keep_standard_input`` and ``parse_image_path``."""
        return _kept_standard_input() if value == "-" else parse_image_path(value)


class InputAddress(click.ParamType[str]):
    """An address whose image may be ``-``, standard input."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return ``value`` with a path for ``-``. Raises as ``keep_standard_input``."""
        image, separator, rest = split_image_path(str(value))
        return f"{_kept_standard_input()}{separator}{rest}" if image == "-" else str(value)


class StreamPath(PosixPath):
    """The path ``-`` of an output, which means standard output; a file of that name is ``./-``."""


class OutputPath(click.ParamType[Path]):
    """The path of an output; ``-`` is standard output."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return ``value`` as a path."""
        return StreamPath(value) if value == "-" else Path(value)


def _kept_standard_input() -> Path:
    """Return a path of what standard input holds. Raises as ``keep_standard_input``."""
    from cosremaster.io.standard_input import keep_standard_input  # noqa: PLC0415 - few commands read it

    return keep_standard_input()


class StrictCommand(click.Command):
    """A command whose options with a value stand once, unless their help says that they may be given again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``args``; one that begins with ``-::`` is an address.

        :raises UsageError: an option stands twice, so that one of its values would be lost.
        """
        args = [InputAddress().convert(word, None, ctx) if word.startswith("-::") else word for word in args]
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[ORDER] = [parameter.name for parameter in order]
        for number, parameter in enumerate(order):
            if isinstance(parameter, click.Option) and _takes_single_value(parameter) and parameter in order[:number]:
                raise click.UsageError(f"{parameter.opts[0]} is given twice, and only one of them can count.", ctx)
        return super().parse_args(ctx, args)


def _takes_single_value(option: click.Option) -> bool:
    """Return whether a second value of ``option`` would replace the first."""
    return not (option.multiple or option.is_flag or option.count)


AGAINST_MISSING = "--changed says what may differ from --against ORIGINAL, which is missing"
