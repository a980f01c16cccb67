"""Listing what stands at an address. Nothing here loads click: listing an initramfs takes no longer than reading it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from cosremaster.errors import show
from cosremaster.files import FileSource
from cosremaster.layers.address import Address
from cosremaster.look.container import ALONE, Container, Looked, follow, inside, open_container, split_address
from cosremaster.nodes import Kind

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
    list_address(addresses[0], max_expand=ALONE.max_expand, **wanted)
    return True


@contextmanager
def looking(text: str, max_expand: int) -> Iterator[tuple[FileSource, Container, Address]]:
    """The file that an address begins with, what it is, and the rest of the address."""
    path, address = split_address(text)
    with FileSource(path) as source:
        top, rest = open_container(source, address, replace(ALONE, max_expand=max_expand))
        yield source, top, rest


def print_json(nodes: Iterable[Looked]) -> None:
    """The nodes as docs/json.md tells."""
    import json  # noqa: PLC0415 - a plain listing needs none of it

    from cosremaster.look.report import SCHEMA, node_report  # noqa: PLC0415 - the same

    report = {"schema": SCHEMA, "nodes": [node_report(one) for one in nodes]}
    _write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _write(text: str) -> None:
    """To standard output, in one go."""
    sys.stdout.write(text)
    sys.stdout.flush()


def list_address(address: str, *, long: bool, recursive: bool, as_json: bool, max_expand: int) -> None:
    """Prints what stands in the directory, image or archive at ``address``."""
    with looking(address, max_expand) as (_, top, rest):
        at = inside(follow(top, rest, last=not long))
        container, base = at.container, at.node.path
        if at.node.kind is not Kind.DIRECTORY:
            listed, cut = [at], 0
        else:
            names = container.below(base) if recursive else container.names(base)
            cut = len(base) + bool(base)
            if not long and not as_json:
                _write("".join([f"{show(name[cut:])}\n" for name in names]))
                return
            found = ((name, container.node(name)) for name in names)
            listed = [Looked(container, node) for _, node in found if node is not None]
        if as_json:
            print_json(listed)
            return
        shown = [(one.node, show(one.node.path[cut:])) for one in listed]
        if long:
            from cosremaster.look.report import long_line  # noqa: PLC0415 - a plain listing needs none of it

            _write("".join(f"{long_line(node, name)}\n" for node, name in shown))
        else:
            _write("".join(f"{name}\n" for _, name in shown))
