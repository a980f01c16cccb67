"""Options that several commands share."""

from __future__ import annotations

import click

from cosremaster.layers.scan import MAX_EXPAND as DEFAULT

MAX_EXPAND = click.option(
    "--max-expand", type=click.IntRange(min=1), default=DEFAULT, show_default=True, metavar="RATIO",
    help="Take data for a bomb that expand by more than RATIO, beyond the first GiB.",
)  # fmt: skip

AGAINST_MISSING = "--changed says what may differ from --against ORIGINAL, which is missing"
