"""What becomes the root of the running system, and in which order its file systems lie over each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cosremaster.errors import printable

if TYPE_CHECKING:
    from cosremaster.layers.stacks import MountedRoot


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
        yield f"  in it {nested} is mounted instead, which cannot be read or changed yet"
    for path in chain.missing:
        yield f"  {printable(path)} is not on the image"
    for line, other in stack.others:
        yield f"  boot entry {line.title}: {', '.join(map(printable, other.paths))} ({other.order})"


def root_report(mounted: MountedRoot | None) -> dict[str, Any] | None:
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
