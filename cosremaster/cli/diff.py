"""The command that compares two images or anything in them."""

from __future__ import annotations

import json
from contextlib import ExitStack

import click

from cosremaster.browse.compare import Difference, compare_nodes
from cosremaster.browse.container import Container, NodeRef, enter_if_container, follow, open_container, split_address
from cosremaster.cli.options import MAX_EXPAND
from cosremaster.io.source import open_source
from cosremaster.layers.scan import ScanOptions

SCHEMA = 1
_MARKS = {"added": "+", "removed": "-", "type": "!", "metadata": "m", "content": "~", "packing": "z", "boot": "b"}


@click.command()
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option("--text", is_flag=True, help="Show how text files differ.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/json.md).")
@MAX_EXPAND
def diff_command(one: str, other: str, text: bool, as_json: bool, max_expand: int) -> int:
    """Compare two addresses by meaning: boot records, files, and layers entry by entry.

    Exit code 1 when they differ. + added, - removed, ~ content, m metadata, ! type, z packed otherwise, b boot record.
    """
    with ExitStack() as stack:
        left = _open(stack, one, max_expand)
        found = compare_nodes(left, _open(stack, other, max_expand, left.container), text=text)
        if as_json:
            listed = list(found)
            values = [_values(difference) for difference in listed]
            report = {"schema": SCHEMA, "a": one, "b": other, "different": bool(listed), "differences": values}
            click.echo(json.dumps(report, indent=2, ensure_ascii=False))
            return int(bool(listed))
        different = False
        for difference in found:
            different = True
            details = "; ".join(difference.details)
            click.echo(f"{_MARKS[difference.what]} {difference.where or '.'}: {details}")
            for line in difference.text:
                click.echo(f"    {line}")
        return int(different)


def _open(stack: ExitStack, text: str, max_expand: int, beside: Container | None = None) -> NodeRef:
    path, address = split_address(text)
    source = stack.enter_context(open_source(path))
    effort = ScanOptions(digests=True, nesting=0, edits=False, max_expand=max_expand)
    return enter_if_container(follow(*open_container(source, address, effort, beside)), beside)


def _values(one: Difference) -> dict[str, object]:
    return {"what": one.what, "address": one.where, "details": list(one.details), "text": list(one.text)}
