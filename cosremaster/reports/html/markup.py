"""Build HTML in which no name can break out of its place: text is escaped unless it is :class:`Markup`."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

from cosremaster.errors import printable

LONGEST = 160
"""Characters of a name before its middle is left out."""


class Markup(str):
    """HTML that needs no escaping. Only :func:`element` and :func:`joined` make it from text of others."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | bytes"


def text(name: str | bytes, longest: int = LONGEST) -> str:
    """Return a name as people can read it, with its middle left out beyond ``longest`` characters.

    It is not escaped yet.
    """
    shown = printable(name)
    if len(shown) <= longest:
        return shown
    return f"{shown[: longest // 2]} … {shown[3 - longest // 2 :]}"


def joined(*children: Child) -> Markup:
    """Concatenate ``children``: sentences and names (bytes, shortened) are escaped, markup stays as it is."""
    return Markup("".join(child if isinstance(child, Markup) else escape(_shown(child)) for child in children))


def _shown(child: str | bytes) -> str:
    """Return a child as printable text; names (bytes) are shortened."""
    return text(child) if isinstance(child, bytes) else printable(child)


def element(name: str, *children: Child, **attributes: str) -> Markup:
    """Return the element ``name``.

    A ``_`` at the end of an attribute's name is dropped (``class_``), others become ``-``.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(printable(value))}"'
        for key, value in attributes.items()
        if value
    )
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def percent(value: float) -> str:
    """Return a CSS length in percent of the surrounding element."""
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def table(caption: str, heads: tuple[str, ...], rows: list[tuple[Child, ...]]) -> Markup:
    """Return a table that scrolls sideways if it must. ``caption`` is for people who cannot see it."""
    head = element("tr", *(element("th", cell, scope="col") for cell in heads))
    body = joined(*(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    inner = joined(element("caption", caption), element("thead", head), element("tbody", body))
    return element("div", element("table", inner), class_="wide", tabindex="0", role="region", aria_label=caption)
