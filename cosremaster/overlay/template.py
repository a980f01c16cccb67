"""Variables in the files of an overlay: ``${NAME}`` is a value, ``$$`` a dollar, any other dollar stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cosremaster.errors import OverlayError, Place
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import replace
from cosremaster.suggestions import find_similar, format_suggestion
from cosremaster.tree.content import BytesContent
from cosremaster.tree.nodes import Node

MAX_TEMPLATE = 1 << 24
"""Bytes of the largest file whose variables are filled in."""

_SPECIAL = lazy_regex(rb"\$\$|\$\{([^}\n]*)(\}?)")
_NAME = lazy_regex(rb"[A-Za-z_][A-Za-z0-9_]*")


class TemplateError(Exception):
    """A variable cannot be filled in; the message says why, ``line`` where, from 1."""

    def __init__(self, message: str, line: int) -> None:
        """Make the fault."""
        super().__init__(message)
        self.line = line


def find_variables(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield the name and the line of each variable in ``data``.

    :raises TemplateError: ``${`` begins none, or ``data`` are no text, in which a dollar may mean anything.
    """
    zero = data.find(b"\0")
    for match in _SPECIAL.finditer(data):
        if zero >= 0:
            line = data.count(b"\n", 0, match.start()) + 1
            what = f"is no text (a zero byte at 0x{zero:X}), and has {match[0][:2].decode()} @0x{match.start():X}"
            raise TemplateError(f"{what}: add it from a source that is no template", line)
        if match[0] == b"$$":
            continue
        line = data.count(b"\n", 0, match.start()) + 1
        if not match[2] or not _NAME.fullmatch(match[1]):
            raise TemplateError("${ begins a variable as in ${NAME}; write $${ for a dollar and a brace", line)
        yield match[1].decode("ascii"), line


def fill_template(data: bytes, values: Mapping[str, str]) -> bytes:
    """Return ``data`` with the ``values`` of its variables. :raises TemplateError: there is no such variable."""
    for name, line in find_variables(data):
        if name not in values:
            meant = format_suggestion(find_similar(name, values))
            raise TemplateError(f"there is no variable {name}{meant}", line)
    encoded = {name.encode("ascii"): value.encode("utf-8", "surrogateescape") for name, value in values.items()}
    return _SPECIAL.sub(lambda match: b"$" if match[0] == b"$$" else encoded[match[1]], data)


def fill_nodes(nodes: Iterable[Node], values: Mapping[str, str], place: Place, *, is_single: bool) -> list[Node]:
    """Return ``nodes`` of the source ``place`` with the variables of their files filled in.

    ``is_single``: the source is a file. :raises OverlayError: a variable is unknown, or a file too large.
    """
    filled: list[Node] = []
    for node in nodes:
        if node.content is None:
            filled.append(node)
            continue
        file_place = place if is_single else place.inside(node.path)
        if node.content.size > MAX_TEMPLATE:
            raise OverlayError(f"is too large for a template: {node.content.size:,} bytes", file_place)
        data = node.content.table().read()
        try:
            new = fill_template(data, values)
        except TemplateError as fault:
            raise OverlayError(f"line {fault.line}: {fault}", file_place) from fault
        filled.append(node if new == data else replace(node, content=BytesContent(new)))
    return filled
