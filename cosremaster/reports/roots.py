"""What becomes the root of the running system, and in which order its file systems lie over each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from cosremaster.errors import printable
from cosremaster.units import format_size

if TYPE_CHECKING:
    from cosremaster.boot_memory.live_systems import LiveMemory
    from cosremaster.layers.stacks import MountedRoot
    from cosremaster.reports.documents import LiveMemoryDocument, RootDocument


def root_lines(mounted: MountedRoot) -> Iterator[str]:
    """Yield lines about the root of the running system, the uppermost file system first."""
    stack, nested, chain = mounted.stack, mounted.nested, mounted.stack.chain
    yield f"root of the running system: {chain.scheme.value}; {chain.order}"
    for number, path in reversed(list(enumerate(chain.paths, 1))):
        mark = f"; --add goes here: {stack.reason}" if path == stack.default and not nested else ""
        yield f"  {number} {printable(path)}{mark}"
    if stack.default not in (None, *chain.paths):
        yield f"  beside them {printable(stack.default or b'')}; --add goes here: {stack.reason}"
    if nested:
        yield f"  in it {nested} is mounted instead, which cannot be changed"
    for path in chain.missing:
        yield f"  {printable(path)} is not on the image"
    for line, other in stack.others:
        yield f"  boot entry {line.title}: {', '.join(map(printable, other.paths))} ({other.order})"


def root_report(mounted: MountedRoot | None) -> RootDocument | None:
    """Return the root of the running system as plain values (docs/json.md); None where nothing says what it is."""
    if mounted is None:
        return None
    stack, nested, chain = mounted.stack, mounted.nested, mounted.stack.chain
    return {
        "scheme": chain.scheme.name.lower().replace("_", "-"),
        "order": chain.order,
        "entry": stack.line.title or None,
        "layers": [printable(path) for path in chain.paths],
        "missing": [printable(path) for path in chain.missing],
        "nested": nested or None,
        "default": None if stack.default is None or nested else printable(stack.default),
        "reason": stack.reason,
        "other_entries": [
            {"entry": line.title, "layers": [printable(path) for path in other.paths], "order": other.order}
            for line, other in stack.others
        ],
    }


def live_memory_lines(systems: Iterable[LiveMemory]) -> Iterator[str]:
    """Yield a line about the memory that each of ``systems`` takes."""
    for system in systems:
        more = f" and {len(system.entries) - 1} more" if len(system.entries) > 1 else ""
        need = "--deep tells how much" if system.need is None else f"about {format_size(system.need)}"
        copied = "the root stays on the medium"
        if system.argument:
            copied = f"{system.argument} copies {format_size(system.copied)}"
        option = ""
        if system.option:
            amount = "" if system.option_need is None else f" and takes about {format_size(system.option_need)}"
            option = f" ({system.option} copies {format_size(system.option_copied)}{amount})"
        yield (
            f"memory to boot {system.entries[0] or 'the live system'}{more}, the running system apart: {need};"
            f" {copied}{option}; changes go to {system.writes}"
        )


def live_memory_report(systems: Iterable[LiveMemory]) -> list[LiveMemoryDocument]:
    """Return the memory that ``systems`` take as plain values (docs/json.md)."""
    return [_describe_memory(system) for system in systems]


def _describe_memory(system: LiveMemory) -> LiveMemoryDocument:
    """Return the memory that ``system`` takes."""
    return {
        "entries": list(system.entries), "scheme": system.scheme, "argument": system.argument,
        "copied": system.copied, "need": system.need, "writes": system.writes, "option": system.option,
        "option_copied": system.option_copied, "option_need": system.option_need,
    }  # fmt: skip
