"""Options that several commands share."""

from __future__ import annotations

import click

from cosremaster.layers.scan import MAX_EXPAND as DEFAULT

MAX_EXPAND = click.option(
    "--max-expand", type=click.IntRange(min=1), default=DEFAULT, show_default=True, metavar="RATIO",
    help="Take data for a bomb that expand by more than RATIO, beyond the first GiB.",
)  # fmt: skip


class StrictCommand(click.Command):
    """A command whose options with a value stand once, unless their help says that they may be given again."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``args``. :raises UsageError: an option stands twice, so that one of its values would be lost."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for number, parameter in enumerate(order):
            if isinstance(parameter, click.Option) and _takes_single_value(parameter) and parameter in order[:number]:
                raise click.UsageError(f"{parameter.opts[0]} is given twice, and only one of them can count.", ctx)
        return super().parse_args(ctx, args)


def _takes_single_value(option: click.Option) -> bool:
    """Return whether a second value of ``option`` would replace the first."""
    return not (option.multiple or option.is_flag or option.count)


AGAINST_MISSING = "--changed says what may differ from --against ORIGINAL, which is missing"
