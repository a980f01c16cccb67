"""Listing what stands at an address. Nothing here loads click: listing an initramfs takes no longer than reading it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cosremaster.browse.names import list_names, walk_names
from cosremaster.errors import printable, printable_lines
from cosremaster.io.source import ByteSource, open_source
from cosremaster.layers.scan import MAX_EXPAND

if TYPE_CHECKING:
    from cosremaster.browse.container import Container, NodeRef
    from cosremaster.layers.address import Address

_FLAGS = {
    "-l": ("long",), "--long": ("long",), "-R": ("recursive",), "--recursive": ("recursive",), "--json": ("as_json",),
    "-lR": ("long", "recursive"), "-Rl": ("long", "recursive"),
}  # fmt: skip


def list_plainly(words: Sequence[str]) -> bool:
    """Does what ``ls`` with the arguments ``words`` is to do, if they are an address and flags and nothing else.

    False when they are not: the command's own parser knows the rest, and what to say.
    """
    wanted = dict.fromkeys(("long", "recursive", "as_json"), False)
    addresses = []
    for word in words:
        if not word.startswith("-"):
            addresses.append(word)
        elif word in _FLAGS:
            wanted.update(dict.fromkeys(_FLAGS[word], True))
        else:
            return False
    if len(addresses) != 1:
        return False
    listed = not (wanted["long"] or wanted["as_json"]) and _list_names(addresses[0], recursive=wanted["recursive"])
    if not listed:
        list_address(addresses[0], max_expand=MAX_EXPAND, **wanted)
    return True


def _list_names(address: str, *, recursive: bool) -> bool:
    """Prints the names in the archive at ``address`` if it is a file of its own; False if it is not."""
    if "::" in address or "%" in address or not address:
        return False
    with open_source(address) as source:
        names = list_names(source, MAX_EXPAND)
    if names is not None:
        _write_names(walk_names(names, b"") if recursive else names[b""])
    return names is not None


@contextmanager
def looking(text: str, max_expand: int) -> Iterator[tuple[ByteSource, Container, Address]]:
    """The file that an address begins with, what it is, and the rest of the address."""
    from cosremaster.browse.container import ALONE, open_container, split_address  # noqa: PLC0415 - not for names alone

    path, address = split_address(text)
    with open_source(path) as source:
        top, rest = open_container(source, address, ALONE._replace(max_expand=max_expand))
        yield source, top, rest


def print_json(nodes: Iterable[NodeRef]) -> None:
    """The nodes as docs/json.md tells."""
    import json  # noqa: PLC0415 - a plain listing needs none of it

    from cosremaster.browse.report import SCHEMA, describe_node  # noqa: PLC0415 - the same

    report = {"schema": SCHEMA, "nodes": [describe_node(one) for one in nodes]}
    _write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _write(text: str) -> None:
    """To standard output, in one go."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _write_names(names: Iterable[bytes]) -> None:
    _write(printable_lines(names))


def list_address(address: str, *, long: bool, recursive: bool, as_json: bool, max_expand: int) -> None:
    """Prints what stands in the directory, image or archive at ``address``."""
    from cosremaster.browse.container import NodeRef, enter_if_container, follow  # noqa: PLC0415 - the same
    from cosremaster.tree.nodes import NodeKind  # noqa: PLC0415 - the same

    with looking(address, max_expand) as (_, top, rest):
        at = enter_if_container(follow(top, rest, last=not long))
        container, base = at.container, at.node.path
        if at.node.kind is not NodeKind.DIRECTORY:
            listed, cut = [at], 0
        else:
            names = container.walk_below(base) if recursive else container.list_names(base)
            cut = len(base) + bool(base)
            if not long and not as_json:
                _write_names(name[cut:] for name in names)
                return
            found = ((name, container.node(name)) for name in names)
            listed = [NodeRef(container, node) for _, node in found if node is not None]
        if as_json:
            print_json(listed)
            return
        shown = [(one.node, printable(one.node.path[cut:])) for one in listed]
        if long:
            from cosremaster.browse.report import format_long_line  # noqa: PLC0415 - a plain listing needs none of it

            _write("".join(f"{format_long_line(node, name)}\n" for node, name in shown))
        else:
            _write("".join(f"{name}\n" for _, name in shown))
